"""The commands that train: a signal ends them between two epochs, and the same command goes on from there."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest

from ladder_search import cli
from ladder_search.commands import training
from ladder_search.console import Console
from ladder_search.final.training import EpochReport
from ladder_search.signals import Interruption


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["ladder-search", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


COMMANDS = [
    (signal.SIGTERM, ["reproduce", "digits-100"]),
    (signal.SIGHUP, ["train", "digits-100", "-o", "final"]),
    (signal.SIGINT, ["compare", "digits-100", "digits-50-base"]),
]


@pytest.mark.parametrize(("number", "words"), COMMANDS, ids=[words[0] for _, words in COMMANDS])
def test_a_signal_leaves_a_checkpoint(
    number: signal.Signals,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    epochs: list[int] = []

    def show(console: Console, progress: EpochReport, what: str = "") -> None:
        epochs.append(progress.epoch)
        if epochs == [1, 2]:
            signal.raise_signal(number)
            if number != signal.SIGHUP:  # as in a terminal that closes
                signal.raise_signal(signal.SIGHUP)

    monkeypatch.setattr(training, "show_progress", show)
    command = [*words, "--seeds", "2", "--epochs", "4"]
    assert _run(monkeypatch, *command) == 128 + number
    told = capsys.readouterr().err
    assert told == "interrupted: epoch 2 of 4 is kept; the same command goes on from there\n"
    assert epochs == [1, 2]

    def stop(console: Console, progress: EpochReport, what: str = "") -> None:
        raise Interruption(number, f"going on at {progress.epoch}")

    monkeypatch.setattr(training, "show_progress", stop)
    assert _run(monkeypatch, *command) == 128 + number
    assert re.search(r"going on at 3$", capsys.readouterr().err.strip())


def test_a_signal_after_the_last_epoch_is_not_lost() -> None:
    with pytest.raises(Interruption), training.reporting(Console()):
        signal.raise_signal(signal.SIGTERM)
