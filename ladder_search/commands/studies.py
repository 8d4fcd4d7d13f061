"""``ladder-search studies``: every study with its target, the state of its data, and existing results."""

from __future__ import annotations

import argparse

from ladder_search.commands.command_line import add_root
from ladder_search.console import Console

add_arguments = add_root


def run(arguments: argparse.Namespace) -> None:
    from ladder_search.report.studies import print_studies

    print_studies(Console(), arguments.root)
