"""The torch recurrent ladder against a plain NumPy one: costs, slopes, states and evaluation, to 1e-9 in float64."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from ladder_search.models.recurrent import RecurrentConfig, RecurrentLadder
from ladder_search.nn.protocol import Batch, Windows


def _load_reference() -> ModuleType:
    # By its path: tests are no package, and must run under every import mode of pytest.
    spec = importlib.util.spec_from_file_location("numpy_recurrent", Path(__file__).with_name("numpy_recurrent.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


reference = _load_reference()

FRAME = (2, 7, 6)  # all different, and odd: a transposed axis shows, and a map that is cut
PITCHES = 11
LADDER = ("conv:3:3:1 conv:2:3:2 lstm:4:3", "conv:3:3:2 lstm:2:3", "conv:3:3:1 dense-lstm:5")
GRU = ("conv:2:3:2 gru:3:3", "gru:4:1", "conv:3:3:2 dense-gru:5")
TEMPORAL = ("conv:2:3:2 conv:3:3:1 none", "conv:3:3:2 dense-rnn:5")
N_LAB, N_UNL = 4, 2

VIDEOS: dict[str, dict[str, Any]] = {
    "g3, ln": {},
    "g3, bn": {"normalisation": "bn"},
    "g2, ln": {"decoder_cell": "g2"},
    "g2, bn": {"decoder_cell": "g2", "normalisation": "bn"},
    "g1": {"decoder_cell": "g1"},
    "gru": {"levels": GRU},
    "unlabelled": {"unlabelled": True, "prediction": "mse"},
    "without feedback": {"feedback": False},
    "without prediction": {"lambda_p": 0.0},
    "without classes": {"lambda_c": 0.0},
    "without decoder": {"decoder": False},
    "temporal": {"decoder": False, "levels": TEMPORAL},
    "temporal with a decoder": {"levels": TEMPORAL},
    "static": {"decoder": False, "frames": 1, "levels": ("conv:3:3:2 none", "conv:2:3:1 dense:5")},
    "iterations": {"iterations": 3},
    "iterations without feedback": {"iterations": 2, "feedback": False, "levels": GRU},
    "iterations above a level without a state": {"iterations": 2, "levels": ("conv:2:3:2 none", "conv:3:3:1 lstm:4:3")},
    "convolutional top": {"levels": ("conv:2:3:1 conv:2:3:2 none", "conv:3:3:2 gru:3:3")},
}
MUSIC: dict[str, dict[str, Any]] = {
    "lstm": {"levels": ("dense-lstm:5",), "decoder": False},
    "gru": {"levels": ("dense-gru:5", "dense-rnn:4"), "decoder": False},
    "ladder": {"levels": ("conv:2:5:2 lstm:3:5", "conv:3:3:2 lstm:2:3", "conv:2:3:2 dense-lstm:5")},
    "without feedback": {"levels": ("conv:2:5:2 gru:3:5", "conv:3:3:3 dense-lstm:4"), "feedback": False},
    "without decoder": {"levels": ("conv:2:5:2 lstm:3:5", "conv:3:3:2 dense-lstm:4"), "decoder": False},
}


def assert_close(found: Any, expected: Any, what: str = "") -> None:
    """To a relative 1e-9 of every entry; entries that nearly cancel are held to 1e-12 of the largest, or of 1e-3."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, what
    tolerance = 1e-12 * max(float(np.abs(expected).max()), 1e-3)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=tolerance, err_msg=what)


def read(levels: tuple[str, ...]) -> Any:
    def word(text: str) -> tuple[Any, ...]:
        kind, *numbers = text.split(":")
        return (kind, *map(int, numbers))

    return tuple(tuple(word(text) for text in level.split()) for level in levels)


def settings_of(config: RecurrentConfig) -> Any:
    channels, *places = config.frame
    flat = len(places) == 1
    same = ("feedback", "iterations", "normalisation", "prediction", "lambda_c", "lambda_p", "noise_std", "dropout")
    return reference.Settings(
        levels=read(config.levels),
        frame=(channels, 1, *places) if flat else (channels, *places),
        flat=flat,
        decoder_cell=config.decoder_cell if config.decoder else None,
        weight_decay=config.weight_decay,
        **{name: getattr(config, name) for name in same},
    )


