"""Do four nodes do four times the work of one: trials per second of whole searches, on nodes that share this machine.

Every trial sleeps for one second, so that only the driver's use of the nodes is measured, not the cores. A node has
room for one trial; the driver is on a head node without room. ``run_search`` runs as with ``search.py --address``. The
trials that start the nodes' processes are not counted.

    python -m benchmarks.emulated_cluster
"""

from __future__ import annotations

import os
import secrets
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ray.cluster_utils import Cluster

from benchmarks import searches
from benchmarks.measure import Option, Row, Spread, benchmark, spread_cells
from benchmarks.search_overhead import EPOCHS, Trivial, ours

NODES = (1, 4)
SECONDS = 1.0
WARM_UP = 2
"""Uncounted trials of each node."""


class Sleeping(Trivial):
    """Takes ``SECONDS`` from its start to its last report, without using a core."""

    def step(self) -> dict[str, Any]:
        time.sleep(SECONDS / len(EPOCHS))
        return super().step()


@contextmanager
def emulated(nodes: int) -> Iterator[str]:
    """Start a cluster of a head and nodes with a core each; yield its address."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1)
        yield cluster.address
    finally:
        cluster.shutdown()


OPTIONS = (
    Option("--rounds", "searches on each cluster", 3, 1),
    Option("--trials", "measured trials of each node", 20, 3),
)


def main(arguments: Sequence[str] | None = None) -> None:
    question = "Do four nodes do four times the work of one?"
    with benchmark(question, __doc__, *OPTIONS, one_process=False, arguments=arguments) as (report, options):
        rounds, measured = options.rounds, options.trials
        times: dict[int, list[float]] = {nodes: [] for nodes in NODES}
        rest: dict[int, list[float]] = {nodes: [] for nodes in NODES}
        for _ in range(rounds):
            for nodes in NODES:
                with searches.prepared() as folder, emulated(nodes) as address:
                    start = time.perf_counter()
                    trials = nodes * (WARM_UP + measured)
                    ends = sorted(ours(folder, trials, "random", Sleeping, scheduler="fifo", address=address))
                    total = time.perf_counter() - start
                times[nodes].append(ends[-1] - ends[nodes * WARM_UP - 1])
                rest[nodes].append(total - times[nodes][-1])
        rows: list[Row] = [
            {
                "nodes": nodes,
                "trials": nodes * measured,
                **spread_cells("seconds", Spread.of(times[nodes])),
                "trials per second": nodes * measured / statistics.median(times[nodes]),
                "start, warm-up and end, s": statistics.median(rest[nodes]),
                "searches": rounds,
            }
            for nodes in NODES
        ]
        report.table(f"Trials of {SECONDS:g} s, one at a time on each node", rows)
        few, many = NODES
        ratios = [many / few * one / four for one, four in zip(times[few], times[many], strict=True)]
        report.note(
            f"{many} nodes did {statistics.median(ratios):.2f} times the work of {few} in the same time "
            f"(range {min(ratios):.2f} to {max(ratios):.2f}; aim: 3.5)."
        )


if __name__ == "__main__":
    if "RAY_AUTH_TOKEN" not in os.environ:  # Ray read its mode when it was imported; import it again with a password
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.emulated_cluster", *sys.argv[1:]])
    main()
