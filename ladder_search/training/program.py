"""One training step of K members as a function of tensors: forward, backward and Adam, with a leading trial axis.

The model is an ordinary module for one trial; ``vmap`` stacks it. A compiled step is one graph. In an eager step the
gradient is plain autograd of the sum over members: it equals the functional gradient, because no member's cost depends
on another's parameters, and needs half of its launches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ladder_search.internals.torch import fused_adam_kernel
from ladder_search.nn.network import Network
from ladder_search.nn.protocol import PROGRESS, Batch, Windows
from ladder_search.training.feeds import Feed
from ladder_search.training.noise import counters, fill_normals, normals
from ladder_search.training.schedules import ADAM_EPSILON, BETA1, BETA2

Stack = dict[str, Tensor]
"""Parameter or buffer name -> values of all members, shape (K, ...)."""

Step = Callable[..., Tensor]

_MODEL = "model."
_LONG_AGO = 1e9
"""Number of updates after which Adam's corrections are 1 in double precision."""


class _Cost(nn.Module):
    """Makes a model's ``cost`` callable through ``functional_call``."""

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, batch: Batch | Windows, noise: Tensor, hyper: Mapping[str, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Stack]]:
        total, terms, *carried = self.model.cost(batch, noise, hyper)
        return total, (terms, carried[0] if carried else {})


class Bfloat16Products(TorchFunctionMode):
    """Runs layers in bfloat16 and returns float32, so that statistics and costs keep their precision.

    ``torch.autocast`` would pass bfloat16 on to batch statistics and other later operations. Only layers of
    ``torch.nn.functional`` are rounded; products written with ``@`` (combinators) stay float32.
    """

    LAYERS = (functional.linear, functional.conv1d, functional.conv2d, functional.conv3d, functional.conv_transpose2d)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in self.LAYERS:
            return func(*args, **(kwargs or {}))
        rounded = [value.bfloat16() if isinstance(value, Tensor) else value for value in args]
        named = {n: v.bfloat16() if isinstance(v, Tensor) else v for n, v in (kwargs or {}).items()}
        return func(*rounded, **named).float()


def make_step(
    model: Network,
    feed: Feed,
    *,
    noise_size: int,
    compiled: bool,
    precision: str = "float32",
    clipping: bool = False,
) -> Step:
    """Return ``step(params, first, second, hyper, constants, carried, rate, root, progress, clip, keys, *rows, x, y)``.

    The step updates ``params``, Adam's moments ``first`` and ``second`` and ``carried`` (stacks) in place.

    Args:
        feed: creates batches from rows.
        noise_size: standard normal draws of one member's step.
        compiled: write the step for the compiler, as operations that it can fuse.
        precision: of the matrix products, see ``TrainingConfig.precision``.
        clipping: whether gradients are clipped.

    Args of the step, with K members:
        hyper: name -> (K, ...) tensors of hyper-parameters.
        constants: name -> (K, ...) tensors of an earlier stage's networks, see ``nn.protocol.SOURCES``.
        carried: name -> (K, rows, ...) state of the last step, see ``nn.protocol.Windows``; usually empty.
        rate, root: Adam's bias-corrected learning rate and second correction, each (K,).
        progress: fraction of the run that is completed, (K,).
        clip: maximum norm of a member's gradient, (K,).
        keys: keys of the step's noise, (K,) int64.
        rows: row indices for the feed, (K, ...) int64 each.
        x, y: the feed's whole data set on the device.

    Returns of the step: cost terms, (K, len(model.term_names)).
    """
    cost = _Cost(model)
    of_words = counters(noise_size, next(model.parameters()).device)
    followers = model.followers

    def member_cost(params: Stack, hyper: Stack, constants: Stack, carried: Stack, gathered: Any, noise: Tensor) -> Any:
        named = {_MODEL + name: value for stack in (params, constants) for name, value in stack.items()}
        batch = feed.batch(gathered, carried)
        if precision == "bf16":
            with Bfloat16Products():
                return functional_call(cost, named, (batch, noise, hyper))
        return functional_call(cost, named, (batch, noise, hyper))

    def functional_gradient(params: Stack, *inputs: Any) -> tuple[Stack, Tensor, Stack]:
        gradients, (terms, carried) = over_members(grad(member_cost, has_aux=True))(params, *inputs)
        return gradients, terms, carried

    def plain_gradient(params: Stack, *inputs: Any) -> tuple[Stack, Tensor, Stack]:
        single = _members(params) == 1
        # A single member's leaves are its own rows: differentiating through the row selection would copy the gradient.
        leaves = {name: (value[0] if single else value).detach().requires_grad_() for name, value in params.items()}
        if single:
            total, (terms, carried) = member_cost(leaves, *_each(lambda value: value[0], inputs))
        else:
            totals, (terms, carried) = vmap(member_cost)(leaves, *inputs)
            total = totals.sum()
        flat = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
        gradients = {name: value.reshape(params[name].shape) for name, value in zip(leaves, flat, strict=True)}
        new_state = {name: (value.unsqueeze(0) if single else value).detach() for name, value in carried.items()}
        return gradients, terms.detach().reshape(len(inputs[-1]), -1), new_state

    gradient = functional_gradient if compiled else plain_gradient

    def step(
        params: Stack,
        first: Stack,
        second: Stack,
        hyper: Stack,
        constants: Stack,
        carried: Stack,
        rate: Tensor,
        root: Tensor,
        progress: Tensor,
        clip: Tensor,
        keys: Tensor,
        *data: Tensor,
    ) -> Tensor:
        *rows, x, y = data
        dtype = rate.dtype
        eager_on_cpu = not compiled and x.device.type == "cpu"
        if eager_on_cpu:
            noise = torch.empty((len(keys), noise_size), dtype=dtype)
            for row, key in zip(noise, keys.tolist(), strict=True):
                fill_normals(row, key)
        else:
            noise = normals(keys, of_words, noise_size).to(dtype)
        gathered = feed.gather(x, y, rows, keys, dtype)
        trained = {name: value for name, value in params.items() if name not in followers}
        constants = constants | {name: params[name] for name in followers}
        settings = hyper | {PROGRESS: progress}
        gradients, terms, new_state = gradient(trained, settings, constants, carried, gathered, noise)
        with torch.no_grad():
            if clipping:
                gradients = clipped(gradients, clip)
            (fused_adam if eager_on_cpu else adam)(trained, gradients, first, second, rate, root)
            if followers:
                follow(params, params | new_state, followers, over_members(model.follow_rate)(settings))
            for name, place in carried.items():
                place.copy_(new_state[name])
        return terms

    return step


