import json

import pytest

from fishfeat.records.provenance import (
    CandidateRecord,
    PreprocessParameters,
    Provenance,
    RuntimeConfig,
    RuntimeRecord,
)

HALF = (0.5, 0.5, 0.5)
EAGER, COMPILED = RuntimeConfig("eager", "fp32", 4), RuntimeConfig("compile", "bf16", 8)
PROVENANCE = Provenance(
    embed_seconds=1.5,
    n_embedded=12,
    versions={"fishfeat": "0.2.0"},
    preprocess=PreprocessParameters((64, 48), "pad", "bicubic", 0.9, HALF, HALF),
    input_size=(64, 48),
    n_parameters=1234,
    device="cpu",
    runtimes=(
        RuntimeRecord(COMPILED, (CandidateRecord(EAGER, 10.5, 1.0),)),
        RuntimeRecord(EAGER, from_row=7),
    ),
)


def test_a_provenance_comes_back_from_its_json():
    assert Provenance.from_json(PROVENANCE.to_json()) == PROVENANCE
    assert Provenance.from_dict(PROVENANCE.to_dict()) == PROVENANCE


def test_its_json_is_flat_and_leaves_out_what_is_not_known():
    values = json.loads(PROVENANCE.to_json())
    assert values["runtimes"][1] == {
        "runtime": "eager",
        "precision": "fp32",
        "batch_size": 4,
        "candidates": [],
        "from_row": 7,
    }
    assert values["preprocess"]["size"] == [64, 48]
    assert Provenance().to_dict() == {"embed_seconds": 0.0, "n_embedded": 0}


def test_the_keys_of_fishfeat_0_1_0_are_read():
    tried = {"compute": "eager", "precision": "fp32", "batch_size": 4}
    tried |= {"images_per_second": 10.5, "cosine": 1.0}
    way = {"compute": "compile", "precision": "bf16", "batch_size": 8, "tried": [tried]}
    old = Provenance.from_dict({"ways": [{**way, "from_row": 0}]})
    assert old.runtimes == PROVENANCE.runtimes[:1]


def test_unknown_keys_are_ignored():
    values = PROVENANCE.to_dict() | {"mood": "good"}
    values["runtimes"][0]["mood"] = "better"
    assert Provenance.from_dict(values) == PROVENANCE


def test_a_provenance_cannot_be_changed():
    with pytest.raises(AttributeError):
        PROVENANCE.n_embedded = 3
