"""``ladder-search export``: the best configurations of a search as bundles."""

from __future__ import annotations

import argparse
from pathlib import Path

from ladder_search.commands.command_line import add_output, add_root, number, place
from ladder_search.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", type=place, help="study folder, its name, or a study or its file: its latest search")
    parser.add_argument("--top", type=number(), default=1, metavar="N", help="number of configurations")
    add_output(parser, "folder of the bundles", Path("configs"))
    add_root(parser)


def run(arguments: argparse.Namespace) -> None:
    from ladder_search.bundles.top import export_top
    from ladder_search.config import build
    from ladder_search.data import datasets
    from ladder_search.data.config import DataConfig
    from ladder_search.record.folder import find_folder
    from ladder_search.studies import study_of

    folder = find_folder(arguments.root, arguments.study)
    description = folder.description()
    for note in folder.offer_plugins(description):
        print(note)
    data = description.get("study", {}).get("data", {})  # including overridden settings
    dataset = datasets.load(build(DataConfig, data, where="data") if data else study_of(description["settings"]).data)
    console = Console()
    for path in export_top(folder, top=arguments.top, output=arguments.output, dataset=dataset):
        console.say(f"{path}")
