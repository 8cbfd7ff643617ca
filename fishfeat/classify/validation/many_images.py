"""What a run says where its classifier was fitted in the cheaper way for many images."""

from __future__ import annotations

from collections.abc import Sequence

from fishfeat.checks import Finding


def find_cheaper_fits(notes: Sequence[str], saved_note: str = "") -> list[Finding]:
    """The finding of a run; none where all fits took the way for few images.

    Parameters
    ----------
    notes
        For each fold of each repeat, the note of its classifier; '' where it has none.
    saved_note
        The note of the classifier that was fitted on all images.
    """
    noted = [note for note in notes if note]
    if len(noted) == len(notes) and noted:
        message = noted[0]
    elif noted:
        message = f"In {len(noted)} of {len(notes)} folds: {noted[0]}"
    elif saved_note:
        message = f"Only the saved classifier, not those that are scored: {saved_note}"
    else:
        return []
    return [Finding("cheaper-with-many-images", message)]
