"""``ladder-search studies``: every study with its target, the state of its data, and what was done with it here."""

from __future__ import annotations

import argparse

from ladder_search.commands.command_line import add_root
from ladder_search.console import Console

add_arguments = add_root


def run(arguments: argparse.Namespace) -> None:
    from ladder_search.report.studies import print_studies

    print_studies(Console(), arguments.root)
