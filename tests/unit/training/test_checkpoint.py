"""Members on disk: the same bits come back, and what is damaged is refused with a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ladder_search.data.splits import make_split
from ladder_search.errors import CheckpointError
from ladder_search.models.ladder import Ladder, LadderConfig
from ladder_search.training.pack import MemberSpec, Pack, TrainingData
from ladder_search.training.settings import TrainingConfig

checkpoint = pytest.importorskip("ladder_search.training.checkpoint", exc_type=ImportError)

SETTINGS = {"family": "ladder", "model": {"widths": [64, 12, 10]}, "seed": 7}


@pytest.fixture
def spec(data: TrainingData) -> MemberSpec:
    split = make_split(data.y.numpy(), n_labelled=40, n_validation=297, n_classes=10, seed=2)
    model = LadderConfig(widths=(64, 12, 10), noise_std=(0.3,) * 3, lambda_=(10.0, 1.0, 0.1))
    return MemberSpec(model=model, training=TrainingConfig(epochs=2, labelled_batch=20), split=split, seed=7)


@pytest.fixture
def new_pack(spec: MemberSpec, data: TrainingData) -> Callable[[int], Pack]:
    return lambda slots: Pack(spec, Ladder, data, slots=slots)


def test_a_resumed_member_goes_on_as_if_nothing_had_happened(spec: MemberSpec, new_pack: Any, tmp_path: Path) -> None:
    whole = new_pack(1)
    whole.join(spec)
    whole.run(14)

    first = new_pack(1)
    first.join(spec)
    first.run(6)
    kept = first.state(0)
    checkpoint.write_member(tmp_path, kept, SETTINGS)
    state, settings = checkpoint.read_member(tmp_path)
    assert settings == SETTINGS and state.step == 6
    for group in ("params", "first", "second"):
        before, after = getattr(kept, group), getattr(state, group)
        assert before.keys() == after.keys()
        assert all(
            torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before
        )

    second = new_pack(1)
    second.join(spec, state=state)
    second.run(8)
    assert second.state(0).step == 14
    for group in ("params", "first", "second"):
        expected, found = getattr(whole.state(0), group), getattr(second.state(0), group)
        assert all(torch.equal(expected[name], found[name]) for name in expected)  # one size of pack: the same bits


def test_a_digest_tells_members_apart_and_reads_no_tensor(spec: MemberSpec, new_pack: Any, tmp_path: Path) -> None:
    pack = new_pack(1)
    pack.join(spec)
    state = pack.state(0)
    trained = replace(state, params={name: value + 1e-7 for name, value in state.params.items()})
    digests = set()
    # The same tensors at another step are another state: learning rates and batches go by the step.
    for name, one in {"a": state, "same": state, "later": replace(state, step=1), "trained": trained}.items():
        checkpoint.write_member(tmp_path / name, one, SETTINGS)
        (tmp_path / name / checkpoint.TENSORS).unlink()
        digests.add(checkpoint.member_digest(tmp_path / name))
    assert len(digests) == 3
    with pytest.raises(CheckpointError, match=r"with a readable member\.json"):
        checkpoint.member_digest(tmp_path / "nowhere")


@pytest.fixture
def folder(spec: MemberSpec, new_pack: Any, tmp_path: Path) -> Path:
    pack = new_pack(1)
    pack.join(spec)
    checkpoint.write_member(tmp_path, pack.state(0), SETTINGS)
    return tmp_path


def _rewrite(folder: Path, **changes: Any) -> None:
    path = folder / checkpoint.DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _truncate(folder: Path) -> None:
    path = folder / checkpoint.TENSORS
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (
            lambda f: (f / checkpoint.TENSORS).unlink(),
            r"with a readable member\.json and tensors\.safetensors, found: .*tensors\.safetensors",
        ),
        (lambda f: (f / checkpoint.DESCRIPTION).unlink(), r"found: .*member\.json"),
        (lambda f: (f / checkpoint.DESCRIPTION).write_text('{"format": '), "found: .*column"),
        (
            lambda f: (f / checkpoint.DESCRIPTION).write_text("[]"),
            "its format must be 'ladder-search member 1'",
        ),
        (lambda f: _rewrite(f, format="ladder-search member 0"), "its format must be 'ladder-search member 1'"),
        (lambda f: _rewrite(f, step=None), "the step None, which must be a whole number"),
        (lambda f: _rewrite(f, settings=3), "the settings 3, which must be a mapping"),
        (_truncate, "tensors with sha256 [0-9a-f]{64} instead of [0-9a-f]{64};"),
    ],
    ids=["no tensors", "no description", "cut short", "no mapping", "old format", "no step", "no settings", "tampered"],
)
def test_a_damaged_checkpoint_is_refused(damage: Callable[[Path], object], says: str, folder: Path) -> None:
    damage(folder)
    with pytest.raises(CheckpointError, match=says) as caught:
        checkpoint.read_member(folder)
    message = str(caught.value)
    assert message.endswith("delete this checkpoint and use an older one, or train again.") and "\n" not in message


def test_the_description_comes_last(spec: MemberSpec, new_pack: Any, tmp_path: Path) -> None:
    # What stops the writing of the tensors must leave no description: a folder with one is whole.
    pack = new_pack(1)
    pack.join(spec)
    (tmp_path / checkpoint.TENSORS).mkdir()
    with pytest.raises(OSError):
        checkpoint.write_member(tmp_path, pack.state(0), SETTINGS)
    assert not (tmp_path / checkpoint.DESCRIPTION).exists()
