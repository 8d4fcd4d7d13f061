"""Private names of PyTorch, as torch 2.13 defines them. Any release may change them; pyproject.toml bounds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import get_proxy_mode as get_proxy_mode
from torch.utils._pytree import tree_flatten as tree_flatten
from torch.utils._pytree import tree_unflatten as tree_unflatten

VERSION = "2.13"

fused_adam_kernel: Callable[..., None] = torch._fused_adam_
"""The kernel of ``torch.optim.Adam(fused=True)``."""


def compile_package(exported: Any, path: Path, options: Mapping[str, Any]) -> None:
    """Compile an exported program for this machine's CPU into a package at ``path``."""
    torch._inductor.aoti_compile_and_package(exported, package_path=str(path), inductor_configs=dict(options))


def library_runner(library: Path) -> Any:
    """Return the runner of a compiled program; unlike ``aoti_load_package``, it makes no copy per process."""
    return torch._C._aoti.AOTIModelContainerRunnerCpu(str(library), 1)


def find_instruction_sets() -> None:
    """Detect the processor's instruction sets by compiling small libraries into inductor's cache folder."""
    from torch._inductor import cpu_vec_isa  # takes seconds and is needed for builds only

    cpu_vec_isa.valid_vec_isa_list()


def clear_inductor() -> None:
    """Clear inductor's caches, which may refer to the folder of an earlier build."""
    from torch._inductor import utils

    utils.clear_caches()
