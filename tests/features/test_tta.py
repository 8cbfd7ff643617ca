import numpy as np
import pytest
import torch

from fishfeat.errors import BackboneError
from fishfeat.features.backbones import load_backbone
from fishfeat.features.extract import extract
from fishfeat.features.runtimes import make_runtime_config, prepare
from fishfeat.features.tta import check_tta, make_views
from fishfeat.images.decode import read_image
from fishfeat.images.scan import scan

MEAN = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def images():
    """Smooth, so that a turn by the grid's own interpolation changes little."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (3, 3, 5, 5)))
    fine = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(0, 255)
    return fine.to(torch.uint8)


def seen(views, images):
    return [view(images) for view in make_views(views, MEAN)]


@pytest.mark.parametrize(("tta", "n"), [("none", 1), ("flip", 2), ("d4", 8), ("rotate:12", 12)])
def test_every_view_is_another_image_of_the_same_kind(images, tta, n):
    found = seen(tta, images)
    assert len(found) == n
    assert all(view.shape == images.shape and view.dtype == torch.uint8 for view in found)
    assert torch.equal(found[0], images)
    assert len({view.contiguous().numpy().tobytes() for view in found}) == n


def test_the_mean_over_d4_is_that_of_any_of_its_views(images):
    turned = torch.rot90(images, 1, (2, 3)).flip(3)
    mean = torch.stack(seen("d4", images)).float().mean(0)
    assert torch.allclose(mean, torch.stack(seen("d4", turned)).float().mean(0))


def test_the_corners_of_a_turned_image_have_the_mean_colour():
    white = torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)
    turned = seen("rotate:8", white)[1]
    assert (turned[0, :, 0, 0] == 128).all()
    assert (turned[0, :, 32, 32] == 255).all()


def test_views_make_vectors_that_hardly_mind_how_a_image_is_turned(shared, images):
    folder = shared / "backbones" / "mobilenetv2_100.tf2_in1k"

    def similarity(tta):
        backbone = load_backbone(f"local-dir:{folder}", img_size=64, tta=tta)
        run = prepare(backbone, make_runtime_config(backbone)).run
        with torch.inference_mode():
            upright, turned = run(images), run(torch.rot90(images, 1, (2, 3)))
        return torch.nn.functional.cosine_similarity(upright, turned).min()

    assert similarity("d4") > 0.9999
    assert similarity("rotate:4") > 0.9999
    assert similarity("none") < 0.99


def test_the_vectors_in_the_cache_are_the_mean_over_the_views(folder, tmp_path):
    images = scan(folder)
    backbone = load_backbone("random:test_resnet", img_size=32, tta="flip")
    found = extract(images, backbone, cache=tmp_path)
    rgb = backbone.preprocess(read_image(images.path(0)))
    x = torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = (backbone(x) + backbone(x.flip(3))) / 2
    assert np.allclose(found.X[0], expected[0], atol=1e-5)


def test_what_cannot_be_turned_is_refused():
    check_tta("flip", (32, 48))
    with pytest.raises(BackboneError, match=r"not square \(32 x 48\).*--tta flip"):
        check_tta("d4", (32, 48))
