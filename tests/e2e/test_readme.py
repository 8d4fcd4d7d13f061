"""What the README tells a reader to type works: its commands parse, its Python runs on a bundle of a real search."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch

from ladder_search.bundles import load
from ladder_search.commands.search import parse_arguments
from ladder_search.studies import STUDIES

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINES = [line.strip() for language, block in BLOCK.findall(README) if not language for line in block.splitlines()]
INLINE = re.findall(r"`([^`\n]+)`", BLOCK.sub("", README))
COMMANDS = sorted({text for text in (*LINES, *INLINE) if re.match(r"(\.venv/bin/)?ladder-search [a-z]", text)})
SEARCHES = sorted({text for text in (*LINES, *INLINE) if re.search(r"search\.py [a-z]", text)})


def test_the_readme_is_read() -> None:
    assert len(COMMANDS) >= 8
    assert len(SEARCHES) >= 2


@pytest.mark.parametrize("target", re.findall(r"^make ([a-z-]+)$", "\n".join((*LINES, *INLINE)), re.MULTILINE))
def test_make_targets_exist(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", SEARCHES)
def test_searches_parse(line: str) -> None:
    # There is no search here to go on with.
    arguments = [word for word in shlex.split(line.partition("search.py ")[2]) if word != "--resume"]
    assert parse_arguments(arguments).study in STUDIES


@pytest.mark.parametrize("name", sorted({line.split("ladder-search ")[1].split()[0] for line in COMMANDS}))
def test_commands_exist_with_the_options_that_are_shown(name: str, command: Callable[..., Any], tmp_path: Path) -> None:
    done = command(name, "--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = {o for line in COMMANDS if f"ladder-search {name}" in line for o in re.findall(r"(?<!\S)--?[a-z-]+", line)}
    assert all(option in done.stdout for option in shown)


def test_a_bundle_is_used_as_the_readme_shows(finished: Any, command: Callable[..., Any], tmp_path: Path) -> None:
    bundles = tmp_path / "configs"
    done = command("export", "first", "--top", "1", "-o", str(bundles), folder=finished.folder)
    assert done.returncode == 0, done.stderr
    (bundle,) = bundles.iterdir()
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(code.strip().splitlines()) <= 5
    code = re.sub(r'load\("[^"]+"\)', f"load({str(bundle)!r})", code) + "\nprint(probabilities.shape)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "torch.Size([5, 10])"


def test_a_bundle_is_trained_and_the_training_goes_on_where_it_was(
    finished: Any, command: Callable[..., Any], tmp_path: Path
) -> None:
    bundles = tmp_path / "configs"
    assert command("export", "first", "-o", str(bundles), folder=finished.folder).returncode == 0
    (bundle,) = bundles.iterdir()
    words = ("train", str(bundle), "--seeds", "2", "--epochs", "3", "-o", str(tmp_path / "final"))
    first = command(*words, folder=tmp_path)
    assert first.returncode == 0, first.stderr
    assert re.search(r"\d+\.\d\d % ± \d+\.\d\d over 2 seeds, 95 % interval", first.stdout)
    again = command(*words, folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert first.stdout.splitlines()[-2:] == again.stdout.splitlines()[-2:]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'results' / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    kinds = {run.data.tags["kind"]: run for run in runs}
    assert len(runs) == 3 and {run.info.status for run in runs} == {"FINISHED"}, "one and one below it for each seed"
    whole, seed = kinds["final"], kinds["final seed"]
    assert whole.data.metrics["seeds"] == 2 and whole.data.tags["verdict"] == "no target"
    assert f"{100 * whole.data.metrics['test_error_mean']:.2f} % ±" in first.stdout
    assert seed.data.tags["mlflow.parentRunId"] == whole.info.run_id
    curve = client.get_metric_history(seed.info.run_id, "cost")
    assert len(curve) == 3 and len({point.step for point in curve}) == 3, "each point once, though it was sent twice"
    assert "bundle/seed" in str([file.path for file in client.list_artifacts(seed.info.run_id, "bundle")])
    (version,) = client.search_model_versions("name = 'digits-100'")
    assert (version.run_id, version.tags["seed"]) == (whole.info.run_id, "1001")
    (exported,) = (tmp_path / "results").rglob("model.pt2")
    network = torch.export.load(exported).module()
    x = torch.rand(7, 64)
    torch.testing.assert_close(network(x), load(tmp_path / "final" / "seed-1001")(x))
