"""Every warning that a user can meet, written once: what it is called and what it means.

A *check* has an id, a severity and an explanation. Where data or scores do not pass it, the code
makes a `Finding` with the numbers and the fix. The console, the page and `report.json` show the
same findings, and `fishfeat checks` prints this list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Check:
    """One thing that fishfeat looks at.

    Attributes
    ----------
    id
        Short name for programs, such as 'no-groups'.
    severity
        'error' (the scores mislead), 'warning' (read the scores with care) or 'info'.
    title
        What is wrong, in a few words.
    explanation
        Why it matters and what helps, for a reader who meets it for the first time.
    """

    id: str
    severity: Severity
    title: str
    explanation: str


@dataclass(frozen=True)
class Finding:
    """A check that was not passed.

    Attributes
    ----------
    check
        Id of the check.
    message
        What was found, with numbers.
    fix
        What to do, with the command; '' where there is nothing to do.
    """

    check: str
    message: str
    fix: str = ""

    def __post_init__(self) -> None:
        if self.check not in CHECKS:
            raise ValueError(f"check must be one of {', '.join(CHECKS)}; got {self.check!r}.")

    @property
    def severity(self) -> Severity:
        """Severity of the check."""
        return CHECKS[self.check].severity

    def __str__(self) -> str:
        return f"{self.message} {self.fix}".strip()


_ALL = (
    # Data
    Check(
        "too-few-classes",
        "warning",
        "Fewer than two classes",
        "A classifier needs at least two classes. Images of one class can be embedded, but "
        "`fishfeat fit` cannot compare anything.",
    ),
    Check(
        "unlabelled-images",
        "info",
        "Images without a label",
        "Images without a label are embedded. They are not used for training and not scored.",
    ),
    Check(
        "truncated-images",
        "warning",
        "Truncated files are used",
        "The file of such an image ends too early. With --allow-truncated the part that can be "
        "decoded is used; the rest is grey, black or white.",
    ),
    Check(
        "related-names",
        "warning",
        "File names suggest related images",
        "A number that repeats in the file names often belongs to one animal, one photograph or "
        "one day. With a random split, related images are on both sides and the score is too high.",
    ),
    Check(
        "bursts",
        "warning",
        "Capture times suggest bursts",
        "Images that one camera took within a few seconds often show the same animal. With a "
        "random split they are on both sides and the score is too high.",
    ),
    Check(
        "near-duplicates",
        "warning",
        "Near-duplicates in a sample",
        "Near-duplicates are copies of one photograph: rotated, mirrored, cropped, resized or "
        "brightened. With a random split they are on both sides and the score is too high.",
    ),
    Check(
        "groups-across-classes",
        "warning",
        "Groups hold images of several classes",
        "A group usually is one animal and so has one class. Groups with several classes often "
        "come from a number that starts again in every folder.",
    ),
    Check(
        "unreadable-files",
        "warning",
        "Files cannot be read",
        "These files are not in the data set. No score covers them.",
    ),
    Check(
        "contradicting-duplicates",
        "warning",
        "Exact duplicates with several labels",
        "Files with the same bytes show the same animal. At most one of their labels is correct.",
    ),
    Check(
        "duplicates-across-groups",
        "warning",
        "Exact duplicates in several groups",
        "A grouped split keeps each group together, but it may put two copies of one file on both "
        "sides. The score is then too high.",
    ),
    Check(
        "near-duplicates-across-classes",
        "warning",
        "Near-duplicates with several classes",
        "Near-duplicates show the same animal. Either a label is wrong, or two different "
        "photographs were mistaken for one.",
    ),
    Check(
        "label-issues",
        "info",
        "Labels that may be wrong",
        "The best run gives another class a high probability (confident learning, out of fold). "
        "The label may be wrong, or the image may be difficult.",
    ),
    # Splits
    Check(
        "no-groups",
        "warning",
        "No groups are known",
        "Where images of one animal, or copies of one photograph, are on both sides of a split, "
        "the scores are too high and the intervals are too narrow.",
    ),
    Check(
        "few-groups-in-class",
        "warning",
        "A class has fewer groups than folds",
        "Some folds score no image of such a class, so the figures of these folds do not cover it.",
    ),
    Check(
        "one-group-in-class",
        "error",
        "A class has a single group",
        "When its images are scored, no image of the class is in training. They are always "
        "classified incorrectly.",
    ),
    Check(
        "class-only-held-out",
        "error",
        "A class is only in the held-out images",
        "No image of the class is in training, so its held-out images are always classified "
        "incorrectly.",
    ),
    # Scores
    Check(
        "above-chance-on-shuffled-labels",
        "error",
        "Shuffled labels score above chance",
        "A classifier that is trained on shuffled labels can only guess. A higher score shows data "
        "leakage between training and test images.",
    ),
    Check(
        "no-inner-folds",
        "warning",
        "Too few groups for inner folds",
        "A search for settings and the calibration of probabilities score a part of the training "
        "images, the inner folds. They need at least two groups of a class in training, and two "
        "classes without any of its groups. Where they are missing, the default settings are used, "
        "and probabilities may be too high or too low.",
    ),
    Check(
        "one-group-in-training",
        "info",
        "A search cannot score a class",
        "A search for settings scores a part of the training images, the inner folds. A class with "
        "one group in training is never trained on when it is scored there, so that the search "
        "chooses the settings for the other classes.",
    ),
    Check(
        "approximate-kernel",
        "info",
        "svc uses a Nyström approximation",
        "With many images, svc compares each image with a sample of them (Nyström components) "
        "instead of with all.",
    ),
    Check(
        "random-split-with-groups",
        "error",
        "The split is random although groups are known",
        "Images of one group are on both sides of the split, so the scores are too high.",
    ),
    Check(
        "not-better-than-majority",
        "warning",
        "Not better than the most frequent class",
        "A classifier must be better than one that always predicts the most frequent class.",
    ),
    Check(
        "not-significant",
        "info",
        "Runs are not significantly different from the best",
        "The difference may be chance. The tests are below the leaderboard.",
    ),
    Check(
        "best-of-many",
        "info",
        "The best of several runs",
        "The run was chosen by the score that is shown, so the score is slightly too high. Images "
        "that are held out choose nothing: their score has no such bias.",
    ),
    Check(
        "uncertain-images",
        "info",
        "Uncertain images are often classified incorrectly",
        "Images with a small margin between the two best classes are classified incorrectly more "
        "often. Review them by hand.",
    ),
    Check(
        "low-recall",
        "warning",
        "Classes with low recall",
        "Recall is the share of a class's images that are classified correctly.",
    ),
    Check(
        "few-groups",
        "warning",
        "Classes with few groups",
        "Images of one group are one piece of evidence. The figures of a class with few groups are "
        "uncertain, however many images it has.",
    ),
    Check(
        "left-out-runs",
        "warning",
        "Runs are left out",
        "Runs that used other images, groups or folds cannot be compared and are left out.",
    ),
    Check(
        "other-versions",
        "warning",
        "The model was fitted with other versions",
        "scikit-learn and XGBoost promise that a saved model works with the version that fitted "
        "it. With another version it may fail or predict differently.",
    ),
    Check(
        "stale-model",
        "warning",
        "The model has other classes than the data set",
        "The classes of the data set have changed since the model was fitted.",
    ),
)
CHECKS: dict[str, Check] = {check.id: check for check in _ALL}
"""Every check by its id."""
