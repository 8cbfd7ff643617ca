"""The evidence of copies survives the file that keeps it."""

from __future__ import annotations

import math

import pytest

from fishfeat.errors import CacheError
from fishfeat.records.near_duplicates import DuplicatePair, NearDuplicates
from fishfeat.workspace import Workspace

PAIRS = (
    DuplicatePair("a,b/ü.png", "c/d.png", how="bytes"),
    DuplicatePair(
        *("a.png", "e.png", "pixels", 40, 33, 0.8125, 0.9875, 0.0025, 0.9375, 0.5),
        transform=(-1.0, 0.25, 200.5, 0.125, 1.0, -7.75),
    ),
)


@pytest.fixture
def folder(tmp_path):
    return Workspace(tmp_path).dataset("fish")


def test_what_was_written_is_read(folder):
    assert folder.load_near_duplicates() is None
    folder.save_near_duplicates(NearDuplicates(9, 30, PAIRS), key="k")
    assert folder.load_near_duplicates() == NearDuplicates(9, 30, PAIRS)
    noted = folder.state()["near_duplicates"]
    assert noted == {"n_images": 9, "n_compared": 30, "n_pairs": 2, "key": "k"}


def test_a_cosine_that_is_not_known_stays_so(folder):
    folder.save_near_duplicates(NearDuplicates(2, 1, (PAIRS[1]._replace(cosine=math.nan),)))
    assert math.isnan(folder.load_near_duplicates().pairs[0].cosine)


def test_copies_whose_file_was_deleted_were_never_looked_for(folder):
    folder.save_near_duplicates(NearDuplicates(9, 30, PAIRS))
    folder.near_duplicates_csv.unlink()
    assert folder.load_near_duplicates() is None


@pytest.mark.parametrize(
    "text", ["path,other\na,b\n", "path,other,how,matches,inliers\na,b,pixels,x,3\n"]
)
def test_a_damaged_file_says_what_to_do(folder, text):
    folder.save_near_duplicates(NearDuplicates(9, 30, PAIRS))
    folder.near_duplicates_csv.write_text(text)
    with pytest.raises(CacheError, match=r"Delete it and run `fishfeat extract --group-by"):
        folder.load_near_duplicates()
