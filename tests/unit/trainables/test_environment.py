"""A process of a trial on somebody else's node has the environment of the table; the driver's is left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.unit.test_environment import HOSTILE

CODE = """
import json, os, sys
from types import SimpleNamespace
import ray
if sys.argv[1] == "worker":
    ray.is_initialized = lambda: True
    ray.get_runtime_context = lambda: SimpleNamespace(get_task_id=lambda: "a task")
import trainables
print(json.dumps(dict(os.environ)))
"""


@pytest.mark.parametrize("process", ["worker", "driver"])
def test_only_a_process_that_ray_has_started_is_settled(process: str) -> None:
    of_ray = {"RAY_JOB_ID": "01000000", "RAY_RAYLET_PID": "7", "CUDA_VISIBLE_DEVICES": "1", "OMP_NUM_THREADS": "2"}
    hostile = {name: value for name, value in HOSTILE.items() if not name.startswith(("PYTHON", "RAY_", "TUNE_"))}
    given = {**os.environ, **hostile, **of_ray, "MLFLOW_DISABLE_TELEMETRY": "false"}
    done = subprocess.run([sys.executable, "-c", CODE, process], env=given, capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout)
    assert seen.items() >= of_ray.items()
    if process == "worker":
        assert seen["MLFLOW_DISABLE_TELEMETRY"] == "true" and seen["TORCHINDUCTOR_COMPILE_THREADS"] == "1"
        assert not (hostile.keys() - {"MLFLOW_HTTP_REQUEST_TIMEOUT"}) & seen.keys()
    else:
        assert seen.items() >= hostile.items() and "TORCHINDUCTOR_COMPILE_THREADS" not in seen
