"""Whether compiling a training step pays: decided by arithmetic alone, so that the same run is always the same program.

Measured on a CPU of two cores (torch 2.13, one thread, float32), milliseconds per step::

    step                                          products      eager   compiled   saved
    MNIST, 784-1000-500-250-250-250-10, 100+100   3.2 GFLOP        69         41      28
    digits, 64-200-100-50-50-50-10, 100+100       0.1 GFLOP       5-7        2-3     3.5

Compiling costs 30 to 60 s once per signature. What is saved is launches, about the same for every size, and passes over
memory, which grow with the rows and widths as the products do: a straight line through the two measurements.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

COMPILE_SECONDS = 60.0
"""The slower end of what was measured: when in doubt, a run starts at once."""

_SAVED_BASE_S = 2.7e-3
_SAVED_PER_FLOP_S = 7.9e-12


def compile_pays(flops_per_step: float, steps: int) -> bool:
    """Tell whether a run of ``steps`` updates ends earlier with a compiled step than with an eager one.

    The break-even lies near 2,150 steps of MNIST's size (four epochs) and near 17,000 of the digits' size.

    Args:
        flops_per_step: matrix products of one step of the whole pack, see ``step_flops``.
        steps: updates that are still to be done under this signature.
    """
    return steps * (_SAVED_BASE_S + _SAVED_PER_FLOP_S * flops_per_step) > COMPILE_SECONDS


def compiler_found() -> bool:
    """Whether a C++ compiler is installed; the compiled step needs one on the CPU."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None or shutil.which("clang++") is not None


def step_flops(
    widths: Sequence[int],
    *,
    decoder: Literal["full", "gamma", "none"],
    labelled: int,
    unlabelled: int,
    members: int = 1,
) -> float:
    """Return the floating-point operations of the matrix products in one training step of ``members`` ladders.

    Rows of the encoder: corrupted labelled, and with a decoder corrupted and clean unlabelled ones. A product of
    (rows, m) and (m, n) is 2 rows m n operations; its backward pass is two such products, one where the input needs
    no gradient. A full decoder does one product per layer on the unlabelled rows.

    Args:
        widths: units of layers 0..L.
        labelled, unlabelled: rows of a step.
    """
    products = [2.0 * n_in * n_out for n_in, n_out in pairwise(widths)]
    encoder_rows = labelled if decoder == "none" else labelled + 2 * unlabelled
    total = encoder_rows * (3 * sum(products) - products[0])  # the input itself needs no gradient
    if decoder == "full":
        total += unlabelled * 3 * sum(products)
    return members * total
