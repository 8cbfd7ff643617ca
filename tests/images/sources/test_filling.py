"""Filled files pass the import rules of the programs that they go back into."""

import csv
import json
from datetime import datetime

import pytest

from fishfeat.images.sources.annotated import list_annotated
from fishfeat.images.sources.camtrap import read_camtrap
from fishfeat.images.sources.ecotaxa import read_ecotaxa
from fishfeat.images.sources.filling import FILLS

STATUSES = ("predicted", "dubious", "validated", "discarded")
PREFIXES = ("img", "object", "acq", "process", "sample")
NUMBERS = ("object_lat", "object_lon", "object_depth_min", "object_depth_max", "img_rank")
FIXED = (*NUMBERS, "object_date", "object_time", "object_link", "img_file_name", "acq_instrument")
FORMATS = {"date": ("%Y%m%d", "%Y-%m-%d"), "time": ("%H%M%S", "%H%M", "%H:%M:%S")}


def list_ecotaxa_faults(path, images):
    """What EcoTaxa's import says of a file, by its help page 'How to prepare data'.

    And by what its import does (ecotaxa/ecotaxa_back, version of 2025): it reads Latin-1 where no
    byte order mark says UTF-8, takes the second line as types, and prefers the category's id.
    """
    faults = []
    if not (path.name.startswith("ecotaxa") and path.suffix in (".tsv", ".txt")):
        faults.append("name of the file")
    data = path.read_bytes()
    if not data.isascii() and not data.startswith(b"\xef\xbb\xbf"):
        faults.append("encoding")
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t")
        header = [name.strip(" \t").lower() for name in next(reader)]
        types = dict(zip(header, next(reader), strict=True))
        rows = list(reader)
    faults += [f"prefix {name}" for name in header if name.partition("_")[0] not in PREFIXES]
    prefixes = {name.partition("_")[0] for name in header}
    faults += [f"no {p}_id" for p in prefixes - {"img"} if f"{p}_id" not in header]
    if len(set(header)) < len(header) or not {"img_file_name", "object_id"} <= set(header):
        faults.append("header")
    free = [n for n in header if n.startswith("object_") and n not in FIXED]
    faults += [f"type {name}" for name in free if types[name] not in ("[t]", "[f]")]
    seen, said = set(), {}
    for cells in rows:
        if len(cells) > len(header):
            faults.append("more cells than the header")
        row = dict.fromkeys(header, "") | dict(zip(header, map(str.strip, cells), strict=False))
        name, image = row["object_id"], row["img_file_name"]
        if not name or (name, image) in seen or not (images / image).is_file():
            faults.append(f"object {name!r} with image {image!r}")
        seen.add((name, image))
        label = row.get("object_annotation_category") or row.get("object_annotation_category_id")
        status = row.get("object_annotation_status", "")
        if bool(label) != bool(status) or status.lower() not in ("", *STATUSES):
            faults.append(f"status {status!r} of {label!r}")
        if said.setdefault(name, (label, status)) != (label, status):
            faults.append(f"two labels of {name!r}")
        for column, cell in row.items():
            is_number = column in NUMBERS or (column in free and types[column] == "[f]")
            if is_number and cell.lower() not in ("", "na", "nan") and not is_float(cell):
                faults.append(f"{column} {cell}")
            kind = column.rpartition("_")[2]
            if cell and column.startswith("object_") and kind in FORMATS:
                faults += [] if any(fits(cell, f) for f in FORMATS[kind]) else [f"{column} {cell}"]
    return faults


