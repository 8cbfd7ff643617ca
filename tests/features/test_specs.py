import pytest

from fishfeat.errors import BackboneError
from fishfeat.features.specs import DEFAULT_BACKBONE, RUNTIMES, check_runtime, make_spec
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
def test_the_source_is_the_part_before_the_colon(name, source, bare):
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


def test_a_local_folder_without_config_names_the_files_that_it_needs(tmp_path):
    with pytest.raises(BackboneError, match=r"no config\.json.*model\.safetensors"):
        make_spec(f"local-dir:{tmp_path}")
    with pytest.raises(BackboneError, match="no such folder"):
        make_spec(f"local-dir:{tmp_path / 'gone'}")


@pytest.mark.parametrize("name", ["tensorflow:resnet50", "timm:", "bundled:micro"])
def test_a_name_without_a_valid_source_is_refused(name):
    with pytest.raises(BackboneError, match=name):
        make_spec(name)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("resize", "squish", "resize .* squash, pad, crop; got 'squish'.* mean squash"),
        ("pool", "mean", "pool .* auto, avg, max, token; got 'mean'"),
        ("precision", "int8", "precision .* auto, fp32, bf16, fp16; got 'int8'"),
        ("img_size", 3, "img.size .* 8 to 4096 pixels; got 3"),
    ],
)
def test_an_invalid_option_is_named_with_the_allowed_values(option, value, message):
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


def test_the_defaults_of_make_spec_are_those_of_the_record():
    assert make_spec("resnet18") == BackboneSpec("timm", "resnet18")


def test_an_unknown_runtime_is_named_with_the_allowed_values():
    for runtime in RUNTIMES:
        check_runtime(runtime)
    with pytest.raises(BackboneError) as caught:
        check_runtime("compil")
    assert str(caught.value) == (
        "runtime must be one of auto, eager, compile, openvino; got 'compil'. Did you mean compile?"
    )


def test_specs_are_made_without_torch():
    import subprocess
    import sys

    code = "import sys, fishfeat.features.specs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