def build(seed: int = 1, **changes: Any) -> RecurrentLadder:
    settings: dict[str, Any] = {
        "frame": FRAME,
        "frames": 3,
        "levels": LADDER,
        "classes": 3,
        "lambda_c": 0.7,
        "lambda_p": 3.0,
        "noise_std": 0.2,
        "dropout": 0.3,
        "weight_decay": 0.01,
    }
    model = RecurrentLadder(
        RecurrentConfig(**settings | changes), generator=torch.Generator().manual_seed(seed)
    ).double()
    rng = np.random.default_rng(seed)
    with torch.no_grad():  # off their start, where an order error could hide behind zeros and ones
        for value in model.parameters():
            value.add_(torch.from_numpy(0.4 * rng.standard_normal(tuple(value.shape))))
    return model


def numbers(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().copy() for name, value in model.named_parameters()}


def hyper_of(model: RecurrentLadder) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in model.config.hyper().items()}


def check_slopes(model: RecurrentLadder, total: torch.Tensor, cost: Callable[[dict[str, np.ndarray]], Any]) -> None:
    """Compare the slope along a direction in which all numbers of a parameter move, for every parameter."""
    params, rng = numbers(model), np.random.default_rng(3)
    gradients = torch.autograd.grad(total, list(model.parameters()))
    for (name, value), gradient in zip(params.items(), gradients, strict=True):
        direction = rng.standard_normal(value.shape)
        slope = cost(params | {name: value + 1j * reference.STEP * direction}).imag / reference.STEP
        products = gradient.numpy() * direction
        tolerance = 1e-10 * np.abs(products).sum() + 1e-12
        np.testing.assert_allclose(products.sum(), slope, rtol=1e-8, atol=tolerance, err_msg=name)


# --- videos -----------------------------------------------------------------------------------------------------------


@dataclass
class Videos:
    """One step's inputs for both implementations; x is (rows, frames, channels, height, width)."""

    model: RecurrentLadder
    x: np.ndarray
    y: np.ndarray
    noise: np.ndarray
    draws: np.ndarray

    @property
    def batch(self) -> Batch:
        x = torch.from_numpy(self.x)
        return Batch(x[:N_LAB], torch.from_numpy(self.y), x[N_LAB:])

    @property
    def laid(self) -> torch.Tensor:
        laid = torch.from_numpy(np.concatenate([self.noise.ravel(), self.draws.ravel()]))
        unlabelled = N_UNL if self.model.config.unlabelled else 5  # of which nothing is to come
        assert len(laid) == self.model.noise_size(N_LAB, unlabelled)
        return laid


def make_videos(**changes: Any) -> Videos:
    model, rng = build(**changes), np.random.default_rng(2)
    config = model.config
    rows = N_LAB + N_UNL * config.unlabelled
    shape = (rows, config.frames, *FRAME)
    top = model.levels[-1].size[0] if config.lambda_c else 0
    draws, noise = rng.standard_normal((rows, top)), rng.standard_normal(shape)
    return Videos(model, rng.uniform(size=shape), rng.integers(0, 3, N_LAB), noise, draws)


@pytest.mark.parametrize("changes", VIDEOS.values(), ids=VIDEOS)
def test_costs_and_slopes_of_videos(changes: dict[str, Any]) -> None:
    case = make_videos(**changes)
    settings = settings_of(case.model.config)

    def terms_of(params: dict[str, np.ndarray]) -> Any:
        return reference.video_cost(params, settings, case.x, case.y, case.noise, case.draws)

    expected = terms_of(numbers(case.model))
    total, terms = case.model.cost(case.batch, case.laid, hyper_of(case.model))
    found = dict(zip(case.model.term_names, terms.tolist(), strict=True))
    assert_close(found.pop("cost"), sum(expected.values()), "cost")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(found[name], value, name)
    assert_close(total.item(), sum(expected.values()), "cost")
    check_slopes(case.model, total, lambda params: sum(terms_of(params).values()))


