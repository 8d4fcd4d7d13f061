"""A console that cannot fail, plain lines for files, and the exit codes of commands."""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.live import Live
from rich.table import Table

from ladder_search.commands.command_line import run_command
from ladder_search.console import Console
from ladder_search.errors import SettingError

ROOT = Path(__file__).resolve().parents[2]


class Refusing(io.TextIOBase):
    """A stream that takes nothing, as a full disk, a closed pipe or a terminal that has gone away."""

    encoding = "utf-8"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def write(self, text: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error


REFUSALS = [
    OSError(errno.ENOSPC, "disk full"),
    OSError(errno.EIO, "the terminal is gone"),
    BrokenPipeError("the reader is gone"),
    BlockingIOError("the pipe is full"),
    ValueError("I/O operation on closed file"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=repr)
@pytest.mark.parametrize("terminal", [True, False])
def test_printing_never_fails(refusal: Exception, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    console = Console(Refusing(refusal), terminal=terminal)
    console.say("a line")
    console.print(Table("a", "table"), "and a text")
    with Live("a display", console=console, refresh_per_second=100):
        console.say("a line above it")
    if console.redraws:
        console.update("a line that is redrawn")


@pytest.mark.parametrize("refusal", REFUSALS, ids=repr)
def test_whatever_prints_goes_through_it(refusal: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, Refusing(refusal))

    def command() -> int:
        print("plain")
        print("plain", file=sys.stderr, flush=True)
        sys.stdout.writelines(["one", "two"])
        argparse.ArgumentParser().print_help()
        logging.getLogger("of a library").warning("its warning")
        Console().say("a line")
        return 7

    assert run_command(command) == 7


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1.06 % ± 0.37 – σ", "1.06 % +/- 0.37 - noise"),
        ("a × b − c → d · λ …", "a x b - c -> d | lambda_ ..."),
        ("Prémont-Schwarz, ² ½", "Premont-Schwarz, 2 12"),
        ("日本 🙂 \udcff", "?? ? ?"),
    ],
)
@pytest.mark.parametrize("encoding", ["ascii", "ANSI_X3.4-1968"])
def test_letters_that_an_encoding_lacks_have_stand_ins(text: str, shown: str, encoding: str) -> None:
    raw = io.BytesIO()
    console = Console(io.TextIOWrapper(raw, encoding=encoding))
    console.say(text)
    assert raw.getvalue().decode("ascii") == f"{shown}\n" and console.printable(text) == shown


def test_letters_that_an_encoding_has_stay() -> None:
    for encoding, text, shown in (
        ("utf-8", "± – σ 日本 🙂", "± – σ 日本 🙂"),
        ("latin-1", "± – σ é", "± - noise é"),
        ("utf-8", "half a letter \udcff", "half a letter ?"),
    ):
        raw = io.BytesIO()
        console = Console(io.TextIOWrapper(raw, encoding=encoding))
        console.say(text)
        assert raw.getvalue().decode(encoding) == f"{shown}\n"


def test_texts_are_printed_as_they_are() -> None:
    out = io.StringIO()
    Console(out).say("[red]x[/] :smile: 'quoted' 1.5 /a/path")
    table = Table("[b]head", title="[i]title")
    table.add_row("[red]cell :smile:")
    Console(out).print(table)
    for text in ("[red]x[/] :smile:", "[b]head", "[i]title", "[red]cell :smile:"):
        assert text in out.getvalue()


@pytest.mark.parametrize(
    "environment",
    [
        {"FORCE_COLOR": "1"},
        {"TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1"},
        {"CLICOLOR_FORCE": "1", "TERM": "xterm-256color", "COLORTERM": "truecolor"},
        {"JUPYTER_COLUMNS": "40", "FORCE_COLOR": "3"},
    ],
    ids=str,
)
def test_files_get_plain_lines(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    out = io.StringIO()
    console = Console(out)
    console.print("text", style="bold red")
    assert not console.redraws and out.getvalue() == "text\n"


@pytest.mark.parametrize(
    ("columns", "width"), [("0", 80), ("", 80), ("-5", 80), ("wide", 80), ("²", 80), ("100", 100), (None, 80)]
)
def test_a_width_that_is_none_is_80_columns(columns: str | None, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("LINES", "0")
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(os, "get_terminal_size", lambda number: os.terminal_size((0, 0)))
    out = io.StringIO()
    console = Console(out)
    console.print("x" * 300)
    assert max(map(len, out.getvalue().split())) == width and console.height == 25


@pytest.mark.parametrize(
    ("environment", "redraws", "colours"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "dumb"}, False, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
    ],
)
def test_terminals(environment: dict[str, str], redraws: bool, colours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    out = io.StringIO()
    console = Console(out, terminal=True)
    console.print("text", style="red")
    assert console.redraws == redraws and ("\x1b[31m" in out.getvalue()) == colours


def test_a_table_for_a_file_may_be_wide_and_one_for_a_terminal_may_not() -> None:
    out = io.StringIO()
    assert Console(out, width=80).wide(130).width == 130
    assert Console(out, width=200).wide(130).width == 200
    assert Console(out, width=80, terminal=True).wide(130).width == 80


@pytest.mark.parametrize(
    ("end", "code", "message"),
    [
        (SettingError("rule, value, remedy."), 2, "error: rule, value, remedy.\n"),
        (KeyboardInterrupt(), 130, "interrupted: what was finished is kept\n"),
        (None, 0, ""),
    ],
)
def test_exit_codes(end: BaseException | None, code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        if end is not None:
            raise end

    assert run_command(command) == code
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_closes_what_is_open_and_its_number_is_in_the_code(number: signal.Signals) -> None:
    closed = []
    before = signal.getsignal(number)

    def command() -> None:
        try:
            signal.raise_signal(number)
        finally:
            closed.append(True)

    assert run_command(command) == 128 + number and closed
    if number != signal.SIGHUP:
        assert signal.getsignal(number) is before


# --- whole processes, whose streams Python flushes last of all

SCRIPT = """
import sys
from rich.table import Table
from ladder_search.commands.command_line import run_command
from ladder_search.console import Console
from ladder_search.errors import SettingError

def command():
    sys.stdin and sys.stdin.readline()
    print("plain \\xb1")
    table = Table("study", "target")
    table.add_row("digits", "1.06 % \\xb1 0.37")
    Console().print(table)
    if "refused" in sys.argv:
        raise SettingError("no \\xb1 here.")

sys.exit(run_command(command))
"""


def _run(*arguments: str, environment: dict[str, str] | None = None, **options: Any) -> Any:
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    return subprocess.run([sys.executable, "-c", SCRIPT, *arguments], env=surroundings, timeout=60, **options)


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "ascii:strict"},
    ],
    ids=lambda environment: next(iter(environment)),
)
def test_an_ascii_locale(environment: dict[str, str]) -> None:
    done = _run("refused", environment=environment, stdin=subprocess.DEVNULL, capture_output=True)
    assert done.returncode == 2 and done.stderr == b"error: no +/- here.\n"
    assert b"plain +/-\n" in done.stdout and b"1.06 % +/- 0.37" in done.stdout


def test_every_command_names_the_encoding_of_its_files(tmp_path: Path) -> None:
    """What does not is read and written in the locale's encoding; test_architecture looks at all of the code."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNDEFAULTENCODING": "1"}
    command = [sys.executable, "-m", "ladder_search.cli", "studies"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode == 0 and "EncodingWarning" in done.stderr, "a library's own warnings show that they are on"
    assert not [line for line in done.stderr.splitlines() if "EncodingWarning" in line and "site-packages" not in line]


CLOSED: dict[str, Callable[[], None]] = {
    "stdout": lambda: os.close(1),
    "stderr": lambda: os.close(2),
    "all": lambda: os.closerange(0, 3),
}


@pytest.mark.parametrize("close", CLOSED.values(), ids=CLOSED)
def test_streams_that_are_closed(close: Callable[[], None]) -> None:
    assert _run(preexec_fn=close).returncode == 0


def test_streams_that_take_nothing_change_no_exit_code() -> None:
    with open("/dev/full", "wb") as full:
        done = _run(stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (0, b"")
        assert _run("refused", stdin=subprocess.DEVNULL, stdout=full, stderr=full).returncode == 2


@pytest.mark.parametrize("terminal", [True, False])
def test_a_reader_that_goes_away_changes_no_exit_code(terminal: bool) -> None:
    reader, writer = pty.openpty() if terminal else os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=writer, stderr=writer,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip
    os.close(writer)
    os.close(reader)
    process.communicate(b"\n", timeout=60)
    assert process.returncode == 0


def test_no_columns_and_forced_colours() -> None:
    usual = _run(environment={"COLUMNS": "80"}, stdin=subprocess.DEVNULL, capture_output=True)
    assert b"digits" in usual.stdout and b"\x1b" not in usual.stdout
    for environment in ({"COLUMNS": "0"}, {"COLUMNS": "0", "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}):
        done = _run(environment=environment, stdin=subprocess.DEVNULL, capture_output=True)
        assert done.returncode == 0 and done.stdout == usual.stdout
