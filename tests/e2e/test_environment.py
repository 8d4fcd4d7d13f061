"""A search among variables that would change what it does: the same numbers, and none of them in its processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import TINY, Ended, Running, Start
from tests.unit.test_environment import FIXED, HOSTILE

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_a_search_is_the_same_whatever_the_variables_say(finished: Ended, start: Start, tmp_path: Path) -> None:
    hostile = {**dict.fromkeys(FIXED, "7"), **HOSTILE}
    arguments = ("--trials", "6", "--epochs", "20", "--name", "first", *TINY)
    running = start("digits-100", *arguments, folder=tmp_path, **hostile)
    running.wait_for("t0000")
    seen = [json.loads(text) for text in {json.dumps(one) for one in _environments(running, tmp_path)}]
    ended = running.ended()

    assert ended.code == 0, str(ended)
    assert ended.left == []
    assert "note: ARROW_DEFAULT_MEMORY_POOL, ATEN_CPU_CAPABILITY, " in ended.out and "have no effect" in ended.out
    assert len(seen) >= 3  # Ray's servers, a trial, the writer
    # A title that Ray gives a process is written over the beginning of its environment, as far as others can see it.
    assert sum(one.items() >= FIXED.items() for one in seen) >= 2
    for one in seen:
        assert {name: one.get(name, FIXED[name]) for name in FIXED} == FIXED
        assert not (HOSTILE.keys() - {"MLFLOW_HTTP_REQUEST_TIMEOUT"}) & one.keys()
    for key in ("t0000", "t0001"):  # fixed configurations, which run to their end whatever the others do
        assert _curve(ended, key) == _curve(finished, key)


def _environments(running: Running, folder: Path) -> Iterator[dict[str, str]]:
    """Those of the processes that the search has started, its writer among them."""
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            session = int((place / "stat").read_text().rpartition(")")[2].split()[3])
            of_folder = str(folder).encode() in (place / "cmdline").read_bytes()
            if (session == running.process.pid and int(place.name) != session) or of_folder:
                pairs = (place / "environ").read_bytes().decode().split("\0")
                yield dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def _curve(ended: Ended, key: str) -> list[object]:
    record = json.loads((ended.study / "trials" / f"{key}.json").read_text())
    errors = [row["validation_error"] for row in record["epochs"]]
    assert len(errors) == 20
    return [record["params"], record["settings"], record["state"], errors]
