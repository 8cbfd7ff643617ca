import csv
import inspect
import io
import json
import logging
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from fishfeat.errors import DataError
from fishfeat.files import safe_name
from fishfeat_cli import main as cli

pytestmark = pytest.mark.usefixtures("no_pictures")
TINY = ["--backbone", "random:test_resnet", "--img-size", "32"]
PAIRS = r"pattern:fish_(\d+)_"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command line in an empty folder; returns its result, JSON parsed where asked for."""
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()

    def call(*args: object, code: int = 0):
        result = runner.invoke(cli.app, [str(a) for a in args], catch_exceptions=True)
        unexpected = not isinstance(result.exception, SystemExit | None)
        assert result.exit_code == code, (result.output, result.exception)
        assert not unexpected, result.exception
        if code == 1 and result.stderr.rstrip().count("Error: "):
            return result.stderr.rpartition("Error: ")[2].strip()
        return json.loads(result.stdout) if "--json" in args else result.stdout

    return call


@pytest.fixture
def fish(tmp_path, draw_folder, no_copies) -> Path:
    return draw_folder(tmp_path / "data" / "fish", n=12)


def test_the_three_commands_lead_from_a_folder_to_a_page(run, fish, tmp_path):
    run("extract", fish, *TINY, "--group-by", PAIRS)
    table = run("fit", "--clf", "centroid", "--cv", 3)
    assert "grouped accuracy" in table
    assert "random accuracy" in table
    page = run("report").split("The page: ")[1].strip()
    assert Path(page).is_file()
    assert (tmp_path / "cache" / "fish" / "report" / "report.json").is_file()


def test_groups_that_cannot_be_split_are_not_remembered(run, fish):
    run("extract", fish, *TINY, "--group-by", PAIRS)
    before = run("--json", "fit", "--clf", "centroid", "--cv", 3)
    told = run("fit", "--clf", "centroid", "--group-by", "folder:1", code=1)
    assert "no class has two groups" in told
    assert "The active groups: " in told
    after = run("--json", "fit", "--clf", "centroid", "--cv", 3)
    assert after["runs"][0]["splits_digest"] == before["runs"][0]["splits_digest"]
    assert run("--json", "inspect")["n_groups"] == 12


def test_a_page_does_not_mix_runs_of_other_groups(run, fish, said):
    run("extract", fish, *TINY, "--group-by", PAIRS)
    run("fit", "--clf", "centroid", "--clf", "knn", "--cv", 3)
    run("fit", "--clf", "centroid", "--cv", 3, "--group-by", "none")
    assert "1 of 2 runs (knn) are left out: they used other groups" in said("report")
    run("extract", "--group-by", "folder:1")
    assert "are of other groups than the active ones" in run("report", code=1)


@pytest.mark.parametrize("jobs", [0, -5])
def test_jobs_are_a_number_or_all_cores(jobs, run, fish):
    run("extract", fish, *TINY)
    assert f"or -1 for one on each core; got {jobs}" in run(
        "fit", "--clf", "dummy", "--jobs", jobs, code=1
    )


@pytest.mark.filterwarnings("ignore:[\\s\\S]*GPU")
def test_a_gpu_that_is_not_there_is_said(run, fish, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    run("extract", fish, *TINY)
    told = run("fit", "--clf", "xgb", "--cv", 3, "--device", "cuda", code=1)
    assert told.startswith("--device cuda: XGBoost found no such device")
    told = run("fit", "--clf", "xgb", "--device", "gpu", code=1)
    assert told.startswith("--device must be 'cpu', 'cuda' or 'cuda:N'; got 'gpu'")


def test_quiet_silences_no_warning(run, fish, said):
    run("extract", fish, *TINY)
    told = said("-q", "fit", "--clf", "dummy", "--cv", 3)
    assert "No groups are known" in told
    assert "Data set:" not in told


def test_fit_prints_one_json_document(run, fish):
    run("extract", fish, *TINY, "--group-by", PAIRS)
    document = run("--json", "fit", "--clf", "svc", "--clf", "dummy", "--cv", 3)
    assert document["dataset"] == "fish"
    assert [(r["clf"], r["split"]) for r in document["runs"]] == [
        ("svc", "grouped"),
        ("svc", "random"),
        ("dummy", "grouped"),
        ("dummy", "random"),
    ]
    for one in document["runs"]:
        assert {"accuracy", "balanced_accuracy", "macro_f1", "macro_precision"} <= one.keys()
        assert 0 <= one["accuracy"] <= 1
        assert len(one["folds"]) == 3
        low, high = one["intervals"]["accuracy"]
        assert low <= one["accuracy"] <= high


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        (["extract"], {"dataset", "n_images", "n_embedded", "dim", "rejected", "file"}),
        (["inspect"], {"dataset", "n_images", "classes", "exact_duplicates", "rejected"}),
        (["report"], {"dataset", "report"}),
        (["info"], {"datasets", "current"}),
        (["models"], {"dataset", "models"}),
        (["backbones", "densenet121"], {"backbones"}),
    ],
)
def test_every_command_prints_json_when_asked(run, fish, command, keys):
    run("extract", fish, *TINY)
    run("fit", "--clf", "dummy", "--cv", 3)
    assert keys <= run("--json", *command).keys()


def test_a_second_extract_needs_no_words_and_embeds_nothing(run, fish):
    first = run("--json", "extract", fish, *TINY, "--group-by", PAIRS)
    second = run("--json", "extract")
    assert (first["n_embedded"], second["n_embedded"]) == (24, 0)
    assert second["n_groups"] == first["n_groups"] == 12
    assert second["file"] == first["file"]


def test_an_empty_option_forgets_the_last_one(run, fish):
    run("extract", fish, *TINY, "--group-by", PAIRS, "--drop", "bream")
    assert run("--json", "inspect")["classes"][0]["n_groups"] == 6
    document = run("--json", "inspect", "--group-pattern", "", "--drop", "")
    assert document["n_groups"] is None
    assert len(document["classes"]) == 2


def test_labels_change_without_embedding_anything_again(run, fish, tmp_path):
    run("extract", fish, *TINY)
    (tmp_path / "merge.csv").write_text("class,group\nbass,any\nbream,any\n")
    document = run("--json", "extract", "--merge", tmp_path / "merge.csv")
    assert (document["n_embedded"], document["n_classes"]) == (0, 1)


def test_fit_takes_a_group_pattern_of_its_own_and_keeps_it(run, fish):
    run("extract", fish, *TINY)
    assert {r["split"] for r in run("--json", "fit", "--clf", "dummy")["runs"]} == {"random"}
    document = run("--json", "fit", "--clf", "dummy", "--cv", 3, "--group-by", PAIRS)
    assert {r["split"] for r in document["runs"]} == {"grouped", "random"}
    assert run("--json", "extract")["n_groups"] == 12


@pytest.fixture
def copied(tmp_path) -> Path:
    """Two classes of eight blurred images with a mirrored crop of each; no name tells."""
    rng = np.random.default_rng(0)
    for label in ("bass", "bream"):
        (tmp_path / "data" / "copied" / label).mkdir(parents=True)
        for n in range(8):
            small = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
            image = small.resize((160, 120), Image.Resampling.BICUBIC)
            crop = image.crop((8, 6, 156, 114)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            for kind, copy in (("left", image), ("right", crop)):
                copy.save(tmp_path / "data" / "copied" / label / f"{'abcdefgh'[n]}-{kind}.png")
    return tmp_path / "data" / "copied"


@pytest.fixture
def said():
    """What a command line says on stderr."""

    def call(*args: object) -> str:
        result = CliRunner().invoke(cli.app, [str(a) for a in args])
        assert result.exit_code == 0, (result.output, result.exception)
        return " ".join(result.stderr.split())

    return call


def rows_of(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines))


def test_duplicates_are_grouped_with_their_evidence_and_nothing_is_embedded_again(
    run, copied, tmp_path
):
    assert run("--json", "extract", copied, *TINY)["n_groups"] is None
    done = run("--json", "extract", "--group-by", "duplicates")
    assert (done["n_embedded"], done["n_groups"]) == (0, 16)
    images = rows_of(tmp_path / "cache" / "copied" / "images.csv")
    group = {row["path"]: (row["group"], row["group_name"]) for row in images}
    for path in group:
        assert group[path] == group[path.replace("left", "right")]
    assert group["bass/a-left.png"][1] == "bass/a-left.png"
    pairs = rows_of(tmp_path / "cache" / "copied" / "near_duplicates.csv")
    assert len(pairs) == 16
    for pair in pairs:
        assert {pair["path"][:6], pair["mirrored"], pair["how"]} == {
            pair["other"][:6],
            "yes",
            "pixels",
        }
        assert int(pair["inliers"]) >= 6
        assert float(pair["correlation"]) >= 0.98
        assert -1 <= float(pair["cosine"]) <= 1
        assert len(pair["transform"].split()) == 6


def test_copies_that_were_found_are_not_looked_for_again(run, copied, tmp_path, monkeypatch):
    from fishfeat.stages import grouping as groups

    first = run("--json", "extract", copied, *TINY, "--group-by", "duplicates")
    real, looks = groups.find_near_duplicates, []
    monkeypatch.setattr(
        groups, "find_near_duplicates", lambda *a, **k: looks.append(a) or real(*a, **k)
    )
    assert run("--json", "extract")["n_groups"] == first["n_groups"] == 16
    assert {r["split"] for r in run("--json", "fit", "--clf", "dummy", "--cv", 3)["runs"]} == {
        "grouped",
        "random",
    }
    assert run("--json", "inspect")["n_groups"] == 16
    assert looks == []
    (copied / "bass" / "h-right.png").unlink()
    assert run("--json", "extract")["n_groups"] == 16
    assert len(looks) == 1


def test_fit_takes_rules_united_and_keeps_them(run, copied):
    run("extract", copied, *TINY)
    rules = ["--group-by", "duplicates", "--group-by", r"pattern:/([abc])-"]
    run("fit", "--clf", "dummy", "--cv", 3, *rules)
    # a, b and c of both classes belong together by name, the others to their copies.
    assert run("--json", "extract")["n_groups"] == 13
    assert run("--json", "inspect", "--group-by", "")["n_groups"] is None


def test_a_data_leakage_that_nobody_named_is_said_and_auto_prevents_it(run, said, copied):
    told = said("extract", copied, *TINY)
    assert "`--group-by 'duplicates'`" in told
    assert "near-duplicates" in said("fit", "--clf", "dummy", "--cv", 3)
    silenced = said("fit", "--clf", "dummy", "--cv", 3, "--group-by", "none")
    assert "near-duplicates" not in silenced
    assert "No groups are known" not in silenced
    assert "near-duplicates" not in said("extract")
    assert "auto uses duplicates" in said("fit", "--clf", "dummy", "--cv", 3, "--group-by", "auto")
    assert run("--json", "inspect")["n_groups"] == 16


def test_a_number_in_the_names_is_said_and_auto_groups_by_it(run, said, fish):
    told = said("extract", fish, *TINY)
    assert r"`--group-by 'pattern:fish_(\d+)_'`" in told
    assert run("--json", "extract", "--group-by", "auto")["n_groups"] == 12
    assert r"`fish_(\d+)_`" in run("--json", "inspect")["grouping"]


def test_duplicates_before_there_are_features_say_when_they_are_looked_for(run, said, copied):
    told = said("inspect", copied, "--group-by", "duplicates")
    assert "Near-duplicates are searched for after embedding" in told
    assert run("--json", "inspect")["n_groups"] is None
    assert run("--json", "extract", *TINY)["n_groups"] == 16


def test_a_csv_column_comes_back_when_the_rule_is_forgotten(run, fish, tmp_path):
    keys = sorted(path.relative_to(tmp_path) for path in fish.rglob("*.png"))
    rows = [f"{key.as_posix()},{key.parts[2]},boat{i % 8},{i % 6}" for i, key in enumerate(keys)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,boat,group", *rows]))
    assert run("--json", "extract", "list.csv", *TINY)["n_groups"] == 6
    fitted = ["--json", "fit", "--clf", "dummy", "--cv", 3]
    run(*fitted, "--group-by", "column:boat")
    assert run("--json", "inspect")["n_groups"] == 8
    run(*fitted, "--group-by", "")
    assert run("--json", "inspect")["n_groups"] == 6


def test_the_test_part_of_the_data_is_held_out_and_scored_once(run, tmp_path, draw_folder):
    data = tmp_path / "data"
    for part in ("train", "test"):
        draw_folder(data / part)
    for path in (data / "test").glob("*/*.png"):  # other images than those of train
        Image.open(path).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(path)
    run("extract", data, *TINY)
    document = run("--json", "fit", "--clf", "knn", "--cv", 3)
    assert document["n_images"] == 12
    assert document["runs"][0]["holdout"]["n"] == 12
    assert document["runs"][0]["holdout_folds"]["n"] == 12
    assert "mean of folds' models" in run(
        "fit", "--clf", "knn", "--clf", "lda", "--cv", 3, "--vote"
    )
    page = Path(run("report").split("The page: ")[1].strip()).read_text()
    assert page.count('data-label="Test, mean of folds"') == 3
    assert "by the mean of the classifiers of the folds" in page


def test_predict_names_images_and_gives_reasons(run, fish, tmp_path):
    run("extract", fish, *TINY)
    run("fit", "--clf", "knn", "--clf", "dummy", "--cv", 3)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    good = sorted((fish / "bass").glob("*.png"))[0]
    rows = list(csv.DictReader(io.StringIO(run("predict", good, bad, code=3))))
    assert rows[0]["label"] == "bass"
    assert float(rows[0]["bass"]) > float(rows[0]["bream"])
    assert rows[1]["label"] == ""
    assert "not an image" in rows[1]["reason"]
    assert rows[1]["bass"] == rows[1]["margin"] == ""
    assert rows[0]["probability"] == rows[0]["bass"]
    assert rows[0]["runners_up"] == f"bream {rows[0]['bream']}"
    assert len(run("predict", bad, code=3).splitlines()) == 2
    document = run("--json", "predict", good, "--model", "knn")
    assert document["predictions"][0]["label"] == "bass"
    message = run("predict", good, "--model", "knnn", code=1)
    assert "has no saved model called 'knnn'" in message


def test_what_is_passed_over_is_said_by_every_command_that_takes_a_folder(run, fish, said):
    (fish / "bream" / "7.CR2").write_bytes(b"II*\0\x10\0\0\0CR")
    found = run("--json", "inspect", fish)["findings"]
    assert [finding["check"] for finding in found] == ["passed-over-images"]
    assert "1 .cr2 file in bream" in found[0]["message"]
    assert "1 .cr2 file in bream" in said("extract", fish, *TINY, "--group-by", PAIRS)
    run("fit", "--clf", "centroid", "--cv", 2)
    assert "1 .cr2 file in the top folder" in said("predict", fish / "bream")
    run("report")
    report = json.loads(Path("cache/fish/report/report.json").read_text())
    assert "passed-over-images" in {finding["check"] for finding in report["findings"]}


def test_white_makes_other_features_and_is_remembered(run, tmp_path, said):
    for i, (name, top) in enumerate([("a", 900), ("a", 1000), ("b", 500), ("b", 1023)]):
        path = tmp_path / "deep" / name / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.linspace(0, top, 64).reshape(8, 8).astype("u2")).save(path)
    assert "`--white 1023`" in said("extract", "deep", *TINY, "--group-by", "none")
    dark = run("--json", "extract")
    assert "--white" not in said("extract", "--white", 1023)
    bright = run("--json", "extract")
    assert (bright["n_embedded"], bright["features"][-10:]) == (0, "white 1023")
    assert bright["file"] != dark["file"]
    assert run("--json", "inspect")["findings"] == []
    named = run("--json", "extract", *TINY)  # white is of the images, and not of the network
    assert named["file"] == bright["file"]
    assert run("--json", "extract", "--white", 0)["file"] == dark["file"]
    assert "above 0" in run("extract", "--white", -1, code=1)


def test_predict_uses_the_best_honest_model_by_default(run, fish, caplog):
    run("extract", fish, *TINY)
    run("fit", "--clf", "dummy", "--clf", "knn", "--cv", 3)
    caplog.set_level("INFO", "fishfeat")
    found = run("--json", "predict", fish / "bream")
    assert {p["label"] for p in found["predictions"]} == {"bream"}


def test_info_verifies_and_prunes(run, fish, tmp_path):
    assert "no data set yet" in run("info", "--verify")
    done = run("--json", "extract", fish, *TINY)
    assert "sound" in run("info", "--verify")
    assert run("--json", "info", "--verify")["sound"] is True
    sorted((fish / "bass").glob("*.png"))[0].unlink()
    run("--json", "extract")
    (file,) = run("--json", "info", "--verify")["datasets"][0]["files"]
    assert (file["n_rows"], file["n_vanished"], file["faults"]) == (24, 1, [])
    assert "`fishfeat info --prune` removes them" in run("info", "--verify")
    assert "1 vector of vanished images removed" in run("info", "--prune")
    assert run("--json", "info", "--prune")["files"][0]["n_rows"] == 0
    Path(done["file"]).write_bytes(b"no HDF5")
    assert run("--json", "info", "--verify", code=1)["sound"] is False
    assert "damaged and cannot be used" in run("info", "--verify", code=1)
    run("info", "--verify", "--prune", code=2)


def test_nothing_is_pruned_without_a_list_of_images(run, fish, tmp_path):
    run("extract", fish, *TINY)
    (tmp_path / "cache" / "fish" / "images.csv").unlink()
    assert "No images are listed" in run("info", "--prune", code=1)
    assert "No images are listed" in run("info", "--verify", code=1)


def test_what_a_kill_left_is_swept_by_the_next_run(run, fish, tmp_path):
    run("extract", fish, *TINY)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = safe_name(socket.gethostname())
    for folder in ("", "fish", "fish/features"):
        (tmp_path / "cache" / folder / f".x.{gone.pid}@{host}.tmp").write_text("half")
    run("extract")
    assert list((tmp_path / "cache").rglob("*.tmp")) == []


def test_features_that_are_not_complete_are_used_with_a_warning(
    run, fish, tmp_path, caplog, monkeypatch
):
    from fishfeat.stages.dataset import read_dataset
    from fishfeat.stages.extract import extract_data, load_features

    def stop(*args, **options):
        raise KeyboardInterrupt

    run("extract", fish, *TINY)
    Image.new("RGB", (9, 9), "red").save(fish / "bass" / "new.png")
    monkeypatch.setattr("fishfeat.stages.extract.embed_missing", stop)
    with pytest.raises(KeyboardInterrupt):
        extract_data(cache=tmp_path / "cache")
    logger = logging.getLogger("fishfeat")
    logger.addHandler(caplog.handler)
    assert len(load_features(read_dataset(tmp_path / "cache"))) == 24
    logger.removeHandler(caplog.handler)
    assert "1 of 25 images are not embedded yet: `fishfeat extract`" in caplog.text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["fit"], "run `fishfeat extract DATA` first"),
        (["report"], "run `fishfeat extract DATA` first"),
        (["predict", "x.png"], "run `fishfeat extract DATA` first"),
        (["extract", "dat"], "no such folder or CSV file. Did you mean data?"),
        (["extract", "data/fish", "--only", "bas"], "Did you mean bass?"),
        (["extract", "data/fish", "--class-pattern", "("], "not a valid regular expression"),
        (["extract", "data/fish", "--group-pattern", "zzz"], "matches none of 24 paths"),
        (["extract", "data/fish", "--group-by", "foldr:1"], "Did you mean folder?"),
        (["inspect", "data/fish", "--group-by", "time:9"], "none of 24 images has a capture time"),
        (["inspect", "data/fish", "--group-by", "column"], "no image has a value in a column"),
        (["extract", "data/fish", "-b", "mobilnetv2_100"], "Did you mean mobilenetv2_100"),
    ],
)
def test_what_a_user_can_mend_is_one_message_with_its_cure(run, fish, args, message):
    assert message in run(*args, code=1)


@pytest.mark.parametrize(
    "args", [["extract", "--resize", "squish"], ["report", "--map", "ucap"], ["fit", "--cv"]]
)
def test_a_value_that_is_not_among_the_choices_is_an_error_of_usage(run, fish, args):
    run(*args, code=2)


def test_wrong_names_after_extract_say_what_there_is(run, fish):
    run("extract", fish, *TINY)
    assert "Did you mean svc?" in run("fit", "--clf", "svcc", code=1)
    assert "can be 2 to" in run("fit", "--clf", "dummy", "--cv", 99, code=1)
    assert "run `fishfeat fit` first" in run("report", code=1)


def test_exit_codes_and_streams_of_the_real_program(tmp_path):
    def call(*args: str):
        code = "from fishfeat_cli.main import main; main()"
        command = [sys.executable, "-c", code, *args]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    wrong, usage, fine = call("inspect", "no"), call("fitt"), call("--version")
    assert (wrong.returncode, usage.returncode, fine.returncode) == (1, 2, 0)
    assert wrong.stdout == ""
    assert wrong.stderr.startswith("Error: ")
    assert "Traceback" not in wrong.stderr
    assert "Traceback" in call("--debug", "inspect", "no").stderr
    assert fine.stdout.startswith("fishfeat ")


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    "args", [["checks"], ["--json", "backbones"], ["models"], ["--json", "info"]]
)
def test_results_that_cannot_be_written_are_an_error_with_a_fix(run, fish, args):
    run("extract", fish, *TINY, "--group-by", "none")
    run("fit", "--clf", "dummy", "--cv", 2)
    with FULL.open("w") as full:
        code = "from fishfeat_cli.main import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, *args], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert re.fullmatch(r"Error: .*Free some space.*\n", done.stderr), done.stderr


def test_a_closed_stdout_drops_results_and_fails_nothing(tmp_path):
    code = "import sys; sys.stdout = None; from fishfeat_cli.main import main; main()"
    command = [sys.executable, "-c", code, "--json", "backbones"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("args", "name"),
    [
        ("fit --clf svc", "fit"),
        ("-q --cache fit --json extract data", "extract"),
        ("--cache=x report --help", "report"),
        ("--help fit", None),
        ("fti fit", None),
        ("export features", None),
        ("--cache fit", None),
        ("", None),
    ],
)
def test_the_command_that_is_run_is_made_alone(args, name):
    commands = list(get_command(cli.select_command(args.split())).commands)
    everything = list(get_command(cli.app).commands)
    assert len(everything) > 12
    assert commands == ([name] if name else everything)


def test_options_have_the_defaults_of_the_library():
    from fishfeat.stages import extract as features
    from fishfeat.stages import fit as scores

    pairs = [(cli.fit, scores.fit_data), (cli.extract, features.extract_data)]
    for command, function in pairs:
        theirs = inspect.signature(function).parameters
        for name, option in inspect.signature(command).parameters.items():
            if name in theirs and option.default is not None:
                assert option.default == theirs[name].default, name


def test_the_demo_tells_the_whole_story_offline(run, tmp_path, monkeypatch):
    from fishfeat import demo

    real = demo.draw_demo
    monkeypatch.setattr(
        demo, "draw_demo", lambda folder: real(folder, n_originals=5, n_copies=2, size=(32, 24))
    )
    monkeypatch.setattr("fishfeat.stages.fit.DEFAULT_CLASSIFIERS", ("centroid",))
    told = run("demo")
    assert "grouped accuracy" in told
    assert (tmp_path / "cache" / "demo" / "report" / "index.html").is_file()
    assert "demo" in run("extract")  # what was used last is used next


def test_predict_says_when_the_model_is_of_other_classes(run, fish, said):
    run("extract", fish, *TINY)
    run("fit", "--clf", "knn", "--cv", 3)
    run("extract", "--merge", _merge(fish.parent))
    image = sorted((fish / "bass").glob("*.png"))[0]
    assert "Run `fishfeat fit` again" in said("predict", image, "--model", "knn")


def _merge(folder: Path) -> Path:
    file = folder / "merge.csv"
    file.write_text("class,group\nbass,sea bass\n")
    return file


def test_a_merge_file_is_found_again_from_another_folder(run, fish, tmp_path, monkeypatch):
    _merge(tmp_path)
    monkeypatch.setenv("FISHFEAT_CACHE", str(tmp_path / "cache"))
    run("inspect", fish, "--merge", "merge.csv")
    monkeypatch.chdir(fish)
    names = [c["class"] for c in run("--json", "inspect")["classes"]]
    assert names == ["bream", "sea bass"]


def test_a_merge_table_of_python_is_remembered(fish, tmp_path):
    from fishfeat.options import ScanOptions
    from fishfeat.stages.inspect import inspect_data

    for merge in ({"bass": "sea bass"}, None):
        found = inspect_data(fish, ScanOptions(merge=merge), cache=tmp_path / "cache")
        assert found.images.class_names.tolist() == ["bream", "sea bass"]


def test_a_balanced_model_stands_beside_the_plain_one(run, fish):
    run("extract", fish, *TINY)
    run("fit", "--clf", "knn", "--cv", 3)
    run("fit", "--clf", "knn", "--cv", 3, "--balanced")
    kept = run("--json", "info")["datasets"][0]["models"]
    assert [name.split("-on-")[0] for name in kept] == ["knn-balanced", "knn"]
    image = sorted((fish / "bass").glob("*.png"))[0]
    for name in ("knn", "knn-balanced"):
        assert run("--json", "predict", image, "--model", name)["model"].startswith(f"{name}-on-")


def test_fit_searches_combines_and_shuffles_when_asked(run, fish):
    run("extract", fish, *TINY, "--group-by", PAIRS)
    more = ["--search", "1", "--ensemble", "--permute", 1]
    document = run("--json", "fit", "--clf", "knn", "--clf", "lda", "--cv", 3, *more)
    names = ["knn-search", "knn-search", "lda-search", "lda-search", "ensemble", "ensemble"]
    assert [one["clf"] for one in document["runs"]] == names
    assert all("params" in fold for fold in document["runs"][0]["folds"])
    assert document["chance"]["knn-search"]["chance"] == 0.5
    assert len(document["chance"]["lda-search"]["shuffled"]) == 1
    assert Path(run("report").split("The page: ")[1].strip()).is_file()
    image = sorted((fish / "bass").glob("*.png"))[0]
    named = run("--json", "predict", image, "--model", "ensemble")
    assert named["predictions"][0]["label"] == "bass"
    told = run("fit", "--clf", "knn", "--cv", 3, "--permute", 1, "--search", "2")
    assert "knn-search on shuffled labels: balanced accuracy" in told
    assert "no leak" not in told
    assert told.count("Settings that the search chose for knn-search") == 1


def test_held_out_scores_stand_in_a_table_and_a_sentence_of_their_own(run, fish):
    run("extract", fish, *TINY, "--group-by", PAIRS)
    table = run("fit", "--clf", "centroid", "--clf", "dummy", "--cv", 3, "--test", "0.25")
    assert "Held out: 6 images in 3 groups, scored once" in table
    assert re.search(r"On 6 held-out images \(3 groups\).*centroid classifies \d", table)
    assert "eld out" not in run("fit", "--clf", "dummy", "--cv", 3)


def test_the_grouping_hints_are_named_in_json(run, fish):
    (hint,) = run("--json", "extract", fish, *TINY)["grouping_hints"]
    assert hint.keys() == {"rule", "n_groups", "n_images", "related_share"}
    assert hint["rule"] == r"pattern:fish_(\d+)_"
    assert run("--json", "fit", "--clf", "dummy", "--cv", 3)["grouping_hints"][0] == hint


def test_a_check_that_cannot_be_made_costs_no_scores(run, fish, monkeypatch):
    def refuse(*args, **kwargs):
        raise DataError("A fold has one class.")

    monkeypatch.setattr("fishfeat.stages.fit.score_shuffled_labels", refuse)
    run("extract", fish, *TINY)
    document = run("--json", "fit", "--clf", "knn", "--cv", 3, "--permute", 2)
    assert document["chance"] == {}
    assert len(document["runs"]) == 1


def test_wrong_budgets_and_an_ensemble_of_one_are_refused_before_anything_is_fitted(run, fish):
    run("extract", fish, *TINY)
    assert "--search must be a number" in run("fit", "--search", "soon", code=1)
    assert "at least two" in run("fit", "--clf", "knn", "--ensemble", code=1)


def test_report_writes_the_map_that_fit_laid_out_and_matrices_on_request(run, fish, tmp_path):
    run("extract", fish, *TINY, "--group-by", PAIRS)
    run("fit", "--clf", "centroid", "--cv", 3)
    folder = tmp_path / "cache" / "fish"
    laid_out = (folder / "maps" / "pca.npz").read_bytes()
    run("report")
    report = json.loads((folder / "report" / "report.json").read_text())
    assert (report["map"]["method"], report["map"]["n_images"]) == ("pca", 24)
    assert not list((folder / "report").glob("confusion-*.csv"))
    run("report", "--group-matrix")
    assert len(list((folder / "report").glob("confusion-centroid-grouped-by-*.csv"))) == 4
    assert (folder / "maps" / "pca.npz").read_bytes() == laid_out


def test_a_map_of_other_images_is_made_again_and_a_torn_one_too(run, fish, tmp_path):
    run("extract", fish, *TINY)
    run("fit", "--clf", "centroid", "--cv", 3)
    sorted((fish / "bass").glob("*.png"))[0].unlink()
    run("extract")
    run("fit", "--clf", "centroid", "--cv", 3)
    run("report")
    found = tmp_path / "cache" / "fish" / "report" / "report.json"
    assert json.loads(found.read_text())["map"]["n_images"] == 23
    kept = tmp_path / "cache" / "fish" / "maps" / "pca.npz"
    kept.write_bytes(kept.read_bytes()[:200])
    run("report")
    assert json.loads(found.read_text())["map"]["n_images"] == 23


def test_a_page_without_features_has_no_map_and_is_written_all_the_same(run, fish, tmp_path):
    run("extract", fish, *TINY)
    run("fit", "--clf", "centroid", "--cv", 3)
    for path in (tmp_path / "cache" / "fish").rglob("*.h5"):
        path.unlink()
    (tmp_path / "cache" / "fish" / "maps" / "pca.npz").unlink()
    run("report")
    report = tmp_path / "cache" / "fish" / "report" / "report.json"
    assert json.loads(report.read_text())["map"] is None


def test_a_learning_curve_is_drawn_on_request_and_belongs_to_its_folds(run, fish, tmp_path):
    run("extract", fish, *TINY, "--group-by", PAIRS)
    run("fit", "--clf", "centroid", "--cv", 3, "--learning-curve")
    run("report")
    folder = tmp_path / "cache" / "fish" / "report"
    (curve,) = json.loads((folder / "report.json").read_text())["learning_curves"]
    assert (curve["clf"], curve["split"]) == ("centroid", "grouped")
    assert "Would more images help?" in (folder / "index.html").read_text()
    run("fit", "--clf", "centroid", "--cv", 2)
    run("report")
    assert json.loads((folder / "report.json").read_text())["learning_curves"] == []


def test_a_learning_curve_stands_in_the_json_of_fit_as_in_that_of_the_report(run, fish, tmp_path):
    run("extract", fish, *TINY, "--group-by", PAIRS)
    document = run("--json", "fit", "--clf", "centroid", "--cv", 3, "--learning-curve")
    (curve,) = document["curves"]
    assert curve["points"][-1].keys() >= {"share", "n_train", "per_class", "accuracy"}
    run("report")
    report = json.loads((tmp_path / "cache" / "fish" / "report" / "report.json").read_text())
    assert report["learning_curves"] == [curve]
    assert run("--json", "fit", "--clf", "centroid", "--cv", 3)["curves"] == []


def test_unknown_species_are_looked_for_on_request_and_belong_to_their_folds(
    run, tmp_path, draw_folder, said
):
    fish = draw_folder(tmp_path / "data" / "fish", n=12)
    shutil.copytree(fish / "bass", fish / "cod")
    run("extract", fish, *TINY, "--group-by", PAIRS)
    told = said("fit", "--clf", "centroid", "--cv", 3, "--novelty")
    assert "unknown species" in told
    document = run("--json", "fit", "--clf", "centroid", "--cv", 3, "--novelty")
    (found,) = document["novelty"]
    assert [one["name"] for one in found["classes"]] == ["bass", "bream", "cod"]
    run("report")
    folder = tmp_path / "cache" / "fish" / "report"
    assert json.loads((folder / "report.json").read_text())["novelty"] == [found]
    assert "unknown species" in (folder / "index.html").read_text()
    run("fit", "--clf", "centroid", "--cv", 2)
    run("report")
    assert json.loads((folder / "report.json").read_text())["novelty"] == []
    run("extract", "--drop", "cod")
    assert "at least three classes; there are 2" in run("fit", "--novelty", code=1)


def test_each_group_is_left_out_in_turn_beside_ten_random_folds(run, fish, said, monkeypatch):
    run("extract", fish, *TINY, "--group-by", PAIRS)
    assert "std over groups" in run("fit", "--clf", "centroid", "--cv", "logo")
    told = said("fit", "--clf", "centroid", "--cv", "logo")
    assert "Each of 12 groups is left out in turn: 12 fits of each classifier." in told
    monkeypatch.setattr("fishfeat.stages.fit.MANY_FITS", 11)
    told = said("fit", "--clf", "dummy", "--cv", "logo")
    assert "12 fits of each classifier take long" in told
    document = run("--json", "fit", "--clf", "centroid", "--cv", "logo")
    assert [len(one["folds"]) for one in document["runs"]] == [12, 10]
    page = Path(run("report").split("The page: ")[1].strip()).read_text()
    assert "without its own group (12 groups, each left out in turn)" in page
    assert "got 'loo'" in run("fit", "--clf", "centroid", "--cv", "loo", code=1)


def test_a_suggested_merge_is_taken_by_merge_and_goes_on_from_the_one_in_force(run, tmp_path):
    rng = np.random.default_rng(0)
    hues = {"bass": 0, "bream": 0, "cod": 1, "dab": 2}  # bass and bream cannot be told apart
    for name, hue in hues.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(12):
            grey = rng.integers(0, 60, (24, 24, 3), dtype=np.uint8)
            grey[..., hue] += 150
            Image.fromarray(grey).save(tmp_path / "data" / name / f"{i}.png")
    (tmp_path / "merge.csv").write_text("class,becomes\ncod,flat\ndab,flat\n")
    run("extract", tmp_path / "data", *TINY, "--merge", "merge.csv")
    run("fit", "--clf", "lda", "--cv", 3)
    run("report")
    file = tmp_path / "cache" / "data" / "report" / "merges.csv"
    rows = dict(csv.reader(file.read_text().splitlines()))
    assert rows["cod"] == rows["dab"] == "flat"
    assert rows["bass"] == rows["bream"] == "bass + bream"
    run("extract", "--merge", file)
    names = [c["class"] for c in run("--json", "inspect")["classes"]]
    assert names == ["bass + bream", "flat"]


def test_boxes_are_counted_as_boxes_and_a_missing_image_has_one_line(run, fish):
    names = [path.relative_to(fish).as_posix() for path in sorted(fish.rglob("*.png"))[:3]]
    images = [{"id": i, "file_name": name} for i, name in enumerate([*names, "gone.png"])]
    boxes = [
        {"id": i, "image_id": i // 2, "category_id": 1, "bbox": [i % 2, 0, 9, 9]} for i in range(8)
    ]
    data = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "bass"}]}
    (fish / "boxes.json").write_text(json.dumps(data))
    out = run("inspect", fish / "boxes.json")
    assert "6 boxes in 3 images" in out
    assert "2 annotations cannot be used" in out
    assert out.count("gone.png (2 annotations)") == 1


def test_every_command_calls_boxes_boxes_and_an_empty_margin_is_the_default(run, fish, said):
    paths = sorted(fish.rglob("*.png"))[::2]
    images = [{"id": i, "file_name": str(path.relative_to(fish))} for i, path in enumerate(paths)]
    boxes = [
        {"id": i, "image_id": i, "category_id": i // 6, "bbox": [9, 9, 10, 10]}
        for i in range(len(paths))
    ]
    names = [{"id": 0, "name": "bass"}, {"id": 1, "name": "bream"}]
    data = {"images": images, "annotations": boxes, "categories": names}
    file = fish / "boxes.json"
    file.write_text(json.dumps(data))
    run("extract", file, *TINY, "--box-margin", 0.3)
    assert "16 × 16" in run("inspect")
    assert (
        "'x' is no number" in CliRunner().invoke(cli.app, ["inspect", "--box-margin", "x"]).stderr
    )
    run("extract", "--box-margin", "")
    assert "12 × 12" in run("inspect")
    assert "12 boxes out of fold" in run("fit", "--clf", "centroid", "--cv", 2)
    assert "Groups: 12 in 12 boxes" in said("fit", "--clf", "centroid", "--cv", 2)
    assert "boxes" in run("models")
    assert "12 boxes" in run("info", "--verify")
    boxes[0]["bbox"] = [900, 900, 5, 5]
    file.write_text(json.dumps(data))
    told = CliRunner().invoke(cli.app, ["predict", str(file), "--out", "rows.csv"])
    assert "1 of 12 boxes cannot be read" in " ".join(told.stderr.split())


def test_shown_commands_name_the_cache_that_an_option_named(run, tmp_path, monkeypatch):
    assert "fishfeat --cache 'my cache' extract" in run("--cache", "my cache", "fit", code=1)
    assert "fishfeat --cache other demo" in run("--cache", "other", "report", code=1)
    assert "--cache" not in run("fit", code=1)
    monkeypatch.setenv("FISHFEAT_CACHE", str(tmp_path / "of-the-shell"))
    assert "--cache" not in run("fit", code=1)


def test_of_models_with_one_name_those_alone_are_named(run, fish):
    run("extract", fish, *TINY)
    run("fit", "--clf", "knn", "--clf", "dummy", "--cv", 3)
    run("extract", fish, "--backbone", "random:test_resnet", "--img-size", 40)
    run("fit", "--clf", "knn", "--cv", 3)
    message = run("predict", fish, "--model", "knn", code=1)
    assert "2 saved models" in message
    assert message.count("knn-on-") == 2
    assert "dummy" not in message
