"""Near-duplicate pairs and their evidence survive the CSV file."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from fishfeat.errors import CacheError
from fishfeat.records.near_duplicates import (
    PAIR_COLUMNS,
    DuplicatePair,
    NearDuplicates,
    read_pairs,
    write_near_duplicates,
)
from fishfeat.workspace import Dataset, DatasetFolder, DatasetState
from fishfeat.workspace.state import NearDuplicateSearch

PAIRS = (
    DuplicatePair("a,b/ü.png", "c/d.png", how="bytes"),
    DuplicatePair(
        key="a.png",
        other="e.png",
        how="pixels",
        n_matches=40,
        n_inliers=33,
        overlap=0.8125,
        correlation=0.9875,
        differing=0.0025,
        agreeing=0.9375,
        cosine=0.5,
        transform=(-1.0, 0.25, 200.5, 0.125, 1.0, -7.75),
    ),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "near_duplicates.csv"


def test_pairs_that_were_written_are_read(path: Path) -> None:
    write_near_duplicates(path, NearDuplicates(9, 30, PAIRS))
    assert read_pairs(path) == PAIRS
    assert path.read_text().splitlines()[0] == ",".join(PAIR_COLUMNS)


def test_a_cosine_of_nan_is_read_as_nan(path: Path) -> None:
    pair = PAIRS[1]._replace(cosine=math.nan)
    write_near_duplicates(path, NearDuplicates(2, 1, (pair,)))
    assert math.isnan(read_pairs(path)[0].cosine)


def test_the_file_of_version_0_1_0_is_read() -> None:
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
def test_a_damaged_file_is_an_error_with_a_fix(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(CacheError, match="fishfeat extract --group-by") as caught:
        read_pairs(path)
    assert str(path) in str(caught.value)


def test_a_data_set_whose_file_was_deleted_has_no_search(tmp_path: Path, path: Path) -> None:
    state = DatasetState(near_duplicates=NearDuplicateSearch(9, 30, 2, "key", ""))
    dataset = Dataset(DatasetFolder(tmp_path), state, None)
    assert dataset.load_near_duplicates() is None
    write_near_duplicates(path, NearDuplicates(9, 30, PAIRS))
    assert dataset.load_near_duplicates() == NearDuplicates(9, 30, PAIRS)


def test_the_transform_gives_mirroring_scale_and_degrees() -> None:
    plain, mirrored = PAIRS
    assert (plain.mirrored, plain.scale, plain.degrees) == (False, 1, 0)
    assert mirrored.mirrored
    assert mirrored.scale == pytest.approx(math.sqrt(1.03125))
    quarter_turn = plain._replace(transform=(0.0, -2.0, 0.0, 2.0, 0.0, 0.0))
    assert (quarter_turn.mirrored, quarter_turn.scale, quarter_turn.degrees) == (False, 2, 90)
