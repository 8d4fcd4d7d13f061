"""Mean Teacher around a ladder: the pull, the following weights, who is judged, and agreement of pack and solo."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from ladder_search.config import merge
from ladder_search.data import datasets
from ladder_search.errors import SettingError
from ladder_search.nn.mean_teacher import Taught, TeacherConfig
from ladder_search.nn.protocol import Batch
from ladder_search.training.pack import Pack
from ladder_search.trial import TrialSpec

BASE: dict[str, Any] = {
    "family": "ladder",
    "data": {"dataset": "digits", "labels": 40, "validation": 97},
    "model": {"widths": [64, 12, 10], "noise_std": [0.3] * 3, "lambda_": [0.0, 0.0, 1.0], "decoder": "gamma"},
    "training": {"epochs": 2, "labelled_batch": 10, "unlabelled_batch": 20, "dtype": "float64"},
    "teacher": {"weight": 20.0, "ramp": 0.5, "decay": 0.9, "decay_at_first": 0.6},
}


def spec_of(**changes: Any) -> TrialSpec:
    return TrialSpec.from_mapping(merge(BASE, changes))


def pack_of(spec: TrialSpec, slots: int = 1, *, compiled: bool = False) -> Pack:
    return spec.pack(datasets.load("digits"), slots=slots, compiled=compiled, device=torch.device("cpu"))


def taught(spec: TrialSpec) -> Taught:
    network = spec.empty_network().double()
    assert isinstance(network, Taught)
    return network


@pytest.mark.parametrize("kind", ["mse", "kl"])
@pytest.mark.parametrize(
    ("progress", "share"), [(0.0, math.exp(-5.0)), (0.25, math.exp(-1.25)), (0.5, 1.0), (0.9, 1.0)]
)
def test_the_pull_is_the_ramped_difference_of_what_both_say(kind: str, progress: float, share: float) -> None:
    spec = spec_of(teacher={"consistency": kind})
    network = taught(spec)
    with torch.no_grad():
        for value in network.teacher.parameters():
            value.add_(0.1 * torch.randn(value.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    x = torch.rand(30, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    batch = Batch(x[:10], torch.arange(10), x[10:])
    member = spec.member(datasets.load("digits"))
    hyper = {name: torch.tensor(value, dtype=torch.float64) for name, value in member.model.hyper().items()}
    hyper["progress"] = torch.tensor(progress, dtype=torch.float64)
    size = network.noise_size(10, 20)
    noise = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    total, terms = network.cost(batch, noise, hyper)

    own = 30 * (64 + 12 + 10)
    assert size == 2 * own
    student_total, _, logits = network.student.cost_with_logits(batch, noise[:own], hyper)  # type: ignore[operator]
    wanted = network.teacher.noisy_logits(x, noise[own:], hyper).detach().numpy()  # type: ignore[operator]
    mine, theirs = (np.exp(v - np.log(np.exp(v).sum(1, keepdims=True))) for v in (logits.detach().numpy(), wanted))
    difference = np.mean((mine - theirs) ** 2) if kind == "mse" else np.mean((theirs * np.log(theirs / mine)).sum(1))
    assert terms[-1].item() == pytest.approx(20.0 * share * difference, rel=1e-12)
    assert total.item() == pytest.approx(student_total.item() + terms[-1].item(), rel=1e-12)
    assert terms[0] == total and len(terms) == len(network.term_names)
    total.backward()
    assert all(value.grad is None for value in network.teacher.parameters())
    assert all(value.grad is not None for value in network.student.parameters())


def test_the_noisy_logits_are_those_of_the_corrupted_path() -> None:
    network = taught(spec_of())
    student: Any = network.student
    x = torch.rand(20, 64, dtype=torch.float64)
    hyper = {"noise_std": torch.tensor([0.3, 0.2, 0.1], dtype=torch.float64), "lambda_": torch.zeros(3).double()}
    noise = torch.randn(20 * 86, dtype=torch.float64)
    found = student.noisy_logits(x, noise, hyper)
    # The labelled rows of a cost are corrupted and normalised by themselves, too.
    rows = Batch(x, torch.zeros(20, dtype=torch.int64), x)
    draws = [part.view(20, -1) for part in torch.split(noise, [20 * 64, 20 * 12, 20 * 10])]
    both = torch.cat([torch.cat([part, part]).flatten() for part in draws])
    logits = student.cost_with_logits(rows, both, hyper)[2]
    torch.testing.assert_close(found, logits[:20], rtol=1e-12, atol=1e-12)


def test_the_teacher_follows_and_is_moved_by_nothing_else() -> None:
    spec = spec_of()
    pack = pack_of(spec)
    pack.join(spec.member(datasets.load("digits")))
    expected: dict[str, torch.Tensor] = {}
    steps = pack_steps = 120  # of 2 epochs of 60
    for step in range(pack_steps):
        before = pack.state(0).params
        pack.run(1)
        after = pack.state(0).params
        decay = 0.6 if step / steps < 0.5 else 0.9
        for name in (name for name in before if name.startswith("teacher.")):
            student = after[name.replace("teacher.", "student.")]
            expected[name] = decay * before[name] + (1 - decay) * student
            torch.testing.assert_close(after[name], expected[name], rtol=1e-12, atol=1e-14)
    state = pack.state(0)
    assert not any(value.any() for name, value in state.first.items() if name.startswith("teacher."))
    assert any((state.params[n] != state.params[n.replace("teacher.", "student.")]).any() for n in expected)


def test_the_teacher_is_judged_and_exported_and_the_student_reported() -> None:
    spec, dataset = spec_of(), datasets.load("digits")
    pack = pack_of(spec)
    pack.join(spec.member(dataset))
    pack.run(60)
    scores, module = pack.validation_scores()[0], pack.module(0)
    assert list(scores) == ["error", "student_error"] and isinstance(module, Taught)
    rows = spec.member(dataset).split.validation
    x, y = torch.from_numpy(dataset.train_x[rows]).double() / 16.0, torch.from_numpy(dataset.train_y[rows].astype(int))
    for name, network in (("error", module), ("error", module.teacher), ("student_error", module.student)):
        assert scores[name] == pytest.approx((network(x).argmax(1) != y).double().mean().item())
    assert scores["error"] < 0.8  # chance is 0.9


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_member_of_a_pack_agrees_with_itself_alone(compiled: bool) -> None:
    dataset, specs = datasets.load("digits"), [spec_of(seed=seed, teacher={"weight": 10.0 * seed}) for seed in (1, 2)]
    together = pack_of(specs[0], 3, compiled=compiled)
    slots = [together.join(spec.member(dataset)) for spec in specs]
    found, errors = together.run(8), together.validation_scores()
    for spec, slot in zip(specs, slots, strict=True):
        # Compiled like the pack: noise is drawn in float32, and an eager program rounds its cosines otherwise.
        alone = pack_of(spec, compiled=compiled)
        alone.join(spec.member(dataset))
        assert alone.run(8)[0].terms == pytest.approx(found[slot].terms, rel=1e-9)
        assert alone.validation_scores()[0] == errors[slot]


def test_what_cannot_be_taught_is_refused() -> None:
    with pytest.raises(SettingError, match=r"a teacher needs a network that classifies.*set teacher\.weight=0, or for"):
        spec_of(model={"decoder": "none", "lambda_": [0.0] * 3})
    for name, value in (("weight", -1.0), ("decay", 1.5), ("decay_at_first", -0.1), ("ramp", 2.0)):
        with pytest.raises(SettingError, match=f"teacher.{name}"):
            TeacherConfig(**{name: value})


def test_a_trial_tells_of_its_teacher_if_it_has_one() -> None:
    spec = spec_of()
    assert TrialSpec.from_mapping(spec.as_mapping()) == spec and spec.as_mapping()["teacher"]["decay"] == 0.9
    assert "teacher" not in TrialSpec.from_mapping({**BASE, "teacher": {}}).as_mapping()
