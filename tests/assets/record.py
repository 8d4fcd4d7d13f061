"""Record what this version of the program writes, so that later versions are tested to read it.

From a clean checkout, ``python -m tests.assets.record FOLDER`` runs the commands below on a tiny network and leaves
their files in ``FOLDER``, which must not exist. A recording is never replaced: a new format gets a folder of its own
beside ``format-1``.

What is left out, because no command reads it: Ray's own state, pictures, and the contents of large attachments.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ladder_search.bundles.bundle import BundleMetrics, write_bundle
from ladder_search.models import FAMILIES
from tests.assets.recorded import ANALYSIS, COMPARISON, EXAMPLES, SEARCH, TRAINING
from tests.contracts.test_families import network_of, spec_of

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 300.0
LARGEST = 9_000
"""Attachments of the spool with more bytes are cut to their first 64."""
LEFT_OUT = shutil.ignore_patterns(
    "pictures",
    "*.pkl",
    "experiment_state-*",
    "search_gen_state-*",
    ".validate*",
    "*lock",
    "mlflow.db*",
    "mlartifacts",
    "*.png",
    "*.html",
)


def main() -> None:
    (target,) = (Path(argument).resolve() for argument in sys.argv[1:])
    target.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="recording-") as name:
        work = Path(name)
        # The command lines in the records name no folder of this machine.
        (work / "search.py").symlink_to(ROOT / "search.py")
        (work / "ladder-search").write_text("from ladder_search.cli import main\nmain()\n")
        record(work)
        expected = {"bundles": record_families(work / "families")}
        run(work, "analyse", *ANALYSIS)
        shutil.rmtree(work / "analyses" / "recurrent" / "spool")
        for result in ("analyses", "configs", "families", "final", "interrupted"):
            shutil.copytree(work / result, target / result, ignore=LEFT_OUT)
        shutil.copytree(work / "results", target / "results", ignore=LEFT_OUT)
    shutil.rmtree(target / "final" / "spool")
    for path in target.glob("results/reproductions/*/*/*/seed-*"):
        shutil.rmtree(path)  # of a network of the full size
    for path in target.rglob("spool/artifacts/*/*"):
        if path.stat().st_size > LARGEST:
            path.write_bytes(path.read_bytes()[:64])
    (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def record(work: Path) -> None:
    """Run the commands in ``work``, where each finds the results of those before it."""
    options = ("--offline", "--max-concurrent", "1", "--slots", "1", "--compile", "off")
    run(work, "search", "digits-100", "--name", "finished", "--trials", "4", "--epochs", "6", *options, *SEARCH)
    run(work, "export", "finished", "--top", "2", "-o", "configs")
    (bundle,) = (work / "configs").glob("*-t0000")  # the published configuration, which a search never stops early
    bundle = bundle.rename(work / "configs" / "published")
    run(work, "train", "configs/published", "-o", "final", *TRAINING)
    run(work, "reproduce", "digits-50-base", "--seeds", "2", "--epochs", "2")
    run(work, "compare", *COMPARISON)
    killed = work / "results" / "killed"
    interrupt(
        work, signal.SIGKILL, (killed / "checkpoints" / "t0000" / "checkpoint_000000" / "trial.json").exists,
        "search", "digits-100", "--name", "killed", "--trials", "3", "--epochs", "200", *options, *SEARCH,
    )  # fmt: skip
    assert (killed / "running" / "t0000.jsonl").exists()
    interrupt(
        work, signal.SIGTERM, (work / "interrupted" / "lock").exists,
        "train", "configs/published", "--seeds", "2", "--epochs", "60", "-o", "interrupted",
    )  # fmt: skip
    assert (work / "interrupted" / "progress" / "progress.json").exists()


def command_line(*arguments: str) -> list[str]:
    if arguments[0] == "search":
        return [sys.executable, "search.py", *arguments[1:]]
    return [sys.executable, "ladder-search", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(work: Path, *arguments: str) -> None:
    subprocess.run(command_line(*arguments), cwd=work, env=environment(), check=True, timeout=LIMIT)


def interrupt(work: Path, number: signal.Signals, ready: Callable[[], bool], *arguments: str) -> None:
    """Start a command in a session of its own and signal the whole session a second after ``ready``."""
    line = command_line(*arguments)
    with subprocess.Popen(line, cwd=work, env=environment(), start_new_session=True) as process:
        end = time.monotonic() + LIMIT
        while not ready():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.02)
        time.sleep(0.5 if number == signal.SIGTERM else 0.1)
        os.killpg(process.pid, number)


def record_families(folder: Path) -> dict[str, list[float]]:
    """Write a bundle of every family; return the first outputs of each for ``EXAMPLES``."""
    outputs = {}
    for family in FAMILIES:
        network = network_of(family).double()
        write_bundle(
            folder / family, study="", spec=spec_of(family), module=network,
            metrics=BundleMetrics(trial="t0000", state="COMPLETE", validation_error=0.5), provenance={},
        )  # fmt: skip
        with torch.no_grad():
            outputs[family] = network.eval()(EXAMPLES[family]).flatten()[:20].tolist()
    return outputs


if __name__ == "__main__":
    main()
