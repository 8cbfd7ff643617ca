"""Images leave a network early: later blocks are not called, and the others lose nothing."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fishfeat.errors import BackboneError
from fishfeat.features import exit_networks
from fishfeat.features.backbones import load_backbone
from fishfeat.features.exit_conversion import convert_exits
from fishfeat.features.exit_networks import make_eager_runner, make_exits_ready
from fishfeat.features.exits import ExitForward, list_exits, load_exit_backbone, measure_layers
from fishfeat.features.kept_exits import CHUNK, ExitUse, KeptExits, find_kept_exits
from fishfeat.features.kept_networks import draw_probes
from fishfeat.features.measured_runtimes import Measured
from fishfeat.features.specs import make_spec
from fishfeat.records import BackboneSpec
from fishfeat.records.provenance import RuntimeConfig

LAYERS = ("1", "3", "last")
SPEC = make_spec("random:test_resnet", img_size=32)


@pytest.fixture(scope="module")
def backbone():
    return load_exit_backbone(SPEC, ("last", "3", "1"))


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(draw_probes((32, 32), 6)).permute(0, 3, 1, 2)


def leave_all(number, vectors):
    return np.ones(len(vectors), bool)


def leave_none(number, vectors):
    return np.zeros(len(vectors), bool)


class LeaveInTurn:
    """At the first layer the even images leave, at the second the last of the others."""

    def __call__(self, number, vectors):
        leaves = np.arange(len(vectors)) % 2 == 0
        return leaves if number == 0 else np.arange(len(vectors)) == len(vectors) - 1


def run(backbone, images, find_leaving, used=(0, 1, 2)):
    """The vectors, and how many images each block got."""
    counts = {}

    def count(name):
        return lambda module, inputs: counts.__setitem__(name, len(inputs[0]))

    blocks = dict(backbone.network.named_children())
    hooks = [blocks[n].register_forward_pre_hook(count(n)) for n in blocks if "layer" in n]
    forward = ExitForward(backbone, list_exits(backbone), used, find_leaving)
    try:
        with torch.inference_mode():
            return forward(images), counts
    finally:
        forward.remove()
        for hook in hooks:
            hook.remove()


def test_layers_come_in_order_of_depth_each_once():
    loaded = load_exit_backbone(SPEC, ("last", "3", "1", "-2"))
    assert [spec.layer for spec in loaded.specs] == ["1", "3", "last"]


def test_later_blocks_are_not_called_when_all_images_left(backbone, images):
    X, counts = run(backbone, images, leave_all)
    assert counts == {"layer1": 6}
    dim = backbone.dims[0]
    assert np.isfinite(X[:, :dim]).all()
    assert np.isnan(X[:, dim:]).all()


def test_later_blocks_get_only_the_images_that_stay(backbone, images):
    _, counts = run(backbone, images, LeaveInTurn())
    assert counts == {"layer1": 6, "layer2": 3, "layer3": 3, "layer4": 2}


def test_an_image_has_the_same_vectors_whichever_others_leave(backbone, images):
    with torch.inference_mode():
        expected = backbone(images).numpy()
    X, _ = run(backbone, images, leave_none)
    np.testing.assert_allclose(X, expected, rtol=1e-4, atol=1e-5)
    X, _ = run(backbone, images, LeaveInTurn())
    is_computed = np.isfinite(X)
    np.testing.assert_allclose(X[is_computed], expected[is_computed], rtol=1e-4, atol=1e-5)
    last = is_computed[:, -1]
    assert np.flatnonzero(last).tolist() == [1, 3]


def test_a_layer_that_is_not_used_is_not_asked(backbone, images):
    asked = []

    def note(number, vectors):
        asked.append(number)
        return leave_none(number, vectors)

    X, _ = run(backbone, images, note, used=(1, 2))
    assert asked == [1]
    assert np.isnan(X[:, : backbone.dims[0]]).all()


def test_other_forward_passes_do_not_notice_the_hooks(backbone, images):
    with torch.inference_mode():
        before = backbone(images)
        forward = ExitForward(backbone, list_exits(backbone), (0, 1, 2), leave_all)
        after = backbone(images)
        forward.remove()
    assert torch.equal(before, after)


def test_the_cost_of_a_layer_is_that_of_the_network_up_to_it(backbone):
    costs = measure_layers(backbone)
    assert [cost.name for cost in costs] == ["1", "3", "last"]
    assert [cost.dim for cost in costs] == list(backbone.dims)
    network = backbone.network
    macs = []

    def count(module, inputs, output):
        per_value = module.weight[0].numel()
        macs.append(output.numel() * per_value)

    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    hooks = [conv.register_forward_hook(count) for conv in convs]
    ends = []
    hooks.append(network.layer1.register_forward_hook(lambda *_: ends.append(2 * sum(macs))))
    hooks.append(network.layer3.register_forward_hook(lambda *_: ends.append(2 * sum(macs))))
    with torch.inference_mode():
        network(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    assert [cost.flops for cost in costs] == [*ends, 2 * sum(macs)]


@pytest.mark.parametrize("pool", ["avg", "token"])
def test_images_can_leave_a_transformer(pool):
    spec = make_spec("random:test_vit", pool=pool)
    costs = measure_layers(load_exit_backbone(spec, ("0", "3", "last")))
    assert [cost.flops for cost in costs] == sorted(cost.flops for cost in costs)


def test_a_network_that_mixes_the_images_of_a_batch_is_refused(backbone):
    class Mixed(nn.Module):
        def forward(self, x):
            return x + x.mean(dim=0, keepdim=True)

    loaded = load_exit_backbone(SPEC, LAYERS)
    loaded.network.layer2 = nn.Sequential(loaded.network.layer2, Mixed())
    with pytest.raises(BackboneError, match="other vectors when other images left"):
        measure_layers(loaded)


def test_a_network_that_does_not_run_on_a_part_of_its_batch_is_refused():
    loaded = load_exit_backbone(SPEC, LAYERS)
    real = loaded.network.layer2.forward

    def fail(x):
        if len(x) == 3:  # one of four images left
            raise RuntimeError("a whole batch is needed")
        return real(x)

    loaded.network.layer2.forward = fail
    with pytest.raises(BackboneError, match="Images cannot leave test_resnet early"):
        measure_layers(loaded)


def test_layers_in_another_order_are_refused():
    loaded = load_backbone(SPEC, layers=("3", "1", "last"))
    with pytest.raises(BackboneError, match="not computed in this order"):
        measure_layers(loaded)


def test_test_time_augmentation_is_refused():
    loaded = load_exit_backbone(make_spec("random:test_resnet", img_size=32, tta="flip"), LAYERS)
    with pytest.raises(BackboneError, match="--tta none"):
        list_exits(loaded)


def test_torchvision_is_refused():
    backbone = SimpleNamespace(spec=BackboneSpec("torchvision", "resnet18"))
    with pytest.raises(BackboneError, match="torchvision:resnet18"):
        list_exits(backbone)


# --- OpenVINO -------------------------------------------------------------------------------------


def embed(runner, n):
    pixels = list(draw_probes((32, 32), 20))[:n]
    size = runner.config.batch_size
    return np.concatenate([runner.start(pixels[i : i + size]).wait() for i in range(0, n, size)])


class LeaveBySign:
    """Which images leave depends on the image alone, as it does with a classifier."""

    def __init__(self, backbone):
        X = embed(make_eager_runner(backbone, ExitUse(LAYERS, (0, 1, 2), leave_none)), 20)
        starts = np.cumsum([0, *backbone.dims])
        self.medians = [np.median(X[:, start]) for start in starts[:-1]]

    def __call__(self, number, vectors):
        return vectors[:, 0] > self.medians[number]


def test_openvino_gives_the_vectors_of_eager_and_keeps_the_network(backbone):
    pytest.importorskip("openvino")
    use = ExitUse(LAYERS, (0, 1, 2), LeaveBySign(backbone))
    kept = convert_exits(backbone)
    X = embed(kept.start("fp32", 1, use), 20)
    expected = embed(make_eager_runner(backbone, use), 20)
    np.testing.assert_array_equal(np.isnan(X), np.isnan(expected))
    np.testing.assert_allclose(X, expected, rtol=1e-3, atol=1e-4)
    assert 0 < np.isnan(X[:, -1]).sum() < 20

    # A later run starts without torch, and an image has the same vectors in any company.
    again = find_kept_exits(SPEC, LAYERS)
    assert (again.fingerprint, again.dims) == (backbone.fingerprint, backbone.dims)
    np.testing.assert_array_equal(embed(again.start("fp32", 1, use), 7), X[:7])

    # A damaged file is noticed, and the network itself is used.
    next(kept.folder.glob("*.bin")).write_bytes(b"damaged")
    _, runner = make_exits_ready(again, use, 3, load=lambda: load_backbone(SPEC))
    assert runner.config.runtime == "eager"
    np.testing.assert_allclose(embed(runner, 20), expected, rtol=1e-4, atol=1e-5)


RATES = {"fp32": (10.0, 1.0), "bf16": (20.0, 0.9995)}


@pytest.mark.parametrize(
    ("figures", "chosen"),
    [
        (RATES, "bf16"),
        (RATES | {"bf16": (20.0, 0.99)}, "fp32"),  # its vectors differ
        (RATES | {"bf16": (5.0, 1.0)}, "fp32"),  # the processor emulates it
    ],
)
def test_the_fastest_precision_that_matches_is_measured_once(
    backbone, monkeypatch, tmp_path, figures, chosen
):
    pytest.importorskip("openvino")
    monkeypatch.setenv("FISHFEAT_NETWORKS", str(tmp_path))
    monkeypatch.setattr(exit_networks, "computes_bf16", lambda: True)
    measured = []

    def measure(kept, precision, n_threads, use):
        measured.append(precision)
        rate, cosine = figures[precision]
        return Measured(RuntimeConfig("openvino", precision, CHUNK), rate, cosine, 0.1)

    monkeypatch.setattr(KeptExits, "measure", measure)
    monkeypatch.setattr(KeptExits, "start", lambda kept, precision, n_threads, use: precision)
    kept = convert_exits(backbone)
    use = ExitUse(LAYERS, (0, 1, 2), leave_none)
    for _ in range(2):
        assert exit_networks._start_kept(kept, use) == chosen
    assert measured == ["fp32", "bf16"]

    # A precision that the user states is used without a measurement.
    stated = dataclasses.replace(kept, spec=dataclasses.replace(SPEC, precision="bf16"))
    assert exit_networks._start_kept(stated, use) == "bf16"
    assert measured == ["fp32", "bf16"]


def test_a_measurement_has_the_rate_and_the_smallest_cosine(backbone):
    pytest.importorskip("openvino")
    kept = convert_exits(backbone)
    use = ExitUse(LAYERS, (0, 1, 2), leave_all)
    measured = kept.measure("fp32", 1, use)
    assert measured.rate > 0
    assert 0.9999 < measured.cosine <= 1.000001
    assert kept.measure("fp32", 1, use._replace(used=(0, 7))) is None
