"""Boxes in images, from the annotation file to the vectors."""

import json

import numpy as np
import pytest
from PIL import Image

from fishfeat.errors import DataError
from fishfeat.features.backbones import load_backbone
from fishfeat.features.cache import FeatureCache
from fishfeat.features.engines import loading, local
from fishfeat.features.engines.loading import Loader, list_items, read_file
from fishfeat.features.extract import extract
from fishfeat.features.runtimes import make_runtime_config, prepare_runner
from fishfeat.features.specs import make_spec
from fishfeat.images.scan import scan
from fishfeat.options import EngineOptions, ScanOptions
from fishfeat.workspace import Workspace

TIGHT = ScanOptions(box_margin=0.0)
ENGINE = EngineOptions(runtime="eager")
SIZE = (20, 26)  # height and width of a pasted fish


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(make_spec("random:test_resnet", img_size=32))


@pytest.fixture
def frames(tmp_path, draw_folder):
    """Twelve fish as files, and pasted into three frames with an annotation file."""
    folder = draw_folder(tmp_path / "fish", size=SIZE[0])
    paths = sorted(folder.rglob("*.png"))
    (tmp_path / "frames").mkdir()
    images, annotations = [], []
    for number in range(3):
        frame = Image.new("RGB", (200, 100), (10, 60, 90))
        for i, path in enumerate(paths[4 * number : 4 * number + 4]):
            fish = Image.open(path)
            place = (5 + 45 * i, 7 * i)
            frame.paste(fish, place)
            annotations.append(
                {
                    "id": 10 + 4 * number + i,
                    "image_id": number,
                    "category_id": int(path.parent.name == "bream"),
                    "bbox": [*place, *fish.size],
                }
            )
        name = f"frames/{number}.png"
        frame.save(tmp_path / name)
        images.append({"id": number, "file_name": name, "width": 200, "height": 100})
    names = [{"id": 0, "name": "bass"}, {"id": 1, "name": "bream"}]
    data = {"images": images, "annotations": annotations, "categories": names}
    (tmp_path / "boxes.json").write_text(json.dumps(data))
    return tmp_path


def change(frames, **values):
    """Change the first annotation."""
    data = json.loads((frames / "boxes.json").read_text())
    data["annotations"][0] |= values
    (frames / "boxes.json").write_text(json.dumps(data))


def test_a_box_is_an_entry_with_the_label_and_the_frame_as_its_group(frames):
    images = scan(frames / "boxes.json", TIGHT)
    assert images.keys[0] == "frames/0.png#10"
    assert images.path(0) == frames / "frames" / "0.png"
    assert images.labels.tolist() == ["bass"] * 6 + ["bream"] * 6
    assert images.groups.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert images.box[1].tolist() == [50, 7, 50 + images.width[1], 7 + images.height[1]]
    assert images.crop[1].tolist() == [*images.box[1].tolist(), 200, 100]
    assert len(set(images.digest)) == 12
    assert len(set(images.file_digest)) == 3


def test_vectors_are_those_of_the_same_pixels_in_files(frames, backbone):
    boxes = extract(scan(frames / "boxes.json", TIGHT), backbone, cache=frames / "a", engine=ENGINE)
    files = extract(scan(frames / "fish"), backbone, cache=frames / "b", engine=ENGINE)
    assert np.array_equal(boxes.X, files.X)
    assert boxes.y.tolist() == files.y.tolist()


@pytest.mark.parametrize("embed_items", [local.embed_on_cpu, local.embed_on_device])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_every_way_embeds_the_boxes_of_a_file_from_one_read(
    frames, backbone, embed_items, batch_size, monkeypatch
):
    images = scan(frames / "boxes.json")
    items = list_items(images, range(12))
    expected = [Loader(backbone.preprocess).load(item).pixels for item in items]
    opened, decoded = [], []
    read, decode = loading.read_bytes, loading.decode
    monkeypatch.setattr(loading, "read_bytes", lambda path: opened.append(path) or read(path))
    monkeypatch.setattr(
        loading, "decode", lambda *args, **how: decoded.append(1) or decode(*args, **how)
    )
    engine = local.Engine(
        backbone, prepare_runner(backbone, make_runtime_config(backbone, batch_size=batch_size))
    )
    with local.start_threads(2) as pool:
        batches = list(embed_items(engine, items, pool, pool, 2))
    assert [item for batch in batches for item in batch.items] == items
    assert max(len(batch.items) for batch in batches) <= batch_size
    assert len(opened) == len(decoded) == 3
    alone = engine.start_batch([loading.LoadedImage(items[5], expected[5])]).finish().X
    together = np.concatenate([batch.X for batch in batches])
    assert np.allclose(alone[0], together[5], atol=1e-5)


