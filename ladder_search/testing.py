"""The contract of a family, as checks of its small network: what packs, searches and exports require.

``check_family("my-family", "my_family.py")`` raises ``FamilyContractError`` with the first rule that is broken. The
tests of the built-in families call the same checks.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ladder_search import plugins
from ladder_search.config import as_mapping, build
from ladder_search.data import datasets
from ladder_search.data.dataset import Dataset
from ladder_search.data.music import KEYS, MusicCorpus, as_dataset
from ladder_search.errors import LadderSearchError
from ladder_search.metrics import COST, NLL
from ladder_search.models import FAMILIES, find_family
from ladder_search.nn.grouping import GroupingConfig
from ladder_search.nn.network import Column, Columns, Network
from ladder_search.nn.protocol import SOURCES, Batch, ColumnConfig, Windows
from ladder_search.training.feeding import feed_of_test_set
from ladder_search.training.pack import IntervalReport, MemberSpec, Pack
from ladder_search.trial import TrialSpec

_CPU = torch.device("cpu")


class FamilyContractError(LadderSearchError, AssertionError):
    """A family breaks a rule of the contract."""


def check_family(name: str, plugin: str | Path | None = None) -> None:
    """Run every check of the contract on the family ``name``.

    Args: ``plugin``: the Python file that registers the family; None if it is built in, registered or installed.

    Raises ``FamilyContractError`` for the first rule that is broken, ``PluginError`` if the plugin cannot be used, and
    ``UnknownNameError`` if there is no such family.
    """
    if plugin is not None:
        plugins.use(Path(plugin))
    find_family(name)
    for check in CHECKS:
        try:
            check(name)
        except FamilyContractError:
            raise
        except Exception as error:  # of the family's own code
            text = " ".join(str(error).split())[:300].rstrip(".")
            rule = check.__name__.removeprefix("check_").replace("_", " ")
            raise FamilyContractError(
                f"the family {name!r} breaks the contract: {rule}: {type(error).__name__}: {text}; the traceback above "
                "shows where."
            ) from error


def check_settings(family: str) -> None:
    """Settings return from JSON unchanged, describe themselves as the types say, and fit the test data set."""
    row, model = find_family(family), spec_of(family).model
    _must(family, build(row.config, json.loads(json.dumps(as_mapping(model)))) == model, "settings return from JSON")
    _must(family, model.on_network_of(model) == model, "on_network_of the same settings returns them unchanged")
    same = hash(model.signature()) == hash(spec_of(family).model.signature())
    _must(family, same, "equal settings have equal signatures that can be hashed")
    numbers = [value for values in model.hyper().values() for value in values]
    _must(family, all(isinstance(value, float) for value in numbers), "hyper returns lists of floats")
    dataset = dataset_of(family)
    spec_of(family).check_fits(dataset)
    _must(family, math.prod(model.example_shape) == dataset.numbers, "example_shape is that of the data")
    _must(family, model.flops(10, 20) > 0, "flops returns a positive number")
    config = row.config()
    _must(family, build(row.config, as_mapping(config)) == config, "the defaults return from a mapping")


def check_a_step(family: str) -> None:
    """A step returns a scalar cost and the named terms, every parameter gets a gradient, and the network classifies."""
    spec, model = spec_of(family), network_of(family).double()
    music, grouping = _is_music(family), _is_grouping(family)
    hyper = {name: torch.tensor(value, dtype=torch.float64) for name, value in spec.model.hyper().items()}
    noise = torch.randn(model.noise_size(*((10 * 8, 0) if music else (10, 20))), dtype=torch.float64)
    batch, minibatches, judged = examples_of(family)
    total, terms, *carried = model.cost(batch, noise, hyper)
    shapes = [{name: value.shape[1:] for name, value in one.items()} for one in carried]
    expected = [{name: torch.Size(shape) for name, shape in model.carried.items()}] if music else []
    _must(family, shapes == expected, "cost returns the state that carried names, and no other third result")
    _must(family, total.shape == (), f"the cost is a scalar, got shape {tuple(total.shape)}")
    names = model.term_names
    _must(family, terms.shape == (len(names),), f"cost returns {len(names)} terms, got shape {tuple(terms.shape)}")
    _must(family, names[0] == COST and bool(terms[0] == total), f"the first term is the cost, named {COST!r}")
    total.backward()  # type: ignore[no-untyped-call]
    # The combinators' start hides the weights behind them in the first step; nothing is out of reach.
    trained = {name: value for name, value in model.named_parameters() if not name.startswith(SOURCES)}
    unreached = [name for name, value in trained.items() if value.grad is None]
    _must(family, not unreached, f"every parameter gets a gradient, {', '.join(unreached[:5])} got none")
    statistics = model.statistics(*minibatches)
    own = {name: value.shape for name, value in model.named_buffers() if not name.startswith(SOURCES)}
    returned = {name: value.shape for name, value in statistics.items()}
    _must(family, returned == own, f"statistics returns a value of every buffer, {sorted(own)}, got {sorted(returned)}")
    model.load_state_dict({name: value.detach() for name, value in statistics.items()}, strict=False)
    probabilities, scores = model(judged[0]), model.scores(*judged)
    measures = len(model.measures)
    _must(family, scores.shape == (measures + 1,), f"scores returns {measures} sums and a divisor, got {scores.shape}")
    if music:
        inside = bool(probabilities.min() > 0.0 and probabilities.max() < 1.0)
        _must(family, probabilities.shape == judged[0].shape and inside, "calling it returns probabilities of notes")
        return
    _must(family, bool(scores[-1] == 30), "the divisor of scores is the number of rows")
    axis = 1 if grouping else -1
    if not grouping:
        rows, shape = (30, dataset_of(family).n_classes), tuple(probabilities.shape)
        _must(family, shape == rows, f"calling it returns probabilities of shape {rows}, got {shape}")
    sums = probabilities.sum(axis)
    near = torch.allclose(sums, torch.ones_like(sums), rtol=1e-9, atol=1e-9)
    _must(family, near and bool((probabilities >= 0).all()), "calling it returns probabilities that sum to 1")


def check_features(family: str) -> None:
    """A column's features are its activations from the input to the logits."""
    model, config = network_of(family), spec_of(family).model
    if not isinstance(model, (Column, Columns)):
        return
    _must(family, isinstance(config, ColumnConfig), "the settings of a network with features are a ColumnConfig")
    assert isinstance(config, ColumnConfig)
    x = torch.rand(5, *config.example_shape)
    h = model.features(x)
    _must(family, len(h) == len(config.sizes), "features returns the activations of layers 0..L")
    _must(family, torch.equal(h[0].reshape(5, -1), x), "the first features are the input")
    _must(family, torch.equal(torch.softmax(h[-1], dim=-1), model(x)), "the last features are the logits")
    largest = max(value[0].numel() for value in h)
    _must(family, largest <= model.widest, f"widest is at least the largest layer, {largest}, got {model.widest}")


