"""Near-duplicates and their evidence are the same after writing and reading."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from fishfeat.errors import CacheError
from fishfeat.records.near_duplicates import DuplicatePair, NearDuplicates, read_pairs
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


def test_a_missing_cosine_is_read_as_missing(folder):
    folder.save_near_duplicates(NearDuplicates(2, 1, (PAIRS[1]._replace(cosine=math.nan),)))
    assert math.isnan(folder.load_near_duplicates().pairs[0].cosine)


def test_without_the_file_there_are_no_near_duplicates(folder):
    folder.save_near_duplicates(NearDuplicates(9, 30, PAIRS))
    folder.near_duplicates_csv.unlink()
    assert folder.load_near_duplicates() is None


def test_the_file_of_version_0_1_0_is_read():
    file = Path(__file__).parents[1] / "data" / "cache-0.1.0" / "cache" / "fish" / "copies.csv"
    with open(file, newline="") as text:
        rows = list(csv.DictReader(text))
    pairs = read_pairs(file)
    assert len(pairs) == len(rows) > 0
    assert [(pair.key, pair.other, pair.how) for pair in pairs] == [
        (row["path"], row["other"], row["how"]) for row in rows
    ]
    assert {len(pair.transform) for pair in pairs} == {6}


@pytest.mark.parametrize(
    "text", ["path,other\na,b\n", "path,other,how,matches,inliers\na,b,pixels,x,3\n"]
)
def test_a_damaged_file_says_what_to_do(folder, text):
    folder.save_near_duplicates(NearDuplicates(9, 30, PAIRS))
    folder.near_duplicates_csv.write_text(text)
    with pytest.raises(CacheError, match=r"Delete it and run `fishfeat extract --group-by"):
        folder.load_near_duplicates()