def test_a_run_that_was_stopped_reads_only_the_frames_that_are_left(frames, backbone, monkeypatch):
    images = scan(frames / "boxes.json")
    whole = extract(images, backbone, cache=frames / "whole", engine=ENGINE)
    extract(images.select(np.arange(12) < 6), backbone, cache=frames / "c", engine=ENGINE)
    opened = []
    read = loading.read_bytes
    monkeypatch.setattr(loading, "read_bytes", lambda path: opened.append(path) or read(path))
    resumed = extract(images, backbone, cache=frames / "c", engine=ENGINE)
    assert np.array_equal(whole.X, resumed.X)
    assert [path[-5:] for path in opened] == ["1.png", "2.png"]
    file = Workspace(frames / "c").dataset("boxes").features_file(backbone.spec)
    assert FeatureCache(file).n_done == 12


def test_a_large_jpeg_is_halved_as_far_as_its_smallest_box_allows(tmp_path):
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    small.resize((1600, 1200), Image.Resampling.BICUBIC).save(tmp_path / "frame.jpg", quality=95)
    boxes = [[0, 0, 800, 800], [800, 400, 700, 790], [10, 10, 30, 40]]
    shapes = []
    fit = load_backbone(make_spec("random:test_resnet", img_size=32)).preprocess
    for n in (2, 3):
        data = {
            "images": [{"id": 1, "file_name": "frame.jpg"}],
            "categories": [{"id": 1, "name": "cod"}],
            "annotations": [
                {"id": i, "image_id": 1, "category_id": 1, "bbox": box}
                for i, box in enumerate(boxes[:n])
            ],
        }
        (tmp_path / "frame.json").write_text(json.dumps(data))
        items = list_items(scan(tmp_path / "frame.json"), range(n))
        min_side = Loader(fit)._min_side(items[0])
        shapes.append(loading.decode(read_file(items).data, min_side=min_side).shape)
        assert {Loader(fit)._min_side(item) for item in items} == {min_side}
    assert shapes == [(150, 200, 3), (1200, 1600, 3)]


def test_a_turned_photograph_has_boxes_as_it_is_seen(tmp_path):
    seen = np.zeros((60, 40, 3), np.uint8)
    seen[10:30, 5:25] = 200
    stored = Image.fromarray(seen).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise to see it
    stored.save(tmp_path / "turned.png", exif=exif)
    data = {
        "images": [{"id": 1, "file_name": "turned.png"}],
        "categories": [{"id": 1, "name": "cod"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 10, 20, 20]}],
    }
    (tmp_path / "turned.json").write_text(json.dumps(data))
    images = scan(tmp_path / "turned.json", TIGHT)
    assert images.crop[0].tolist() == [5, 10, 25, 30, 40, 60]
    fit = load_backbone(make_spec("random:test_resnet", img_size=32)).preprocess
    pixels = Loader(fit).load(list_items(images, [0])[0]).pixels
    assert (pixels == 200).all()


def test_a_box_that_cannot_be_used_is_rejected_with_its_place(frames):
    change(frames, bbox=[500, 500, 10, 10])
    images = scan(frames / "boxes.json")
    assert len(images) == 11
    (rejected,) = images.rejected
    assert rejected.key == "frames/0.png#10"
    assert "outside the image of 200 x 100" in rejected.reason
    assert rejected.label == "bass"


