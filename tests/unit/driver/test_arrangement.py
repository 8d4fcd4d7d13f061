"""``--slots auto``: which size of the packs is chosen, and that the probe is done once per device and program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from ladder_search.data import datasets
from ladder_search.driver import arrangement
from ladder_search.driver.arrangement import START_SECONDS, bounded, choose
from ladder_search.studies import STUDIES
from ladder_search.training import probing
from ladder_search.training.probing import Probed, probe
from ladder_search.trial import TrialSpec


@pytest.fixture
def spec() -> TrialSpec:
    return STUDIES["digits-100"].trial()  # 1,000 steps


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LADDER_SEARCH_CACHE", str(tmp_path))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    return tmp_path


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Size of the pack -> milliseconds of a member's step, instead of a probe."""
    table = {1: 4.0, 2: 2.5, 4: 2.0, 8: 1.8}

    def fake(make: Any, member: Any, sizes: Sequence[int], device: torch.device) -> list[Probed]:
        return [Probed(slots=size, member_step_ms=table[size], member_bytes=0) for size in sizes]

    monkeypatch.setattr(arrangement, "probe", fake)
    return table


def _choose(spec: TrialSpec, trials: int, *, compiled: bool = False, cpus: float = 1.0, programs: int = 1) -> int:
    dataset = datasets.load("digits")
    how: dict[str, Any] = {"cpus": cpus, "gpus": 0.0, "private": True}
    return choose(spec, dataset, trials=trials, programs=programs, compiled=compiled, **how).slots


def test_a_long_search_takes_the_cheapest_steps(spec: TrialSpec, costs: dict[int, float]) -> None:
    # On two cores each size saves, of 1000 trials, 1000 x 1000 x 0.2 ms / 2 = 100 s against the next smaller one.
    assert _choose(spec, 1000) == 8


def test_processes_have_to_earn_their_start(spec: TrialSpec, costs: dict[int, float]) -> None:
    # From 4 to 8 saves 80 x 1000 x 0.2 ms / 2 = 8 s, and costs 2 x 4 more processes of 2.5 s on two cores: 10 s.
    assert START_SECONDS == 2.5
    assert _choose(spec, 80) == 4


def test_a_quarter_of_the_trials_at_most_runs_side_by_side(spec: TrialSpec, costs: dict[int, float]) -> None:
    costs |= {2: 1.0, 4: 0.1}
    assert _choose(spec, 31) == 2  # 31 // (4 x 2 cores) = 3
    assert _choose(spec, 7) == 1
    assert _choose(spec, 80, programs=3) == 2  # 80 // (4 x 2 cores x 3 kinds of packs) = 3


def test_the_reason_for_one_trial_at_a_time_is_the_true_one(spec: TrialSpec, costs: dict[int, float]) -> None:
    dataset = datasets.load("digits")

    def why(trials: int, gpus: float, compiled: bool = False) -> str:
        how: dict[str, Any] = {"programs": 1, "cpus": 1.0, "private": True}
        return choose(spec, dataset, trials=trials, gpus=gpus, compiled=compiled, **how).why

    assert why(1000, gpus=2) == "one trial at a time: a pack trains on one GPU and a trial has 2"
    assert why(3, gpus=0) == "one trial at a time: 3 trials are too few to share packs"
    assert why(1000, gpus=0, compiled=True) == "one trial at a time: compiled steps of a CPU share nothing"


@pytest.mark.parametrize(
    ("slots", "trials", "gpus", "size"),
    [(64, 2, 0.0, 2), (64, 2, 1.0, 2), (4, 9, 0.0, 4), (4, 0, 0.0, 1), (4, 2, 4.0, 4)],
)
def test_a_pack_has_no_more_slots_than_there_are_trials(slots: int, trials: int, gpus: float, size: int) -> None:
    assert bounded(slots, trials=trials, gpus=gpus) == size


def test_where_packs_gain_nothing_trials_stay_alone(spec: TrialSpec, costs: dict[int, float]) -> None:
    costs |= {2: 4.0, 4: 4.0, 8: 4.0}
    assert _choose(spec, 1000) == 1


def test_compiled_steps_share_nothing_and_are_not_probed(spec: TrialSpec, costs: dict[int, float], cache: Path) -> None:
    assert _choose(spec, 1000, compiled=True) == 1
    assert not (cache / "slots.json").exists()


