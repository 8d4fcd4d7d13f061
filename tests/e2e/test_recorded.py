"""A search that an earlier version wrote is resumed by this one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ladder_search.driver.ledger import Ledger
from ladder_search.record.folder import StudyFolder
from tests.assets.recorded import RECORDED

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_a_recorded_search_that_was_killed_is_resumed(start: Any, tmp_path: Path) -> None:
    study = tmp_path / "results" / "killed"
    shutil.copytree(RECORDED / "results" / "killed", study)
    before = dict(Ledger(study / "running")["t0000"].rows)
    assert 20 <= len(before) < 200
    ended = start("--resume", "--name", "killed", "--offline", folder=tmp_path).ended()
    assert ended.code == 0, ended
    records = StudyFolder(study).read_trials()
    assert [record.key for record in records] == ["t0000", "t0001", "t0002"]
    after = {row["epoch"]: row["validation_error"] for row in records[0].epochs}
    assert len(after) == 200
    assert {epoch: after[epoch] for epoch in before} == {n: row["validation_error"] for n, row in before.items()}
