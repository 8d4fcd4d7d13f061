"""Operations with a gradient in one formula, for programs that are compiled.

The gradient of a composed operation, as autograd chains it, reads its inputs once for every part. Where a compiler
makes loops of what it is given, one formula is one or two loops, and that is much of a small network's step. Run
operation by operation it gains nothing: there the definition is differentiated as it stands.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ladder_search.internals.torch import get_proxy_mode


class ClosedForm(Function):
    """An operation: ``forward`` is its definition, ``backward`` its gradient. Call it through ``of``."""

    generate_vmap_rule = True

    @classmethod
    def of(cls, *inputs: Tensor) -> Any:
        """Return the operation's value, to be differentiated by its formula in a program that is being traced."""
        return cls.apply(*inputs) if being_traced() else cls.forward(*inputs)  # type: ignore[no-untyped-call]


def being_traced() -> bool:
    """Whether what is called now becomes a program, see ``training.ahead``; ``torch.compile`` gets the definitions."""
    return not torch.compiler.is_dynamo_compiling() and get_proxy_mode() is not None


def computed_once(*values: Tensor) -> tuple[Tensor, ...]:
    """Return ``values``, which have one shape, such that a compiler computes them before what reads them.

    It would otherwise take a root or a quotient of a row anew for every row that it is spread over.
    """
    return torch.stack(values).unbind(0) if being_traced() else values
