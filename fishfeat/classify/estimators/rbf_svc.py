"""The RBF support vector machine: exact for few images, approximate for many."""

from __future__ import annotations

from numpy.typing import ArrayLike

from fishfeat.classify.estimators.base import (
    MANY_IMAGES,
    ClassWeight,
    ProbabilityClassifier,
    describe_many_images,
)
from fishfeat.classify.estimators.exact_rbf_svc import ExactRBFSVC
from fishfeat.classify.estimators.nystroem_rbf_svc import NystroemRBFSVC
from fishfeat.records import Float, Int


class RBFSVC(ProbabilityClassifier):
    """`ExactRBFSVC` for at most `max_exact` images, `NystroemRBFSVC` for more.

    Parameters
    ----------
    C
        As in `sklearn.svm.SVC`, for the exact machine.
    class_weight
        As in `sklearn.svm.SVC`.
    max_exact
        Largest number of training images for which the kernel of all pairs is computed.
    random_state
        Seed of the Nyström components.

    Attributes
    ----------
    classes_
        (n_classes,) labels seen in `fit`.
    machine_
        The fitted `ExactRBFSVC` or `NystroemRBFSVC`.
    note_
        What replaces the exact machine; '' where nothing does.
    skipped_
        'calibration' where there are too few groups for inner folds, else empty.
    """

    def __init__(
        self,
        *,
        C: float = 10.0,
        class_weight: ClassWeight = None,
        max_exact: int = MANY_IMAGES,
        random_state: int = 0,
    ) -> None:
        self.C = C
        self.class_weight = class_weight
        self.max_exact = max_exact
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, groups: Int | None = None) -> RBFSVC:
        """Fit on X (n, dim) and labels y (n,); groups int64 (n,) are never split."""
        X, codes = self._check_training_data(X, y)
        machine: ExactRBFSVC | NystroemRBFSVC
        self.note_ = ""
        if len(X) <= self.max_exact:
            machine = ExactRBFSVC(C=self.C, class_weight=self.class_weight)
        else:
            machine = NystroemRBFSVC(class_weight=self.class_weight, random_state=self.random_state)
            self.note_ = describe_many_images(
                len(X),
                self.max_exact,
                f"each image is compared with {machine.n_components:,} of them (Nyström "
                "components) instead of with all",
            )
        self.machine_ = machine.fit(X, self.classes_[codes], groups=groups)
        self.skipped_ = self.machine_.skipped_
        return self

    def decision_function(self, X: ArrayLike) -> Float:
        """Compute decision values, float64 (n, n_classes); (n,) for two classes."""
        X = self._check_rows(X)
        return self.machine_.decision_function(X)

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute probabilities, float64 (n, n_classes)."""
        X = self._check_rows(X)
        return self.machine_.predict_proba(X)