def is_float(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def fits(text, format):
    try:
        datetime.strptime(text.zfill(4), format)
    except ValueError:
        return False
    return True


FULL = """\
img_file_name\timg_rank\tobject_id\tobject_area\tobject_date\tobject_annotation_category_id\
\tobject_annotation_category\tobject_annotation_hierarchy\tobject_annotation_status\
\tobject_annotation_date\tobject_annotation_time\tobject_annotation_person_name\tsample_id
[t]\t[f]\t[t]\t[f]\t[t]\t[f]\t[t]\t[t]\t[t]\t[t]\t[t]\t[t]\t[t]
a.png\t0\to1\t12.5\t20260102\t25828\tCopepoda\tX>Copepoda\tvalidated\t20260301\t90000\tAnaïs\ts1
b.png\t0\to2\tnan\t20260102\t25828\tCopepoda\tX>Copepoda\tpredicted\t20260301\t90000\tAnaïs\ts1
c.png\t1\to2\tnan\t20260102\t25828\tCopepoda\tX>Copepoda\tpredicted\t20260301\t90000\tAnaïs\ts1
d.png\t0\to3\t3\t20260102\t\t\t\t\t\t\t\ts1
"""
NO_TYPES = "img_file_name\tobject_id\tobject_area\tobject_note\na.png\t1\t3.5\tx\nb.png\t2\tNA\t7\n"
NO_STATUS = "img_file_name\tobject_id\tobject_annotation_category\n[t]\t[t]\t[t]\n"
NO_STATUS += "a.png\to1\tbream\nb.png\to2\t\n"
QUOTED = 'img_file_name\tobject_id\tobject_note\n[t]\t[t]\t[t]\na.png\to1\t"a ""b""\x85\nc"\n'
QUOTED += "b.png\to2\t\n"


@pytest.mark.parametrize("text", [FULL, NO_TYPES, NO_STATUS, QUOTED])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_a_filled_file_of_ecotaxa_passes_its_import_rules(tmp_path, text, start):
    for name in "abcd":
        (tmp_path / f"{name}.png").touch()
    file = tmp_path / "export.tsv"
    file.write_text(start + text, encoding="utf-8", newline="")
    before = read_ecotaxa(file)
    labels = {a.where: [("brème", 0.9)] for a in before.annotations}
    filled = FILLS["ecotaxa"](file, labels, ["brème"])
    out = tmp_path / "ecotaxa_out.tsv"
    out.write_text(filled.text, encoding="utf-8", newline="")
    assert list_ecotaxa_faults(out, tmp_path) == []
    after = read_ecotaxa(out, statuses=("validated", "predicted"))
    for old, new in zip(before.annotations, after.annotations, strict=True):
        assert (old.id, old.path, old.group) == (new.id, new.path, new.group)
        assert new.label == (old.label or "brème")
    assert filled.n_filled + filled.n_kept == len(before.annotations)


def test_what_ecotaxa_prefers_to_the_category_goes_with_the_earlier_label(tmp_path):
    file = tmp_path / "export.tsv"
    file.write_text(FULL, encoding="utf-8")
    labels = {f"line {line}": [("bream", 0.9)] for line in (3, 4, 6)}
    filled = FILLS["ecotaxa"](file, labels, ["bream"])
    assert (filled.n_filled, filled.n_kept) == (2, 1)
    lines = filled.text.removeprefix("\ufeff").splitlines()
    _, *rows = csv.DictReader(lines, delimiter="\t")
    validated, *predicted = rows
    assert validated["object_annotation_category_id"] == "25828"
    assert validated["object_annotation_person_name"] == "Anaïs"
    for row in predicted:
        said = {k.removeprefix("object_annotation_"): v for k, v in row.items() if "annot" in k}
        assert {k: v for k, v in said.items() if v} == {"category": "bream", "status": "predicted"}
    assert [row["object_area"] for row in rows] == ["12.5", "nan", "nan", "3"]


def test_the_path_of_an_object_is_the_name_of_its_image(tmp_path):
    """So that its measurements can be joined with its features."""
    (tmp_path / "export.tsv").write_text(FULL, encoding="utf-8")
    listing = list_annotated(tmp_path / "export.tsv", read_ecotaxa)
    assert [entry.key for entry in listing.entries] == ["a.png", "b.png", "d.png"]


@pytest.mark.parametrize("name", ["name", "encoding", "types", "status", "prefix", "object"])
def test_the_checker_of_ecotaxa_names_faults(tmp_path, name):
    faulty = {
        "name": ("net.tsv", FULL),
        "encoding": ("ecotaxa.tsv", FULL),
        "types": ("ecotaxa.tsv", NO_STATUS.replace("[t]", "x")),
        "status": ("ecotaxa.tsv", NO_STATUS),
        "prefix": ("ecotaxa.tsv", NO_STATUS.replace("object_annotation_", "fish_")),
        "object": ("ecotaxa.tsv", NO_STATUS.replace("o2", "")),
    }
    place, text = faulty[name]
    (tmp_path / place).write_text(text, encoding="utf-8")
    assert list_ecotaxa_faults(tmp_path / place, tmp_path)


# --- Camtrap DP ---------------------------------------------------------------------------------

TIME = "%Y-%m-%dT%H:%M:%S%z"
SHARE = {"minimum": 0, "maximum": 1}
SIZE = {"minimum": 1e-15, "maximum": 1}
# The tables of Camtrap DP 1.0.2, as https://camtrap-dp.tdwg.org/data/ describes them: each column
# with its type and what it may hold. A star marks what must be given.
TABLES = {
    "deployments": {
        "deploymentID*": "string",
        "locationID": "string",
        "locationName": "string",
        "latitude*": ("number", {"minimum": -90, "maximum": 90}),
        "longitude*": ("number", {"minimum": -180, "maximum": 180}),
        "coordinateUncertainty": ("integer", {"minimum": 1}),
        "deploymentStart*": "datetime",
        "deploymentEnd*": "datetime",
        "setupBy": "string",
        "cameraID": "string",
        "cameraModel": "string",
        "cameraDelay": ("integer", {"minimum": 0}),
        "cameraHeight": ("number", {"minimum": 0}),
        "cameraDepth": ("number", {"minimum": 0}),
        "cameraTilt": ("integer", {"minimum": -90, "maximum": 90}),
        "cameraHeading": ("integer", {"minimum": 0, "maximum": 360}),
        "detectionDistance": ("number", {"minimum": 0}),
        "timestampIssues": "boolean",
        "baitUse": "boolean",
        "featureType": "string",
        "habitat": "string",
        "deploymentGroups": "string",
        "deploymentTags": "string",
        "deploymentComments": "string",
    },
    "media": {
        "mediaID*": "string",
        "deploymentID*": "string",
        "captureMethod": ("string", {"enum": ["activityDetection", "timeLapse"]}),
        "timestamp*": "datetime",
        "filePath*": ("string", {"pattern": r"^(?=^[^./~])(^((?!\.{2}).)*$).*$"}),
        "filePublic*": "boolean",
        "fileName": "string",
        "fileMediatype*": ("string", {"pattern": "^(image|video|audio)/.*$"}),
        "exifData": "any",
        "favorite": "boolean",
        "mediaComments": "string",
    },
    "observations": {
        "observationID*": "string",
        "deploymentID*": "string",
        "mediaID": "string",
        "eventID": "string",
        "eventStart*": "datetime",
        "eventEnd*": "datetime",
        "observationLevel*": ("string", {"enum": ["media", "event"]}),
        "observationType*": (
            "string",
            {"enum": ["animal", "human", "vehicle", "blank", "unknown", "unclassified"]},
        ),
        "cameraSetupType": ("string", {"enum": ["setup", "calibration"]}),
        "scientificName": "string",
        "count": ("integer", {"minimum": 1}),
        "lifeStage": ("string", {"enum": ["adult", "subadult", "juvenile"]}),
        "sex": ("string", {"enum": ["female", "male"]}),
        "behavior": "string",
        "individualID": "string",
        "individualPositionRadius": ("number", {"minimum": 0}),
        "individualPositionAngle": ("number", {"minimum": -90, "maximum": 90}),
        "individualSpeed": ("number", {"minimum": 0}),
        "bboxX": ("number", SHARE),
        "bboxY": ("number", SHARE),
        "bboxWidth": ("number", SIZE),
        "bboxHeight": ("number", SIZE),
        "classificationMethod": ("string", {"enum": ["human", "machine"]}),
        "classifiedBy": "string",
        "classificationTimestamp": "datetime",
        "classificationProbability": ("number", SHARE),
        "observationTags": "string",
        "observationComments": "string",
    },
}
KEYS = {"deployments": "deploymentID", "media": "mediaID", "observations": "observationID"}
LINKS = {
    "deployments": (),
    "media": ("deployments",),
    "observations": ("deployments", "media"),
}
ROWS = {
    "deployments": [
        {
            "deploymentID": "d1",
            "latitude": "51.5",
            "longitude": "4.8",
            "deploymentStart": "2026-05-01T00:00:00Z",
            "deploymentEnd": "2026-06-01T00:00:00Z",
        }
    ],
    "media": [
        {
            "mediaID": f"m{i}",
            "deploymentID": "d1",
            "timestamp": f"2026-05-02T10:00:0{i}+02:00",
            "filePath": f"media/{i}.jpg",
            "filePublic": "true",
            "fileMediatype": "image/jpeg",
        }
        for i in range(4)
    ],
}
SEEN = {
    "deploymentID": "d1",
    "eventID": "e1",
    "eventStart": "2026-05-02T10:00:00+02:00",
    "eventEnd": "2026-05-02T10:00:09+02:00",
}
BOX = {"bboxX": "0.1", "bboxY": "0.2", "bboxWidth": "0.3", "bboxHeight": "0.4"}
HUMAN = {
    "classificationMethod": "human",
    "classifiedBy": "Zoë, of the lab",
    "classificationTimestamp": "2026-05-03T10:00:00Z",
}
OBSERVATIONS = [
    {"observationType": "animal", "mediaID": "m0", "scientificName": "Perca fluviatilis"} | HUMAN,
    {"observationType": "unclassified", "mediaID": "m1"} | BOX,
    {"observationType": "blank", "mediaID": "m2"} | HUMAN | {"classificationMethod": "machine"},
    {"observationType": "animal", "mediaID": "", "scientificName": "Esox lucius"} | HUMAN,
]
for number, observation in enumerate(OBSERVATIONS):
    level = "media" if observation["mediaID"] else "event"
    observation |= SEEN | {"observationID": f"o{number}", "observationLevel": level}
ROWS["observations"] = OBSERVATIONS


def write_package(folder):
    """A package of Camtrap DP with the schemas of its tables, as frictionless reads them."""
    resources = []
    for table, columns in TABLES.items():
        fields = []
        for column, described in columns.items():
            kind, constraints = (described, {}) if isinstance(described, str) else described
            field = {"name": column.rstrip("*"), "type": kind}
            field["constraints"] = {"required": column.endswith("*"), **constraints}
            fields.append(field | ({"format": TIME} if kind == "datetime" else {}))
        links = [
            {"fields": KEYS[to], "reference": {"resource": to, "fields": KEYS[to]}}
            for to in LINKS[table]
        ]
        schema = {"fields": fields, "primaryKey": KEYS[table], "foreignKeys": links}
        schema["missingValues"] = ["", "NA", "NaN", "nan"]
        resource = {"name": table, "path": f"{table}.csv", "profile": "tabular-data-resource"}
        resources.append(resource | {"schema": schema})
        with open(folder / f"{table}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [field["name"] for field in fields], restval="")
            writer.writeheader()
            writer.writerows(ROWS[table])
    (folder / "datapackage.json").write_text(json.dumps({"resources": resources}))


def list_package_faults(folder):
    limit = csv.field_size_limit()
    try:
        import frictionless  # takes a second, and sets the limit for the whole process

        report = frictionless.Package(str(folder / "datapackage.json")).validate()
    finally:
        csv.field_size_limit(limit)
    return [list(error) for error in report.flatten(["rowNumber", "fieldName", "type"])]


def test_a_filled_package_of_camtrap_dp_is_valid_and_keeps_its_ids(tmp_path):
    write_package(tmp_path)
    assert list_package_faults(tmp_path) == []
    before = read_camtrap(tmp_path, statuses=("validated", "predicted"))
    labels = {a.where: [("Rutilus rutilus", 0.75)] for a in before.annotations}
    filled = FILLS["camtrap-dp"](tmp_path, labels, ["Rutilus rutilus"])
    assert (filled.n_filled, filled.n_kept) == (2, 2)
    (tmp_path / "observations.csv").write_text(filled.text, encoding="utf-8", newline="")
    assert list_package_faults(tmp_path) == []
    after = read_camtrap(tmp_path, statuses=("validated", "predicted"))
    for old, new in zip(before.annotations, after.annotations, strict=True):
        assert old._replace(label="", status="") == new._replace(label="", status="")
    species = ["Perca fluviatilis", "Rutilus rutilus", "Rutilus rutilus"]
    assert [a.label for a in after.annotations[:3]] == species
    rows = list(csv.DictReader(filled.text.splitlines()))
    assert [row["classifiedBy"] for row in rows] == [
        *("Zoë, of the lab", "fishfeat", "fishfeat", "Zoë, of the lab")
    ]
    # The time is that of the classification that the row holds.
    assert [bool(row["classificationTimestamp"]) for row in rows] == [True, False, False, True]


def test_frictionless_finds_a_row_that_camtrap_dp_does_not_allow(tmp_path):
    write_package(tmp_path)
    file = tmp_path / "observations.csv"
    text = file.read_text()
    file.write_text(text.replace("0.3,0.4", "1.3,0.4").replace("o2,", "o1,"))
    kinds = {fault[2] for fault in list_package_faults(tmp_path)}
    assert {"constraint-error", "primary-key"} <= kinds
