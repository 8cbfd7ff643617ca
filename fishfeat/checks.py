"""Every warning that a user can meet, written once: what it is called and what it means.

A *check* has an id, a severity and an explanation. Where data or scores do not pass it, the code
makes a `Finding` with the numbers and the fix. The console, the page and `report.json` show the
same findings, and `fishfeat checks` prints this list.
"""

from __future__ import annotations

import logging
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

    @property
    def log_level(self) -> int:
        """Level of the logger: what is no warning is silenced by --quiet."""
        return logging.INFO if self.severity == "info" else logging.WARNING

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
        "passed-over-images",
        "warning",
        "Files that may be images are passed over",
        "fishfeat takes a file for an image by its suffix. Camera RAW files, videos, archives and "
        "files with other suffixes are not in the data set. Convert or rename them, or list them "
        "in a CSV.",
    ),
    Check(
        "passed-over-files",
        "info",
        "Other files are passed over",
        "Texts, tables and hidden files in the data folder are not in the data set.",
    ),
    Check(
        "foreign-folders",
        "info",
        "Folders that hold no data are left out",
        "Caches and reports of fishfeat, and folders in which a system keeps thumbnails, snapshots "
        "or trash, hold copies of images. They are never data, whatever their names.",
    ),
    Check(
        "table-beside-images",
        "info",
        "A table lies beside the images",
        "The labels of a folder come from its class folders. A table in the folder is read only if "
        "it is given in place of the folder.",
    ),
    Check(
        "similar-class-names",
        "warning",
        "Class names look alike",
        "Names that differ only in capitals, blanks, hyphens or the Unicode form of an accent are "
        "different classes. Often they are one class that was written in two ways.",
    ),
    Check(
        "placeholder-labels",
        "warning",
        "Labels stand for a missing value",
        "NA, nan, None and the like are classes where they are written as labels. An empty cell is "
        "an image without a label.",
    ),
    Check(
        "placeholder-groups",
        "warning",
        "A group stands for a missing value",
        "Images whose group is called NA, nan or the like are one group, although they may be "
        "unrelated. An image whose group is empty is a group of its own.",
    ),
    Check(
        "value-range",
        "warning",
        "Images of more than 8 bits do not fill their range",
        "fishfeat scales images of more than 8 bits to 8 bits. Where the largest value that a "
        "camera stores is far below white, the images come out nearly black and most of what is in "
        "them is lost. --white gives the value of white.",
    ),
    Check(
        "missing-files",
        "warning",
        "Paths of the table or annotation file lead to no file",
        "What they name is not in the data set. Paths start from the folder of the table or "
        "annotation file, or from the folder that --root names.",
    ),
    Check(
        "unused-columns",
        "info",
        "Columns of the table are not read",
        "fishfeat reads the path, the label, the group and the part of each image. "
        "--columns names these columns where they have other names.",
    ),
    Check(
        "split-not-read",
        "warning",
        "A column that may be a split is not read",
        "Images that were set aside for testing must not train. A split is read from a column part "
        "or split whose cells are train, val and test.",
    ),
    Check(
        "classes-without-images",
        "warning",
        "Classes without a usable image",
        "The folders are empty, or none of their files can be read. No classifier knows these "
        "classes.",
    ),
    Check(
        "no-class-folder",
        "warning",
        "Images in train, val or test have no class folder",
        "Images that lie directly in a folder called train, val or test have no label. They are "
        "embedded, but not fitted or scored.",
    ),
    Check(
        "class-in-several-folders",
        "info",
        "A class is in several folders",
        "The label is the name of the folder that holds the image. Folders of one name are one "
        "class, wherever they are.",
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
        "cheaper-with-many-images",
        "info",
        "Classifiers take a cheaper way with many images",
        "With more than 8,000 training images, svc compares each image with a sample of them "
        "(Nyström components), rf grows fewer trees on the main directions of the features, and "
        "xgb takes fewer rounds of boosting. Each takes a fraction of the time.",
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
        "failed-backbone",
        "warning",
        "A backbone could not be compared",
        "Its weights could not be loaded or fetched, it does not run with these options, or it was "
        "trained on these images. The others are compared without it.",
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
        "diverged-folds",
        "warning",
        "The training of a network diverged",
        "The loss or a gradient was no longer a finite number, mostly because the learning rate is "
        "too high. The fold is scored as the class shares of its training images, so that the run "
        "scores too low. `fishfeat predict` uses such a run only where --model names it.",
    ),
    Check(
        "classes-lost-recall",
        "warning",
        "A tuned network recognizes fewer images of a class",
        "Recall fell by at least 5 points and by at least two images against the classifier on "
        "frozen features. The accuracy counts the images of all classes, so that it may rise "
        "although a rare class loses.",
    ),
    Check(
        "rare-classes-score-lower",
        "warning",
        "Rare classes score lower than frequent ones",
        "Accuracy counts images, so that frequent classes decide it. Balanced accuracy, the mean "
        "recall over classes, counts each class the same. Where the two differ much, accuracy says "
        "little about the rare classes. `fishfeat fit --balanced` gives them more weight.",
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
        "Runs that used other images, labels, classes, groups or folds cannot be compared and are "
        "left out.",
    ),
    Check(
        "images-not-scored",
        "warning",
        "Images were added after the fit",
        "No score covers images that were added after the fit, and no model was fitted on them.",
    ),
    Check(
        "unfinished-fit",
        "warning",
        "The last fit was stopped",
        "What was finished is saved and counts. What was not finished is not in the comparison.",
    ),
    Check(
        "stale-model",
        "warning",
        "The model is of other data than the data set has now",
        "Images, labels or classes have changed since the model was fitted. It answers with the "
        "classes that it was fitted on.",
    ),
    # Videos
    Check(
        "truncated-video",
        "warning",
        "A video ends too early",
        "The file holds fewer frames than it says, often because a camera lost power or a copy was "
        "stopped. The frames that can be read are used; nothing is known of the others.",
    ),
    Check(
        "moving-camera",
        "warning",
        "The camera moves",
        "Motion is what moves before a background that stands still. Where the camera moves, turns "
        "or zooms, or the light changes, the background moves too, and its tracks are no animals.",
    ),
    Check(
        "nothing-moves",
        "warning",
        "Nothing moves in a video",
        "No object moves as far from frame to frame, and is as large, as the options ask for. "
        "Animals that rest, that are small, or that look like the background are not seen.",
    ),
)
CHECKS: dict[str, Check] = {check.id: check for check in _ALL}
"""Every check by its id."""
