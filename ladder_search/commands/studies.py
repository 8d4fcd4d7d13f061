"""``ladder-search studies``: every study with its target, the state of its data, and existing results."""

from __future__ import annotations

import argparse

from ladder_search.commands.command_line import add_root, place
from ladder_search.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "studies or study files to list (default: the table and the studies that were searched in the root folder)"
    parser.add_argument("study", nargs="*", type=place, help=text)
    add_root(parser)


def run(arguments: argparse.Namespace) -> None:
    from ladder_search.report.studies import print_studies
    from ladder_search.studies import find_study

    names = dict.fromkeys(arguments.study)
    print_studies(Console(), arguments.root, [find_study(name, arguments.root) for name in names])
