"""The README's Python runs on a bundle of a real search, and a bundle is trained further."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import torch

from ladder_search.bundles import load

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


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