@pytest.mark.parametrize("changes", VIDEOS.values(), ids=VIDEOS)
def test_evaluation_of_videos(changes: dict[str, Any]) -> None:
    model = build(**changes)
    config, rng, settings, params = model.config, np.random.default_rng(5), settings_of(model.config), numbers(model)
    minibatches = rng.uniform(size=(2, 5, config.frames, *FRAME))
    decoded = config.frames - 1
    norms = reference.Norms(params)
    for x in minibatches:
        reference.run(params, settings, [x[:, t] for t in range(config.frames)], norms, decoded=decoded)
    stored, found = norms.averages(), model.statistics(torch.from_numpy(minibatches))
    assert found.keys() == {name for name, _ in model.named_buffers()} <= stored.keys()
    for name, value in found.items():
        assert_close(value.detach().numpy(), stored[name], name)

    model.load_state_dict(found, strict=False)
    x, y = rng.uniform(size=(4, config.frames, *FRAME)), rng.integers(0, 3, 4)
    norms = reference.Norms(params, stored)
    frames = [x[:, t] for t in range(config.frames)]
    run = reference.run(params, settings, frames, norms, decoded=config.frames if config.decoder else 0)
    with torch.no_grad():
        seen, given = model.trace(torch.from_numpy(x)), model(torch.from_numpy(x))
        scores = dict(
            zip((*model.measures, "rows"), model.scores(torch.from_numpy(x), torch.from_numpy(y)), strict=True)
        )
    assert scores.pop("rows") == 4
    if config.lambda_c:
        expected = np.stack([np.exp(reference.log_softmax(reference.told(params, each.e[-1]))) for each in run], axis=1)
        assert_close(seen.probabilities.numpy(), expected, "probabilities")
        assert_close(given.numpy(), expected[:, -1], "probabilities")
        assert scores.pop("error") == (expected[:, -1].argmax(-1) != y).sum()
    if config.predicts:
        predicted = [
            reference.sigmoid(reference.bottom(params, settings, here, each.d[0]))
            for here, each in zip(frames, run, strict=True)
        ]
        assert_close(seen.predicted.numpy(), np.stack(predicted, axis=1), "predicted")
        squared = np.mean([(a - b) ** 2 for a, b in zip(predicted, frames[1:], strict=False)])
        assert_close(scores.pop("prediction_error").item(), 4 * squared, "prediction error")
        assert_close(seen.bottom.numpy(), np.stack([each.d[0] for each in run], axis=1), "d1")
        if not config.lambda_c:
            assert_close(given.numpy(), np.stack(predicted, axis=1), "predicted")
    assert not scores


def test_logits_for_a_teacher_are_those_of_the_cost() -> None:
    case = make_videos(unlabelled=True)
    hyper = hyper_of(case.model)
    _, _, logits = case.model.cost_with_logits(case.batch, case.laid, hyper)
    x = torch.from_numpy(case.x)
    assert case.model.logits_noise_size(len(x)) == len(case.laid)
    assert torch.equal(case.model.noisy_logits(x, case.laid, hyper), logits)


@pytest.mark.parametrize("changes", [case for case in VIDEOS.values() if case.get("lambda_c", 1.0)])
def test_a_teacher_notes_the_statistics_of_its_noisy_frames(changes: dict[str, Any]) -> None:
    case = make_videos(**changes | {"unlabelled": True})
    model, hyper, x = case.model, hyper_of(case.model), torch.from_numpy(case.x)
    found: dict[str, torch.Tensor] = {}
    logits = model.noisy_logits(x, case.laid, hyper, found)
    assert_close(logits.detach().numpy(), model.noisy_logits(x, case.laid, hyper).detach().numpy(), "logits")

    params, config = numbers(model), model.config
    norms, noisy = reference.Norms(params), case.x + config.noise_std * case.noise
    frames = [noisy[:, t] for t in range(config.frames)]
    reference.run(params, settings_of(config), frames, norms, decoded=config.frames - 1 if config.decoder else 0)
    expected = norms.averages()
    assert found.keys() == {name for name, _ in model.named_buffers()} <= expected.keys()
    for name, value in found.items():
        assert_close(value.detach().numpy(), expected[name], name)


# --- music ------------------------------------------------------------------------------------------------------------


@dataclass
class Music:
    """One step's inputs; notes are (rows, steps, 1, 1, pitches)."""

    model: RecurrentLadder
    notes: np.ndarray
    present: np.ndarray
    scored: np.ndarray
    state: dict[str, np.ndarray]  # maps with their channels first
    noise: np.ndarray
    draws: list[np.ndarray]

    @property
    def windows(self) -> Windows:
        notes = torch.from_numpy(self.notes[:, :, 0, 0])
        flags = [torch.from_numpy(each) for each in (self.present, self.scored)]
        state = {name: torch.from_numpy(value.transpose(0, 2, 3, 1).copy()) for name, value in self.state.items()}
        return Windows(notes[:, :-1], notes[:, 1:], *flags, state)

    @property
    def laid(self) -> torch.Tensor:
        laid = torch.from_numpy(np.concatenate([self.noise.ravel(), np.concatenate(self.draws, axis=2).ravel()]))
        assert len(laid) == self.model.noise_size(self.present.size, 0)
        return laid


