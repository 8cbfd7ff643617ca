"""EcoTaxa and Camtrap DP: statuses, groups, events, and zip files that are unpacked safely."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import pytest

from fishfeat.errors import DataError
from fishfeat.images.sources.annotations import Annotation
from fishfeat.images.sources.camtrap import read_camtrap
from fishfeat.images.sources.ecotaxa import read_ecotaxa
from fishfeat.images.sources.find_reader import READERS, find_reader
from fishfeat.images.sources.zip_files import unpack_zip

COLUMNS = ["img_file_name", "object_id", "object_annotation_category", "object_annotation_status"]
COLUMNS += ["object_area", "sample_id", "acq_id"]


def ecotaxa(*rows: tuple[object, ...], columns: list[str] = COLUMNS) -> str:
    types = ["[f]" if column == "object_area" else "[t]" for column in columns]
    return "".join("\t".join(map(str, row)) + "\n" for row in [columns, types, *rows])


PLANKTON = [
    ("a.png", "o1", "Copepoda", "validated", 12.5, "s1", "q1"),
    ("b.png", "o2", "Copepoda", "predicted", 12.5, "s1", "q1"),
    ("c.png", "o3", "Salpida", "V", 1, "s2", "q2"),
]
DEPLOYMENTS = "deploymentID\nd1\n"
MEDIA = """mediaID,deploymentID,timestamp,filePath,fileMediatype
m1,d1,2024-05-01T10:00:00Z,media/m1.jpg,image/jpeg
m2,d1,2024-05-01T10:00:05+0000,media/m2.jpg,image/jpeg
m3,d1,2024-05-01T12:00:00Z,media/m3.jpg,image/jpeg
m4,d1,2024-05-01T12:00:00Z,media/m4.mp4,video/mp4
"""
FIELDS = ["observationID", "deploymentID", "mediaID", "eventID", "eventStart", "eventEnd"]
FIELDS += ["observationType", "scientificName", "individualID", "classificationMethod"]
FIELDS += ["bboxX", "bboxY", "bboxWidth", "bboxHeight"]


def observation(name: str, medium: str, label: str, box: tuple[object, ...] = (), **more: str):
    given = dict(zip(FIELDS[-4:], box, strict=False))
    return {
        "observationID": name,
        "deploymentID": "d1",
        "mediaID": medium,
        "eventID": "e1",
        "observationType": "animal",
        "scientificName": label,
        "classificationMethod": "human",
        **given,
        **more,
    }


def camtrap(*observations: dict[str, object]) -> dict[str, str]:
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, FIELDS)
    writer.writeheader()
    writer.writerows(observations)
    package = '{"profile": "camtrap-dp", "resources": [{"name": "media", "path": "media.csv"}]}'
    return {
        "datapackage.json": package,
        "deployments.csv": DEPLOYMENTS,
        "media.csv": MEDIA,
        "observations.csv": table.getvalue(),
    }


def write_all(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def zip_all(file: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return file


# --- EcoTaxa ------------------------------------------------------------------------------------


def test_only_validated_labels_count_and_the_type_row_is_skipped(tmp_path):
    file = write_all(tmp_path, {"export.tsv": ecotaxa(*PLANKTON)}) / "export.tsv"
    read = read_ecotaxa(file)
    assert find_reader(file) == find_reader(tmp_path) == READERS["ecotaxa"]
    assert read.annotations == [
        Annotation("a.png", "Copepoda", None, "o1", "s1", "", "validated", "line 3"),
        Annotation("b.png", "", None, "o2", "s1", "", "predicted", "line 4"),
        Annotation("c.png", "Salpida", None, "o3", "s2", "", "validated", "line 5"),
    ]
    told = read_ecotaxa(file, statuses={"validated", "predicted"})
    assert [a.label for a in told.annotations] == ["Copepoda", "Copepoda", "Salpida"]


def test_without_samples_the_acquisition_is_the_group(tmp_path):
    rows = [(*row[:5], row[6]) for row in PLANKTON]
    columns = [column for column in COLUMNS if column != "sample_id"]
    folder = write_all(tmp_path, {"a.tsv": ecotaxa(*rows, columns=columns)})
    assert [a.group for a in read_ecotaxa(folder).annotations] == ["q1", "q1", "q2"]


def test_the_first_image_of_an_object_counts_and_a_repeated_object_is_a_fault(tmp_path):
    columns = [*COLUMNS, "img_rank"]
    images = [(f"{rank}.png", *PLANKTON[0][1:], rank) for rank in (1, 0, 2)]
    again = ("z.png", "o1", "Salpida", "validated", 1, "s1", "q1", 0)
    folder = write_all(tmp_path, {"a.tsv": ecotaxa(*images, columns=columns)})
    assert [a.path for a in read_ecotaxa(folder).annotations] == ["0.png"]
    write_all(tmp_path, {"a.tsv": ecotaxa(*images, again, columns=columns)})
    read = read_ecotaxa(folder)
    assert [a.path for a in read.annotations] == ["0.png"]
    assert [fault.where for fault in read.faults] == ["line 6"]


def test_a_row_without_an_image_is_a_fault(tmp_path):
    bad = ("", "o9", "Salpida", "validated", 1, "s1", "q1")
    folder = write_all(tmp_path, {"a.tsv": ecotaxa(*PLANKTON, bad)})
    assert [fault.where for fault in read_ecotaxa(folder).faults] == ["line 6"]


def test_a_zip_file_of_ecotaxa_is_read_from_the_folder_beside_it(tmp_path):
    file = zip_all(tmp_path / "net.zip", {"x/export.tsv": ecotaxa(*PLANKTON), "x/a.png": "A"})
    assert find_reader(file) == READERS["ecotaxa"]
    read = read_ecotaxa(file)
    assert (read.name, read.start) == ("net", tmp_path / "net")
    assert read.annotations[0].path == "x/a.png"
    assert (tmp_path / "net" / "x" / "a.png").read_text() == "A"
    again = read_ecotaxa(file)
    assert again.annotations == read.annotations


# --- Camtrap DP ---------------------------------------------------------------------------------


def test_observations_have_boxes_statuses_and_the_event(tmp_path):
    rows = [
        observation("o1", "m1", "Vulpes vulpes", (0.25, 0.5, 0.25, 0.25)),
        observation("o2", "m2", "Vulpes vulpes", classificationMethod="machine"),
        observation("o3", "m3", "", observationType="blank", eventID="e2"),
        observation("o4", "m4", "Vulpes vulpes"),
    ]
    read = read_camtrap(write_all(tmp_path, camtrap(*rows)))
    assert find_reader(tmp_path) == READERS["camtrap-dp"]
    assert [(a.path, a.label, a.box) for a in read.annotations] == [
        ("media/m1.jpg", "Vulpes vulpes", (0.25, 0.5, 0.5, 0.75)),
        ("media/m2.jpg", "", None),
        ("media/m3.jpg", "blank", None),
    ]
    assert [a.status for a in read.annotations] == ["validated", "predicted", "validated"]
    assert [a.group for a in read.annotations] == ["e1", "e1", "e2"]
    assert [a.id for a in read.annotations] == ["o1", "o2", "o3"]
    assert read.annotations[0].is_relative
    assert not read.faults


def test_an_individual_goes_before_the_event(tmp_path):
    rows = [observation(f"o{i}", f"m{i}", "Lynx lynx", individualID=f"i{i}") for i in (1, 2)]
    read = read_camtrap(write_all(tmp_path, camtrap(*rows)))
    assert [a.group for a in read.annotations[:2]] == ["i1", "i2"]


def test_an_observation_of_an_event_counts_for_images_that_have_none(tmp_path):
    times = {"eventStart": "2024-05-01T10:00:00Z", "eventEnd": "2024-05-01T10:01:00Z"}
    late = {"eventStart": "2025-05-01T10:00:00Z", "eventEnd": "2025-05-01T10:01:00Z"}
    rows = [
        observation("o1", "", "Vulpes vulpes", **times),
        observation("o2", "m2", "Meles meles"),
        observation("o3", "", "Lynx lynx", **late),
    ]
    read = read_camtrap(write_all(tmp_path, camtrap(*rows)))
    labels = {a.path: a.label for a in read.annotations}
    assert labels == {
        "media/m1.jpg": "Vulpes vulpes",
        "media/m2.jpg": "Meles meles",
        "media/m3.jpg": "",
    }
    assert [fault.where for fault in read.faults] == ["observations.csv, line 4, observation o3"]


@pytest.mark.parametrize("kind", ["blank", "human", "vehicle"])
def test_what_a_machine_found_to_be_no_animal_is_left_out(tmp_path, kind):
    machine = {"observationType": kind, "classificationMethod": "machine"}
    times = {"eventStart": "2024-05-01T12:00:00Z", "eventEnd": "2024-05-01T12:01:00Z"}
    rows = [
        observation("o1", "m1", "", (0.25, 0.5, 0.25, 0.25), **machine),
        observation("o2", "m2", "", **machine),
        observation("o3", "m2", "Lynx lynx", (0.25, 0.5, 0.25, 0.25)),
        observation("o4", "", "", **machine, **times),
    ]
    folder = write_all(tmp_path, camtrap(*rows))
    read = read_camtrap(folder)
    assert [(a.path, a.id) for a in read.annotations] == [("media/m2.jpg", "o3")]
    assert not read.faults
    used = read_camtrap(folder, statuses=("validated", "predicted"))
    assert {a.label for a in used.annotations} == {kind, "Lynx lynx"}
    (tmp_path / "a").mkdir()
    rows = [{**row, "classificationMethod": "human"} for row in rows]
    said = read_camtrap(write_all(tmp_path / "a", camtrap(*rows)))
    assert {a.label for a in said.annotations} == {kind, "Lynx lynx"}


def test_a_person_goes_before_a_machine(tmp_path):
    rows = [
        observation("o1", "m1", "Meles meles", classificationMethod="machine"),
        observation("o2", "m1", "Vulpes vulpes"),
    ]
    read = read_camtrap(write_all(tmp_path, camtrap(*rows)))
    first = next(a for a in read.annotations if a.path == "media/m1.jpg")
    assert (first.label, first.id, first.status) == ("Vulpes vulpes", "o2", "validated")
    assert not read.faults


@pytest.mark.parametrize(
    "bad",
    [
        observation("o9", "m9", "Lynx lynx"),
        observation("o9", "m1", "Lynx lynx", (0.1, 0.1, -0.1, 0.1)),
        observation("o9", "m1", "Lynx lynx", (0.1, 0.1, 0.1)),
        observation("o9", "m1", "Lynx lynx", ("nan", 0.1, 0.1, 0.1)),
        observation("o1", "m2", "Lynx lynx"),
    ],
)
def test_a_bad_observation_is_a_fault_with_its_id(tmp_path, bad):
    good = observation("o1", "m1", "Vulpes vulpes")
    read = read_camtrap(write_all(tmp_path, camtrap(good, bad)))
    name = bad["observationID"]
    wanted = [f"observations.csv, line 3, observation {name}"]
    assert [fault.where for fault in read.faults] == wanted
    assert read.annotations[0].id == "o1"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("media.csv", None),
        ("media.csv", "mediaID\nm1\n"),
        ("observations.csv", "a,a\n1,2\n"),
        ("datapackage.json", "{"),
        ("datapackage.json", '{"resources": [{"name": "media", "path": "../../media.csv"}]}'),
    ],
)
def test_a_damaged_package_is_a_data_error(tmp_path, name, text):
    folder = write_all(tmp_path / "p", camtrap(observation("o1", "m1", "Vulpes vulpes")))
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text)
    with pytest.raises(DataError):
        read_camtrap(folder)


def test_a_zip_file_of_camtrap_dp_gives_what_its_folder_gives(tmp_path):
    files = camtrap(observation("o1", "m1", "Vulpes vulpes"))
    folder = write_all(tmp_path / "folder", files)
    file = zip_all(tmp_path / "traps.zip", {f"inner/{name}": text for name, text in files.items()})
    assert find_reader(file) == READERS["camtrap-dp"]
    assert read_camtrap(file).annotations == read_camtrap(folder).annotations


# --- zip files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../out.csv", "/out.csv", "a/../../out.csv", "..\\out.csv", "C:\\out.csv"]
)
def test_a_zip_file_that_writes_outside_is_refused_whole(tmp_path, name):
    (tmp_path / "in").mkdir()
    file = zip_all(tmp_path / "in" / "a.zip", {"b.tsv": ecotaxa(*PLANKTON), name: "x"})
    with pytest.raises(DataError, match="outside"):
        read_ecotaxa(file)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.zip", "in"]


def test_a_zip_bomb_is_refused(tmp_path):
    file = zip_all(tmp_path / "a.zip", {"b.tsv": "0" * 20_000_000})
    with pytest.raises(DataError, match="grow"):
        unpack_zip(file)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_a_damaged_zip_file_leaves_nothing(tmp_path):
    file = zip_all(tmp_path / "a.zip", {"b.tsv": ecotaxa(*PLANKTON * 50)})
    data = bytearray(file.read_bytes())
    for damaged in (data[:100], data[:60] + b"\xff" * 40 + data[100:], b"", b"PK\3\4"):
        file.write_bytes(damaged)
        find_reader(file)
        with pytest.raises(DataError):
            unpack_zip(file)
        assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_only_images_and_tables_are_unpacked(tmp_path):
    file = zip_all(
        tmp_path / "a.zip",
        dict.fromkeys(["b.tsv", "c.png", "run.exe", "d", "._c.png", "__MACOSX/c.png"], "x"),
    )
    folder, _ = unpack_zip(file)
    assert sorted(p.name for p in folder.iterdir()) == ["b.tsv", "c.png"]
