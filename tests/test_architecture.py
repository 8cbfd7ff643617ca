"""The house: a module imports only from lower floors, and heavy things load only when used."""

import ast
import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    "checks": 0,
    "errors": 0,
    "files": 0,
    "options": 0,
    "records": 0,
    "workspace": 0,
    "demo": 1,
    "images": 1,
    "video": 1,
    "features": 2,
    "classify": 2,
    "finetuning": 3,
    "report": 3,
    "shards": 3,
    "models": 4,
    "stages": 5,
    "": 6,  # the package's own public names
    "cli": 7,
}
STRANGERS = {("features", "classify"), ("classify", "features")}
HEAVY = ["torch", "torchvision", "timm", "sklearn", "xgboost", "matplotlib", "h5py", "jinja2"]
HEAVY += ["cv2", "scipy", "scipy.stats", "numpy", "pandas"]


@functools.cache
def modules() -> dict[str, Path]:
    files = [*(ROOT / "fishfeat").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]
    return {".".join(f.relative_to(ROOT).with_suffix("").parts): f for f in files}


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """The syntax tree of a module, flat."""
    return tuple(ast.walk(ast.parse(path.read_text())))


@functools.cache
def imports(name: str, path: Path) -> set[str]:
    """Modules of ours that a module names anywhere, inside functions too."""
    package = name.rpartition(".")[0]
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = f"{package}.{node.module}" if node.level and node.module else node.module
            base = base or package
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found & (modules().keys() | {m.removesuffix(".__init__") for m in modules()})


def room(module: str) -> str:
    parts = module.split(".")
    if parts[0] == "cli":
        return "cli"
    return parts[1] if len(parts) > 1 and parts[1] != "__init__" else ""


def test_every_room_has_a_floor():
    assert {room(module) for module in modules()} <= FLOORS.keys()


def test_a_module_imports_only_from_lower_floors():
    for module, path in modules().items():
        here = room(module)
        for other in imports(module, path):
            there = room(other)
            if there == here or (there == "" and other == "fishfeat"):
                continue
            assert FLOORS[there] <= FLOORS[here], f"{module} imports {other} from above"
            assert FLOORS[there] < FLOORS[here] or FLOORS[here] == 0, f"{module} imports {other}"
            assert (here, there) not in STRANGERS, f"{module} imports {other}"


def test_there_are_no_import_cycles():
    graph = {m.removesuffix(".__init__"): imports(m, path) - {m} for m, path in modules().items()}
    graph = {m: {d for d in deps if d != m} for m, deps in graph.items()}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, f"cycle: {' -> '.join([*above, module])}"
        if module not in done:
            for other in graph.get(module, ()):
                # A package's __init__ names its modules; they do not need it back.
                if other != "fishfeat":
                    visit(other, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


# Each step runs after the ones before it in one process: what it may not load, they may not either.
STEPS = {
    "package": "import fishfeat; dir(fishfeat)",
    "help": """
import contextlib, io
from fishfeat_cli.main import app
for command in [c.name or c.callback.__name__ for c in app.registered_commands]:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        app([command, "--help"])
""",
    "report": "import fishfeat.stages.report, fishfeat.report.output.page",
    "finetuning.solved": """
from fishfeat_cli.put_off import UNUSED, put_off
with put_off(*UNUSED):
    import fishfeat.finetuning.solved
""",
    "stages.fit": """
with put_off(*UNUSED):
    import fishfeat.stages.fit
""",
    "stages.compare": "import fishfeat.stages.compare",
    "stages.finetune": "import fishfeat.stages.finetune",
    "stages.info": "import fishfeat.stages.info",
}


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """The heavy modules that are loaded after each step."""
    look = f"sorted({{*{HEAVY}}} & sys.modules.keys())"
    code = "import json, sys\nloaded = {}\n"
    for name, step in STEPS.items():
        code += f"{step}\nloaded[{name!r}] = {look}\n"
    code += "print(json.dumps(loaded))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: set(modules) for name, modules in found.items()}


def test_no_public_name_is_that_of_a_room():
    """The function `fishfeat.x` would become the package `fishfeat.x` once that is imported."""
    import fishfeat

    assert FLOORS.keys().isdisjoint(fishfeat.__all__)


def test_importing_the_package_loads_nothing_heavy(loaded):
    assert loaded["package"] == set()


def test_the_help_of_every_command_loads_nothing_heavy(loaded):
    assert loaded["help"] == set()


def test_report_loads_neither_torch_nor_scikit_learn(loaded):
    networks_and_classifiers = {"torch", "torchvision", "timm", "xgboost", "sklearn", "scipy.stats"}
    assert loaded["report"].isdisjoint(networks_and_classifiers)


@pytest.mark.parametrize(
    "module",
    ["stages.fit", "stages.compare", "stages.finetune", "finetuning.solved", "stages.info"],
)
def test_commands_on_cached_features_load_no_torch(loaded, module):
    assert loaded[module].isdisjoint({"torch", "torchvision", "timm", "xgboost"})


def test_fit_puts_off_what_scikit_learn_never_uses_for_it(loaded):
    assert "sklearn" in loaded["stages.fit"]
    assert loaded["stages.fit"].isdisjoint({"scipy.stats", "pandas"})


def test_every_public_name_can_be_had():
    import fishfeat

    for name in fishfeat.__all__:
        assert getattr(fishfeat, name) is not None


def test_an_unknown_public_name_is_an_attribute_error():
    import fishfeat

    with pytest.raises(AttributeError, match="extrakt"):
        fishfeat.extrakt  # noqa: B018


def test_functions_and_modules_are_short():
    lengths, long = [], []
    for name, path in modules().items():
        assert path.read_text().count("\n") <= 500, f"{name}: two rooms in one?"
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                n = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                lengths.append(n)
                long += [f"{name}.{node.name}: {n}"] if n > 60 else []
    assert sorted(lengths)[len(lengths) // 2] <= 10
    assert long == []


def test_functions_take_at_most_eight_parameters():
    """More than eight are options: a record.

    The command line has one parameter for each option, and so has an estimator of scikit-learn.
    """
    wide = []
    for name, path in modules().items():
        for node in nodes(path):
            if name.startswith(("cli.", "fishfeat.classify.estimators.")):
                continue
            if isinstance(node, ast.FunctionDef):
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                wide += [f"{name}.{node.name}"] if len(given) > 8 else []
    assert wide == []


def test_mappings_of_anything_are_rare():
    """Facts travel in records; `JsonObject` is for what was read from a file or goes into one."""
    texts = [path.read_text() for path in modules().values()]
    n_lines = sum(text.count("\n") for text in texts)
    n_untyped = sum(len(re.findall(r"\b(?:dict|Mapping)\[str, Any\]", text)) for text in texts)
    assert n_untyped < n_lines / 1000
