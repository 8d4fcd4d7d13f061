"""Search one study's hyper-parameters: ``python search.py digits-100``. ``ray submit`` ships this one file."""

from __future__ import annotations

import sys

from ladder_search.commands.command_line import run_command
from ladder_search.commands.search import parse_arguments
from ladder_search.console import Console


def main() -> int:
    """Parse, wire, run, print; returns the exit code."""
    settings = parse_arguments(sys.argv[1:])
    # Ray and torch: seconds that --help and a wrong option do without.
    from ladder_search.driver.next_steps import next_steps
    from ladder_search.driver.search import run_search
    from ladder_search.report.leaderboard import print_leaderboard
    from spaces import find_space
    from trainables import PackTrainable

    console = Console()
    result = run_search(settings, trainable=PackTrainable, find_space=find_space, console=console)
    print_leaderboard(console, result.study, result.records)
    for line in next_steps(result):
        console.say(line)
    return 1 if result.interrupted or result.all_failed else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
