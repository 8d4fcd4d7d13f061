"""Whether compiling a training step pays: decided by arithmetic alone, so that the same run is always the same program.

Measured on a CPU of two cores (torch 2.13, one thread, float32), milliseconds per step::

    step                                          products      eager   compiled   saved
    MNIST, 784-1000-500-250-250-250-10, 100+100   3.2 GFLOP        69         41      28
    digits, 64-200-100-50-50-50-10, 100+100       0.1 GFLOP       5-7        2-3     3.5

Compiling costs 30 to 60 s once per signature. What is saved is launches, about the same for every size, and passes over
memory, which grow with the rows and widths as the products do: a straight line through the two measurements.
"""

from __future__ import annotations

import importlib.util
import os
import shutil

COMPILE_SECONDS = 60.0
"""The slower end of what was measured: when in doubt, a run starts at once."""

_SAVED_BASE_S = 2.7e-3
_SAVED_PER_FLOP_S = 7.9e-12


def compile_pays(flops_per_step: float, steps: int) -> bool:
    """Tell whether a run of ``steps`` updates ends earlier with a compiled step than with an eager one.

    The break-even lies near 2,150 steps of MNIST's size (four epochs) and near 17,000 of the digits' size.

    Args:
        flops_per_step: matrix products of one step of the whole pack, see ``MemberSpec.flops``.
        steps: updates that are still to be done under this signature.
    """
    return steps * (_SAVED_BASE_S + _SAVED_PER_FLOP_S * flops_per_step) > COMPILE_SECONDS


def compiler_found() -> bool:
    """Whether a step can be compiled for the CPU: a C++ compiler is installed, and torch in a folder without spaces.

    torch writes its own folders into the compiler's command as they are, so a space in them breaks every compilation.
    """
    torch_at = importlib.util.find_spec("torch")
    if torch_at is None or " " in str(torch_at.origin):
        return False
    return shutil.which(os.environ.get("CXX", "g++")) is not None or shutil.which("clang++") is not None