def test_a_second_listing_reads_no_file(frames, monkeypatch):
    first = scan(frames / "boxes.json")
    monkeypatch.setattr("fishfeat.images.scan.read_bytes", None)
    second = scan(frames / "boxes.json", ScanOptions(box_margin=0.3), known=first)
    assert second.file_digest.tolist() == first.file_digest.tolist()
    assert (second.width > first.width).all()


def test_another_margin_or_shape_is_other_pixels(frames):
    kinds = [ScanOptions(), TIGHT, ScanOptions(box_margin=0.0, box_shape="square")]
    digests = [tuple(scan(frames / "boxes.json", kind).digest) for kind in kinds]
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    "options", [{"box_margin": -0.1}, {"box_margin": 9}, {"box_shape": "round"}]
)
def test_a_margin_or_shape_that_does_not_exist_is_an_error(frames, options):
    with pytest.raises(DataError, match=next(iter(options))):
        scan(frames / "boxes.json", ScanOptions(**options))


def test_a_source_that_does_not_exist_is_an_error_with_those_that_do(frames):
    with pytest.raises(DataError, match=r"folder, table, .*coco.*Did you mean coco"):
        scan(frames / "boxes.json", ScanOptions(source="cocoo"))


def test_a_data_set_with_boxes_is_read_back_as_it_was(frames, backbone):
    change(frames, bbox=[-4, -2, 30, 20])
    images = scan(frames / "boxes.json")
    extract(images, backbone, cache=frames / "cache", engine=ENGINE)
    known = Workspace(frames / "cache").dataset("boxes").read().require_images()
    for name in ("keys", "digest", "crop", "box", "file_digest", "width", "height"):
        assert np.array_equal(getattr(known, name), getattr(images, name)), name
    assert known.crop_of(3) == images.crop_of(3)


def write_table(frames, rows, header="path,label,x0,y0,x1,y1"):
    (frames / "boxes.csv").write_text("\n".join([header, *rows]) + "\n")
    return frames / "boxes.csv"


@pytest.mark.parametrize("rule", ["column:track", "column:group"])
def test_an_annotation_file_has_no_column_to_group_by(frames, rule):
    with pytest.raises(DataError, match=r"is for a CSV"):
        scan(frames / "boxes.json", ScanOptions(group_by=(rule,)))


def test_an_annotation_file_has_no_columns_to_choose(frames):
    with pytest.raises(DataError, match=r"is for a CSV"):
        scan(frames / "boxes.json", ScanOptions(columns="label=name"))


def test_the_rule_column_keeps_the_groups_of_an_annotation_file(frames):
    listed = scan(frames / "boxes.json")
    kept = scan(frames / "boxes.json", ScanOptions(group_by=("column",)))
    assert listed.grouping == "Boxes of one image are one group."
    assert kept.grouping.startswith(listed.grouping)
    assert kept.groups.tolist() == listed.groups.tolist()


def test_a_missing_image_counts_once_and_root_does_not_replace_it(frames):
    (frames / "other").mkdir()
    (frames / "frames" / "0.png").rename(frames / "other" / "1.png")
    file = frames / "boxes.json"
    file.write_text(file.read_text().replace("frames/0.png", "gone/1.png"))
    (frames / "other" / "1.png").unlink()
    for root in (None, frames):
        images = scan(file, ScanOptions(root=root))
        (finding,) = (f for f in images.findings if f.check == "missing-files")
        assert "1 of 3 paths" in finding.message
        assert [r.key for r in images.rejected] == [f"gone/1.png#{i}" for i in range(10, 14)]
        assert len(images) == 8


def test_boxes_in_dark_images_are_found_again_by_the_second_scan(frames):
    for path in (frames / "frames").iterdir():
        Image.fromarray(np.full((100, 200), 4000, np.uint16)).save(path)
    first = scan(frames / "boxes.json")
    second = scan(frames / "boxes.json", known=first)
    assert [f.check for f in first.findings] == ["value-range"]
    assert "12 boxes in 16-bit images" in first.findings[0].message
    assert (second.findings, second.values.tolist()) == (first.findings, first.values.tolist())


