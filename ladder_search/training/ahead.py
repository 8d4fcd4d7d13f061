"""Functions of tensors, compiled ahead of time into programs that are kept on disk and know nothing of Python.

A function is traced once into a plain graph of operations, its gradients, its ``vmap`` and its changes in place
included. For a CPU that graph becomes a shared library, found by the graph's digest in the cache folder: a process that
finds it there loads it in milliseconds, and a call of it costs no guards, no interpreter and no launches. On another
device the graph goes to ``torch.compile``, where a CUDA graph takes the launches away.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from ladder_search.training.compiling import programs_folder

Function = Callable[..., None]
Program = Callable[[Sequence[Tensor]], None]
"""Does what the function did to a list of tensors of the same shapes, strides and types."""


_OPTIONS = {
    # Rows of tables and data lie within them, pack and feeds see to that; a check of each would stand in every loop.
    "assert_indirect_indexing": False,
    # Torch 2.13 writes into a part of a concatenation in place when the part is read for the last time, though the
    # whole has been given to another tensor by then: gradients of a ladder with groups of unequal size came out as 0.
    "inplace_buffers": False,
}


def compile_ahead(function: Function, tensors: Sequence[Tensor]) -> Program:
    """Return ``function`` as a compiled program; the tensors are examples and stay as they are.

    Args:
        function: of tensors alone, some of which it changes; returns nothing, and no number of a tensor decides what it
            does.
        tensors: all on one device.
    """
    examples = [_copy(tensor) for tensor in tensors]
    graph = make_fx(function, tracing_mode="real")(*examples)
    if tensors[0].device.type != "cpu":
        return in_time(graph)
    folder = programs_folder()
    if folder is None:
        with TemporaryDirectory() as place:
            return _load(_build(graph, examples, Path(place) / "program.pt2"))
    path = folder / f"program-{_digest(graph, examples)}.pt2"
    found = _found(path)
    if found is None:
        with _no_other(path.with_suffix(".lock")):
            found = _found(path) or _load(_build(graph, examples, path))
    return found


def in_time(graph: GraphModule) -> Program:
    """Return the graph compiled on its first call, for fixed sizes."""
    # Every graph has code of its own: torch gives up on a function after eight programs and runs it uncompiled.
    compiled = torch.compile(graph, dynamic=False, options=dict(_OPTIONS))

    def program(given: Sequence[Tensor]) -> None:
        compiled(*given)

    return program


def _found(path: Path) -> Program | None:
    """The program that is kept at ``path``; None: none is, or it is damaged, and is to be made anew."""
    if path.exists():
        with suppress(RuntimeError, OSError):
            return _load(path)
    return None


@contextmanager
def _no_other(path: Path) -> Iterator[None]:
    """Wait until no other process holds the lock file, and hold it: processes that begin together compile once.

    The file goes with its holder. Who waited has the file that is gone, and finds the program that was made meanwhile.
    """
    with ExitStack() as held:
        with suppress(OSError):  # a file system without locks: there each compiles for itself
            fcntl.flock(held.enter_context(path.open("ab")), fcntl.LOCK_EX)
            held.callback(path.unlink, missing_ok=True)
        yield


def _copy(tensor: Tensor) -> Tensor:
    """A copy with the same strides, which a view of a larger tensor's rows loses in ``clone``."""
    copy = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=tensor.device)
    return copy.copy_(tensor)


def _build(graph: GraphModule, examples: list[Tensor], path: Path) -> Path:
    # Under a name of its own first: others see the whole file or none, whoever else compiles the same.
    begun = path.with_name(f"{path.stem}-{os.getpid()}.pt2")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about its own use of itself
            exported = torch.export.export(graph, tuple(examples), strict=False)
            # A copy, in which it notes settings of its own.
            torch._inductor.aoti_compile_and_package(exported, package_path=str(begun), inductor_configs=dict(_OPTIONS))
        begun.replace(path)
    finally:
        begun.unlink(missing_ok=True)
    return path


def _load(path: Path) -> Program:
    # The loader beneath the loaded model, which would sort its arguments into a tree and back at every call.
    loader = torch._inductor.aoti_load_package(str(path), run_single_threaded=True).loader

    def program(given: Sequence[Tensor]) -> None:
        loader.run(given)  # type: ignore[arg-type]

    return program


def _digest(graph: GraphModule, examples: Sequence[Tensor]) -> str:
    """All that the machine code depends on: operations, constants, layouts, compiler, processor and threads."""
    found = hashlib.sha256(graph.code.encode())
    for name, constant in sorted(graph.named_buffers()):
        found.update(f"{name}{_layout(constant)}".encode())
        found.update(constant.contiguous().view(torch.uint8).numpy().tobytes())
    facts = [_layout(example) for example in examples]
    found.update(repr((facts, _OPTIONS, torch.__version__, torch.get_num_threads(), _processor())).encode())
    return found.hexdigest()[:32]


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.size()), tensor.stride(), str(tensor.dtype)


def _processor() -> str:
    """Code for one processor may not run on another that sees the same cache folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        flags = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        flags = platform.processor()
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {flags}"
