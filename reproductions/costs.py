"""Floating-point operations of one training of every published row: ``python reproductions/costs.py``.

It writes ``results/costs.json``, from which the reproduction table estimates the cost of rows that were not run.
Studies whose data is not available on the machine keep their earlier entry, if any.
"""

from __future__ import annotations

import json
from pathlib import Path

from ladder_search.data import datasets
from ladder_search.data.dataset import PRESENT
from ladder_search.final.training import comparable
from ladder_search.report.published_rows import COSTS, read_costs
from ladder_search.studies import STUDIES, Study

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    flops = read_costs(RESULTS)
    for study in STUDIES.values():
        if study.target is not None and datasets.state(study.data.dataset) == PRESENT:
            flops[study.name] = operations(study)
    text = json.dumps({"flops": {name: flops[name] for name in STUDIES if name in flops}}, indent=1)
    (RESULTS / COSTS).write_text(f"{text}\n", encoding="utf-8")


def operations(study: Study) -> float:
    """Return the operations of the matrix products of one final training, to three digits."""
    member = comparable(study.trial()).member(datasets.load(study.data))
    return float(f"{member.flops * member.total_steps:.3g}")


if __name__ == "__main__":
    main()
