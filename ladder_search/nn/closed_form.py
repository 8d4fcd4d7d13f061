"""Operations with an explicit gradient formula, for compiled programs.

Autograd's gradient of a composed operation reads the inputs once per part, while a compiler turns one formula into one
or two loops, which saves much of a small network's step. Eager programs gain nothing and differentiate the definition.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ladder_search.internals.torch import get_proxy_mode


class ClosedForm(Function):
    """An operation with its definition, ``forward``, and its gradient, ``backward``; call it through ``of``."""

    generate_vmap_rule = True

    @classmethod
    def of(cls, *inputs: Tensor) -> Any:
        """Return the operation's value; its gradient formula is used if a program is being traced."""
        return cls.apply(*inputs) if being_traced() else cls.forward(*inputs)  # type: ignore[no-untyped-call]


def being_traced() -> bool:
    """Return whether a program is being traced, see ``training.ahead``; ``torch.compile`` uses the definitions."""
    return not torch.compiler.is_dynamo_compiling() and get_proxy_mode() is not None


def computed_once(*values: Tensor) -> tuple[Tensor, ...]:
    """Return ``values``, of one shape, so that a compiler computes them before the operations that use them.

    Otherwise it would recompute a row's root or quotient for every row to which it is broadcast.
    """
    return torch.stack(values).unbind(0) if being_traced() else values
