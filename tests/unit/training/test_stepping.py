"""Steps from tables in fixed places are those of a plain loop, bit for bit; what warms a program up leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ladder_search.data.splits import make_split
from ladder_search.errors import ResourceError
from ladder_search.models.ladder import Ladder, LadderConfig
from ladder_search.training import stepping
from ladder_search.training.compiling import compiler_found
from ladder_search.training.pack import MemberSpec, Pack, TrainingData
from ladder_search.training.program import make_step
from ladder_search.training.settings import TrainingConfig
from ladder_search.training.stepping import Stepper, capture_graph, warm_up

MEMBERS, LABELLED, UNLABELLED = 3, 6, 9
CONFIG = LadderConfig(widths=(8, 6, 4), noise_std=(0.3,) * 3, lambda_=(10.0, 1.0, 0.1))
PIXELS = torch.randint(0, 17, (40, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
CLASSES = torch.randint(0, 4, (40,), generator=torch.Generator().manual_seed(1))
FEED = TrainingData(x=PIXELS, y=CLASSES, full_scale=16.0)

Stacks = tuple[dict[str, Tensor], ...]


def fresh(*, compiled: bool = False) -> tuple[Callable[..., Tensor], Stacks, int]:
    """A step, and parameters, moments and hyper-parameters of its members."""
    models = [Ladder(CONFIG, generator=torch.Generator().manual_seed(seed)) for seed in range(MEMBERS)]
    values = [dict(model.named_parameters()) for model in models]
    params = {name: torch.stack([value[name].detach() for value in values]) for name in values[0]}
    first, second = ({name: torch.zeros_like(value) for name, value in params.items()} for _ in range(2))
    hyper = {name: torch.tensor([value] * MEMBERS) for name, value in CONFIG.hyper().items()}
    size = models[0].noise_size(LABELLED, UNLABELLED)
    step = make_step(models[0], FEED, noise_size=size, compiled=compiled)
    return step, (params, first, second, hyper, {}, {}), len(models[0].term_names)


def tables(steps: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(0, 40, (steps, MEMBERS, n), generator=generator) for n in (LABELLED, UNLABELLED)]
    scales = [torch.rand(steps, MEMBERS, generator=generator) * 0.01, torch.ones(steps, MEMBERS)]
    keys = torch.arange(steps * MEMBERS).view(steps, MEMBERS) + 1000 * seed
    return [*scales, torch.zeros(steps, MEMBERS), torch.ones(steps, MEMBERS), keys, *rows]


def by_a_plain_loop(intervals: list[list[Tensor]]) -> tuple[list[Tensor], Stacks]:
    step, stacks, terms = fresh()
    totals = []
    for interval in intervals:
        total = torch.zeros(MEMBERS, terms, dtype=torch.float64)
        for i in range(len(interval[0])):
            total += step(*stacks, *(table[i] for table in interval), PIXELS, CLASSES)
        totals.append(total)
    return totals, stacks


def warmed(function: Callable[[], None], changed: Iterable[Tensor]) -> Callable[[], None]:
    """What a capture does, with the function itself in place of a graph."""
    warm_up(function, changed)
    return function


@pytest.mark.parametrize("capture", [None, warmed], ids=["as it is", "warmed up"])
@pytest.mark.parametrize("length", [128, 5, 1], ids="tables of {} steps".format)
def test_steps_are_those_of_a_plain_loop(length: int, capture: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    intervals = [tables(steps, seed) for seed, steps in enumerate((4, 11, 1))]
    monkeypatch.setattr(stepping, "_TABLE_STEPS", length)
    step, stacks, terms = fresh()
    stepper = Stepper(step, stacks, PIXELS, CLASSES, terms=terms, capture=capture)  # type: ignore[arg-type]
    totals = [stepper.run(interval) for interval in intervals]
    expected, expected_stacks = by_a_plain_loop(intervals)
    for found, wanted in zip(totals, expected, strict=True):
        assert torch.equal(found, wanted)
    for stack, wanted_stack in zip(stacks, expected_stacks, strict=True):
        assert all(torch.equal(stack[name], value) for name, value in wanted_stack.items())
    assert not torch.equal(totals[0], totals[1])


@pytest.mark.slow
@pytest.mark.timeout(400)  # a busy machine's compiler
@pytest.mark.skipif(not compiler_found(), reason="no C++ compiler, or torch in a folder with a space")
def test_compiled_steps_of_all_members_at_once_are_the_eager_ones() -> None:
    """At once is how a GPU has them; packs on a CPU take turns, see ``test_pack.test_compiled_and_eager_agree``."""
    interval = tables(12, 0)
    step, stacks, terms = fresh(compiled=True)
    stepper = Stepper(step, stacks, PIXELS, CLASSES, terms=terms, stacking="vmap", compiled=True)  # type: ignore[arg-type]
    (expected,), expected_stacks = by_a_plain_loop([interval])
    torch.testing.assert_close(stepper.run(interval), expected, rtol=1e-4, atol=1e-6)
    for stack, wanted_stack in zip(stacks, expected_stacks, strict=True):
        for name, value in wanted_stack.items():
            torch.testing.assert_close(stack[name], value, rtol=1e-3, atol=1e-4)


def test_members_that_take_turns_have_the_program_of_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    layouts: list[list[Any]] = []

    def noted(function: Callable[..., None], examples: list[Tensor]) -> Any:
        layouts.append([(tensor.shape, tensor.stride(), tensor.dtype) for tensor in examples])
        return lambda given: function(*given)

    monkeypatch.setattr(stepping, "compile_ahead", noted)
    for members in (1, 2, MEMBERS):
        step, stacks, terms = fresh(compiled=True)
        some = [{name: value[:members].clone() for name, value in stack.items()} for stack in stacks]
        options: dict[str, Any] = {"terms": terms, "stacking": "none", "compiled": True}
        stepper = Stepper(step, some, PIXELS, CLASSES, **options)  # type: ignore[arg-type]
        stepper.run([table[:, :members] for table in tables(2, 0)])
    assert len(layouts) == 3 and layouts[0] == layouts[1] == layouts[2]


def test_long_tables_are_cut_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    one = tables(7, 0)
    per_step = MEMBERS * (4 * 4 + 8 * (LABELLED + UNLABELLED) + 8)
    monkeypatch.setattr(stepping, "_TABLE_BYTES", 3 * per_step + 1)
    step, stacks, terms = fresh()
    stepper = Stepper(step, stacks, PIXELS, CLASSES, terms=terms)  # type: ignore[arg-type]
    assert torch.equal(stepper.run(one), by_a_plain_loop([one])[0][0])
    assert {len(place) for place in stepper._places} == {3}


class TestWhatCannotBeCaptured:
    @staticmethod
    def pack(data: TrainingData, device: str = "cpu", slots: int = 2, **options: Any) -> Pack:
        config = LadderConfig(widths=(64, 20, 10), noise_std=(0.3,) * 3, lambda_=(10.0, 1.0, 0.1))
        labels = data.y.cpu().numpy()
        split = make_split(labels, n_labelled=40, n_validation=297, n_classes=10, seed=1)
        moved = TrainingData(x=data.x.to(device), y=data.y.to(device), full_scale=data.full_scale)
        training = TrainingConfig(labelled_batch=20, unlabelled_batch=30)
        specs = [MemberSpec(model=config, training=training, split=split, seed=seed) for seed in range(slots)]
        pack = Pack(specs[0], Ladder, moved, slots=slots, **options)
        for spec in specs:
            pack.join(spec)
        return pack

    def test_is_said_in_one_sentence_and_does_not_run_slowly(self, data: TrainingData) -> None:
        if torch.cuda.is_available():
            pytest.skip("a CUDA device captures")
        pack = self.pack(data, captured=True)
        before = pack.state(0)
        for ask in (lambda: pack.run(1), pack.validation_errors):
            with pytest.raises(ResourceError) as caught:
                ask()
            message = str(caught.value)
            assert message.startswith("a pack's program must be captured as a CUDA graph")
            assert message.endswith("make the pack with captured=False, which is slower.") and "\n" not in message
        assert all(torch.equal(value, pack.state(0).params[name]) for name, value in before.params.items())

    def test_memory_that_does_not_suffice_is_torchs_own_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def full() -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")

        monkeypatch.setattr(torch.cuda, "Stream", full)
        with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
            capture_graph(lambda: None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")
@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_captured_steps_on_a_gpu_are_those_that_are_launched_one_by_one(
    compiled: bool, slots: int, data: TrainingData
) -> None:
    def train(captured: bool) -> tuple[Pack, list[Any]]:
        pack = TestWhatCannotBeCaptured.pack(data, "cuda", slots, compiled=compiled, captured=captured)
        found = []
        for steps in (3, 20, 150):
            reports = pack.run(steps)
            found.append(([list(report.terms.values()) for report in reports.values()], pack.validation_errors()))
        return pack, found

    graph, found = train(True)
    plain, expected = train(False)
    for (terms, errors), (wanted, wanted_errors) in zip(found, expected, strict=True):
        np.testing.assert_allclose(terms, wanted, rtol=1e-3)
        for slot, error in wanted_errors.items():
            assert abs(errors[slot] - error) * 297 < 2.5
    # A member that comes later finds the program as its neighbours left it.
    spec = graph._seat(0).spec
    for pack in (graph, plain):
        pack.leave(0)
        pack.join(spec)
        pack.run(20)
    for name, value in plain.state(0).params.items():
        torch.testing.assert_close(graph.state(0).params[name], value, rtol=1e-3, atol=1e-4)
