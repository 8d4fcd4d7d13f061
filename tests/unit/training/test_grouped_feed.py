"""Images of several objects on their way into a pack; no true segment reaches a cost."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ladder_search.data import datasets
from ladder_search.data.dataset import Dataset
from ladder_search.data.drawing import TEST, VALIDATION, Painter, part_key
from ladder_search.data.splits import Split
from ladder_search.metrics import AMI
from ladder_search.models.ladder import LadderConfig
from ladder_search.nn.protocol import Batch
from ladder_search.training import feeding
from ladder_search.training.feeding import feed_of_test_set, training_feed
from ladder_search.training.grouped_feed import GroupedImages
from ladder_search.training.member import MemberSpec
from ladder_search.training.settings import TrainingConfig

CPU = torch.device("cpu")


class Judged(LadderConfig):
    """A network that is judged by its groups, as far as a feed is concerned."""

    @property
    def measures(self) -> tuple[str, ...]:
        return (AMI.name,)


class Plain(LadderConfig):
    @property
    def example_shape(self) -> tuple[int, ...]:
        return (400,)


class JudgedPlain(Judged):
    @property
    def example_shape(self) -> tuple[int, ...]:
        return (400,)


@pytest.fixture(scope="module")
def shapes() -> Dataset:
    return datasets.load("shapes-small")


def member(kind: type[LadderConfig], seed: int = 1) -> MemberSpec:
    rows = np.arange(5000)
    return MemberSpec(
        model=kind(),
        training=TrainingConfig(epochs=1, labelled_batch=4, unlabelled_batch=6),
        split=Split(labelled=rows, unlabelled=rows, validation=np.arange(5000, 5500)),
        seed=seed,
    )


def feed(kind: type[LadderConfig], data: Dataset) -> GroupedImages:
    made = training_feed(member(kind), data, CPU)
    assert isinstance(made, GroupedImages)
    return made


def test_a_training_batch_has_the_rows_images_and_no_segments(shapes: Dataset) -> None:
    own = feed(JudgedPlain, shapes)
    rows = (torch.tensor([[5, 9, 11, 7], [0, 1, 2, 3]]), torch.arange(12).view(2, 6))
    gathered = own.gather(own.x, own.y, rows, torch.tensor([1, 2]), torch.float64)
    assert [each.shape for each in gathered] == [(2, 4, 400), (2, 4), (2, 6, 400)]
    assert torch.equal(gathered[0][0, 0], own.fixed(torch.tensor([5]), torch.float64)[0])
    assert set(gathered[0].unique().tolist()) == {0.0, 1.0}
    batch = own.batch([each[0] for each in gathered], {})
    assert isinstance(batch, Batch) and [f.name for f in fields(batch)] == ["x_labelled", "y", "x_unlabelled"]
    again = own.gather(own.x, own.y, [each[1:] for each in rows], torch.tensor([7]), torch.float64)
    assert torch.equal(again[0][0], gathered[0][1]), "each row has one image, whatever the step and the neighbours"
    none = own.gather(
        own.x, own.y, (rows[0], torch.empty((2, 0), dtype=torch.int64)), torch.tensor([1, 2]), torch.float64
    )
    assert none[2].shape == (2, 0, 400)


def test_only_networks_that_are_judged_by_groups_get_segments_to_score(shapes: Dataset) -> None:
    rows = torch.tensor([[3, 4, 5]])
    (judged,) = feed(JudgedPlain, shapes).chunks(rows, 10, torch.float32)
    (plain,) = feed(Plain, shapes).chunks(rows, 10, torch.float32)
    assert len(plain) == 2 and torch.equal(plain[0], judged[0])
    x, y, segments = judged
    assert (x.shape, y.shape, segments.shape, segments.dtype) == ((1, 3, 400), (1, 3), (1, 3, 400), torch.int64)
    assert segments.min() == -1 and segments.max() == 2
    # Scored pixels have ink; the segments of two images differ.
    assert (x[segments >= 0] == 1).all() and not torch.equal(segments[0, 0], segments[0, 1])
    parts = list(feed(JudgedPlain, shapes).chunks(rows, 2, torch.float32))
    assert [torch.cat(each, 1).equal(whole) for each, whole in zip(zip(*parts, strict=True), judged, strict=True)] == [
        True
    ] * 3


def test_test_images_are_others(shapes: Dataset) -> None:
    training, testing = feed(JudgedPlain, shapes), feed_of_test_set(member(JudgedPlain), shapes, CPU)
    assert isinstance(testing, GroupedImages) and len(testing.everything()) == 1000
    rows = torch.arange(50)
    assert not torch.equal(training.fixed(rows, torch.float32), testing.fixed(rows, torch.float32))
    painter = testing.painter
    assert torch.equal(testing.fixed(rows, torch.float64), painter.draw(None, part_key(TEST), rows, TEST)[0].double())
    assert torch.equal(
        training.fixed(rows, torch.float64), painter.draw(None, part_key(VALIDATION), rows, VALIDATION)[0].double()
    )


class _OtherSegments(Painter):
    """Draws the same images with random segments."""

    def __init__(self, painter: Painter) -> None:
        self._painter = painter

    def draw(self, digits: Tensor | None, key: int | Tensor, numbers: Tensor, part: int) -> tuple[Tensor, Tensor]:
        images, segments = self._painter.draw(digits, key, numbers, part)
        return images, torch.randint(-1, 3, segments.shape)


def test_no_cost_depends_on_a_segment(shapes: Dataset) -> None:
    """A step of a network with random segments has the bits of a step with the true ones, and no place for them."""
    own = feed(JudgedPlain, shapes)
    other = replace(own, painter=_OtherSegments(own.painter))
    rows = (torch.arange(4).view(1, 4), torch.arange(6).view(1, 6))
    inputs = [each.gather(own.x, own.y, rows, torch.tensor([1]), torch.float32) for each in (own, other)]
    assert all(torch.equal(one, two) for one, two in zip(*inputs, strict=True))
    (true,), (wrong,) = (list(each.chunks(rows[1], 10, torch.float32)) for each in (own, other))
    assert torch.equal(true[0], wrong[0]) and not torch.equal(true[2], wrong[2])
    assert all(torch.equal(one, two) for one, two in zip(
        own.minibatches(rows[1][None], torch.float32), other.minibatches(rows[1][None], torch.float32), strict=True
    ))  # fmt: skip


def test_feeds_of_both_kinds_of_networks_are_kept_apart(shapes: Dataset) -> None:
    feeding._prepared.clear()
    assert feed(JudgedPlain, shapes) is feed(JudgedPlain, shapes) is not feed(Plain, shapes)


def test_a_compiled_gather_is_the_eager_one(shapes: Dataset) -> None:
    own = feed(JudgedPlain, shapes)
    rows = (torch.arange(4).view(1, 4), torch.arange(6).view(1, 6))

    def step(x: Tensor, y: Tensor, keys: Tensor, *rows: Tensor) -> tuple[Tensor, ...]:
        return own.gather(x, y, rows, keys, torch.float32)

    from torch.fx.experimental.proxy_tensor import make_fx

    graph = make_fx(step, tracing_mode="real")(own.x, own.y, torch.tensor([1]), *rows)
    later = (rows[0] + 40, rows[1] + 70)
    found = graph(own.x, own.y, torch.tensor([9]), *later)
    assert all(torch.equal(a, b) for a, b in zip(found, step(own.x, own.y, torch.tensor([9]), *later), strict=True))


class OfDigits(Judged):
    """A network for digits of any scene; its input shape is that of the data."""


SETS = ["freq20-2digits", "two-textures-digits", "moving-digits-small"]


def feed_of(name: str, part: str = "training") -> GroupedImages:
    data = datasets.load(name)
    shape = (1, *data.example_shape) if len(data.example_shape) == 1 else data.example_shape
    kind = type("Fitting", (OfDigits,), {"example_shape": property(lambda self: shape), "__slots__": ()})
    spec = replace(
        member(kind), split=Split(labelled=np.arange(900), unlabelled=np.arange(900), validation=np.arange(900, 1297))
    )
    made = training_feed(spec, data, CPU) if part == "training" else feed_of_test_set(spec, data, CPU)
    assert isinstance(made, GroupedImages)
    return made


ROWS = (torch.tensor([[5, 9, 11, 7], [0, 1, 2, 3]]), torch.arange(12).view(2, 6))


@pytest.mark.parametrize("name", SETS)
def test_steps_draw_anew_where_the_scene_says_so(name: str) -> None:
    own = feed_of(name)
    first = own.gather(own.x, own.y, ROWS, torch.tensor([1, 2]), torch.float64)
    other = own.gather(own.x, own.y, ROWS, torch.tensor([3, 2]), torch.float64)
    assert torch.equal(first[0][1], other[0][1]), "a step of a member does not depend on its neighbours"
    assert torch.equal(first[0][0], other[0][0]) != own.scene.redrawn
    assert first[0].min() >= 0 and first[0].max() <= 1
    # Labelled and unlabelled rows of a step are different drawings of the same digits.
    same = (torch.arange(4).expand(2, 4), torch.arange(4).expand(2, 4))
    labelled, _, unlabelled = own.gather(own.x, own.y, same, torch.tensor([1, 2]), torch.float64)
    assert torch.equal(labelled, unlabelled) != own.scene.redrawn
    for rows in (torch.arange(6), torch.arange(6).flip(0)):
        assert torch.equal(own.fixed(rows, torch.float64), own.fixed(torch.arange(6), torch.float64)[rows])


@pytest.mark.parametrize("name", SETS)
def test_a_compiled_gather_of_digits_is_the_eager_one(name: str) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    own = feed_of(name)

    def step(x: Tensor, y: Tensor, keys: Tensor, *rows: Tensor) -> tuple[Tensor, ...]:
        return own.gather(x, y, rows, keys, torch.float32)

    graph = make_fx(step, tracing_mode="real")(own.x, own.y, torch.tensor([1, 2]), *ROWS)
    later, keys = [each + 40 for each in ROWS], torch.tensor([9, -5])
    expected = step(own.x, own.y, keys, *later)
    assert all(torch.equal(a, b) for a, b in zip(graph(own.x, own.y, keys, *later), expected, strict=True))


def test_images_of_two_digits_have_the_classes_of_both() -> None:
    own = feed_of("freq20-2digits")
    ((_, y, _),) = own.chunks(torch.arange(1297).unsqueeze(0), 2000, torch.float32)
    assert y.shape == (1, 1297, 10) and set(y.unique().tolist()) == {0, 1}
    assert y.gather(-1, own.y.view(1, -1, 1)).min() == 1, "the row's own class is one of them"
    equal = (y.sum(-1) == 1).double().mean()
    assert set(y.sum(-1).unique().tolist()) == {1, 2} and 0.06 < equal < 0.14
    labelled = own.gather(own.x, own.y, ROWS, torch.tensor([1, 2]), torch.float32)[1]
    assert torch.equal(labelled[0], y[0, ROWS[0][0]]), "fixed images have fixed classes"
    moving = feed_of("moving-digits-small")
    classes = [
        moving.gather(moving.x, moving.y, ROWS, torch.tensor(keys), torch.float32)[1] for keys in ([1, 2], [3, 4])
    ]
    assert classes[0].shape == (2, 4, 10) and not torch.equal(*classes)


def test_test_digits_are_those_of_the_test_part() -> None:
    training, testing = feed_of("moving-digits-small"), feed_of("moving-digits-small", "test")
    assert len(training.x) == 1297 and len(testing.x) == 500
    (x, y, segments), *_ = testing.chunks(torch.tensor([[499, 3]]), 10, torch.float32)
    assert (x.shape, y.shape, segments.shape) == ((1, 2, 8, 16, 16), (1, 2, 10), (1, 2, 8, 256))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["shapes-small", *SETS])
def test_a_device_draws_the_same_bits(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    data = datasets.load(name)
    assert data.grouped is not None
    rows, scene = torch.arange(200), data.grouped.scene
    digits = None
    if scene.digits:
        digits = torch.from_numpy(np.array(data.train_x))[rows].unsqueeze(1).repeat(1, scene.digits, 1, 1)
    here = data.grouped.scene.painter(None, CPU).draw(digits, 5, rows, VALIDATION)
    there = data.grouped.scene.painter(None, torch.device("cuda")).draw(
        None if digits is None else digits.cuda(), 5, rows.cuda(), VALIDATION
    )
    assert all(torch.equal(a, b.cpu()) for a, b in zip(here, there, strict=True))
