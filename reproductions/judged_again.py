"""Kept orderings by the rule of today: ``python reproductions/judged_again.py reproductions/results/*table-*.json``.

Such a file has what every study reached on every seed, so its verdicts are made of it and never written by hand. It
counts as the ordering's first table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ladder_search.ordering.claims import find_ordering
from ladder_search.ordering.judging import JudgedOrdering, Reached, judged
from ladder_search.report.orderings import rule, sentences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="what `ladder-search ordering` kept; written anew")
    for path in parser.parse_args().files:
        found = judged_again(json.loads(path.read_text(encoding="utf-8")))
        text = json.dumps(found.as_json(), indent=1, allow_nan=False, ensure_ascii=False)
        path.write_text(f"{text}\n", encoding="utf-8")
        print(path, *rule(found), *sentences(found), sep="\n")


def judged_again(kept: dict[str, Any]) -> JudgedOrdering:
    """Return the ordering that a file was made of."""
    reached = [
        Reached(
            study=study,
            values={int(seed): float(value) for seed, value in own["values"].items()},
            diverged=tuple(own["diverged"]),
            devices=tuple(own["devices"]),
        )
        for study, own in kept["studies"].items()
    ]
    return judged(find_ordering(kept["ordering"]), reached, epochs=kept["reduced_to_epochs"])


if __name__ == "__main__":
    main()