def test_an_id_may_hold_the_signs_of_paths_and_keys(frames):
    file = frames / "boxes.json"
    file.write_text(file.read_text().replace('"id": 10,', '"id": "dive/1#10",'))
    images = scan(file, ScanOptions(group_by=("folder:1",)))
    assert images.rejected == ()
    assert images.file_key(images.keys.tolist().index("frames/0.png#dive/1%2310")) == "frames/0.png"
    assert set(images.group_name.tolist()) == {"frames"}


def test_a_root_of_an_annotation_file_that_is_no_folder_is_refused(frames):
    with pytest.raises(DataError, match=r"is not a folder"):
        scan(frames / "boxes.json", ScanOptions(root=frames / "no"))


BOXES_OF_TABLE = ScanOptions(columns="box=x0:y0:x1:y1", box_margin=0.0)


def test_a_table_may_have_boxes(frames):
    rows = ["frames/0.png,bass,5,0,33,20", "frames/0.png,bream,50,7,78,27", "frames/1.png,bass,,,,"]
    images = scan(write_table(frames, rows), BOXES_OF_TABLE)
    assert images.keys.tolist() == ["frames/0.png#1", "frames/0.png#2", "frames/1.png"]
    assert images.labels.tolist() == ["bass", "bream", "bass"]
    assert images.crop_of(1)[:4] == (50, 7, 78, 27)
    assert images.crop_of(2) is None
    assert images.digest[2] == images.file_digest[2]
    assert images.groups[0] == images.groups[1] != images.groups[2]
    of_frame = scan(frames / "boxes.csv", ScanOptions(columns="box=x0:y0:x1:y1", include=["0.png"]))
    assert len(of_frame) == 2


def test_the_group_column_of_a_table_groups_its_boxes(frames):
    rows = ["frames/0.png,bass,5,0,33,20,a", "frames/0.png,bream,50,7,78,27,b"]
    rows += ["frames/1.png,bass,5,0,33,20,a"]
    table = write_table(frames, rows, "path,label,x0,y0,x1,y1,group")
    assert scan(table, BOXES_OF_TABLE).group_name.tolist() == ["a", "b", "a"]


@pytest.mark.parametrize("cells", ["5,0,33,", "5,0,x,20"])
def test_a_row_whose_box_is_no_four_numbers_is_an_error_with_its_line(frames, cells):
    with pytest.raises(DataError, match=r"line 2: a box is four numbers"):
        scan(write_table(frames, [f"frames/0.png,bass,{cells}"]), BOXES_OF_TABLE)


@pytest.mark.parametrize("box", ["x0", "x0:y0:x1", "x0:y0:x1:"])
def test_the_column_of_a_box_is_four_columns(frames, box):
    table = write_table(frames, ["frames/0.png,bass,5,0,33,20"])
    with pytest.raises(DataError, match=r"four columns"):
        scan(table, ScanOptions(columns=f"box={box}"))


def test_columns_that_look_like_boxes_are_named_where_the_images_are_used_whole(frames):
    rows = "path,label,xmin,ymin,xmax,ymax\nframes/0.png,a,1,2,30,40\nframes/1.png,b,1,2,30,40\n"
    (frames / "whole.csv").write_text(rows)
    images = scan(frames / "whole.csv")
    assert images.crop is None
    (finding,) = (f for f in images.findings if f.check == "unused-columns")
    assert "--columns box=xmin:ymin:xmax:ymax" in finding.fix


def test_an_image_that_stands_twice_suggests_the_columns_of_boxes(frames):
    rows = ["frames/0.png,bass,5,0,33,20", "frames/0.png,bream,50,7,78,27"]
    with pytest.raises(DataError, match=r"--columns box=x0:y0:x1:y1"):
        scan(write_table(frames, rows))


def test_an_annotation_file_beside_class_folders_is_named_with_the_command_that_reads_it(frames):
    (frames / "boxes.json").rename(frames / "fish" / "fathom.json")
    (finding,) = scan(frames / "fish").findings
    assert "fathom.json" in finding.message
    assert "fishfeat extract" in finding.fix
