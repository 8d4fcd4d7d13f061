"""One training step of K members as one function of tensors: forward, backward and Adam, with a leading trial axis.

The model is an ordinary module for one trial; ``vmap`` stacks it. Compiled, noise, forward, backward and update become
one graph. Run eagerly, the gradient comes from plain autograd on the sum over members, which costs half of a functional
gradient's launches and is the same gradient, because no member's cost depends on another member's parameters.
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
"""A number of updates after which Adam's corrections are 1 in double precision."""


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
    """Inside it layers multiply in bfloat16 and give float32, so that statistics and costs stay what they are.

    ``torch.autocast`` would hand bfloat16 on to all that follows a product, batch statistics first of all. What is
    rounded are the layers of ``torch.nn.functional``; a product written with ``@`` (combinators) stays float32.
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
        feed: makes batches of rows.
        noise_size: standard normal draws of one member's step.
        compiled: the step is going to be, and is written for it: as operations that a compiler fuses.
        precision: of the matrix products, see ``TrainingConfig.precision``.
        clipping: whether gradients that are too long are shortened.

    Args of the step, with K members:
        hyper: name -> (K, ...) tensors of hyper-parameters.
        constants: name -> (K, ...) tensors of networks of an earlier stage, see ``nn.protocol.SOURCES``.
        carried: name -> (K, rows, ...), what the last step left, see ``nn.protocol.Windows``; mostly empty.
        rate, root: Adam's bias-corrected learning rate and second correction, each (K,).
        progress: share of the run that is done, (K,).
        clip: largest norm of a member's gradient, (K,).
        keys: keys of the step's noise, (K,) int64.
        rows: what the feed reads, (K, ...) int64 each.
        x, y: the whole data set on the device, the feed's own.

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
        found, (terms, carried) = over_members(grad(member_cost, has_aux=True))(params, *inputs)
        return found, terms, carried

    def plain_gradient(params: Stack, *inputs: Any) -> tuple[Stack, Tensor, Stack]:
        alone = _members(params) == 1
        # One member's leaves are its own rows: a gradient that came through the choice of a row would be written twice.
        leaves = {name: (value[0] if alone else value).detach().requires_grad_() for name, value in params.items()}
        if alone:
            total, (terms, carried) = member_cost(leaves, *_each(lambda value: value[0], inputs))
        else:
            totals, (terms, carried) = vmap(member_cost)(leaves, *inputs)
            total = totals.sum()
        found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
        gradients = {name: value.reshape(params[name].shape) for name, value in zip(leaves, found, strict=True)}
        left = {name: (value.unsqueeze(0) if alone else value).detach() for name, value in carried.items()}
        return gradients, terms.detach().reshape(len(inputs[-1]), -1), left

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
        gradients, terms, left = gradient(trained, settings, constants, carried, gathered, noise)
        with torch.no_grad():
            if clipping:
                gradients = clipped(gradients, clip)
            (fused_adam if eager_on_cpu else adam)(trained, gradients, first, second, rate, root)
            if followers:
                follow(params, params | left, followers, over_members(model.follow_rate)(settings))
            for name, place in carried.items():
                place.copy_(left[name])
        return terms

    return step


def clipped(gradients: Stack, limit: Tensor) -> Stack:
    """Return gradients of which no member's is longer than its ``limit``, (K,), over all its parameters together."""
    squares = torch.stack([value.square().reshape(len(value), -1).sum(1) for value in gradients.values()]).sum(0)
    share = (limit / squares.sqrt().clamp_min(1e-30)).clamp(max=1.0)
    return {name: value * share.view(-1, *(1,) * (value.dim() - 1)) for name, value in gradients.items()}


def follow(params: Stack, targets: Stack, followers: Mapping[str, str], rate: Tensor) -> None:
    """Move every follower by the share ``rate``, (K,), of its way to what it follows, by name, in place."""
    for name, followed in followers.items():
        value = params[name]
        value.lerp_(targets[followed], rate.view(-1, *(1,) * (value.dim() - 1)))


def adam(params: Stack, gradients: Stack, first: Stack, second: Stack, rate: Tensor, root: Tensor) -> None:
    """Kingma and Ba 2015, Algorithm 1, in place; ``rate`` and ``root`` (K,) are those of ``schedules.adam_scale``."""
    for name, value in params.items():
        d, m, v = gradients[name], first[name], second[name]
        over = (-1,) + (1,) * (value.dim() - 1)
        m.lerp_(d, 1.0 - BETA1)
        v.mul_(BETA2).addcmul_(d, d, value=1.0 - BETA2)
        # rate m / (sqrt(v) / root + epsilon) with one quotient in place of two; and in place where it can be: eagerly
        # every temporary of this size is a pass over memory.
        below = v.sqrt().add_(ADAM_EPSILON * root.view(over))
        value.sub_(((rate * root).view(over) * m).div_(below))


def fused_adam(params: Stack, gradients: Stack, first: Stack, second: Stack, rate: Tensor, root: Tensor) -> None:
    """The same update by torch.optim's own kernel, one pass over memory instead of eight; on a CPU.

    The kernel is told that it has run for ever, where its own corrections are 1, and gets the members' corrections
    with the rate and with epsilon: rate * m / (sqrt(v) / root + eps) = rate * root * m / (sqrt(v) + eps * root).
    """
    stacks = (params, gradients, first, second)
    updates = [torch.tensor(_LONG_AGO)] * len(params)
    # The kernel walks through memory as if all four were laid out alike; a gradient may come transposed.
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
    """Return ``function`` over a leading axis of all arguments; one member alone is called without vmap's dispatch."""

    def call(*stacked: Any) -> Any:
        if _members(stacked[0]) > 1:
            return vmap(function)(*stacked)
        return _each(lambda value: value.unsqueeze(0), function(*_each(lambda value: value[0], stacked)))

    return call


def in_turn(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function``, which takes and gives stacks, called for one member after the other."""

    def call(*stacked: Any) -> Any:
        found = [
            function(*_each(lambda value, k=k: value[k : k + 1], stacked))  # type: ignore[misc]
            for k in range(_members(stacked[0]))
        ]
        if isinstance(found[0], dict):
            return {name: torch.cat([one[name] for one in found]) for name in found[0]}
        return torch.cat(found)

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
    """Let products of float32 be computed as ``TrainingConfig.precision`` says, on CUDA.

    torch's setting for the products of float32 is one of the whole process; packs of both kinds share a process."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
