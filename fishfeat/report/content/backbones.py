"""Several backbones on the same folds: their scores, costs and differences, and which to use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fishfeat.checks import Finding
from fishfeat.classify.statistics.selection import Selection, score_selection
from fishfeat.classify.statistics.significance import Evidence
from fishfeat.errors import DataError
from fishfeat.records import BackboneSpec, ImageSet, Run
from fishfeat.report.content import run_facts
from fishfeat.report.content.check_findings import check_evaluation
from fishfeat.report.content.comparison import (
    Standing,
    check_comparable,
    compare_pairs,
    primary_strategy,
    rank_runs,
)
from fishfeat.report.content.galleries import Gallery, build_galleries
from fishfeat.report.content.run_facts import EmbeddingFacts
from fishfeat.report.run_view import RunView

# A backbone is called faster where it takes at most this share of the other's time.
FASTER = 0.8
# A network of another source is labelled with it: random weights must not look like trained ones.
_PLAIN_SOURCES = ("timm", "bundled", "local-dir")


@dataclass(frozen=True, eq=False)
class ComparedBackbone:
    """One backbone of a comparison.

    Attributes
    ----------
    label
        The network, and in what it differs from the others of the same network.
    run
        The classifier on its features.
    n_parameters
        Number of weights of the whole network; None where it is not known.
    image_seconds
        Seconds to embed one image, measured when its features were made; None where they are not
        known. Layers that were embedded together share the time.
    device
        What the time was measured on: device, inference runtime and precision.
    only_correct, only_incorrect
        Images that it alone classifies correctly, and that it alone classifies incorrectly: their
        number, and the first of them. None where there is no other backbone.
    """

    label: str
    run: Run
    n_parameters: int | None
    image_seconds: float | None
    device: str
    only_correct: Gallery | None
    only_incorrect: Gallery | None

    @property
    def spec(self) -> BackboneSpec:
        """The specification of the backbone."""
        return _find_spec(self.run)


@dataclass(frozen=True)
class FailedBackbone:
    """A backbone that could not be compared.

    Attributes
    ----------
    label
        As in `ComparedBackbone`.
    reason
        Why.
    """

    label: str
    reason: str


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several backbones on the same folds.

    Attributes
    ----------
    images
        The image set.
    clf
        Name of the classifier.
    backbones
        The backbones, the most accurate first.
    pairs
        How much better each backbone is than each one below it, by both labels. The p values are
        corrected for the number of pairs.
    selection
        What choosing the best of these backbones gives.
    failed
        Backbones that could not be compared.
    findings
        Checks of the data and the folds that are not passed.
    """

    images: ImageSet
    clf: str
    backbones: tuple[ComparedBackbone, ...]
    pairs: Mapping[tuple[str, str], Evidence]
    selection: Selection
    failed: tuple[FailedBackbone, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def best(self) -> ComparedBackbone:
        """The most accurate backbone."""
        return self.backbones[0]

    @property
    def rivals(self) -> tuple[ComparedBackbone, ...]:
        """The backbones that are not significantly different from the best."""
        evidence = {other: self.pairs[self.best.label, other.label] for other in self.backbones[1:]}
        return tuple(other for other in evidence if not evidence[other].is_significant)

    @property
    def faster_rival(self) -> ComparedBackbone | None:
        """The fastest of the rivals; None where none is clearly faster on the same device."""
        best = self.best
        timed = []
        for rival in self.rivals:
            if rival.image_seconds and best.image_seconds and _is_same_device(rival, best):
                timed.append((rival.image_seconds, rival))
        fastest = min(timed, key=lambda pair: pair[0], default=None)
        if fastest is None or fastest[0] > FASTER * (best.image_seconds or 0.0):
            return None
        return fastest[1]


def _is_same_device(one: ComparedBackbone, other: ComparedBackbone) -> bool:
    """Whether both were embedded on one kind of device; the runtime may be another."""
    return one.device.split(",")[0] == other.device.split(",")[0]


def compare(
    runs: Sequence[Run], images: ImageSet, *, failed: Mapping[BackboneSpec, str] | None = None
) -> Comparison:
    """Compare backbones by the runs of one classifier on their features.

    Parameters
    ----------
    runs
        One run for each backbone, all on the same folds, as `fishfeat.cross_validate` gives them.
    images
        The images that the runs scored.
    failed
        Backbones that could not be compared, each with the reason.

    Raises
    ------
    SplitError
        The runs used other folds, images or classes.
    DataError
        There are no runs, or they are of several classifiers, of no features, or of the same
        features.
    """
    check_comparable(runs)
    specs = _check_backbones(runs)
    failed = failed or {}
    labels = label_backbones([*specs, *failed])
    label_of = dict(zip(specs, labels, strict=False))
    standings = []
    for standing in rank_runs(runs):
        standings.append(standing._replace(label=label_of[_find_spec(standing.run)]))
    lost = zip(labels[len(specs) :], failed.values(), strict=True)
    return Comparison(
        images=images,
        clf=runs[0].name,
        backbones=_describe_backbones(standings, images),
        pairs=compare_pairs(standings, images),
        selection=score_selection([standing.run for standing in standings]),
        failed=tuple(FailedBackbone(label, reason) for label, reason in lost),
        findings=tuple(check_evaluation(standings, images)),
    )


def _check_backbones(runs: Sequence[Run]) -> list[BackboneSpec]:
    """The backbone of each run; they must be of one classifier and of different features."""
    if len({run.name for run in runs}) > 1:
        names = ", ".join(sorted({run.name for run in runs}))
        raise DataError(f"runs must be of one classifier; got {names}.")
    if len({run.split for run in runs}) > 1:
        raise DataError(
            f"runs must be of one split; got both. Leave out those that are not "
            f"{primary_strategy(runs)}."
        )
    specs = [_find_spec(run) for run in runs]
    if len(set(specs)) < len(specs):
        repeated = next(spec for spec in specs if specs.count(spec) > 1)
        raise DataError(f"runs must be on different features; two are on {repeated.describe()}.")
    return specs


def _find_spec(run: Run) -> BackboneSpec:
    spec = run_facts.backbone(run)
    if spec is None:
        raise DataError("runs must be on features of a backbone; one says nothing of its features.")
    return spec


def label_backbones(specs: Sequence[BackboneSpec]) -> list[str]:
    """A label for each backbone, only as long as is needed to distinguish them."""
    labels = []
    for spec in specs:
        peers = [other for other in specs if other.label == spec.label]
        parts = [spec.label if spec.source in _PLAIN_SOURCES else f"{spec.source}:{spec.label}"]
        if any(peer.img_size != spec.img_size for peer in peers):
            parts.append(f"{spec.img_size} px" if spec.img_size else "its own input size")
        if any(peer.layer != spec.layer for peer in peers):
            parts.append(f"layer {spec.layer}")
        labels.append(", ".join(parts))
    described = [spec.describe() for spec in specs]
    for names in (labels, described):
        if len(set(names)) == len(names):
            return names
    return [f"{name} #{i}" for i, name in enumerate(described, 1)]


def _describe_backbones(
    standings: Sequence[Standing], images: ImageSet
) -> tuple[ComparedBackbone, ...]:
    """The backbones in the order of the standings."""
    views = [RunView(standing.label, "", standing.run, images) for standing in standings]
    backbones = []
    for view in views:
        facts = run_facts.embedding(view.run)
        peers = [peer for peer in views if peer is not view]
        galleries = {gallery.name: gallery for gallery in build_galleries(view, peers)}
        backbone = ComparedBackbone(
            label=view.label,
            run=view.run,
            n_parameters=facts.n_parameters,
            image_seconds=_measure_image(facts),
            device=facts.device,
            only_correct=galleries.get("only_correct"),
            only_incorrect=galleries.get("only_incorrect"),
        )
        backbones.append(backbone)
    return tuple(backbones)


def _measure_image(facts: EmbeddingFacts) -> float | None:
    """Seconds to embed one image; None where they are not known."""
    if not facts.n_embedded or not facts.embed_seconds:
        return None
    return facts.embed_seconds / facts.n_embedded
