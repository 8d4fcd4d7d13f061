"""Do four nodes do four times the work of one: trials per second of whole searches, on nodes that share this machine.

Every trial sleeps for one second, so that only the driver's use of the nodes is measured, not the cores. A node has
room for one trial; the driver is on a head node without room. ``run_search`` runs as with ``search.py --address``. The
trials that start the nodes' processes are not counted.

    python -m benchmarks.emulated_cluster
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from ray.cluster_utils import Cluster

from benchmarks.measure import Option, Report, Row, benchmark, spread_cells
from benchmarks.search_overhead import EPOCHS, Trivial, ours, timed

NODES = (1, 4)
SECONDS = 1.0
WARM_UP = 2
"""Uncounted trials of each node."""


class Sleeping(Trivial):
    """Takes ``SECONDS`` from its start to its last report, without using a core."""

    def step(self) -> dict[str, Any]:
        time.sleep(SECONDS / len(EPOCHS))
        return super().step()


def search(nodes: int, trials: int, folder: Path) -> list[float]:
    """Search on a cluster of a head and nodes with a core each; return the end of each trial."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1)
        return ours(folder, trials, "random", Sleeping, scheduler="fifo", address=cluster.address)
    finally:
        cluster.shutdown()


@benchmark(
    "Do four nodes do four times the work of one?",
    Option("--rounds", "searches on each cluster", 3, 1),
    Option("--trials", "measured trials of each node", 20, 3),
    one_process=False,
)
def main(report: Report, options: argparse.Namespace) -> None:
    times: dict[int, list[tuple[float, float]]] = {nodes: [] for nodes in NODES}
    for _ in range(options.rounds):
        for nodes in NODES:
            times[nodes].append(timed(partial(search, nodes, nodes * (WARM_UP + options.trials)), nodes * WARM_UP))
    seconds = {nodes: [measured for measured, _ in of] for nodes, of in times.items()}
    rows: list[Row] = [
        {
            "nodes": nodes,
            "trials": nodes * options.trials,
            **spread_cells("seconds", seconds[nodes]),
            "trials per second": nodes * options.trials / median(seconds[nodes]),
            "cluster, start, warm-up and end, s": median(rest for _, rest in times[nodes]),
            "searches": options.rounds,
        }
        for nodes in NODES
    ]
    report.table(f"Trials of {SECONDS:g} s, one at a time on each node", rows)
    few, many = NODES
    ratios = [many / few * one / four for one, four in zip(seconds[few], seconds[many], strict=True)]
    report.note(
        f"{many} nodes did {median(ratios):.2f} times the work of {few} in the same time "
        f"(range {min(ratios):.2f} to {max(ratios):.2f}; aim: 3.5)."
    )


if __name__ == "__main__":
    if "RAY_AUTH_TOKEN" not in os.environ:  # Ray read its mode when it was imported; import it again with a password
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.emulated_cluster", *sys.argv[1:]])
    main()
