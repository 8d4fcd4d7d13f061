"""The console script ``ladder-search``."""

from __future__ import annotations

import argparse
import importlib
import sys

from ladder_search.commands.command_line import Parser, add_plugins, run_command
from ladder_search.paths import check_working_directory
from ladder_search.plugins import use

COMMANDS = {
    "new": "Look at data of your own and write a study file for them.",
    "predict": "Classify raw rows of a file by a bundle.",
    "studies": "List the studies: targets, state of their data, results so far.",
    "search": "Search a study's hyper-parameters; the same as `python search.py`.",
    "export": "Write the best configurations of a search as bundles.",
    "train": "Train a configuration on fresh seeds and measure its test error.",
    "analyse": "Analyse a bundle's network: columns, video frames, music or groups.",
    "reproduce": "Compare published and found configurations on fresh seeds.",
    "replay": "Train a recorded trial again and compare it with its record.",
    "compare": "Compare learning curves of several studies on fresh seeds.",
    "ordering": "Test what a paper's table claims about its rows, on fresh seeds.",
    "report": "Write searches and reproductions as Markdown and HTML.",
    "ui": "Serve the MLflow pages of a store on this machine.",
    "sync": "Upload recorded results that the tracking store does not have yet.",
    "doctor": "Report what works on this machine, what does not, and what to do.",
}
"""Help text by command; the module of the same name in ``commands`` is imported when it is called."""


WITHOUT_FAMILIES = ("search", "ui", "sync")
"""Commands without the option ``--plugin``, or with their own."""


def main() -> None:
    sys.exit(run_command(_main))


def _main() -> int | None:
    name, *words = sys.argv[1:] or [""]
    if name not in COMMANDS:
        _list().parse_args(sys.argv[1:])  # prints the help or an error
    command = importlib.import_module(f"ladder_search.commands.{name}")
    parser = Parser(name, COMMANDS[name])
    command.add_arguments(parser)
    if name not in WITHOUT_FAMILIES:
        add_plugins(parser)
    arguments = parser.parse_args(words)
    check_working_directory()
    if name not in WITHOUT_FAMILIES:
        for path in arguments.plugin:
            use(path)
    code: int | None = command.run(arguments)
    return code


def _list() -> Parser:
    commands = "\n".join(f"  {name:<9}  {text}" for name, text in COMMANDS.items())
    parser = Parser(
        "",
        "Find, track and confirm hyper-parameters of ladder networks.",
        usage="ladder-search COMMAND [options]",
        epilog=f"commands:\n{commands}\n\n`ladder-search COMMAND --help` lists the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
