"""The music baselines: sizes, states over windows, members side by side, dropout, what is scored, refused settings."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch.func import functional_call, grad, vmap
from torch.utils.flop_counter import FlopCounterMode

from ladder_search.errors import SettingError
from ladder_search.models.sequence import SequenceConfig, SequenceNetwork
from ladder_search.nn.protocol import Windows
from tests.unit.data import music_nll

KINDS = ("rnn", "gru", "lstm", "tcn")
ROWS, NOTES = 3, 6


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(kind: str, *, seed: int = 2, **changes: Any) -> SequenceNetwork:
    """A small network of two layers with every parameter at random."""
    settings: dict[str, Any] = {"notes": NOTES, "hidden": 8, "layers": 2, "kernel": 3} | changes
    model = SequenceNetwork(SequenceConfig(kind=kind, **settings), generator=generator()).double()
    draws = generator(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(0.5 * torch.randn(value.shape, generator=draws, dtype=torch.float64))
    return model


def windows_of(model: SequenceNetwork, width: int, seed: int = 3) -> Windows:
    draws = generator(seed)
    sequence = torch.randint(0, 2, (ROWS, width + 1, NOTES), generator=draws).double()
    present = torch.ones(ROWS, width, dtype=torch.bool)
    return Windows(sequence[:, :-1], sequence[:, 1:], present, present, silence(model))


def silence(model: SequenceNetwork) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(ROWS, *shape, dtype=torch.float64) for name, shape in model.carried.items()}


def cut(windows: Windows, part: slice) -> list[torch.Tensor]:
    """The steps ``part`` of all but the state."""
    return [value[:, part] for value in (windows.inputs, windows.targets, windows.present, windows.scored)]


def hyper_of(model: SequenceNetwork) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in model.config.hyper().items()}


def noise_of(model: SequenceNetwork, steps: int, seed: int = 4) -> torch.Tensor:
    return torch.randn(model.noise_size(steps, 0), generator=generator(seed), dtype=torch.float64)


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ({"kind": "lstm"}, 4 * 200 * (88 + 200 + 1)),
        ({"kind": "gru"}, 3 * 200 * (88 + 200 + 1)),
        ({"kind": "rnn"}, 200 * (88 + 200 + 1)),
        ({"kind": "lstm", "layers": 2}, 4 * 200 * (88 + 200 + 1) + 4 * 200 * (200 + 200 + 1)),
        # Two filters a block with a length and a bias each; a matrix and its bias from 88 notes to 150 maps.
        (
            {"kind": "tcn", "hidden": 150, "layers": 4},
            150 * 5 * (88 + 7 * 150) + 8 * 2 * 150 + 150 * (88 + 1),
        ),
        ({"kind": "tcn", "hidden": 88, "kernel": 2}, 88 * 2 * (88 + 88) + 2 * 2 * 88),
    ],
    ids=str,
)
def test_parameter_counts(settings: dict[str, Any], parameters: int) -> None:
    config = SequenceConfig(**settings)
    model = SequenceNetwork(config, generator=generator())
    output = 88 * (config.hidden + 1)
    assert sum(value.numel() for value in model.parameters()) == parameters + output


@pytest.mark.parametrize("kind", KINDS)
def test_flops_are_those_of_the_products_that_run(kind: str) -> None:
    model = small(kind, hidden=9)
    windows = windows_of(model, 5)
    with FlopCounterMode(display=False) as counter:
        model.cost(windows, noise_of(model, ROWS * 5), hyper_of(model))[0].backward()
    gates = {"rnn": 1, "gru": 3, "lstm": 4, "tcn": 0}[kind]
    # The state in which a window begins needs no gradient: one product less in each layer, whatever the width.
    assert counter.get_total_flops() == model.config.flops(ROWS * 5, 0) - 2 * ROWS * 2 * gates * 9 * 9


@pytest.mark.parametrize("kind", KINDS)
def test_the_generator_alone_decides_the_start(kind: str) -> None:
    before = torch.get_rng_state()
    config = SequenceConfig(kind=kind, hidden=8)
    first, same, other = (SequenceNetwork(config, generator=generator(n)).state_dict() for n in (1, 1, 2))
    assert all(torch.equal(value, same[name]) for name, value in first.items())
    assert not torch.equal(first["V"], other["V"])
    assert torch.equal(torch.get_rng_state(), before)


def test_notes_begin_rare_forget_gates_open_and_filters_at_their_directions_lengths() -> None:
    lstm = SequenceNetwork(SequenceConfig(hidden=3), generator=generator())
    assert lstm.gamma.tolist() == [-3.0] * 88  # 4 of 88: log(4 / 84) = -3.04
    assert lstm.layers[0].beta.tolist() == [0.0] * 3 + [1.0] * 3 + [0.0] * 6
    tcn = SequenceNetwork(SequenceConfig(kind="tcn", hidden=3), generator=generator())
    for v, g in zip(tcn.layers[0].v, tcn.layers[0].g, strict=True):
        torch.testing.assert_close(g[:, 0], torch.linalg.vector_norm(v, dim=1))


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind: str) -> None:
    model = small(kind)
    model.cost(windows_of(model, 12), noise_of(model, ROWS * 12), hyper_of(model))[0].backward()
    for name, value in model.named_parameters():
        assert value.grad is not None and value.grad.isfinite().all() and value.grad.any(), name


# --- states -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(4, 4, 4), (1, 7, 4)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_windows_that_carry_a_state_give_what_the_whole_sequence_does(kind: str, widths: tuple[int, ...]) -> None:
    # 12 steps; a TCN's second block looks 4 steps back twice, beyond any of the windows.
    model, total = small(kind, dropout=0.3), sum(widths)
    hyper = hyper_of(model)
    whole, noise = windows_of(model, total), noise_of(model, ROWS * total)
    draws = noise.view(-1, ROWS, total, 8)
    cost, _, after = model.cost(whole, noise, hyper)
    carried, nats, begin = silence(model), torch.zeros((), dtype=torch.float64), 0
    for width in widths:
        part = slice(begin, begin + width)
        found, _, carried = model.cost(Windows(*cut(whole, part), carried), draws[:, :, part].flatten(), hyper)
        nats, begin = nats + width * found, begin + width
    torch.testing.assert_close(nats / total, cost, rtol=1e-12, atol=0.0)
    assert carried.keys() == after.keys() == model.carried.keys()
    for name, value in after.items():
        assert value.shape == (ROWS, *model.carried[name]) and not value.requires_grad
        torch.testing.assert_close(carried[name], value, rtol=1e-12, atol=1e-14)
    without = Windows(*cut(whole, part), silence(model))  # the test can tell: the state matters
    assert not torch.isclose(model.cost(without, draws[:, :, part].flatten(), hyper)[0], found, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_known_of_the_future(kind: str) -> None:
    model = small(kind)
    x = windows_of(model, 9).inputs
    changed = x.clone()
    changed[:, 6:] = 1.0 - changed[:, 6:]
    found, other = model(x), model(changed)
    assert torch.equal(found[:, :6], other[:, :6])
    assert not torch.isclose(found[:, 6], other[:, 6]).all(-1).any()


def test_a_tcn_reaches_as_far_back_as_its_taps_do() -> None:
    # Two convolutions a block: 2 * (3 - 1) * (1 + 2) steps beside the present one.
    model = small("tcn")
    x = windows_of(model, 20).inputs
    for back, seen in ((12, True), (13, False)):
        changed = x.clone()
        changed[:, 19 - back] = 1.0 - changed[:, 19 - back]
        assert torch.equal(model(x)[:, 19], model(changed)[:, 19]) != seen


# --- members side by side ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_members_of_a_pack_train_as_they_would_alone(kind: str) -> None:
    models = [small(kind, seed=seed, dropout=rate, weight_decay=0.1 * rate) for seed, rate in ((2, 0.2), (5, 0.6))]
    batches = [windows_of(model, 5, seed) for seed, model in enumerate(models)]
    noises = [noise_of(model, ROWS * 5, seed) for seed, model in enumerate(models)]
    hypers = [hyper_of(model) for model in models]

    def cost(params: Any, fields: Any, carried: Any, noise: Any, hyper: Any) -> Any:
        call = functional_call(models[0], params, (Windows(*fields, carried), noise, hyper))
        return call[0], call[1:]

    models[0].forward = models[0].cost  # type: ignore[method-assign, assignment]
    every = slice(None)
    alone = []
    for model, windows, noise, hyper in zip(models, batches, noises, hypers, strict=True):
        params = dict(model.named_parameters())
        fields = tuple(cut(windows, every))
        alone.append(grad(cost, has_aux=True)(params, fields, windows.carried, noise, hyper))

    def stacked(values: list[Any]) -> Any:
        if isinstance(values[0], dict):
            return {name: torch.stack([value[name] for value in values]).detach() for name in values[0]}
        return torch.stack(values)

    fields = tuple(stacked([cut(windows, every)[i] for windows in batches]) for i in range(4))
    params = stacked([dict(model.named_parameters()) for model in models])
    carried = stacked([windows.carried for windows in batches])
    gradients, (terms, after) = vmap(grad(cost, has_aux=True))(
        params, fields, carried, stacked(noises), stacked(hypers)
    )
    for k, (own_gradients, (own_terms, own_after)) in enumerate(alone):
        torch.testing.assert_close(terms[k], own_terms, rtol=1e-12, atol=0.0)
        for found, own in ((gradients, own_gradients), (after, own_after)):
            assert found.keys() == own.keys()
            for name, value in own.items():
                torch.testing.assert_close(found[name][k], value, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_one_graph(kind: str) -> None:
    # Captured and not compiled, which takes long: what a compiler cannot follow it would leave to Python in silence.
    model = small(kind)
    windows, noise, hyper = windows_of(model, 3), noise_of(model, ROWS * 3), hyper_of(model)
    captured = torch.compile(model.cost, fullgraph=True, backend="eager")
    for found, expected in zip(captured(windows, noise, hyper)[:2], model.cost(windows, noise, hyper), strict=False):
        assert torch.equal(found, expected)


def test_members_of_a_pack_may_differ_in_dropout_and_weight_decay_alone() -> None:
    for kind in KINDS:
        config = small(kind).config
        same = small(kind, dropout=0.1, weight_decay=0.01).config
        assert same.signature() == config.signature() and set(config.hyper()) == {"dropout", "weight_decay"}
        for changes in ({"notes": 5}, {"hidden": 9}, {"layers": 1}):
            assert small(kind, **changes).config.signature() != config.signature()
        # Only a TCN has taps.
        assert (small(kind, kernel=4).config.signature() == config.signature()) == (kind != "tcn")
    assert len({small(kind).config.signature() for kind in KINDS}) == 4


def test_a_baseline_follows_the_network_of_a_changed_study() -> None:
    base, other = SequenceConfig(dropout=0.0, weight_decay=0.1), small("tcn").config
    found = base.on_network_of(other)
    assert found.signature() == other.signature()
    assert (found.dropout, found.weight_decay) == (0.0, 0.1)
    assert base.on_network_of(base) == base


# --- dropout, padding, scores -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_dropout_has_draws_of_its_own_and_none_without_a_rate(kind: str) -> None:
    model = small(kind, dropout=0.5)
    windows, noise = windows_of(model, 5), noise_of(model, ROWS * 5)
    stretch = ROWS * 5 * 8
    assert len(noise) == stretch * (4 if kind == "tcn" else 2)
    first = model.cost(windows, noise, hyper_of(model))[0]
    for begin in range(0, len(noise), stretch):
        turned = noise.clone()
        turned[begin : begin + stretch].neg_()  # another half is kept
        assert not torch.isclose(model.cost(windows, turned, hyper_of(model))[0], first, rtol=1e-9)
    off = hyper_of(model) | {"dropout": torch.zeros(1, dtype=torch.float64)}
    nats, steps = model.scores(windows.inputs, windows.targets, windows.scored)
    torch.testing.assert_close(model.cost(windows, noise, off)[0], nats / steps, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_scored_costs_nothing(kind: str) -> None:
    model = small(kind)
    windows, noise = windows_of(model, 6), noise_of(model, ROWS * 6)
    scored = torch.arange(6) < torch.tensor([[6], [2], [4]])
    padded = windows.inputs.clone(), windows.targets.clone()
    for value in padded:
        value[~scored] = 0.0
    found, moved = (
        model.cost(Windows(inputs, targets, scored, scored, windows.carried), noise, hyper_of(model))[1]
        for inputs, targets in ((windows.inputs, windows.targets), padded)
    )
    torch.testing.assert_close(found, moved, rtol=1e-12, atol=0.0)
    nothing = Windows(*padded, scored, torch.zeros_like(scored), windows.carried)
    assert model.cost(nothing, noise, hyper_of(model))[1].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_the_nll_as_papers_count_it(kind: str) -> None:
    model = small(kind)
    windows = windows_of(model, 6)
    scored = torch.arange(6) < torch.tensor([[6], [2], [4]])
    scored[:, 0] = False
    with torch.no_grad():
        found = model.scores(windows.inputs, windows.targets, scored)
        probabilities = model(windows.inputs)
    expected = torch.stack(music_nll.scored(torch.logit(probabilities), windows.targets, scored))
    assert found.shape == (len(model.measures) + 1,) and model.measures == ("nll",)
    torch.testing.assert_close(found, expected.double(), rtol=1e-10, atol=0.0)
    assert model.statistics(windows.inputs.unsqueeze(0), scored.unsqueeze(0)) == {}


# --- refused settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden": 0}, "model.hidden must lie in [1, 100000], got 0"),
        ({"layers": 0}, "model.layers must lie in [1, 16], got 0"),
        ({"layers": 17}, "model.layers must lie in [1, 16], got 17"),
        ({"kernel": 1}, "model.kernel must lie in [2, 1000], got 1"),
        ({"notes": 0}, "model.notes must lie in [1, 10000], got 0"),
        ({"dropout": 1.0}, "model.dropout must lie in [0, 0.95], got 1.0"),
        ({"dropout": float("nan")}, "model.dropout must lie in [0, 0.95], got nan"),
        ({"weight_decay": -1e-3}, "model.weight_decay must lie in [0, 1], got -0.001"),
    ],
    ids=str,
)
def test_what_breaks_a_rule_is_one_sentence(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingError, match=re.escape(says)) as caught:
        SequenceConfig(**changes)
    message = str(caught.value)
    assert message.endswith(".") and "; " in message and ". " not in message and "\n" not in message


def test_a_network_that_does_not_fit_its_data_is_refused() -> None:
    config = SequenceConfig()
    config.check_fits(88, 0, "jsb-chorales")
    with pytest.raises(SettingError, match=re.escape("must be the 64 notes of a step of tunes, got 88; correct it.")):
        config.check_fits(64, 0, "tunes")