def test_a_probe_is_done_once_for_a_device_and_a_program(
    spec: TrialSpec, costs: dict[int, float], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _choose(spec, 1000)
    (record,) = json.loads((cache / "slots.json").read_text()).values()
    assert record["tried"] == 8 and record["probed"][0] == {"slots": 1, "member_step_ms": 4.0, "member_bytes": 0}

    def never(*arguments: Any) -> list[Probed]:
        raise AssertionError("it is known already")

    monkeypatch.setattr(arrangement, "probe", never)
    assert _choose(spec, 1000) == first
    with pytest.raises(AssertionError, match="known already"):
        _choose(replace(spec, draws=2), 1000)  # another program


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"a": 1}',
        '{"a": {"tried": "x", "probed": []}}',
        '{"a": {"tried": 9}}',
        '{"a": {"device": "d", "signature": "s", "tried": true, "probed": []}}',
        '{"a": {"device": "d", "signature": "s", "tried": 8, "probed": [{"slots": "1", "member_step_ms": "fast"}]}}',
    ],
)
def test_a_damaged_record_is_no_record(spec: TrialSpec, costs: dict[int, float], cache: Path, content: str) -> None:
    (cache / "slots.json").write_text(content)
    assert _choose(spec, 1000) == 8
    assert len(json.loads((cache / "slots.json").read_text())) == 1


def test_a_cache_that_cannot_be_written_costs_nothing_but_the_next_probe(
    spec: TrialSpec, costs: dict[int, float], cache: Path
) -> None:
    (cache / "slots.json").mkdir()
    assert _choose(spec, 1000) == 8


def test_a_cluster_that_has_still_to_grow_is_not_probed(
    spec: TrialSpec, costs: dict[int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrangement, "_elsewhere", lambda look, cpus, gpus: [])
    dataset = datasets.load("digits")
    for gpus, trials, expected in ((1.0, 256, 16), (1.0, 40, 4), (0.0, 256, 1)):
        found = choose(spec, dataset, trials=trials, programs=1, compiled=False, cpus=1.0, gpus=gpus, private=False)
        assert (found.slots, found.why) == (expected, "no node was free for a probe")


def test_a_probe_takes_real_steps_and_stops_where_nothing_is_gained(spec: TrialSpec) -> None:
    dataset, device = datasets.load("digits"), torch.device("cpu")
    made: list[int] = []

    def make(slots: int) -> Any:
        made.append(slots)
        if slots == 4:
            raise MemoryError("Unable to allocate 8 GiB")
        return spec.pack(dataset, slots=slots, compiled=False, device=device)

    found = probe(make, spec.member(dataset), (1, 2, 4, 8), device)
    assert made == [1, 2, 4]  # 4 has no room, so 8 is not tried
    assert [one.slots for one in found] == [1, 2]
    assert all(0.05 < one.member_step_ms < 1000 for one in found)
    with pytest.raises(MemoryError):
        probe(lambda slots: make(4), spec.member(dataset), (1, 2), device)


def _costs(monkeypatch: pytest.MonkeyPatch, table: dict[int, float]) -> list[int]:
    """Sizes that are tried when a member's step costs so many milliseconds."""

    def one(make: Any, member: Any, trials: int, device: torch.device) -> Probed:
        return Probed(slots=trials, member_step_ms=table[trials], member_bytes=0)

    monkeypatch.setattr(probing, "_probe_one", one)
    nothing: Any = None
    return [found.slots for found in probe(nothing, nothing, tuple(table), torch.device("cpu"))]


def test_one_size_that_gains_nothing_does_not_end_a_probe_and_two_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _costs(monkeypatch, {1: 8.0, 2: 8.2, 4: 6.0, 8: 5.3}) == [1, 2, 4, 8]
    assert _costs(monkeypatch, {1: 8.0, 2: 8.2, 4: 7.9, 8: 5.3}) == [1, 2, 4]


def test_another_error_than_lack_of_memory_is_not_taken_for_it() -> None:
    dataset, device = datasets.load("digits"), torch.device("cpu")
    spec = STUDIES["digits-100"].trial()

    def make(slots: int) -> Any:
        if slots == 2:
            raise RuntimeError("an illegal memory access was encountered")
        return spec.pack(dataset, slots=slots, compiled=False, device=device)

    with pytest.raises(RuntimeError, match="illegal"):
        probe(make, spec.member(dataset), (1, 2), device)
