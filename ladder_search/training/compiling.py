"""When compiling a training step is worthwhile, and where compiled programs are stored.

The decision is arithmetic, so that the same command always runs the same program, whatever the cache contains. It is a
straight line through the first two of these measurements, in milliseconds per step on a CPU with two cores (torch 2.13,
one thread, float32)::

    step                                          products      eager   compiled   saved
    MNIST, 784-1000-500-250-250-250-10, 100+100   3.2 GFLOP      54.7       29.0    25.7
    digits, 64-200-100-50-50-50-10, 100+100       0.1 GFLOP       8.8        1.9     6.9
    another run: digits                                          10.4        1.9     8.5
    digits, a pack of 4                                          30.4        7.6    22.8
    digits, a pack of 8                                          53.3       15.1    38.2

Compiling takes 20 to 60 s the first time, and a few seconds once the program is cached. It saves launches, about the
same for every size, and passes over memory, which grow with the products. In a pack the saving grows less than the
number of members.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ladder_search.errors import LadderSearchError

COMPILE_SECONDS = 60.0
"""Upper end of the measured times, so that a run compiles only if it clearly pays."""

_SAVED_BASE_S = 6.3e-3
_SAVED_PER_FLOP_S = 6.0e-12
_SAVED_BY_MEMBERS = 0.7
"""Exponent of the number of members, fitted to the last three measurements."""


_TRIAL = '#include <cstddef>\nextern "C" int answer() { return 42; }\n'


def compile_pays(flops_per_step: float, steps: int, *, members: int = 1) -> bool:
    """Return whether a run of ``steps`` remaining updates ends earlier with a compiled step than with an eager one.

    The break-even is near 2,350 steps of MNIST's size (four epochs) and near 8,700 of the digits' size.
    ``flops_per_step`` is that of one member, see ``MemberSpec.flops``.
    """
    saved: float = steps * (_SAVED_BASE_S + _SAVED_PER_FLOP_S * flops_per_step) * members**_SAVED_BY_MEMBERS
    return saved > COMPILE_SECONDS


def keep_programs() -> None:
    """Let torch store compiled programs in the cache folder, unless the user has configured another one."""
    folder = programs_folder()
    if folder is not None:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def programs_folder() -> Path | None:
    """Return the folder of compiled programs, which exists; None if no folder is writable."""
    # Imported here, because it needs PyArrow, which bare machines may lack.
    try:
        from ladder_search.data.cache import cache_folder

        folder = cache_folder() / "programs"
        folder.mkdir(parents=True, exist_ok=True)
    except (ImportError, OSError, LadderSearchError):
        return None
    return folder if os.access(folder, os.W_OK) else None


def compiler_found() -> bool:
    return compiler_problem() is None


def compiler_problem() -> str | None:
    """Return why no step can be compiled for the CPU, or None.

    A C++ compiler is required, and PyTorch must be in a path without spaces, because it does not quote its own paths
    in the compiler's command. A tiny library is built and loaded in the programs' folder, to detect missing headers and
    file systems mounted with ``noexec``.
    """
    torch_at = importlib.util.find_spec("torch")
    if torch_at is None:
        return "PyTorch is not installed"
    if " " in str(torch_at.origin):
        return f"PyTorch is in a folder whose path has a space, {torch_at.origin}"
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    if compiler is None:
        return "no C++ compiler is installed"
    return _build_problem(compiler, programs_folder() or Path(tempfile.gettempdir()))


@functools.cache
def _build_problem(compiler: str, folder: Path) -> str | None:
    """Return why a library cannot be built and loaded in the folder; checked once per process."""
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix="trial-") as place:
            source, library = Path(place, "trial.cpp"), Path(place, "trial.so")
            source.write_text(_TRIAL, encoding="ascii")
            command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source)]
            result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
            if result.returncode != 0 or not library.exists():
                lines = result.stderr.decode(errors="replace").split("\n")
                return f"{compiler} builds no shared library: {lines[0][:200] or f'exit code {result.returncode}'}"
            ctypes.CDLL(str(library))
    except subprocess.TimeoutExpired:
        return f"{compiler} builds no shared library within 60 s"
    except OSError as error:
        return f"no program can be built in {folder} and loaded from there: {error}"
    return None
