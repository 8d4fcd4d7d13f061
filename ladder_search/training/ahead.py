"""Ahead-of-time compilation of functions of tensors into programs that are cached on disk and run without Python.

A function is traced into a plain graph of operations, including gradients, ``vmap`` and in-place updates. For CPU the
graph is compiled into a shared library, cached by its digest: it loads in milliseconds and runs without guards,
interpreter or launches. For other devices the graph goes to ``torch.compile``, and CUDA graphs remove the launches.
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
"""Applies the function to a list of tensors of the same shapes, strides and types."""


_OPTIONS = {
    # Row indices are valid, pack and feeds guarantee it; a check of each would be part of every loop.
    "assert_indirect_indexing": False,
    # Torch 2.13 writes in place into a part of a concatenation at the part's last read, although the whole was
    # passed on: gradients of a ladder with groups of unequal size came out as 0.
    "inplace_buffers": False,
}
_AHEAD_OPTIONS = {
    **_OPTIONS,
    # Would leave 283 MB in the temporary folder, which torch never removes.
    "aot_inductor.precompile_headers": False,
}
_SUMS = "sha256.json"
"""File in a program's folder with the digests of the other files."""
_TRIAL_SECONDS = 3600.0
"""Age from which a folder of a compiler check, which takes seconds, is considered abandoned."""
_KEPT = 64
"""Programs kept in the cache folder, by last load; one takes 2 to 5 MB."""


def compile_ahead(function: Function, tensors: Sequence[Tensor]) -> Program:
    """Return ``function`` as a compiled program; ``tensors`` are examples on one device, which stay unchanged.

    ``function`` takes tensors only, modifies some in place and does not depend on their values.
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
    """Let torch store its files in the cache folder, and remove leftovers of killed processes.

    Must precede the first use of torch's compiler, which otherwise creates a permanent folder in the temporary folder.
    """
    keep_programs()
    folder = programs_folder()
    if folder is not None:
        remove_leftovers(folder)


def in_time(graph: GraphModule) -> Program:
    """Return the graph as a program that is compiled on its first call, for fixed sizes."""
    # Each graph has its own code object: after eight programs of one, torch stops compiling it.
    compiled = torch.compile(graph, dynamic=False, options=dict(_OPTIONS))

    def program(given: Sequence[Tensor]) -> None:
        compiled(*given)

    return program


def remove_leftovers(folder: Path) -> None:
    """Remove unfinished builds of killed processes, and the least recently loaded programs.

    Processes that have loaded a removed program can continue to use it.
    """
    with suppress(OSError):  # another process removes the same files
        unfinished = [path for suffix in ("building", "lock") for path in folder.glob(f"program-*.{suffix}")]
        for name in {path.name.partition(".")[0] for path in unfinished}:
            lock = _lock_of(folder / name)
            if lock.acquire():  # no other process builds it
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
    """Return the lock for building the program at ``path``: concurrent processes compile once."""
    return Lock(path.with_name(f"{path.name}.lock"))


def _kept(path: Path) -> Program | None:
    """Return the program cached at ``path``; None if it is missing or damaged."""
    try:
        sums = json.loads((path / _SUMS).read_bytes())
        if any(_sum(path / name) != digest for name, digest in sums.items()):
            return None
        program = _load(path)
    except (OSError, RuntimeError, ValueError, AttributeError):
        return None
    with suppress(OSError):  # the program belongs to another user
        os.utime(path)
    return program


def _copy(tensor: Tensor) -> Tensor:
    """Return a copy with the same strides; ``clone`` would not keep those of a view."""
    copy = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=tensor.device)
    return copy.copy_(tensor)


def _build(graph: GraphModule, examples: list[Tensor], path: Path) -> Path:
    """Create a program's folder at ``path``: the library, the files that it loads, and their digests.

    The build runs in a temporary folder beside it, so that other processes see the complete program or none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{path.name}.", suffix=".building"))
    try:
        package = work / "program.pt2"
        with _surroundings(work), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from torch, about its own code
            exported = torch.export.export(graph, tuple(examples), strict=False)
            # A copy of the options, because torch adds its own.
            compile_package(exported, package, _AHEAD_OPTIONS)
        whole = work / "program"
        whole.mkdir()
        with zipfile.ZipFile(package) as archive:
            for member in archive.namelist():
                name = member.rpartition("/")[2]
                if name.endswith((".so", ".json")):
                    (whole / name).write_bytes(archive.read(member))
        (whole / _SUMS).write_text(json.dumps({file.name: _sum(file) for file in whole.iterdir()}), encoding="utf-8")
        shutil.rmtree(path, ignore_errors=True)  # a damaged program
        whole.rename(path)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return path


@contextmanager
def _surroundings(work: Path) -> Iterator[None]:
    """Let torch and the compiler use ``work`` for their files, so that those of killed processes can be found."""
    tempfile.gettempdir()  # cached by Python before the variable changes
    with _variables(TMPDIR=str(work)):
        # Instruction sets are detected by small libraries, built once for all programs.
        with _variables(TORCHINDUCTOR_CACHE_DIR=str(work.parent / "processor")):
            find_instruction_sets()
        clear_inductor()  # cached paths may be in the folder of an earlier build
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
    (library,) = path.glob("*.so")
    runner = library_runner(library)

    def program(given: Sequence[Tensor]) -> None:
        runner.run(given)

    return program


def _sum(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _digest(graph: GraphModule, examples: Sequence[Tensor]) -> str:
    """Return the digest of everything that affects the machine code, including compiler, processor and threads."""
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
    """Return the CPU's features: machine code may not run on another processor that shares the cache folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        flags = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        flags = platform.processor()
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {flags}"
