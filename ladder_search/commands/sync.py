"""``ladder-search sync``: uploads recorded results that the tracking store does not have yet."""

from __future__ import annotations

import argparse
import sys

from ladder_search.commands.command_line import add_root, address, place
from ladder_search.errors import LadderSearchError
from ladder_search.record.folder import StudyFolder, absolute_place, find_folder
from ladder_search.tracking import writer
from ladder_search.tracking.address import with_login


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", nargs="*", type=place, help="study folders or names (default: all in the root folder)")
    parser.add_argument("--tracking", type=address, metavar="URI", help="MLflow store (default: that of each search)")
    add_root(parser)


def run(arguments: argparse.Namespace) -> int:
    other = arguments.tracking and with_login(arguments.tracking)
    folders = [find_folder(arguments.root, name) for name in arguments.study]
    if not folders:
        folders = [StudyFolder(path.parent) for path in sorted(arguments.root.glob("*/study.json"))]
    failed = 0
    for folder in folders:
        try:
            description = folder.description()
            store = other or with_login(absolute_place(description["store"], folder.path.parent))
            report = writer.sync(folder.spool, store, description["settings"]["study"])
            failed += not report.complete
            print(f"{folder.path.name}: {report}")
        except LadderSearchError as error:
            failed += 1
            print(f"{folder.path.name}: {error}", file=sys.stderr)
    if not folders:
        print(f"nothing to send: there is no study folder in {arguments.root}")
    return 2 if failed else 0
