"""``ladder-search reproduce``: the published configuration against the best found one, on fresh seeds."""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import get_args

from ladder_search.commands.command_line import add_output, add_training, number, place
from ladder_search.console import Console
from ladder_search.disk.files import write_atomically
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


def confirm(study: str, seeds: int, *, epochs: int | None, root: Path) -> None:
    """Reproduce a study that was just searched, on a core: its own configuration and the three best of the search."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    length = [] if epochs is None else ["--epochs", str(epochs)]
    run(parser.parse_args([study, "--seeds", str(seeds), "--root", str(root), *length]))


def run(arguments: argparse.Namespace) -> None:
    from ladder_search.commands.training import find_device, reporting
    from ladder_search.data import datasets
    from ladder_search.disk.folders import unwritable
    from ladder_search.report.rows import print_table
    from ladder_search.reproduction.reproduction import FOLDER, Race, folder_name
    from ladder_search.reproduction.table import table, table_json
    from ladder_search.studies import find_study

    studies = [find_study(name, arguments.root) for name in dict.fromkeys(arguments.study)]
    device = find_device(arguments.device)
    output = arguments.output or arguments.root / FOLDER
    console = Console()
    races = []
    for study in studies:  # check all before the first is trained
        full = study.training.epochs
        epochs = full if arguments.epochs is None else arguments.epochs
        if epochs > full:
            raise SettingError(
                f"--epochs shortens a reproduction, {study.name} has {full} epochs, got {epochs}; give fewer or none."
            )
        dataset = datasets.load(study.data, notify=console.say)
        races.append(
            Race(
                study,
                dataset,
                root=arguments.root,
                folder=output / folder_name(study, epochs, arguments.precision),
                seeds=arguments.seeds,
                contenders=arguments.contenders,
                epochs=epochs,
                device=device,
                precision=arguments.precision,
            )
        )
    end = time.monotonic() + (arguments.time_budget or math.inf)
    with reporting(console) as reporter:
        for race in races:
            names = ", ".join(contender.name for contender in race.reproduction.contenders)
            console.say(f"{race.study.name}: {names}; up to {arguments.seeds} seeds each, kept in {race.folder}")
            race.run(
                lambda what, progress: reporter.epoch(progress, what),
                out_of_time=lambda: time.monotonic() > end,
                source_report=reporter.source_epoch,
            )
    rows = table([race.reproduction for race in races])
    text = json.dumps(table_json(rows), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    try:
        write_atomically(output / TABLE, text.encode())
    except OSError as error:
        raise unwritable(output, error) from error
    print_table(console, rows, [race.reproduction for race in races], root=arguments.root)
    console.say(f"kept in {output}")
