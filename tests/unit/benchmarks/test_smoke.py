"""The cheap benchmarks still run; what they measure is nobody's business here."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
SHARED = {
    "__init__",
    "crew",
    "gpu_sections",
    "measure",
    "plain_loop",
    "rivals",
    "scene",
    "searches",
    "servers",
    "stored",
}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["step"],
        ["step", "--studies", "digits-100-conv-small-gamma", "shapes-small"],
        ["gpu_packs", "--device", "cpu"],
        ["gpu_table_1", "--device", "cpu", "--models", "static", "rladder"],
        ["sampler_seeding"],
        ["large_table", "--trials", "0"],
        pytest.param(["cpu_arrangements"], marks=pytest.mark.timeout(300)),  # three processes that import torch
        pytest.param(["packed_search"], marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
    ids=" ".join,
)
def test_a_quick_run_prints_its_table_and_keeps_it(arguments: list[str], tmp_path: Path) -> None:
    output = tmp_path / "found" / "result.json"

    result = run("-m", f"benchmarks.{arguments[0]}", *arguments[1:], "--quick", "--output", str(output))

    assert result.returncode == 0, result.stderr
    content = json.loads(output.read_text())
    assert content["machine"]["cores"] >= 1 and content["machine"]["threads"] == 1
    assert content["tables"] and all(content["tables"].values())
    assert output.with_suffix(".txt").read_text() == result.stdout


def test_the_gpu_scripts_need_torch_and_numpy_alone() -> None:
    blocked = ("ray", "optuna", "mlflow", "safetensors", "yaml", "pyarrow", "rich", "scipy", "sklearn")
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}));import benchmarks.gpu_packs, benchmarks.gpu_table_1"
    )
    result = run("-c", script)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_a_script_finds_what_it_imports(name: str) -> None:
    importlib.import_module(f"benchmarks.{name}")


def test_every_script_is_in_the_list_of_the_readme() -> None:
    readme = (ROOT / "benchmarks" / "README.md").read_text()
    for name in sorted(SCRIPTS - SHARED):
        assert f"python -m benchmarks.{name}" in readme, name