def clipped(gradients: Stack, limit: Tensor) -> Stack:
    """Return gradients with each member's norm over all its parameters clipped to its ``limit``, (K,)."""
    squares = torch.stack([value.square().reshape(len(value), -1).sum(1) for value in gradients.values()]).sum(0)
    share = (limit / squares.sqrt().clamp_min(1e-30)).clamp(max=1.0)
    return {name: value * share.view(-1, *(1,) * (value.dim() - 1)) for name, value in gradients.items()}


def follow(params: Stack, targets: Stack, followers: Mapping[str, str], rate: Tensor) -> None:
    """Move every follower by the fraction ``rate``, (K,), towards the parameter or buffer that it follows, in place."""
    for name, followed in followers.items():
        value = params[name]
        value.lerp_(targets[followed], rate.view(-1, *(1,) * (value.dim() - 1)))


def adam(params: Stack, gradients: Stack, first: Stack, second: Stack, rate: Tensor, root: Tensor) -> None:
    """Update in place: Kingma and Ba 2015, Algorithm 1; ``rate`` and ``root`` (K,) come from ``adam_scale``."""
    for name, value in params.items():
        d, m, v = gradients[name], first[name], second[name]
        over = (-1,) + (1,) * (value.dim() - 1)
        m.lerp_(d, 1.0 - BETA1)
        v.mul_(BETA2).addcmul_(d, d, value=1.0 - BETA2)
        # rate m / (sqrt(v) / root + epsilon) with a single quotient, and in place where possible: in eager mode every
        # temporary of this size is a pass over memory.
        below = v.sqrt().add_(ADAM_EPSILON * root.view(over))
        value.sub_(((rate * root).view(over) * m).div_(below))


def fused_adam(params: Stack, gradients: Stack, first: Stack, second: Stack, rate: Tensor, root: Tensor) -> None:
    """Run the same update with torch.optim's CPU kernel: one pass over memory instead of eight.

    A very large step number makes the kernel's own corrections 1; the members' corrections enter with the rate and
    with epsilon: rate * m / (sqrt(v) / root + eps) = rate * root * m / (sqrt(v) + eps * root).
    """
    stacks = (params, gradients, first, second)
    updates = [torch.tensor(_LONG_AGO)] * len(params)
    # The kernel assumes that all four have the same layout; a gradient may be transposed.
    rows = [[stack[name].contiguous().unbind(0) for name in params] for stack in stacks]
    for k, (step_size, correction) in enumerate(zip(rate.tolist(), root.tolist(), strict=True)):
        values, d, m, v = ([views[k] for views in stack] for stack in rows)
        fused_adam_kernel(
            values,
            d,
            m,
            v,
            [],
            updates,
            lr=step_size * correction,
            beta1=BETA1,
            beta2=BETA2,
            weight_decay=0.0,
            eps=ADAM_EPSILON * correction,
            amsgrad=False,
            maximize=False,
        )


def over_members(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` over a leading axis of all arguments; a single member is called without vmap's overhead."""

    def call(*stacked: Any) -> Any:
        if _members(stacked[0]) > 1:
            return vmap(function)(*stacked)
        return _each(lambda value: value.unsqueeze(0), function(*_each(lambda value: value[0], stacked)))

    return call


def in_turn(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function``, which takes and returns stacks, called for one member after another."""

    def call(*stacked: Any) -> Any:
        results = [
            function(*_each(lambda value, k=k: value[k : k + 1], stacked))  # type: ignore[misc]
            for k in range(_members(stacked[0]))
        ]
        if isinstance(results[0], dict):
            return {name: torch.cat([one[name] for one in results]) for name in results[0]}
        return torch.cat(results)

    return call


def _members(stacked: Any) -> int:
    if isinstance(stacked, dict):
        return _members(next(iter(stacked.values())))
    return _members(stacked[0]) if isinstance(stacked, (tuple, list)) else len(stacked)


def _each(change: Callable[[Tensor], Tensor], nested: Any) -> Any:
    if isinstance(nested, dict):
        return {name: _each(change, value) for name, value in nested.items()}
    if isinstance(nested, (tuple, list)):
        return tuple(_each(change, value) for value in nested)
    return change(nested)


@contextmanager
def float32_products_of(precision: str, device: torch.device) -> Iterator[None]:
    """Set float32 products on CUDA as in ``TrainingConfig.precision``, because torch's setting is global."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
