"""Functions of tensors, compiled ahead of time into programs that are kept on disk and know nothing of Python.

A function is traced once into a plain graph of operations, its gradients, its ``vmap`` and its changes in place
included. For a CPU that graph becomes a shared library, found by the graph's digest in the cache folder: a process that
finds it there loads it in milliseconds, and a call of it costs no guards, no interpreter and no launches. On another
device the graph goes to ``torch.compile``, where a CUDA graph takes the launches away.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from ladder_search.disk.lock import Lock
from ladder_search.internals.torch import clear_inductor, compile_package, find_instruction_sets, library_runner
from ladder_search.training.compiling import keep_programs, programs_folder

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
_AHEAD_OPTIONS = {
    **_OPTIONS,
    # 283 MB in the temporary folder, which torch never removes.
    "aot_inductor.precompile_headers": False,
}
_SUMS = "sha256.json"
"""In a program's folder: the digest of every other file there."""
_TRIAL_SECONDS = 3600.0
"""A trial of the compiler takes seconds: an older folder of one was left."""
_KEPT = 64
"""Programs in the cache folder; the least recently loaded ones are removed beyond that. One takes 2 to 5 MB."""


def compile_ahead(function: Function, tensors: Sequence[Tensor]) -> Program:
    """Return ``function`` as a compiled program; the tensors are examples and stay as they are.

    Args:
        function: of tensors alone, some of which it changes; returns nothing, and no number of a tensor decides what it
            does.
        tensors: all on one device.
    """
    prepare()
    examples = [_copy(tensor) for tensor in tensors]
    graph = make_fx(function, tracing_mode="real")(*examples)
    if tensors[0].device.type != "cpu":
        return in_time(graph)
    folder = programs_folder()
    if folder is None:
        with tempfile.TemporaryDirectory() as place:
            return _load(_build(graph, examples, Path(place) / "program"))
    path = folder / f"program-{_digest(graph, examples)}"
    program = _kept(path)
    if program is None:
        lock = _lock_of(path)
        lock.acquire(timeout=None)
        try:
            program = _kept(path) or _load(_build(graph, examples, path))
        finally:
            lock.release(remove=True)
    return program


def prepare() -> None:
    """Let torch keep its files in the cache folder, and remove what killed processes have left there.

    Once torch has been asked for a compiler's service without knowing of the cache folder, it makes a folder in the
    temporary folder, which stays.
    """
    keep_programs()
    folder = programs_folder()
    if folder is not None:
        remove_leftovers(folder)


def in_time(graph: GraphModule) -> Program:
    """Return the graph compiled on its first call, for fixed sizes."""
    # Every graph has code of its own: torch gives up on a function after eight programs and runs it uncompiled.
    compiled = torch.compile(graph, dynamic=False, options=dict(_OPTIONS))

    def program(given: Sequence[Tensor]) -> None:
        compiled(*given)

    return program


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed left of their builds, and the programs that were not loaded for longest.

    A program that another process has loaded stays whole in that process.
    """
    with suppress(OSError):  # another process removes the same
        begun = [path for suffix in ("building", "lock") for path in folder.glob(f"program-*.{suffix}")]
        for name in {path.name.partition(".")[0] for path in begun}:
            lock = _lock_of(folder / name)
            if lock.acquire():  # no process builds it
                for work in folder.glob(f"{name}.*.building"):
                    shutil.rmtree(work, ignore_errors=True)
                lock.release(remove=True)
        for trial in folder.glob("trial-*"):  # see ``compiling.compiler_problem``
            if time.time() - trial.stat().st_mtime > _TRIAL_SECONDS:
                shutil.rmtree(trial, ignore_errors=True)
        programs = [path for path in folder.glob("program-*") if not path.suffix and path.is_dir()]
        for path in sorted(programs, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT:]:
            shutil.rmtree(path, ignore_errors=True)


def _lock_of(path: Path) -> Lock:
    """Return the lock of the process that makes the program at ``path``: processes that begin together compile once."""
    return Lock(path.with_name(f"{path.name}.lock"))


def _kept(path: Path) -> Program | None:
    """Return the program that is kept at ``path``, or None where there is none or a damaged one."""
    try:
        sums = json.loads((path / _SUMS).read_bytes())
        if any(_sum(path / name) != digest for name, digest in sums.items()):
            return None
        program = _load(path)
    except (OSError, RuntimeError, ValueError, AttributeError):
        return None
    with suppress(OSError):  # another user's
        os.utime(path)
    return program


def _copy(tensor: Tensor) -> Tensor:
    """A copy with the same strides, which a view of a larger tensor's rows loses in ``clone``."""
    copy = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=tensor.device)
    return copy.copy_(tensor)


def _build(graph: GraphModule, examples: list[Tensor], path: Path) -> Path:
    """Make the folder of a program at ``path``: the library, what it reads when it is loaded, and their digests.

    All files of the build lie in a folder beside it, which is removed; other processes see the whole program or none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{path.name}.", suffix=".building"))
    try:
        package = work / "program.pt2"
        with _surroundings(work), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about its own use of itself
            exported = torch.export.export(graph, tuple(examples), strict=False)
            # A copy, in which torch notes settings of its own.
            compile_package(exported, package, _AHEAD_OPTIONS)
        whole = work / "program"
        whole.mkdir()
        with zipfile.ZipFile(package) as archive:
            for member in archive.namelist():
                name = member.rpartition("/")[2]
                if name.endswith((".so", ".json")):
                    (whole / name).write_bytes(archive.read(member))
        (whole / _SUMS).write_text(json.dumps({file.name: _sum(file) for file in whole.iterdir()}), encoding="utf-8")
        shutil.rmtree(path, ignore_errors=True)  # a damaged one
        whole.rename(path)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return path


@contextmanager
def _surroundings(work: Path) -> Iterator[None]:
    """Let torch and the compiler keep their files in ``work``: those of a killed process can be found there."""
    tempfile.gettempdir()  # remembered by Python before the variable changes
    with _variables(TMPDIR=str(work)):
        # What the processor can do is tried by small libraries, once for all programs.
        with _variables(TORCHINDUCTOR_CACHE_DIR=str(work.parent / "processor")):
            find_instruction_sets()
        clear_inductor()  # what torch remembers may lie in the folder of an earlier build
        with _variables(TORCHINDUCTOR_CACHE_DIR=str(work / "inductor")):
            yield
        clear_inductor()


@contextmanager
def _variables(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _load(path: Path) -> Program:
    """Return the program in the folder ``path``."""
    (library,) = path.glob("*.so")
    runner = library_runner(library)

    def program(given: Sequence[Tensor]) -> None:
        runner.run(given)

    return program


def _sum(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _digest(graph: GraphModule, examples: Sequence[Tensor]) -> str:
    """All that the machine code depends on: operations, constants, layouts, compiler, processor and threads."""
    digest = hashlib.sha256(graph.code.encode())
    for name, constant in sorted(graph.named_buffers()):
        digest.update(f"{name}{_layout(constant)}".encode())
        digest.update(constant.contiguous().view(torch.uint8).numpy().tobytes())
    facts = [_layout(example) for example in examples]
    digest.update(repr((facts, _AHEAD_OPTIONS, torch.__version__, torch.get_num_threads(), _processor())).encode())
    return digest.hexdigest()[:32]


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
