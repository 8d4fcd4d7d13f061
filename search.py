"""Search one study's hyper-parameters: ``python search.py digits-100``. ``ray submit`` ships this one file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ladder_search.commands.command_line import run_command
from ladder_search.commands.reproduce import check_confirmable, reproduce
from ladder_search.commands.search import parse_arguments
from ladder_search.console import Console

if TYPE_CHECKING:
    from ladder_search.driver.search import SearchResult
    from ladder_search.driver.settings import SearchSettings


def run(settings: SearchSettings, console: Console) -> SearchResult:
    """Run a search with the checkout's trainable and spaces; also called by ``ladder_search.search``."""
    # Ray and torch: seconds that --help and a wrong option do without.
    from ladder_search.driver.search import run_search
    from spaces import find_space
    from trainables import PackTrainable

    return run_search(settings, trainable=PackTrainable, find_space=find_space, console=console)


def main() -> int:
    """Parse, run, print; returns the exit code."""
    settings = parse_arguments(sys.argv[1:])
    from ladder_search.driver.next_steps import next_steps
    from ladder_search.report.leaderboard import print_leaderboard

    if settings.confirm:
        check_confirmable(settings)
    console = Console()
    result = run(settings, console)
    print_leaderboard(console, result.study, result.records)
    for line in next_steps(result):
        console.say(line)
    if settings.confirm and not result.unfinished and not result.all_failed:
        root = result.folder.path.parent
        reproduce([result.study.name], seeds=settings.confirm, epochs=settings.epochs, root=root)
    return 1 if result.interrupted or result.all_failed else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
