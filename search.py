"""Search one study's hyper-parameters: ``python search.py digits-100``. ``ray submit`` ships this one file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ladder_search.driver.settings import parse_arguments
from ladder_search.errors import run_command

if TYPE_CHECKING:
    from ladder_search.driver.search import SearchResult


def main() -> int:
    """Parse, wire, run, print; returns the exit code."""
    settings = parse_arguments(sys.argv[1:])
    # Ray and torch: seconds that --help and a wrong option do without.
    from ladder_search.driver.leaderboard import print_leaderboard
    from ladder_search.driver.search import run_search
    from spaces import SPACES
    from trainables import TRAINABLES

    console = Console()
    result = run_search(settings, trainables=TRAINABLES, spaces=SPACES, console=console)
    print_leaderboard(console, result.study, result.records)
    print_next_steps(console, result, settings.root)
    return 1 if result.interrupted or result.all_failed else 0


def print_next_steps(console: Console, result: SearchResult, root: str) -> None:
    """Say where everything is and what to type next."""
    name = result.folder.path.name
    where = "" if root == "results" else f" --root {Path(root)}"
    lines = [f"Study folder    {result.folder.path}", f"Tracking store  {result.store}", ""]
    if not result.stored:
        lines.append(f"send the rest   ladder-search sync {name}{where}   (the store has not got everything yet)")
    if result.unfinished:
        lines.append(f"go on with it   python search.py --resume --name {name}{where}")
    lines += [
        f"look at it      ladder-search ui{where}",
        f"keep the best   ladder-search export {name} --top 3 -o configs/{where}",
        "train it        ladder-search train configs/01-… --seeds 10   (all training data, test "
        f"{result.study.measure.title})",
    ]
    lines += [f"note: {problem}" for problem in result.problems[:5]]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(run_command(main))
