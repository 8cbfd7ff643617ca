import pytest

from fishfeat.errors import BackboneError
from fishfeat.features.specs import DEFAULT_BACKBONE, make_spec
from fishfeat.records import BackboneSpec


@pytest.mark.parametrize(
    ("name", "source", "bare"),
    [
        ("densenet121", "timm", "densenet121"),
        ("densenet121.ra_in1k", "timm", "densenet121.ra_in1k"),
        ("torchvision:vgg16", "torchvision", "vgg16"),
        ("hf-hub:timm/resnet18.a1_in1k", "hf-hub", "timm/resnet18.a1_in1k"),
        ("random:resnet18", "random", "resnet18"),
    ],
)
def test_the_source_stands_before_the_colon(name, source, bare):
    spec = make_spec(name)
    assert (spec.source, spec.name) == (source, bare)


def test_the_default_backbone_runs_at_224_pixels_unless_told_otherwise():
    assert make_spec().img_size == 224
    assert make_spec(DEFAULT_BACKBONE, img_size=518).img_size == 518
    assert make_spec("resnet18").img_size is None


def test_a_local_folder_is_kept_as_an_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert make_spec("local-dir:net").name == str(tmp_path / "net")


def test_a_local_folder_without_config_says_what_is_wanted(tmp_path):
    with pytest.raises(BackboneError, match=r"holds no config\.json.*model\.safetensors"):
        make_spec(f"local-dir:{tmp_path}")
    with pytest.raises(BackboneError, match="no such folder"):
        make_spec(f"local-dir:{tmp_path / 'gone'}")


@pytest.mark.parametrize("name", ["tensorflow:resnet50", "timm:"])
def test_a_name_of_no_source_is_refused(name):
    with pytest.raises(BackboneError, match=r"starts with one of torchvision|names no network"):
        make_spec(name)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("resize", "squish", "--resize must be one of squash, pad, crop; got 'squish'. Did you"),
        ("pool", "mean", "--pool must be one of auto, avg, max, token"),
        ("precision", "int8", "--precision must be one of auto, fp32, bf16, fp16"),
        ("img_size", 3, "--img-size must be 8 to 4096"),
    ],
)
def test_an_option_out_of_range_names_the_flag_and_what_is_allowed(option, value, message):
    with pytest.raises(BackboneError, match=message):
        make_spec("resnet18", **{option: value})


def test_the_key_depends_on_every_field_and_survives_json():
    spec = make_spec("resnet18")
    others = [
        make_spec("resnet34"),
        make_spec("random:resnet18"),
        make_spec("resnet18", layer="1"),
        make_spec("resnet18", pool="max"),
        make_spec("resnet18", img_size=128),
        make_spec("resnet18", resize="pad"),
        make_spec("resnet18", precision="bf16"),
    ]
    assert len({spec.key, *(other.key for other in others)}) == 1 + len(others)
    assert BackboneSpec.from_json(spec.to_json()).key == spec.key


def test_specs_are_made_without_torch():
    import subprocess
    import sys

    code = "import sys, fishfeat.features.specs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
