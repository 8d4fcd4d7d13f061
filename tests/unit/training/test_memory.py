"""Large blocks are kept by a process whose network has large layers, and by no other."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Faults of a page of memory that filling a block of 48 MB ten times over takes, after a pack of that network was made.
SCRIPT = """
import resource, sys
import torch
from ladder_search.studies import STUDIES
from dataclasses import replace
from ladder_search.data.datasets import load

layers = ["convf:64:5:1", "globalmeanpool", "fc:10"]
model = {"layers": layers, "noise_std": [0.3] * 4, "lambda_": [0.0] * 3 + [1.0]}
study = STUDIES["digits-100-conv-small-gamma"].with_overrides({"model": model})
spec = replace(study.trial(), training=replace(study.training, unlabelled_batch=int(sys.argv[1])))
pack = spec.pack(load("digits"), slots=1, compiled=False, device=torch.device("cpu"))

def fill():
    torch.empty(12_000_000).fill_(1.0)

fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize(("rows", "kept"), [(100, False), (1000, True)])
def test_a_wide_network_keeps_its_blocks(rows: int, kept: bool) -> None:
    # 300 rows of 64 x 12 x 12 numbers are 11 MB in float32, 2,100 rows 77 MB.
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(rows)], capture_output=True, text=True, check=True)
    faults = int(done.stdout)
    assert (faults < 10) == kept, faults