def check_members(family: str) -> None:
    """Members of one pack train as each does alone: no statistics, state or randomness is shared among them."""
    together = _new_pack(family, 3)
    slots = [together.join(member_of(family, seed)) for seed in (1, 2)]  # one slot stays empty
    reports = together.run(12)
    errors = together.validation_errors()
    for seed, slot in zip((1, 2), slots, strict=True):
        alone = _new_pack(family, 1)
        alone.join(member_of(family, seed))
        rule = "a member of a pack trains as it does alone; draw from noise only, and mix no rows of other members"
        _must(family, _agree(reports[slot], alone.run(12)[0]), rule)
        # A count of errors is the same; of an NLL the sum over notes may have been taken in another order.
        same = math.isclose(errors[slot], alone.validation_errors()[0], rel_tol=1e-13)
        _must(family, same, "a member of a pack is evaluated as it is alone")
    differ = reports[slots[0]].terms != reports[slots[1]].terms
    _must(family, differ, "members of different seeds train differently; draw the initial weights from generator")


def check_moving(family: str) -> None:
    """A member that continues from its state in another pack trains as if it had stayed."""
    member = member_of(family)
    stayed, first, second = (_new_pack(family, 1) for _ in range(3))
    stayed.join(member)
    first.join(member)
    first.run(5)
    stayed.run(5)
    second.join(member, state=first.state(0))
    same = _agree(second.run(7)[0], stayed.run(7)[0])
    _must(family, same, "a member continues from its state as if it had stayed; keep no other state")


def check_learning(family: str) -> None:
    """A member learns, and becomes a plain network with the scores of its pack."""
    spec, dataset = spec_of(family), dataset_of(family)
    pack = _new_pack(family, 1)
    pack.join(member_of(family))
    supervised = network_of(family).term_names[0 if _is_grouping(family) else 1]
    first = pack.run(10)[0].terms[supervised]
    last = pack.run(100)[0].terms[supervised]
    _must(family, last < first, f"110 steps reduce {supervised}, got {first:.4g} and then {last:.4g}")
    network, test = pack.module(0).eval(), feed_of_test_set(spec.member(dataset), dataset, _CPU)
    everything = test.everything()[None]
    chunks = [tuple(value[0] for value in chunk) for chunk in test.chunks(everything, 100, torch.float64)]
    sums = torch.stack([network.scores(*chunk) for chunk in chunks]).sum(0)
    expected = dict(zip(network.measures, (sums[:-1] / sums[-1]).tolist(), strict=True))
    scores = pack.test_scores(test)[0]
    same = scores.keys() == expected.keys() and all(
        math.isclose(scores[name], expected[name], rel_tol=1e-6, abs_tol=1e-12) for name in expected
    )
    _must(family, same, f"a trained network has the scores of its pack, {scores}, got {expected}")
    again = spec.empty_module().double()
    again.load_state_dict(network.state_dict())
    x = chunks[0][0]
    _must(family, torch.equal(again(x), network(x)), "a network is determined by its settings and its state_dict")


