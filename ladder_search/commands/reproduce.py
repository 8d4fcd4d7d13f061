"""``ladder-search reproduce``: the published configuration against the best found one, on fresh seeds."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from ladder_search.commands.command_line import add_output, add_training, number, place
from ladder_search.console import Console
from ladder_search.disk.files import write_atomically
from ladder_search.driver.settings import SearchSettings
from ladder_search.errors import SettingError
from ladder_search.training.settings import Precision

TABLE = "reproduction.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", nargs="+", type=place, help="studies or study files; each becomes a group of rows")
    text = "number of found configurations that compete"
    parser.add_argument("--contenders", type=number(least=0), default=3, metavar="N", help=text)
    add_training(parser, epochs="a shorter schedule, marked as reduced: no verdict on the target")
    text = "precision of the matrix products of training (default: that of each configuration)"
    parser.add_argument("--precision", choices=get_args(Precision), default="", help=text)
    text = "stop after this time; the same command continues later"
    parser.add_argument("--time-budget", type=number(float), metavar="SECONDS", help=text)
    add_output(parser, "folder of the reproductions (default: ROOT/reproductions)")


def run(arguments: argparse.Namespace) -> None:
    reproduce(
        arguments.study,
        seeds=arguments.seeds,
        root=arguments.root,
        contenders=arguments.contenders,
        epochs=arguments.epochs,
        precision=arguments.precision,
        device=arguments.device,
        time_budget=arguments.time_budget,
        output=arguments.output,
    )


def check_confirmable(settings: SearchSettings) -> None:
    """Raise ``LadderSearchError`` if a search with these settings could not be confirmed at its end (``--confirm``)."""
    from ladder_search.data import datasets
    from ladder_search.final.training import check_has_tests
    from ladder_search.reproduction.reproduction import schedule
    from ladder_search.studies import study_of

    if "data" in settings.overrides:
        name = next(iter(settings.overrides["data"]), "")
        raise SettingError(
            f"--confirm reproduces the study on its own data, and --set changes data.{name}; leave one of them out, or "
            "write a study file."
        )
    study = study_of({"study": settings.study, "definition": settings.definition})
    schedule(study, settings.epochs)
    check_has_tests(datasets.load(study.data))


def reproduce(
    names: Sequence[str],
    *,
    seeds: int,
    root: Path,
    contenders: int = 3,
    epochs: int | None = None,
    precision: str = "",
    device: str = "cpu",
    time_budget: float | None = None,
    output: Path | None = None,
) -> None:
    """Reproduce studies and print their table; arguments as on the command line."""
    from ladder_search.commands.training import find_device, reporting
    from ladder_search.data import datasets
    from ladder_search.disk.folders import unwritable
    from ladder_search.report.rows import print_table
    from ladder_search.reproduction.reproduction import FOLDER, Race, folder_name, schedule
    from ladder_search.reproduction.table import table, table_json
    from ladder_search.studies import find_study

    studies = [find_study(name, root) for name in dict.fromkeys(names)]
    trained_on, folder = find_device(device), output or root / FOLDER
    console = Console()
    races = []
    for study in studies:  # check all before the first is trained
        length = schedule(study, epochs)
        dataset = datasets.load(study.data, notify=console.say)
        races.append(
            Race(
                study,
                dataset,
                root=root,
                folder=folder / folder_name(study, length, precision),
                seeds=seeds,
                contenders=contenders,
                epochs=length,
                device=trained_on,
                precision=precision,
            )
        )
    end = time.monotonic() + (time_budget or math.inf)
    with reporting(console) as reporter:
        for race in races:
            competing = ", ".join(contender.name for contender in race.reproduction.contenders)
            console.say(f"{race.study.name}: {competing}; up to {seeds} seeds each, kept in {race.folder}")
            race.run(
                lambda what, progress: reporter.epoch(progress, what),
                out_of_time=lambda: time.monotonic() > end,
                source_report=reporter.source_epoch,
            )
    rows = table([race.reproduction for race in races])
    text = json.dumps(table_json(rows), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    try:
        write_atomically(folder / TABLE, text.encode())
    except OSError as error:
        raise unwritable(folder, error) from error
    print_table(console, rows, [race.reproduction for race in races], root=root)
    console.say(f"kept in {folder}")
