"""A module that is put off is imported when a name of it is used, and not before."""

import importlib
import subprocess
import sys
import textwrap

import pytest

from fishfeat_cli.put_off import put_off

LAKE = "class Lake:\n    depth = 7\n\n\ndef measure(n, unit='m'):\n    return f'{n} {unit}'\n"


@pytest.fixture
def waters(tmp_path, monkeypatch):
    """A package `waters` with a module `lakes`, imported by nobody."""
    (tmp_path / "waters").mkdir()
    (tmp_path / "waters" / "__init__.py").write_text("")
    (tmp_path / "waters" / "lakes.py").write_text(LAKE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield "waters.lakes"
    for name in ("waters", "waters.lakes"):
        sys.modules.pop(name, None)


def is_loaded(name):
    return hasattr(sys.modules.get(name), "__file__")


def test_a_name_is_imported_when_it_is_used(waters):
    with put_off(waters):
        from waters.lakes import Lake, measure

        assert not is_loaded(waters)
    assert waters not in sys.modules
    assert measure(3, unit="km") == "3 km"
    assert is_loaded(waters)
    assert Lake.depth == 7


def test_afterwards_an_import_gives_the_module(waters):
    with put_off(waters):
        import waters.lakes as put_off_lakes
    import waters
    import waters.lakes

    assert is_loaded("waters.lakes")
    assert waters.lakes is not put_off_lakes
    assert waters.lakes.measure(1) == put_off_lakes.measure(1) == "1 m"


def test_a_name_may_be_used_inside_too(waters):
    with put_off(waters):
        from waters.lakes import measure

        assert measure(2) == "2 m"
        assert is_loaded(waters)
    assert is_loaded(waters)


def test_a_class_that_is_put_off_is_still_a_class(waters):
    with put_off(waters):
        from waters.lakes import Lake

        class Pond(Lake):
            pass

    assert Pond.depth == 7
    assert isinstance(Pond(), Lake)
    assert not isinstance(7, Lake)


def test_a_module_that_is_not_installed_cannot_be_imported(waters):
    with put_off("waters.rivers"), pytest.raises(ImportError):
        import waters.rivers  # noqa: F401


def test_a_module_that_is_imported_already_stays(waters):
    module = importlib.import_module(waters)
    with put_off(waters):
        assert importlib.import_module(waters) is module
    assert sys.modules[waters] is module


def test_the_package_above_is_not_imported(waters):
    with put_off(waters):
        from waters.lakes import measure

        assert "waters" not in sys.modules
    assert measure(1) == "1 m"


def test_a_command_imports_what_it_needs_of_what_is_put_off():
    """In a process of its own: here all is imported already."""
    code = """
        import sys
        from fishfeat_cli.put_off import UNUSED, put_off
        with put_off(*UNUSED):
            from fishfeat.classify.estimators.registry import make_classifier
            import scipy.optimize
        print([name for name in UNUSED if name in sys.modules])
        forest = make_classifier("rf").fit([[0.0], [0.1], [1.0], [1.1]] * 5, [0, 0, 1, 1] * 5)
        print(forest.predict([[0.0], [1.1]]).tolist())
        print(scipy.optimize.linprog([1], bounds=[(1, 2)]).x.tolist())
        print([name for name in UNUSED if name in sys.modules and "scipy.optimize" in name])
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    assert lines[:4] == ["[]", "[0, 1]", "[1.0]", "['scipy.optimize._linprog']"]
