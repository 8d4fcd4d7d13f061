"""The table of LadderClassifier beside scikit-learn's classifiers is made from the kept results."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_has_the_table_of_the_kept_results() -> None:
    table = runpy.run_path(str(ROOT / "reproductions" / "own_data.py"))["table"]
    kept = (ROOT / "reproductions" / "results" / "own-data.jsonl").read_text(encoding="utf-8")
    lines = table([json.loads(line) for line in kept.splitlines()]).markdown()
    assert "\n".join(lines).strip() in (ROOT / "reproductions" / "README.md").read_text(encoding="utf-8")
