"""What leaving a network early saves and costs on images that were not in training.

A part of the groups is held out. The model of `fishfeat fit --early-exit` classifies the held-out
images twice: each leaves at the first layer that is confident enough, or each is computed to the
end. The two ways alternate; the times of each are their medians. `command` is the whole command in
a process of its own, `images` is the same without the time that one image takes, and `network` is
the forward pass alone, of images that are decoded already.

    python benchmarks/early_exit.py DATA --group-by 'pattern:fish_(\\d+)_' --img-size 224
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fishfeat.features.engines.loading import Item
from fishfeat.features.engines.local import Engine
from fishfeat.features.exit_networks import make_exits_ready
from fishfeat.features.kept_exits import ExitUse
from fishfeat.features.ready_networks import make_ready
from fishfeat.features.runners import RGB, Runner
from fishfeat.models.load import load_model
from fishfeat.models.model import Model
from fishfeat.options import EngineOptions, ExtractOptions, FitOptions
from fishfeat.stages.extract import extract_data
from fishfeat.stages.fit import fit_data

COMMAND = "from fishfeat_cli.main import main; main()"


class Seconds(NamedTuple):
    """Wall-clock seconds, and those of all cores together."""

    wall: float
    processor: float


def main() -> None:
    """Fit, classify the held-out images in both ways, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--backbone", default="nano")
    parser.add_argument("--img-size", type=int)
    parser.add_argument("--group-by", default="none")
    parser.add_argument("--test", type=float, default=0.5, help="share that is held out")
    parser.add_argument("--cache", type=Path, default=Path("cache-early-exit"))
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()

    extracted = extract_data(
        arguments.data,
        ExtractOptions(
            backbone=arguments.backbone,
            img_size=arguments.img_size,
            layer=("all-blocks", "last"),
            group_by=(arguments.group_by,),
        ),
        cache=arguments.cache,
    )
    options = FitOptions(clf=("logreg",), early_exit=True, test=arguments.test)
    fit = fit_data(options, cache=arguments.cache)
    print_folds(fit.runs)
    model = load_model(next(path for path in fit.models if path.name.startswith("early-exit")))
    keys = fit.runs[0].holdout.keys.tolist()
    root = extracted.images.root
    names = dict(zip(extracted.images.keys.tolist(), extracted.images.labels.tolist(), strict=True))
    paths = [str(Path(root, key)) for key in keys]
    labels = [names[key] for key in keys]

    early = model.predict(paths, early_exit=True)
    whole = model.predict(paths)
    costs = {layer.name: layer.flops for layer in model.config.layers}
    spent = np.mean([costs[prediction.layer] for prediction in early])
    saved = 1 - spent / model.config.layers[-1].flops
    pairs = list(zip(early, whole, labels, strict=True))
    print(f"held-out images: {len(paths)}")
    print(f"accuracy, leaving early: {np.mean([a.label == label for a, _, label in pairs]):.4f}")
    print(f"accuracy, to the end:    {np.mean([b.label == label for _, b, label in pairs]):.4f}")
    print(f"operations saved:        {saved:.1%}")

    print_times("network", *time_networks(model, paths, arguments.repeats))
    command = [sys.executable, "-P", "-c", COMMAND, "-q", "--cache", str(arguments.cache)]
    command += ["predict", "--model", "early-exit"]
    ways = [[*command, "--early-exit"], command]
    start = alternate([lambda way=way: run_command([*way, paths[0]]) for way in ways], 3)
    times = alternate(
        [lambda way=way: run_command([*way, *paths]) for way in ways], arguments.repeats
    )
    print_times("command", *times)
    less = [
        Seconds(all_.wall - one.wall, all_.processor - one.processor)
        for all_, one in zip(times, start, strict=True)
    ]
    print_times("images", *less)


def print_folds(runs: list) -> None:
    """What leaving early gives out of fold, in the images that are not held out."""
    exits = next(run.config.early_exit for run in runs if run.config.early_exit is not None)
    print(f"out of fold: accuracy {exits.accuracy:.4f} ({exits.gain:+.4f} against the last layer)")
    print(f"             operations saved {exits.saved:.1%}, thresholds {exits.thresholds}")
    for layer in exits.layers:
        share = layer.flops / exits.whole.flops
        print(
            f"  layer {layer.name:>4}: {share:6.1%} of the operations, alone {layer.accuracy:.4f}, "
            f"{layer.left:6.1%} leave"
        )


def time_networks(model: Model, paths: list[str], repeats: int) -> list[Seconds]:
    """The forward pass alone, leaving early and to the end."""
    classifier = model.exits
    names = tuple(layer.name for layer in model.config.layers)
    use = ExitUse(names, classifier.rule_.exits, classifier.find_leaving)
    load = model._load_backbone
    items = [Item(path, "") for path in paths]
    found = model.find_kept_network(early_exit=True) or load()
    network, early = make_exits_ready(found, use, len(paths), load=load)
    whole = make_ready(
        model.find_kept_network() or load(), items, EngineOptions(), load=load
    ).runner
    engine = Engine(network, early)
    images = [engine.loader.load(item).pixels for item in items]
    return alternate(
        [lambda: run_network(early, images), lambda: run_network(whole, images)], repeats
    )


def run_network(runner: Runner, images: list[RGB]) -> Seconds:
    """Send all images through a network, by one thread."""
    before, start = time.process_time(), time.perf_counter()
    for i in range(0, len(images), runner.config.batch_size):
        runner.start(images[i : i + runner.config.batch_size]).wait()
    return Seconds(time.perf_counter() - start, time.process_time() - before)


def run_command(command: list[str]) -> Seconds:
    """Run a command in a process of its own."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Seconds(time.perf_counter() - start, processor)


def alternate(ways: list[Callable[[], Seconds]], repeats: int) -> list[Seconds]:
    """The median of each way; the first round is warm-up."""
    times: list[list[Seconds]] = [[] for _ in ways]
    for round_ in range(repeats + 1):
        for way, seconds in zip(ways, times, strict=True):
            measured = way()
            if round_:
                seconds.append(measured)
    return [
        Seconds(statistics.median(x.wall for x in way), statistics.median(x.processor for x in way))
        for way in times
    ]


def print_times(name: str, early: Seconds, whole: Seconds) -> None:
    """One line: both ways and what leaving early saves."""
    print(
        f"{name:>8}: wall {early.wall:.2f} s against {whole.wall:.2f} s "
        f"({1 - early.wall / whole.wall:+.1%} saved); processor {early.processor:.2f} s against "
        f"{whole.processor:.2f} s ({1 - early.processor / whole.processor:+.1%} saved)"
    )


if __name__ == "__main__":
    main()
