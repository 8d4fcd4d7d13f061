"""Members and suggestions come back as they went: bit for bit, and inside the space."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import optuna
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder_search.config import as_mapping
from ladder_search.models import find_family
from ladder_search.studies import STUDIES
from ladder_search.training.checkpoint import read_member, write_member
from ladder_search.training.pack import MemberState
from ladder_search.trial import TrialSpec
from spaces import find_space

TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    found = {}
    for name in draw(st.lists(st.from_regex(r"[a-zA-Z_.0-9]{1,8}", fullmatch=True), max_size=3, unique=True)):
        kind = draw(st.sampled_from(TYPES))
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        count = int(torch.tensor(shape).prod()) * kind.itemsize
        raw = bytearray(draw(st.binary(min_size=count, max_size=count)))
        if kind is torch.bool:
            raw = bytearray(byte & 1 for byte in raw)
        found[name] = torch.frombuffer(raw, dtype=kind).reshape(shape) if raw else torch.empty(shape, dtype=kind)
    return found


def as_bytes(group: dict[str, torch.Tensor]) -> dict[str, tuple[Any, ...]]:
    return {n: (v.dtype, tuple(v.shape), v.contiguous().flatten().view(torch.uint8).tolist()) for n, v in group.items()}


@settings(max_examples=40)
@given(st.integers(0, 2**62), tensors(), tensors(), tensors())
def test_a_member_comes_back_bit_for_bit(step: int, params: Any, first: Any, second: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_member(Path(folder), MemberState(step=step, params=params, first=first, second=second), {"seed": 7})
        found, told = read_member(Path(folder))
    assert (found.step, told) == (step, {"seed": 7})
    for group, given_ in (("params", params), ("first", first), ("second", second)):
        assert as_bytes(getattr(found, group)) == as_bytes(given_)


@settings(max_examples=60)
@given(st.sampled_from(sorted(STUDIES)), st.integers(0, 2**32 - 1))
def test_what_a_space_suggests_is_a_trial_and_comes_back(name: str, seed: int) -> None:
    study = STUDIES[name]
    base, options = study.trial().for_space(), as_mapping(study.space)
    space = find_space(find_family(study.family).space)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    spec = study.trial().suggested(space.suggest(trial, base, options))
    assert TrialSpec.from_mapping(spec.as_mapping()) == spec
    again = optuna.trial.FixedTrial(dict(trial.params))
    assert study.trial().suggested(space.suggest(again, base, options)) == spec
    published = space.published(base, options)
    for parameter, value in (published or {}).items():
        distribution = trial.distributions.get(parameter)
        assert distribution is None or distribution._contains(distribution.to_internal_repr(value))
