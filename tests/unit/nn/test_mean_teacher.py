"""Mean Teacher around a ladder: the pull, the following weights, who is judged, and agreement of pack and solo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ladder_search.bundles.members import read_fitting
from ladder_search.config import merge
from ladder_search.data import datasets
from ladder_search.errors import CheckpointError, SettingError
from ladder_search.nn.mean_teacher import Taught, TeacherConfig
from ladder_search.nn.protocol import Batch
from ladder_search.training.checkpoint import write_member
from ladder_search.training.compiling import compiler_found
from ladder_search.training.feeding import training_feed
from ladder_search.training.noise import fill_normals, noise_keys
from ladder_search.training.pack import Pack
from ladder_search.trial import TrialSpec

pytestmark = pytest.mark.timeout(400)  # a busy machine's compiler

BASE: dict[str, Any] = {
    "family": "ladder",
    "data": {"dataset": "digits", "labels": 40, "validation": 97},
    "model": {"widths": [64, 12, 10], "noise_std": [0.3] * 3, "lambda_": [0.0, 0.0, 1.0], "decoder": "gamma"},
    "training": {"epochs": 2, "labelled_batch": 10, "unlabelled_batch": 20, "dtype": "float64"},
    "teacher": {"weight": 20.0, "ramp": 0.5, "decay": 0.9, "decay_at_first": 0.6},
}
RECURRENT: dict[str, Any] = {
    "family": "recurrent",
    "data": {"dataset": "occluded-digits-mini", "labels": 40, "validation": 50},
    "model": {
        "frame": [1, 16, 16],
        "levels": ["conv:3:3:2 lstm:2:3", "conv:4:3:2 dense-lstm:5"],
        "feedback": False,
        "unlabelled": True,
        "noise_std": 0.1,
        "dropout": 0.2,
    },
    "teacher": {"statistics": "averaged"},
}


def spec_of(**changes: Any) -> TrialSpec:
    base = BASE if changes.get("family", "ladder") == "ladder" else {**BASE, "model": {}}
    return TrialSpec.from_mapping(merge(base, changes))


def pack_of(spec: TrialSpec, slots: int = 1, *, compiled: bool = False) -> Pack:
    return spec.pack(datasets.load(spec.data), slots=slots, compiled=compiled, device=torch.device("cpu"))


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


def test_averaged_statistics_are_those_of_the_steps_in_numpy() -> None:
    """Each step's are of the corrupted path of the teacher that it found, over all rows, with unbiased variances."""
    spec, dataset = spec_of(teacher={"statistics": "averaged"}), datasets.load("digits")
    pack, member = pack_of(spec), spec.member(dataset)
    pack.join(member)
    stream = training_feed(spec.member(dataset), dataset, torch.device("cpu")).stream(member)
    units = {1: 12, 2: 10}
    averages = {
        **{f"teacher.mean_{layer}": np.zeros(n) for layer, n in units.items()},
        **{f"teacher.variance_{layer}": np.ones(n) for layer, n in units.items()},
    }
    start = pack.state(0).params
    assert all((start[name].numpy() == value).all() for name, value in averages.items())
    pack.run(57)  # the share changes after step 60
    averages = {name: pack.state(0).params[name].numpy() for name in averages}
    for step in range(57, 63):
        before = {name: value.numpy() for name, value in pack.state(0).params.items()}
        x = np.concatenate([dataset.train_x[rows[0]] for rows in stream.tables(step, 1)]) / 16.0
        draws = torch.empty(2 * 30 * (64 + 12 + 10), dtype=torch.float64)
        fill_normals(draws, int(noise_keys(member.seed, step, 1)[0]))
        noise = np.split(draws.numpy()[30 * (64 + 12 + 10) :], np.cumsum([30 * 64, 30 * 12]))
        h, decay = x + 0.3 * noise[0].reshape(30, 64), 0.6 if step < 60 else 0.9
        for layer, n in units.items():
            z = h @ before[f"teacher.W.{layer - 1}"].T
            found = {"mean": z.mean(0), "variance": z.var(0, ddof=1)}
            for name, value in found.items():
                key = f"teacher.{name}_{layer}"
                averages[key] = decay * averages[key] + (1 - decay) * value
            z = (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-10) + 0.3 * noise[layer].reshape(30, n)
            h = np.maximum(z + before[f"teacher.beta.{layer - 1}"], 0.0)
        pack.run(1)
        for name, value in averages.items():
            np.testing.assert_allclose(pack.state(0).params[name].numpy(), value, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("statistics", ["measured", "averaged"])
def test_the_teacher_is_judged_and_exported_and_the_student_reported(statistics: str) -> None:
    spec, dataset = spec_of(teacher={"statistics": statistics}), datasets.load("digits")
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
    kept = pack.state(0).params
    for name, value in module.teacher.named_buffers():
        assert (f"teacher.{name}" in kept) == (statistics == "averaged")
        torch.testing.assert_close(value, kept.get(f"teacher.{name}", module.teacher.statistics(_labelled(pack))[name]))
    assert not any(f"student.{name}" in kept for name, _ in module.student.named_buffers())


def _labelled(pack: Pack) -> torch.Tensor:
    """The minibatches that the statistics of the pack's one member are measured on."""
    (x,) = pack._data.minibatches(pack._statistics_rows, torch.float64)
    return x[0]


@pytest.mark.parametrize("changes", [{}, RECURRENT], ids=["ladder", "recurrent"])
def test_a_member_with_averages_goes_on_from_its_checkpoint(changes: dict[str, Any], tmp_path: Path) -> None:
    spec = spec_of(**merge(changes, {"teacher": {"statistics": "averaged"}}))
    dataset = datasets.load(spec.data)
    pack = pack_of(spec)
    pack.join(spec.member(dataset))
    pack.run(3)
    write_member(tmp_path, pack.state(0), spec.as_mapping())
    pack.run(3)
    again = pack_of(spec, 2)
    slot = again.join(spec.member(dataset), state=read_fitting(tmp_path, spec))
    again.run(3)
    expected, found = pack.state(0).params, again.state(slot).params
    averaged = [name for name in expected if name.rpartition(".")[2].startswith(("mean", "variance"))]
    assert averaged and expected.keys() == found.keys()
    # A vmapped product of two slots rounds otherwise than one member's.
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)
    scores = [one.validation_scores() for one in (pack, again)]
    assert scores[0][0] == scores[1][slot]


