import numpy as np
import pytest
import torch

from fishfeat.errors import BackboneError
from fishfeat.features.backbones import load_backbone
from fishfeat.features.extract import extract
from fishfeat.features.runtimes import make_runtime_config, prepare_runner
from fishfeat.features.specs import make_spec
from fishfeat.features.tta import check_tta, make_transforms
from fishfeat.images.decode import read_image
from fishfeat.images.scan import scan

MEAN = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def images():
    """Smooth images, which the interpolation of a rotation changes little."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (3, 3, 5, 5)))
    fine = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(0, 255)
    return fine.to(torch.uint8)


def augment(tta, images):
    return [transform(images) for transform in make_transforms(tta, MEAN)]


@pytest.mark.parametrize(("tta", "n"), [("none", 1), ("flip", 2), ("d4", 8), ("rotate:12", 12)])
def test_every_transform_gives_another_image_of_the_same_shape(images, tta, n):
    augmented = augment(tta, images)
    assert len(augmented) == n
    assert all(x.shape == images.shape and x.dtype == torch.uint8 for x in augmented)
    assert torch.equal(augmented[0], images)
    assert len({x.contiguous().numpy().tobytes() for x in augmented}) == n


def test_the_mean_over_d4_is_the_same_for_each_of_its_transforms(images):
    rotated = torch.rot90(images, 1, (2, 3)).flip(3)
    mean = torch.stack(augment("d4", images)).float().mean(0)
    assert torch.allclose(mean, torch.stack(augment("d4", rotated)).float().mean(0))


def test_the_corners_of_a_rotated_image_have_the_mean_colour():
    white = torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)
    rotated = augment("rotate:8", white)[1]
    assert (rotated[0, :, 0, 0] == 128).all()
    assert (rotated[0, :, 32, 32] == 255).all()


def test_with_tta_vectors_hardly_depend_on_the_orientation(shared, images):
    folder = shared / "backbones" / "mobilenetv2_100.tf2_in1k"

    def similarity(tta):
        backbone = load_backbone(make_spec(f"local-dir:{folder}", img_size=64, tta=tta))
        runner = prepare_runner(backbone, make_runtime_config(backbone))

        def run(x):
            pixels = list(x.permute(0, 2, 3, 1).numpy())
            return torch.from_numpy(runner.start(pixels).wait()[: len(x)])

        upright, rotated = run(images), run(torch.rot90(images, 1, (2, 3)))
        return torch.nn.functional.cosine_similarity(upright, rotated).min()

    assert similarity("d4") > 0.9999
    assert similarity("rotate:4") > 0.9999
    assert similarity("none") < 0.99


def test_the_vectors_in_the_cache_are_the_mean_over_the_transforms(folder, tmp_path):
    images = scan(folder)
    backbone = load_backbone(make_spec("random:test_resnet", img_size=32, tta="flip"))
    features = extract(images, backbone, cache=tmp_path)
    rgb = backbone.preprocess(read_image(images.path(0)))
    x = torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = (backbone(x) + backbone(x.flip(3))) / 2
    assert np.allclose(features.X[0], expected[0], atol=1e-5)


def test_rotations_need_a_square_input():
    check_tta("flip", (32, 48))
    with pytest.raises(
        BackboneError, match=r"^tta must be none or flip .*'d4'.*\(32 x 48\).*--tta flip"
    ):
        check_tta("d4", (32, 48))
