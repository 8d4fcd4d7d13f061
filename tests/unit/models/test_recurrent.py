"""The recurrent ladder: its variants, which cost trains what, its work, refused settings."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call, grad, vmap
from torch.utils.flop_counter import FlopCounterMode

from ladder_search.errors import SettingError, UnknownNameError
from ladder_search.models.recurrent import RecurrentConfig, RecurrentLadder
from ladder_search.nn.protocol import Batch, Windows

HALF = ("conv:8:3:1 conv:8:3:2 lstm:8:3", "conv:16:3:2 lstm:16:3", "conv:32:3:2 dense-lstm:64")
SMALL = ("conv:3:3:2 lstm:4:3", "conv:5:3:2 dense-lstm:6")
ROWS = 4

VIDEOS: dict[str, dict[str, Any]] = {
    "ladder": {},
    "without prediction": {"lambda_p": 0.0},
    "without feedback": {"feedback": False},
    "without classes": {"lambda_c": 0.0},
    "encoder only": {"decoder": False},
    "temporal": {"decoder": False, "levels": ("conv:3:3:2 conv:4:3:1 none", "conv:5:3:2 dense-lstm:6")},
    "static": {"decoder": False, "frames": 1, "levels": ("conv:3:3:2 none", "conv:5:3:2 dense:6")},
    "iterations": {"iterations": 2},
    "iterations without feedback": {"iterations": 2, "feedback": False},
    "g1": {"decoder_cell": "g1"},
    "g2": {"decoder_cell": "g2", "normalisation": "bn"},
    "gru": {"levels": ("conv:3:3:2 gru:4:3", "gru:5:3", "conv:5:3:2 dense-gru:6")},
    "convolutional top": {"levels": ("conv:3:3:2 none", "conv:4:3:2 lstm:5:3"), "prediction": "mse"},
}
MUSIC: dict[str, dict[str, Any]] = {
    "lstm": {"levels": ("dense-lstm:6",), "decoder": False},
    "two levels": {"levels": ("dense-gru:6", "dense-rnn:5"), "decoder": False},
    "ladder": {"levels": ("conv:3:5:2 lstm:4:5", "conv:5:3:2 dense-lstm:6")},
}


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def video(**changes: Any) -> RecurrentLadder:
    given: dict[str, Any] = {"frame": (1, 9, 9), "frames": 4, "levels": SMALL}
    return RecurrentLadder(RecurrentConfig(**given | changes), generator=generator()).double()


def music(**changes: Any) -> RecurrentLadder:
    given: dict[str, Any] = {"task": "music", "frame": (1, 11), "levels": SMALL}
    return RecurrentLadder(RecurrentConfig(**given | changes), generator=generator()).double()


def hyper_of(model: RecurrentLadder, **changes: float) -> dict[str, torch.Tensor]:
    found = model.config.hyper() | {name: [value] for name, value in changes.items()}
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items()}


def batch_of(model: RecurrentLadder, rows: int = ROWS, unlabelled: int = 0) -> Batch:
    x = torch.rand(rows + unlabelled, *model.config.example_shape, generator=generator(3), dtype=torch.float64)
    return Batch(x[:rows], torch.randint(0, 10, (rows,), generator=generator(4)), x[rows:])


def noise_of(model: RecurrentLadder, rows: int, unlabelled: int = 0) -> torch.Tensor:
    return torch.randn(model.noise_size(rows, unlabelled), generator=generator(5), dtype=torch.float64)


def windows_of(model: RecurrentLadder, rows: int = ROWS, width: int = 7) -> Windows:
    notes = (torch.rand(rows, width + 1, 11, generator=generator(3)) < 0.3).double()
    present = torch.arange(width) < torch.tensor([width, width, 3, 0])[:rows, None]
    carried = {name: torch.zeros(rows, *shape, dtype=torch.float64) for name, shape in model.carried.items()}
    return Windows(notes[:, :-1], notes[:, 1:], present, present, carried)


# --- sizes and work ---------------------------------------------------------------------------------------------------


def test_parameters_of_the_half_scale_and_of_the_default_network() -> None:
    def count(config: RecurrentConfig) -> int:
        return sum(value.numel() for value in RecurrentLadder(config, generator=generator()).parameters())

    def expected(c: int, units: int) -> int:
        """By levels: convolutions, cell; decoder cells from the top; bottom, head. Each norm has scale and shift."""
        first = 9 * (1 * c + c * c) + 2 * 2 * c + 9 * 3 * c * 4 * c + 2 * 4 * c
        second = 9 * c * 2 * c + 2 * 2 * c + 9 * 3 * 2 * c * 8 * c + 2 * 8 * c
        features = 4 * c * 2 * 2 if c == 8 else 4 * c * 4 * 4
        third = 9 * 2 * c * 4 * c + 2 * 4 * c + 4 * units * (features + units + 1)
        top = features * (units + 1)
        g2 = 9 * (4 * c + 2 * c) * 4 * c + 2 * 4 * c + 9 * 4 * c * 4 * c + 4 * c
        g1 = 9 * (2 * c + c) * 2 * c + 2 * 2 * c + 9 * 2 * c * 2 * c + 2 * c
        bottom, head = 9 * (c + 1) * c + c + 9 * c + 1, 10 * (units + 1)
        return first + second + third + top + g2 + g1 + bottom + head

    assert count(RecurrentConfig(frame=(1, 16, 16), levels=HALF)) == expected(8, 64) == 129_339
    assert count(RecurrentConfig()) == expected(32, 256) == 4_016_331


@pytest.mark.parametrize("changes", VIDEOS.values(), ids=VIDEOS)
def test_flops_are_those_of_the_products_that_a_step_makes(changes: dict[str, Any]) -> None:
    model = video(**changes)
    with FlopCounterMode(display=False) as counter:
        model.cost(batch_of(model), noise_of(model, ROWS), hyper_of(model))[0].backward()
    if "lambda_c" in changes:  # then the last frame is not gone back through
        assert 0.7 < counter.get_total_flops() / model.config.flops(ROWS, 0) < 1
    else:
        assert counter.get_total_flops() == model.config.flops(ROWS, 0)


def test_the_widest_is_a_map_or_the_gates_of_all_frames() -> None:
    config = RecurrentConfig(frame=(1, 16, 16), levels=HALF)
    assert RecurrentLadder(config, generator=generator()).widest == 5 * 8 * 16 * 16
    assert video().widest == 4 * max(3 * 5 * 5, 4 * 4 * 5 * 5, 81)
    assert music().widest == 64 * 4 * 4 * 6


# --- costs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", VIDEOS.values(), ids=VIDEOS)
def test_every_parameter_of_a_network_for_video_is_trained(changes: dict[str, Any]) -> None:
    model = video(**changes)
    for value in model.parameters():  # off their start, where zeros hide what lies behind them
        value.data.add_(0.3 * torch.randn(value.shape, generator=generator(6), dtype=torch.float64))
    total, terms = model.cost(batch_of(model), noise_of(model, ROWS), hyper_of(model, weight_decay=0.1))
    torch.testing.assert_close(total, terms[1:].sum())
    assert len(terms) == len(model.term_names)
    gradients = torch.autograd.grad(total - terms[-1], list(model.parameters()))
    for (name, _), gradient in zip(model.named_parameters(), gradients, strict=True):
        assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("changes", MUSIC.values(), ids=MUSIC)
def test_every_parameter_of_a_network_for_music_is_trained(changes: dict[str, Any]) -> None:
    model = music(**changes)
    windows = windows_of(model)
    total, terms, carried = model.cost(windows, noise_of(model, 4 * 7), hyper_of(model))
    assert {name: tuple(value.shape[1:]) for name, value in carried.items()} == model.carried
    assert not any(value.requires_grad for value in carried.values())
    gradients = torch.autograd.grad(total, list(model.parameters()))
    for (name, _), gradient in zip(model.named_parameters(), gradients, strict=True):
        assert gradient.abs().max() > 0, name
    assert total == terms[0]


@pytest.mark.parametrize("changes", MUSIC.values(), ids=MUSIC)
def test_notes_are_rare_at_the_start(changes: dict[str, Any]) -> None:
    model, quiet = music(**changes), torch.zeros(1, 3, 11, dtype=torch.float64)
    model.load_state_dict(model.statistics(windows_of(model).inputs[None]), strict=False)
    assert 0.01 < model(quiet).mean() < 0.1


@pytest.mark.parametrize("changes", [{}, {"lambda_c": 0.0}, {"decoder": False}, {"lambda_p": 0.0}], ids=str)
def test_scores_are_sums_over_rows(changes: dict[str, Any]) -> None:
    model = video(**changes)
    batch = batch_of(model, 6)
    model.load_state_dict(model.statistics(batch.x_labelled[None]), strict=False)
    with torch.no_grad():
        found = dict(zip((*model.measures, "rows"), model.scores(batch.x_labelled, batch.y).tolist(), strict=True))
        seen = model.trace(batch.x_labelled)
        if "error" in found:
            wrong = model(batch.x_labelled).argmax(-1) != batch.y
            assert found["error"] == wrong.sum()
            torch.testing.assert_close(seen.probabilities[:, -1], model(batch.x_labelled))
        if "prediction_error" in found:
            error = (seen.predicted[:, :-1] - batch.x_labelled[:, 1:]).square().mean((1, 2, 3)).sum()
            assert found["prediction_error"] == pytest.approx(error.item())
    assert found["rows"] == 6


class _Cost(torch.nn.Module):
    def __init__(self, model: RecurrentLadder) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any) -> torch.Tensor:
        return self.model.cost(*inputs)[0]


def functional_cost(model: RecurrentLadder, **changes: float) -> Callable[..., torch.Tensor]:
    """The cost of a fixed batch as a function of parameters and noise."""
    batch, hyper, module = batch_of(model, ROWS, 2), hyper_of(model, **changes), _Cost(model)

    def cost(params: dict[str, torch.Tensor], noise: torch.Tensor) -> torch.Tensor:
        named = {f"model.{name}": value for name, value in params.items()}
        return functional_call(module, named, (batch, noise, hyper))

    return cost


@pytest.mark.parametrize("changes", [{}, {"unlabelled": True}, {"decoder_cell": "g2", "normalisation": "bn"}], ids=str)
def test_functional_gradients_are_those_of_autograd(changes: dict[str, Any]) -> None:
    model = video(**changes)
    cost, noise = functional_cost(model, dropout=0.5), noise_of(model, ROWS, 2)
    params = {name: value.detach() for name, value in model.named_parameters()}
    total = model.cost(batch_of(model, ROWS, 2), noise, hyper_of(model, dropout=0.5))[0]
    expected = torch.autograd.grad(total, list(model.parameters()))
    found = grad(cost)(params, noise)
    two = {name: torch.stack([value, value + 0.1]) for name, value in params.items()}
    stacked = vmap(grad(cost))(two, torch.stack([noise, noise.flip(0)]))
    other = grad(cost)({name: value + 0.1 for name, value in params.items()}, noise.flip(0))
    for name, value in zip(params, expected, strict=True):
        torch.testing.assert_close(found[name], value)
        torch.testing.assert_close(stacked[name][0], value)
        torch.testing.assert_close(stacked[name][1], other[name])


@pytest.mark.slow
@pytest.mark.timeout(900)  # a busy machine's compiler
def test_compiled_gradients_are_the_same() -> None:
    model = video(frames=3)  # a first, a middle and a last one: the compiler's time grows with each
    params = {name: value.detach() for name, value in model.named_parameters()}
    gradient, noise = grad(functional_cost(model)), noise_of(model, ROWS)
    compiled = torch.compile(gradient, dynamic=False, fullgraph=True)
    torch.testing.assert_close(compiled(params, noise), gradient(params, noise))


def test_dropout_and_noise_act_only_where_they_are_set() -> None:
    model = video()
    batch, quiet = batch_of(model), torch.zeros(model.noise_size(ROWS, 0), dtype=torch.float64)
    noise = noise_of(model, ROWS)
    clean = model.cost(batch, quiet, hyper_of(model))[1]
    torch.testing.assert_close(model.cost(batch, noise, hyper_of(model))[1], clean)
    names, pixels = model.term_names, ROWS * 4 * 81
    dropped = model.cost(batch, noise, hyper_of(model, dropout=0.4))[1]
    noisy = model.cost(batch, noise, hyper_of(model, noise_std=0.3))[1]
    for name, one, other, without in zip(names, dropped, noisy, clean, strict=True):
        assert (one != without) == (name in ("cost", "cost_supervised"))  # only classes are told from what is dropped
        assert (other != without) == (name != "cost_decay")
    assert len(noise) == pixels + ROWS * 6


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5])
def test_dropout_keeps_the_share_and_the_mean_that_it_should(rate: float) -> None:
    model = RecurrentLadder(
        RecurrentConfig(task="music", frame=(1, 4), levels=("dense-lstm:500",), decoder=False), generator=generator()
    ).double()
    x = torch.zeros(10, 8, 4, dtype=torch.float64)
    noise = torch.randn(model.noise_size(80, 0), generator=generator(7), dtype=torch.float64)
    _, (kept,) = model._disturbed(x, noise, hyper_of(model, dropout=rate))
    assert kept.shape == (80, 1, 1, 500)
    assert (kept == 0).double().mean().item() == pytest.approx(rate, abs=0.01)
    assert kept[kept > 0].unique().tolist() == pytest.approx([1 / (1 - rate)])


# --- windows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", MUSIC.values(), ids=MUSIC)
@given(cuts=st.sets(st.integers(1, 8)), seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_a_window_costs_what_its_parts_cost_when_the_state_goes_on(
    changes: dict[str, Any], cuts: set[int], seed: int
) -> None:
    model, width, rows = music(**changes), 9, 4
    draws = generator(seed)
    notes = (torch.rand(rows, width + 1, 11, generator=draws) < 0.3).double()
    present = torch.arange(width) < torch.tensor([width, 6, 3, 0])[:, None]
    whole = Windows(notes[:, :-1], notes[:, 1:], present, present, windows_of(model).carried)
    noise = torch.randn(rows, width, model.noise_size(1, 0), generator=draws, dtype=torch.float64)
    hyper = hyper_of(model, noise_std=0.2, dropout=0.3)

    def laid(part: slice) -> torch.Tensor:
        here = noise[:, part]
        return torch.cat([here[..., :11].flatten(), here[..., 11:].flatten()])

    _, expected, state = model.cost(whole, laid(slice(None)), hyper)
    carried, nats = dict(whole.carried), 0.0
    bounds = [0, *sorted(cuts), width]
    for begin, end in pairwise(bounds):
        part = slice(begin, end)
        here = present[:, part]
        windows = Windows(whole.inputs[:, part], whole.targets[:, part], here, here, carried)
        _, terms, carried = model.cost(windows, laid(part), hyper)
        nats += terms[1].item() * here.sum().item()
    assert nats / present.sum().item() == pytest.approx(expected[1].item(), rel=1e-12)
    for name, value in state.items():
        torch.testing.assert_close(carried[name], value, rtol=1e-12, atol=1e-12)


# --- refused settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"levels": ()}, "at least 1 level"),
        ({"levels": ("conv:8:3:2",)}, "then one cell"),
        ({"levels": ("lstm:8:4",)}, "odd size"),
        ({"levels": ("conv:8:3 lstm:8:3",)}, "conv:CHANNELS:KERNEL:STRIDE"),
        ({"levels": ("none",)}, "has convolutions"),
        ({"levels": ("dense-lstm:8", "conv:8:3:1 lstm:8:3")}, "only a fully connected cell may follow"),
        ({"levels": ("dense-lstm:8", "dense-lstm:8")}, "only the top"),
        ({"frames": 1}, "a next frame to predict"),
        ({"classes": 0, "decoder": False}, "must classify or predict"),
        ({"lambda_c": 0.0, "lambda_p": 0.0}, "must classify or predict"),
        ({"task": "music"}, "channels and pitches"),
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"frame": (1,)}, "model.frame must be"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_one_sentence(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        RecurrentConfig(**changes)


def test_an_unknown_word_is_told_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'dense-lstm'"):
        RecurrentConfig(levels=("dens-lstm:8",))