def test_a_checkpoint_without_averages_is_of_another_teacher(tmp_path: Path) -> None:
    spec, averaged = spec_of(), spec_of(teacher={"statistics": "averaged"})
    pack = pack_of(spec)
    pack.join(spec.member(datasets.load("digits")))
    write_member(tmp_path, pack.state(0), spec.as_mapping())
    with pytest.raises(
        CheckpointError, match=r"must fit the trial's settings, where teacher\.mean_1 has shape \(12,\)"
    ):
        read_fitting(tmp_path, averaged)
    with pytest.raises(SettingError, match="members of a pack share one signature"):
        pack.join(averaged.member(datasets.load("digits")))


@pytest.mark.parametrize("normalisation", ["ln", "bn"])
def test_a_recurrent_teacher_averages_over_frames(normalisation: str) -> None:
    """Every norm of the teacher, of encoder and decoder, goes a share of its way to what the step's frames had."""
    spec = spec_of(**merge(RECURRENT, {"model": {"normalisation": normalisation}}))
    dataset = datasets.load(spec.data)
    pack, member = pack_of(spec), spec.member(dataset)
    pack.join(member)
    feed = training_feed(spec.member(dataset), dataset, torch.device("cpu"))
    for step in range(3):
        before = pack.state(0).params
        keys = torch.from_numpy(noise_keys(member.seed, step, 1))
        rows = [torch.from_numpy(table) for table in feed.stream(member).tables(step, 1)]
        labelled, _, unlabelled = (value[0] for value in feed.gather(feed.x, feed.y, rows, keys, torch.float64))
        x = torch.cat([labelled, unlabelled])
        network = taught(spec)
        network.load_state_dict(before, strict=False)
        draws = torch.empty(network.noise_size(len(labelled), len(unlabelled)), dtype=torch.float64)
        fill_normals(draws, int(keys[0]))
        noise = draws[-network.teacher.logits_noise_size(len(x)) :][: x.numel()]  # type: ignore[operator]
        noisy = x + spec.model.noise_std * noise.view(x.shape)
        found = network.teacher.statistics(noisy.unsqueeze(0))  # type: ignore[operator]
        pack.run(1)
        after = pack.state(0).params
        assert any("body.g" in name for name in found) == (normalisation == "bn")
        for name, value in found.items():
            expected = 0.6 * before[f"teacher.{name}"] + 0.4 * value
            torch.testing.assert_close(after[f"teacher.{name}"], expected, rtol=1e-9, atol=1e-12)


def together_and_alone(statistics: str, compiled: Sequence[bool], precision: float) -> None:
    """Train two members in one pack and each in packs of their own, which may be compiled, and compare them."""
    teachers = [{"weight": 10.0 * seed, "statistics": statistics} for seed in (1, 2)]
    dataset, specs = datasets.load("digits"), [spec_of(seed=seed, teacher=teachers[seed - 1]) for seed in (1, 2)]
    together = pack_of(specs[0], 3, compiled=compiled[0])
    slots = [together.join(spec.member(dataset)) for spec in specs]
    found, errors = together.run(8), together.validation_scores()
    assert together.compiled == compiled[0]
    for spec, slot in zip(specs, slots, strict=True):
        for one in compiled:
            alone = pack_of(spec, compiled=one)
            alone.join(spec.member(dataset))
            # Noise is drawn in float32, and an eager program rounds its cosines otherwise than a compiled one.
            close = precision if one == compiled[0] else 1e-4
            assert alone.run(8)[0].terms == pytest.approx(found[slot].terms, rel=close)
            assert alone.validation_scores()[0] == pytest.approx(errors[slot], abs=0.0 if close == precision else 0.011)
            kept, own = together.state(slot).params, alone.state(0).params
            assert kept.keys() == own.keys()
            for name, value in own.items():
                torch.testing.assert_close(kept[name], value, rtol=100 * close, atol=close)


@pytest.mark.parametrize("statistics", ["measured", "averaged"])
def test_a_member_of_a_pack_agrees_with_itself_alone(statistics: str) -> None:
    together_and_alone(statistics, [False], 1e-9)


@pytest.mark.skipif(not compiler_found(), reason="no C++ compiler, or torch in a folder with a space")
def test_a_compiled_member_agrees_with_itself_alone_compiled_and_eager() -> None:
    """With averaged statistics: the program has all that one with measured statistics has, and their update."""
    together_and_alone("averaged", [True, False], 1e-9)


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
