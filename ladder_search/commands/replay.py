"""``ladder-search replay``: a recorded trial trained again, compared metric by metric."""

from __future__ import annotations

import argparse

from ladder_search.commands.command_line import add_device, add_root, number, place
from ladder_search.console import Console
from ladder_search.errors import SettingError, UnknownNameError

TOLERANCE = 0.05
"""Largest relative deviation of a metric that rounding explains; beyond it the exit code is 1."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("search", type=place, help="study folder, its name, or a study: its latest search")
    parser.add_argument("trial", help="key of the trial, such as t0007")
    text = "number of epochs to compare (default: all that were recorded)"
    parser.add_argument("--epochs", type=number(), metavar="N", help=text)
    add_device(parser)
    add_root(parser)


def run(arguments: argparse.Namespace) -> int:
    from ladder_search.commands.training import find_device
    from ladder_search.console.tables import Table
    from ladder_search.data import datasets
    from ladder_search.record.folder import find_folder, latest
    from ladder_search.reproduction.replay import replay
    from ladder_search.trial import TrialSpec

    folder = find_folder(arguments.root, arguments.search)
    description = folder.description()
    records = {record.key: record for record in folder.read_trials()}
    if arguments.trial not in records:
        raise UnknownNameError("trial", arguments.trial, records)
    if description["settings"].get("scheduler") == "pbt":
        raise SettingError(
            "a trial of population based training continues from the weights of others, which its record does not "
            f"have, got {arguments.trial} of {folder.path.name}; choose a search with another --scheduler."
        )
    device, console = find_device(arguments.device), Console()
    record = records[arguments.trial]
    dataset = datasets.load(TrialSpec.from_mapping(record.settings).data, notify=console.say)
    dataset.check_unchanged(description.get("provenance", {}).get("data_digest"), f"the search {folder.path.name}")
    found = replay(
        record,
        dataset,
        arrangement=latest(description).get("arrangement", {}),
        device=device,
        folder=folder.path,
        most_epochs=arguments.epochs,
        report=lambda epoch, epochs: console.update(f"epoch {epoch}/{epochs}") if console.redraws else None,
    )
    Table(
        header=("metric", "largest relative deviation", "epoch", "recorded", "replayed"),
        rows=[
            (
                one.metric,
                f"{one.relative:.2g}",
                str(one.epoch) if one.relative else "",
                f"{one.recorded:.9g}" if one.relative and one.recorded is not None else "",
                f"{one.replayed:.9g}" if one.relative and one.replayed is not None else "",
            )
            for one in found.deviations
        ],
        left=("metric",),
    ).print(console)
    name = f"{record.key} of {folder.path.name}: {found.epochs} epochs, {len(found.deviations)} metrics"
    largest = found.largest
    if found.equal:
        console.say(f"{name}, all equal to the bit.")
    else:
        console.say(f"{name}, the largest relative deviation is {largest.relative:.2g} ({largest.metric}).")
    return 0 if largest.relative <= TOLERANCE else 1