def make_music(**changes: Any) -> Music:
    model, rng, rows, steps = build(task="music", frame=(1, PITCHES), **changes), np.random.default_rng(2), 4, 5
    notes = (rng.uniform(size=(rows, steps + 1, 1, 1, PITCHES)) < 0.3).astype(float)
    present = np.arange(steps) < np.array([5, 2, 3, 0])[:, None]  # from step 3 on one row alone
    scored = present & (rng.uniform(size=present.shape) < 0.8)
    state = {name: rng.uniform(-1, 1, (rows, c, h, w)) for name, (h, w, c) in model.carried.items()}
    noise = rng.standard_normal((rows, steps, 1, 1, PITCHES))
    levels = model.levels if model.config.decoder else model.levels[-1:]
    draws = [rng.standard_normal((rows, steps, level.size[0])) for level in levels]
    return Music(model, notes, present, scored, state, noise, draws)


@pytest.mark.parametrize("changes", MUSIC.values(), ids=MUSIC)
def test_costs_slopes_and_states_of_music(changes: dict[str, Any]) -> None:
    case = make_music(**changes)
    settings = settings_of(case.model.config)

    def cost_of(params: dict[str, np.ndarray]) -> Any:
        sequences = (case.notes[:, :-1], case.notes[:, 1:], case.present, case.scored)
        return reference.music_cost(params, settings, *sequences, case.state, case.noise, case.draws)

    expected, state = cost_of(numbers(case.model))
    total, terms, carried = case.model.cost(case.windows, case.laid, hyper_of(case.model))
    found = dict(zip(case.model.term_names, terms.tolist(), strict=True))
    assert_close(found.pop("cost"), sum(expected.values()), "cost")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(found[name], value, name)
    assert carried.keys() == case.state.keys()
    for name, value in carried.items():
        assert_close(value.numpy().transpose(0, 3, 1, 2), state[name], name)
    check_slopes(case.model, total, lambda params: sum(cost_of(params)[0].values()))


@pytest.mark.parametrize("changes", MUSIC.values(), ids=MUSIC)
def test_evaluation_of_music(changes: dict[str, Any]) -> None:
    model = build(task="music", frame=(1, PITCHES), **changes)
    rng, settings, params = np.random.default_rng(5), settings_of(model.config), numbers(model)
    notes = (rng.uniform(size=(2, 4, 6, 1, 1, PITCHES)) < 0.3).astype(float)
    present = np.arange(6) < rng.integers(0, 7, (2, 4, 1))
    norms = reference.Norms(params)
    for x, there in zip(notes, present, strict=True):
        frames, flags = [x[:, t] for t in range(6)], [there[:, t] for t in range(6)]
        reference.run(params, settings, frames, norms, present=flags, decoded=6)
    stored = norms.averages()
    found = model.statistics(torch.from_numpy(notes[:, :, :, 0, 0]), torch.from_numpy(present))
    assert found.keys() == {name for name, _ in model.named_buffers()} <= stored.keys()
    for name, value in found.items():
        assert_close(value.detach().numpy(), stored[name], name)

    model.load_state_dict(found, strict=False)
    steps = 150  # more than are scored together
    x = (rng.uniform(size=(2, steps + 1, 1, 1, PITCHES)) < 0.3).astype(float)
    scored = np.arange(steps) < np.array([steps, 70])[:, None]
    frames = [x[:, t] for t in range(steps)]
    run = reference.run(params, settings, frames, reference.Norms(params, stored), decoded=steps)
    logits = [reference.notes(params, settings, here, one, one.e[-1]) for here, one in zip(frames, run, strict=True)]
    nats = sum(
        (reference.cross_entropy(one, x[:, t + 1]).sum(axis=(1, 2, 3)) * scored[:, t]).sum()
        for t, one in enumerate(logits)
    )
    given = torch.from_numpy(x[:, :, 0, 0])
    with torch.no_grad():
        found_nats, found_steps = model.scores(given[:, :-1], given[:, 1:], torch.from_numpy(scored)).tolist()
        probabilities = model(given[:, :-1]).numpy()
    assert_close(found_nats, nats, "nats")
    assert found_steps == steps + 70
    assert_close(probabilities, reference.sigmoid(np.stack(logits, axis=1))[:, :, 0, 0], "probabilities")
