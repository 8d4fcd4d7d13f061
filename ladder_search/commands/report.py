"""``ladder-search report``: searches and reproductions as Markdown and HTML, with their pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from ladder_search.commands.command_line import add_output, add_root, place
from ladder_search.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "searches, reproductions, or studies and their files: the latest (default: all in the root folder)"
    parser.add_argument("name", nargs="*", type=place, help=text)
    add_output(parser, "folder of the report", Path("report"))
    text = "write the table of all published rows, made from the kept results in FOLDER, to OUTPUT/rows.md instead"
    parser.add_argument("--rows", type=Path, metavar="FOLDER", help=text)
    add_root(parser)


def run(arguments: argparse.Namespace) -> None:
    from ladder_search.report.contents import find_contents
    from ladder_search.report.document import write_report

    console, root = Console(), arguments.root
    if arguments.rows is not None:
        from ladder_search.report.published_rows import write_rows

        console.say(f"{write_rows(arguments.rows, arguments.output)}")
        return
    searches, reproductions = find_contents(root, arguments.name, console.say)
    for path in write_report(arguments.output, searches, reproductions, root=root):
        console.say(f"{path}")
