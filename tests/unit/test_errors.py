"""The messages that users read, and the way of an error from a worker process to the driver."""

from __future__ import annotations

import argparse
import builtins
import copy
import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from ladder_search import errors
from ladder_search.errors import MOST_NAMES, LadderSearchError, UnknownNameError, nearest

LEAVES = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, LadderSearchError) and cls is not LadderSearchError
]


def test_every_leaf_is_listed_here() -> None:
    assert {cls.__name__ for cls in LEAVES} >= {"SettingError", "UnknownNameError", "DataError", "CheckpointError"}


@pytest.mark.parametrize("cls", LEAVES)
def test_a_leaf_is_of_the_root_and_of_a_fitting_builtin(cls: type[LadderSearchError]) -> None:
    fitting = [base for base in cls.__mro__ if base.__module__ == builtins.__name__ and base not in (object, Exception)]
    assert issubclass(cls, LadderSearchError)
    assert any(base is not BaseException for base in fitting)


@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("cls", LEAVES)
def test_an_error_arrives_as_it_left(cls: type[LadderSearchError], again: object) -> None:
    error = UnknownNameError("study", "a", ["b"]) if cls is UnknownNameError else cls("rule, value, remedy.")
    arrived = again(error)  # type: ignore[operator]
    assert type(arrived) is cls
    assert str(arrived) == str(error)


def test_unknown_name_says_the_nearest_and_lists_the_valid() -> None:
    error = UnknownNameError("study", "mnist-10-full", ["mnist-all-full", "mnist-100-full"])
    assert str(error) == (
        "unknown study 'mnist-10-full': did you mean 'mnist-100-full'? Known: mnist-100-full, mnist-all-full."
    )
    assert (error.kind, error.name, error.known) == ("study", "mnist-10-full", ("mnist-100-full", "mnist-all-full"))


def test_unknown_name_without_a_near_one() -> None:
    assert str(UnknownNameError("family", "zebra", ["ladder", "tagger"])) == (
        "unknown family 'zebra'. Known: ladder, tagger."
    )


def test_unknown_name_of_a_long_table_lists_the_most_similar_names() -> None:
    names = [f"mnist-{number}" for number in range(100)] + ["jsb-lstm", "mnist-full"]
    message = str(UnknownNameError("study", "mnist-ful", names))
    assert message.startswith("unknown study 'mnist-ful': did you mean 'mnist-full'? Known: mnist-")
    assert "mnist-full," in message and "jsb-lstm" not in message
    assert message.count(",") == MOST_NAMES and message.endswith(f", {len(names) - MOST_NAMES} more.")


def test_unknown_name_of_an_empty_table() -> None:
    assert str(UnknownNameError("bundle", "best", [])) == "unknown bundle 'best'. Known: none."


def test_the_names_may_be_any_iterable() -> None:
    assert UnknownNameError("family", "lader", iter(["tagger", "ladder"])).known == ("ladder", "tagger")


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("lader", ["ladder", "tagger"], "ladder"),
        ("LADDER", ["ladder", "tagger"], "ladder"),  # case is no distance
        ("ladder", ["Ladder"], "Ladder"),  # the name is given as it is listed
        ("model.nois", ["model.noise", "model.depth"], "model.noise"),
        ("model.xyz", ["model.abc", "model.def"], None),  # a shared section is no likeness
        ("modl.noise", ["model.noise"], "model.noise"),  # and a misspelt one no obstacle
        ("zebra", ["ladder"], None),
        ("", ["ladder"], None),
        ("ladder", [], None),
    ],
)
def test_nearest(name: str, known: list[str], expected: str | None) -> None:
    assert nearest(name, known) == expected


# --- remedies that are commands


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder to work in, in a shell that finds nothing of this environment by name."""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(sys, "argv", ["ladder-search"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


NAMES = ["my results", "it's", "a;b", "$HOME", "`id`", "~", "~x", "-x", 'a"b', "a\\b", "ü", "x" * 100, "a/b", "*", "#"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["{}", "{}/below", "{here}/{}", "/elsewhere/{}"])
def test_a_command_means_in_a_shell_what_it_was_made_of(name: str, place: str, started: Path) -> None:
    root = Path(place.format(name, here=started))
    store = f"sqlite:////{name}.db"
    line = errors.command_line("export", name, root=root, tracking=store, top=3, offline=True, no=None)
    script = f"printf '%s\\0' {line}"
    words = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True).stdout.decode().split("\0")[:-1]
    assert words[:3] == [str(Path(sys.executable).with_name("ladder-search")), "export", name]
    options = argparse.ArgumentParser()
    options.add_argument("--root", type=Path)
    for option in ("--tracking", "--top"):
        options.add_argument(option)
    options.add_argument("--offline", action="store_true")
    read = options.parse_args(words[3:])
    assert (read.root.absolute(), read.tracking) == (root.absolute(), store)
    assert (read.top, read.offline) == ("3", True)
    assert not str(read.root).startswith(("~", "-")), "a tilde would mean the home, a dash an option"


@pytest.mark.parametrize("root", [Path("results"), Path.cwd() / "results", None])
def test_the_usual_root_is_left_out(root: Path | None) -> None:
    assert errors.command_line("ui", root=root).endswith("ladder-search ui")


def test_programs_are_called_by_name_where_the_shell_finds_them(started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = Path(sys.executable).parent
    (started / "search.py").touch()
    monkeypatch.setattr(sys, "argv", [str(started / "search.py")])
    assert errors.command_line("search", resume=True) == f"{sys.executable} search.py --resume"
    monkeypatch.setenv("PATH", str(programs))
    python = Path(sys.executable).name
    assert errors.command_line("search", resume=True) == f"{python} search.py --resume"
    assert errors.command_line("sync", "a") == "ladder-search sync a"
    assert errors.command_line("mlflow", "db", "upgrade") == f"{python} -m mlflow db upgrade"
    assert errors.command_line("ray", "start", head=True) == "ray start --head"
