"""``search.py`` as the fault trials start it: the same search, whose trials tell of every epoch that they train.

The environment says what is unusual:

* ``WATCHED_EPOCHS``: file that gets a line ``key epoch pid`` for each trained epoch, of the process that trains it;
* ``WATCHED_TRIALS``: file that gets a line ``key pid torch`` whenever a trial's own process begins a stretch, the last
  word 1 if it has PyTorch in it and else 0;
* ``WATCHED_FAKE_GPU``: trials train on the CPU whatever Ray gives them, for clusters that pretend to have GPUs;
* ``WATCHED_SAVED``: epochs between two checkpoints of a trial;
* ``WATCHED_CLOCK``: seconds between two steps of the wall clock, by an hour back and forth, in every process;
* ``WATCHED_GREEDY``: number, among the sampler's suggestions, of one whose network no memory can hold.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import optuna
import ray

from ladder_search.commands.command_line import run_command
from ladder_search.commands.search import parse_arguments
from ladder_search.console import Console
from ladder_search.driver import run
from ladder_search.driver.search import run_search
from ladder_search.report.leaderboard import print_leaderboard
from spaces import find_space
from tests.e2e.stepping_clock import CLOCK
from tests.e2e.watched_trials import Watched

LADDER = find_space("ladder")


class Greedy:
    """The ladder's space with one suggestion that requests more memory than addresses can count."""

    published = staticmethod(LADDER.published)
    first = staticmethod(LADDER.first)

    @staticmethod
    def suggest(trial: optuna.trial.BaseTrial, base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        if ray.is_initialized():  # whose start is not the matter here
            CLOCK.start()
        settings = LADDER.suggest(trial, base, options)
        if trial.number == int(os.environ.get("WATCHED_GREEDY", -1)):
            settings["model"]["widths"] = [64, 10**13, 10]
        return settings


def main() -> int:
    console = Console()
    settings = parse_arguments(sys.argv[1:])
    if "WATCHED_SAVED" in os.environ:
        run.UPDATES_AT_STAKE = 10 * int(os.environ["WATCHED_SAVED"])
    result = run_search(settings, trainable=Watched, find_space=lambda name: Greedy, console=console)
    print_leaderboard(console, result.study, result.records)
    for problem in result.problems:
        console.say(f"note: {problem}")
    return 1 if result.interrupted or result.all_failed else 0


if __name__ == "__main__":
    # Under its own name, so that Ray's workers find the classes again, and the clock with them.
    from tests.e2e import watched_search

    sys.exit(run_command(watched_search.main))
