"""Runs many steps in a row without host synchronisation: a step reads its inputs from tables, at a counter.

Tables, counter and sum have fixed addresses on the device, so that a step and its advance of the counter form a
function without arguments. On a CPU it is called directly or as one compiled program. On CUDA it is captured once as
a graph and replayed, and the host synchronises only to read the interval's sum.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from subprocess import SubprocessError

import torch
from torch import Tensor

from ladder_search.errors import ResourceError
from ladder_search.internals.torch import tree_flatten, tree_unflatten
from ladder_search.nn.protocol import Stacking
from ladder_search.training.ahead import Program, compile_ahead
from ladder_search.training.memory import out_of_memory
from ladder_search.training.program import Stack, Step, float32_products_of

Capture = Callable[[Callable[[], None], Iterable[Tensor]], Callable[[], None]]
"""Returns a faster equivalent of a function without arguments; also takes the tensors that the function modifies."""

_TABLE_STEPS = 128
_TABLE_BYTES = 1 << 26
"""Limits on the tables' buffers; longer tables are processed in parts."""
_WARM_UP = 3


class Stepper:
    """Runs a pack's step many times in a row."""

    def __init__(
        self,
        step: Step,
        stacks: tuple[Stack, Stack, Stack, Stack, Stack, Stack],
        x: Tensor,
        y: Tensor,
        *,
        terms: int,
        stacking: Stacking = "vmap",
        compiled: bool = False,
        precision: str = "float32",
        capture: Capture | None = None,
    ) -> None:
        """Args:
        stacks: parameters, Adam's two moments, hyper-parameters, constants and carried state; their addresses are
            fixed.
        terms: number of cost terms of a member.
        stacking: of the family; "none": the members take turns in every step.
        compiled: compile the step on its first use; if that fails, it runs eagerly.
        precision: of the products, see ``TrainingConfig.precision``.
        capture: ``capture_graph`` on CUDA; None runs the step directly.
        """
        self._step, self._stacks, self._x, self._y = step, stacks, x, y
        self._members = len(next(iter(stacks[0].values())))
        self._stacking, self._precision, self._capture = stacking, precision, capture
        self.compiled = compiled
        """Whether the step is compiled; False after a failed compilation."""
        self.failure = ""
        """Why the step could not be compiled."""
        self._total = torch.zeros((self._members, terms), dtype=torch.float64, device=x.device)
        self._at = torch.zeros(1, dtype=torch.int64, device=x.device)
        self._places: list[Tensor] = []
        self._advance: Callable[[], None] | None = None

    def run(self, tables: Sequence[Tensor]) -> Tensor:
        """Run one step per row of ``tables`` and return the sum of the steps' terms, (K, terms) float64.

        ``tables`` are learning rates, second corrections, progress, gradient limits, noise keys and row indices, each
        (steps, K, ...) and on the device.
        """
        steps = len(tables[0])
        if not self._places:
            per_step = sum(table[0].nbytes for table in tables)
            length = max(_WARM_UP, min(_TABLE_STEPS, _TABLE_BYTES // per_step))  # the warm-up also moves the counter
            # Member after member in memory, so that a member's share is laid out alike in packs of all sizes, which
            # therefore have the same compiled program.
            self._places = [
                table.new_zeros((table.shape[1], length, *table.shape[2:])).transpose(0, 1) for table in tables
            ]
        self._total.zero_()
        length = len(self._places[0])
        with float32_products_of(self._precision, self._x.device):
            for begin in range(0, steps, length):
                n = min(length, steps - begin)
                for place, table in zip(self._places, tables, strict=True):
                    place[:n].copy_(table[begin : begin + n])
                self._at.zero_()
                if self._advance is None:
                    self._advance = self._ready()
                for _ in range(n):
                    self._advance()
        return self._total.clone()

    def _ready(self) -> Callable[[], None]:
        """Return a function that runs one step of all members and advances to the next row of the tables."""
        leaves, structure = tree_flatten(self._stacks)
        places = len(self._places)

        def share(*tensors: Tensor) -> None:
            at, total, *rest = tensors
            tables, stacked, (x, y) = rest[:places], rest[places:-2], rest[-2:]
            row = [table.index_select(0, at).squeeze(0) for table in tables]
            total += self._step(*tree_unflatten(stacked, structure), *row, x, y)

        # Members that take turns are separate shares with one program.
        turns = [slice(k, k + 1) for k in range(self._members)] if self._stacking == "none" else [slice(None)]
        shares = [
            [self._at, self._total[k], *(p[:, k] for p in self._places), *(v[k] for v in leaves), self._x, self._y]
            for k in turns
        ]
        program = self._program(share, shares[0])

        def one() -> None:
            for tensors in shares:
                program(tensors)
            self._at.add_(1)

        if self._capture is None:
            return one
        *moving, _, _, carried = self._stacks
        changed = [tensor for stack in (*moving, carried) for tensor in stack.values()]
        return self._capture(one, (*changed, self._total, self._at))

    def _program(self, share: Callable[..., None], example: Sequence[Tensor]) -> Program:
        if self.compiled:
            try:
                return compile_ahead(share, example)
            except (RuntimeError, OSError, SubprocessError) as error:
                if out_of_memory(error) is not None:
                    raise
                # For example, the temporary folder has since been mounted with noexec, or the disk is full.
                self.compiled = False
                self.failure = " ".join(str(error).split())[:300] or type(error).__name__
                warnings.warn(f"steps are not compiled, which failed: {self.failure}", RuntimeWarning, stacklevel=2)
        return lambda tensors: share(*tensors)


def warm_up(function: Callable[[], object], changed: Iterable[Tensor]) -> None:
    """Call ``function`` a few times and restore the tensors ``changed``."""
    places = list(changed)
    saved = [place.clone() for place in places]
    for _ in range(_WARM_UP):
        function()
    for place, value in zip(places, saved, strict=True):
        place.copy_(value)


def capture_graph(function: Callable[[], None], changed: Iterable[Tensor] = ()) -> Callable[[], None]:
    """Return a function that replays the CUDA launches of ``function``, or raise ``ResourceError``.

    ``function`` uses tensors at fixed addresses and does not synchronise. The tensors ``changed``, which it modifies,
    are restored after the warm-up, which needs twice their memory.
    """
    try:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            warm_up(function, changed)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            function()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ResourceError(
            f"a pack's program must be captured as a CUDA graph and this device or model does not allow it ({reason}); "
            "make the pack with captured=False, which is slower."
        ) from error
    return graph.replay
