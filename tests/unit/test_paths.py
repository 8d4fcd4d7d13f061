"""``~`` and variables are expanded wherever a path is read, or refused."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ladder_search import cli
from ladder_search.commands.command_line import run_command
from ladder_search.commands.search import parse_arguments
from ladder_search.data.cache import cache_folder
from ladder_search.data.sources import data_folder
from ladder_search.errors import SettingError
from ladder_search.paths import expanded, expanded_address
from ladder_search.studies import STUDIES


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.setenv("SCRATCH", "/s")
    monkeypatch.delenv("UNSET", raising=False)
    monkeypatch.delenv("LADDER_SEARCH_OPTIONS", raising=False)
    return "/h"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("~/x", "/h/x"), ("~", "/h"), ("$HOME/x", "/h/x"), ("${SCRATCH}/$HOME", "/s//h"), ("x/~/y", "x/~/y"),
        ("./~", "./~"), ("a b/c", "a b/c"), ("5$", "5$"),
    ],
)  # fmt: skip
def test_a_path_is_what_a_shell_makes_of_it(written: str, meant: str) -> None:
    assert expanded(written) == meant


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("$UNSET/x", r"variables that are set and \$UNSET is not"),
        ("~no-such-user/x", "that of ~no-such-user is not"),
    ],
)
def test_what_cannot_be_expanded_is_refused(written: str, says: str) -> None:
    with pytest.raises(SettingError, match=says):
        expanded(written, "--root")


@pytest.mark.parametrize("path", ["a" * 300, "a/" * 3000], ids=["name", "path"])
def test_a_path_that_is_too_long_is_refused(path: str) -> None:
    with pytest.raises(SettingError, match=r"--root must be a path .* \(File name too long\); shorten it") as refusal:
        expanded(path, "--root")
    assert len(str(refusal.value)) < 250


def test_a_path_below_a_closed_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: str, *more: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "stat", closed)  # root may search every folder
    with pytest.raises(SettingError, match=r"is not \(Permission denied\); mend that or choose another path\.$"):
        expanded("closed/x", "--root")


def test_a_link_to_itself_is_left_to_its_reader(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert expanded(str(tmp_path / "loop")) == str(tmp_path / "loop")


@pytest.mark.parametrize(
    "command",
    [
        ["export", "LONG"], ["train", "LONG"], ["analyse", "LONG"], ["compare", "LONG"], ["report", "LONG"],
        ["sync", "LONG"], ["report", "--root", "LONG"], ["sync", "--root", "LONG"], ["doctor", "--root", "LONG"],
        ["ui", "--root", "LONG"], ["studies", "--root", "LONG"], ["train", "digits-100", "-o", "LONG"],
        ["reproduce", "digits-100", "--root", "LONG"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_each_command_refuses_a_long_path_in_one_sentence(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ladder-search", *(argument.replace("LONG", "a" * 300) for argument in command)])
    with pytest.raises(SystemExit) as end:
        run_command(cli.main)
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and "File name too long" in err


def test_a_path_that_is_not_text_is_refused() -> None:
    with pytest.raises(SettingError, match=r"--root must be text in UTF-8, b'/j\\xfcrg' is not"):
        expanded("/j\udcfcrg", "--root")


@pytest.mark.parametrize("name", ["gone", "j\udcfcrg"])
@pytest.mark.parametrize("command", ["search", "doctor"])
def test_a_command_needs_a_working_directory(
    name: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / name
    here.mkdir()
    monkeypatch.chdir(here)
    if name == "gone":
        here.rmdir()
    monkeypatch.setattr(sys, "argv", ["ladder-search", "doctor"])
    run = cli._main if command == "doctor" else lambda: print(parse_arguments(["digits-100"]))
    assert run_command(run) == 2
    assert "error: " in (error := capsys.readouterr().err) and "working directory" in error
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("~/x", "/h/x"), ("sqlite:///~/m.db", "sqlite:////h/m.db"), ("sqlite:////$HOME/m.db", "sqlite:////h/m.db"),
        ("sqlite:///$HOME/m.db", "sqlite:////h/m.db"), ("file://~/x", "file:///h/x"), ("sqlite:///m.db", "sqlite:///m.db"),
        ("postgresql://me:p$UNSET~@host/db", "postgresql://me:p$UNSET~@host/db"), ("s3://bucket/~x", "s3://bucket/~x"),
    ],
)  # fmt: skip
def test_of_an_address_the_path_on_this_machine_is_expanded(written: str, meant: str) -> None:
    assert expanded_address(written) == meant


def test_the_options_of_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--root=~/x", "--storage=$SCRATCH/c", "--tracking=sqlite:///~/m.db"]
    meant = ("/h/x", "/s/c", "sqlite:////h/m.db")
    file = tmp_path / "search.yaml"
    file.write_text("root: ~/x\nstorage: $SCRATCH/c\ntracking: sqlite:///~/m.db\n", encoding="utf-8")
    monkeypatch.setenv("HERE", str(tmp_path))
    from_options = parse_arguments(["digits-100", *options])
    from_file = parse_arguments(["digits-100", "--config=$HERE/search.yaml"])
    monkeypatch.setenv("LADDER_SEARCH_OPTIONS", " ".join(options))
    from_variable = parse_arguments(["digits-100"])
    for settings in (from_options, from_file, from_variable):
        assert (settings.root, settings.storage, settings.tracking) == meant
    with pytest.raises(SettingError, match=r"--root may use only variables that are set and \$UNSET"):
        parse_arguments(["digits-100", "--root=$UNSET/x"])


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("export ~/r/m -o $SCRATCH/c --root=~/r", {"study": "/h/r/m", "output": Path("/s/c"), "root": Path("/h/r")}),
        ("train ~/b --output=~/o", {"bundle": "/h/b", "output": Path("/h/o")}),
        ("train ~/b --tracking=sqlite:///~/m.db", {"tracking": "sqlite:////h/m.db"}),
        ("analyse $HOME/b", {"bundle": "/h/b", "output": None}),
        ("ordering jsb-table-3 --from=~/final -o ~/o", {"from_": Path("/h/final"), "output": Path("/h/o")}),
        ("report ~/r/a b -o=~/p", {"name": ["/h/r/a", "b"], "output": Path("/h/p")}),
        ("sync ~/r/a --root=$HOME", {"study": ["/h/r/a"], "root": Path("/h")}),
        ("ui --tracking=sqlite:///$HOME/m.db", {"tracking": "sqlite:////h/m.db"}),
        ("doctor --root=~", {"root": Path("/h")}),
        ("studies --root=~", {"root": Path("/h")}),
        ("reproduce digits-100 --output=~/o", {"study": ["digits-100"], "output": Path("/h/o")}),
        ("compare digits-100 --output=~/o", {"output": Path("/h/o")}),
    ],
)  # fmt: skip
def test_the_paths_of_every_command(line: str, meant: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    command, seen = line.split()[0], list[Namespace]()
    monkeypatch.setattr(importlib.import_module(f"ladder_search.commands.{command}"), "run", seen.append)
    monkeypatch.setattr(sys, "argv", ["ladder-search", *line.split()])
    assert run_command(cli._main) == 0
    assert {name: getattr(seen[0], name) for name in meant} == meant


def test_a_command_refuses_a_path_that_cannot_be_expanded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ladder-search", "doctor", "--root=$UNSET/x"])
    assert run_command(cli._main) == 2
    assert capsys.readouterr().err.startswith("error: --root may use only variables that are set and $UNSET is not")


@pytest.mark.parametrize(
    ("variable", "folder"), [("LADDER_SEARCH_CACHE", cache_folder), ("LADDER_SEARCH_DATA", data_folder)]
)
def test_the_folders_in_variables(
    variable: str, folder: Callable[[], Path | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.setenv(variable, "$HERE")
    assert folder() == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(variable, "~/.")
    assert folder() == tmp_path
    monkeypatch.setenv(variable, "$UNSET/data")
    with pytest.raises(SettingError, match=rf"{variable} may use only variables that are set and \$UNSET is not"):
        folder()


def test_the_bundle_of_a_source() -> None:
    source, *_ = STUDIES["progressive-digits"].trial().sources.values()
    assert replace(source, bundle="~/b").bundle == "/h/b"
    with pytest.raises(SettingError, match=r"sources.\*.bundle may use only variables that are set and \$UNSET"):
        replace(source, bundle="$UNSET/b")
