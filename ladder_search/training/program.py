"""One training step of K members as one function of tensors: forward, backward and Adam, with a leading trial axis.

The model is an ordinary module for one trial; ``vmap`` stacks it. Compiled, forward, backward and update become one
graph. Run eagerly, the gradient comes from plain autograd on the sum over members, which costs half of a functional
gradient's launches and is the same gradient, because no member's cost depends on another member's parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from ladder_search.nn.protocol import Batch
from ladder_search.training.schedules import ADAM_EPSILON, BETA1, BETA2

Stack = dict[str, Tensor]
"""Parameter or buffer name -> values of all members, shape (K, ...)."""

_MODEL = "model."


class _Cost(nn.Module):
    """Makes a model's ``cost`` callable through ``functional_call``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, noise: Tensor, hyper: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self.model.cost(batch, noise, hyper)  # type: ignore[no-any-return, operator]


def make_step(model: nn.Module, full_scale: float, *, compiled: bool) -> Callable[..., Tensor]:
    """Return ``step(params, first, second, hyper, rate, root, labelled, unlabelled, x, y, noise) -> terms``.

    The step updates ``params`` and Adam's moments ``first`` and ``second`` (stacks) in place.

    Args of the step, with K members:
        hyper: name -> (K, ...) tensors of hyper-parameters.
        rate, root: Adam's bias-corrected learning rate and second correction, each (K,).
        labelled, unlabelled: indices into the data, (K, rows) int64.
        x, y: the whole data set on the device, (n, d) uint8 and (n,) int64; pixels are divided by ``full_scale``.
        noise: standard normal draws, (K, noise_size).

    Returns of the step: cost terms, (K, len(model.term_names)).
    """
    cost = _Cost(model)

    def member_cost(params: Stack, hyper: Stack, x_lab: Tensor, y: Tensor, x_unl: Tensor, noise: Tensor) -> Any:
        named = {_MODEL + name: value for name, value in params.items()}
        return functional_call(cost, named, (Batch(x_lab, y, x_unl), noise, hyper))

    def functional_gradient(params: Stack, *inputs: Any) -> tuple[Stack, Tensor]:
        return vmap(grad(member_cost, has_aux=True))(params, *inputs)  # type: ignore[no-any-return]

    def plain_gradient(params: Stack, *inputs: Any) -> tuple[Stack, Tensor]:
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        if len(inputs[-1]) == 1:  # one member: the model as it is, without vmap's dispatch on every operation
            total, terms = member_cost(_first(leaves), *[_first(i) for i in inputs])
            terms = terms.unsqueeze(0)
        else:
            totals, terms = vmap(member_cost)(leaves, *inputs)
            total = totals.sum()
        found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return dict(zip(leaves, found, strict=True)), terms.detach()

    gradient = functional_gradient if compiled else plain_gradient

    def step(
        params: Stack,
        first: Stack,
        second: Stack,
        hyper: Stack,
        rate: Tensor,
        root: Tensor,
        labelled: Tensor,
        unlabelled: Tensor,
        x: Tensor,
        y: Tensor,
        noise: Tensor,
    ) -> Tensor:
        dtype = noise.dtype
        x_lab, x_unl = (x[rows].to(dtype) / full_scale for rows in (labelled, unlabelled))
        gradients, terms = gradient(params, hyper, x_lab, y[labelled], x_unl, noise)
        with torch.no_grad():
            for name, value in params.items():
                d, m, v = gradients[name], first[name], second[name]
                over_members = (-1,) + (1,) * (value.dim() - 1)
                m.lerp_(d, 1.0 - BETA1)
                v.mul_(BETA2).addcmul_(d, d, value=1.0 - BETA2)
                # In place where it can be: eagerly every temporary of this size is a pass over memory.
                below = v.sqrt().div_(root.view(over_members)).add_(ADAM_EPSILON)
                value.sub_((rate.view(over_members) * m).div_(below))
        return terms

    if not compiled:
        return step
    # Compiled programs are kept per code object, and after eight of them torch falls back to eager execution: the ninth
    # pack of a process would run several times slower without a word. So every pack brings a code object of its own.
    # dynamic=False: otherwise the second pack would be compiled for any K, which is slower than for its own.
    own = FunctionType(step.__code__.replace(), step.__globals__, step.__name__, None, step.__closure__)
    return torch.compile(own, dynamic=False)


def _first(stacked: Any) -> Any:
    if isinstance(stacked, dict):
        return {name: value[0] for name, value in stacked.items()}
    return stacked[0]
