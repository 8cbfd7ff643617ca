"""Convert the bundled network `nano` to OpenVINO's form, so that it starts without torch.

    python tools/convert_nano.py

Run it after the weights in `fishfeat/weights/nano` have changed. It writes `openvino` beside them:
what `fishfeat` keeps of other networks when it runs them for the first time.
"""

from __future__ import annotations

import shutil

import fishfeat as ff
from fishfeat.features.conversion import convert_network, describe_network, embed_probes
from fishfeat.features.kept_networks import BATCH_SIZE, keep_network
from fishfeat.features.specs import find_bundled_folder
from fishfeat.features.weight_files import compute_digests, list_folder_files


def main() -> None:
    """Write the folder `openvino` of `nano`."""
    backbone = ff.load_backbone("nano")
    digests = compute_digests(backbone.spec, list_folder_files(backbone.spec) or [])
    contents = describe_network(backbone, BATCH_SIZE, digests)
    folder = find_bundled_folder(backbone.spec.name) / "openvino"
    shutil.rmtree(folder, ignore_errors=True)
    model = convert_network(backbone, BATCH_SIZE)
    keep_network(folder, model, contents, embed_probes(backbone))
    print(f"{folder}: {sum(path.stat().st_size for path in folder.iterdir())} bytes")


if __name__ == "__main__":
    main()