CHECKS: tuple[Callable[[str], None], ...] = (
    check_settings,
    check_a_step,
    check_features,
    check_members,
    check_moving,
    check_learning,
)
"""The checks, in order of the time that they take."""


@functools.cache
def dataset_of(family: str) -> Dataset:
    """Return digits, digits that move, shapes, or pieces of which each step has the next key down and others by chance,
    whatever the family's small network reads."""
    if _is_grouping(family):
        return datasets.load("shapes-small")
    if not _is_music(family):
        return datasets.load("occluded-digits-mini" if len(find_family(family).small.example_shape) == 3 else "digits")
    random = np.random.default_rng(1)

    def piece(steps: int) -> np.ndarray:
        roll = (random.random((steps, KEYS)) < 0.01).astype(np.uint8)
        roll[np.arange(steps), (7 * np.arange(steps)) % KEYS] = 1
        return roll

    train, valid, test = (tuple(piece(n) for n in lengths) for lengths in ((9, 30, 17, 25, 12, 21), (14, 8), (20, 11)))
    return as_dataset(MusicCorpus(name="jsb-chorales", train=train, valid=valid, test=test, digest="d" * 64))


def spec_of(family: str, *, seed: int = 1, dtype: str = "float64") -> TrialSpec:
    """Return a trial of the family's small network; networks of an earlier stage are those of its family."""
    row = find_family(family)
    data: dict[str, Any] = {"dataset": dataset_of(family).name, "labels": 40, "validation": 97}
    if _is_music(family):
        data |= {"labels": None, "validation": 2}
    training = {"epochs": 2, "labelled_batch": 10, "unlabelled_batch": 20, "dtype": dtype, "window": 8}
    sources = {}
    if row.stage is not None:
        of_source = {"dataset": "digits", "labels": 40, "validation": 97}
        model = as_mapping(FAMILIES[row.stage].small)
        sources["digits"] = {"family": row.stage, "data": of_source, "model": model, "training": {"epochs": 1}}
    return TrialSpec.from_mapping(
        {
            "family": family,
            "data": data,
            "model": as_mapping(row.small),
            "training": training,
            "sources": sources,
            "seed": seed,
        }
    )


def member_of(family: str, seed: int = 1) -> MemberSpec:
    """Return the pack member of ``spec_of``; networks of an earlier stage stay as they are initialised."""
    spec = spec_of(family, seed=seed)
    return spec.member(dataset_of(family), sources=spec.empty_sources())


def network_of(family: str) -> Network:
    """Return the family's small network with initial weights."""
    spec = spec_of(family)
    generator, sources = torch.Generator().manual_seed(1), list(spec.empty_sources().values())
    return find_family(family).build(spec.model, generator=generator, sources=sources)


def examples_of(family: str) -> tuple[Batch | Windows, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Return a batch, minibatches for statistics and examples for scores, of random numbers."""
    if not _is_music(family):
        x = torch.rand(30, *spec_of(family).model.example_shape, dtype=torch.float64)
        batch = Batch(x[:10], torch.arange(10), x[10:])
        segments = (torch.randint(-1, 2, x.shape),) if _is_grouping(family) else ()
        return batch, (x[:20].view(2, 10, *x.shape[1:]),), (x, torch.arange(30) % 10, *segments)
    notes = (torch.rand(2, 10, 8, KEYS) < 0.1).double()
    there = torch.arange(8) < torch.randint(1, 9, (10, 1))
    carried = {name: torch.rand(10, *shape, dtype=torch.float64) for name, shape in network_of(family).carried.items()}
    windows = Windows(inputs=notes[0], targets=notes[1], present=there, scored=there, carried=carried)
    return windows, (notes, there.expand(2, 10, 8)), (notes[0], notes[1], there)


def _is_music(family: str) -> bool:
    return find_family(family).small.measure is NLL


def _is_grouping(family: str) -> bool:
    """Whether the family groups pixels without labels and is judged by the true segments of images."""
    return isinstance(find_family(family).small, GroupingConfig)


def _new_pack(family: str, slots: int) -> Pack:
    return spec_of(family).pack(dataset_of(family), slots=slots, compiled=False, device=_CPU)


def _agree(one: IntervalReport, other: IntervalReport) -> bool:
    """Whether two reports agree in all but the time; terms to rounding."""
    mine, theirs = dataclasses.asdict(one), dataclasses.asdict(other)
    for report in (mine, theirs):
        del report["step_time_ms"]
    terms, others = mine.pop("terms"), theirs.pop("terms")
    near = all(math.isclose(terms[name], others[name], rel_tol=1e-9, abs_tol=1e-12) for name in terms)
    return mine == theirs and terms.keys() == others.keys() and near


def _must(family: str, holds: bool, rule: str) -> None:
    if not holds:
        raise FamilyContractError(
            f"the family {family!r} breaks the contract: {rule}; see nn/protocol.py and nn/network.py."
        )
