"""A process of a trial on somebody else's node has the environment of the table; the driver's is left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.unit.test_environment import HOSTILE

CODE = """
import json, os
from types import SimpleNamespace
import ray
if os.fork() == 0:
    ray.is_initialized = lambda: True
    ray.get_runtime_context = lambda: SimpleNamespace(get_task_id=lambda: "a task")
    process = "worker"
else:
    os.wait()
    process = "driver"
import trainables
print(json.dumps([process, dict(os.environ)]), flush=True)
os._exit(0)
"""


def test_only_a_process_that_ray_has_started_is_settled() -> None:
    of_ray = {"RAY_JOB_ID": "01000000", "RAY_RAYLET_PID": "7", "CUDA_VISIBLE_DEVICES": "1", "OMP_NUM_THREADS": "2"}
    hostile = {name: value for name, value in HOSTILE.items() if not name.startswith(("PYTHON", "RAY_", "TUNE_"))}
    given = {**os.environ, **hostile, **of_ray, "MLFLOW_DISABLE_TELEMETRY": "false"}
    done = subprocess.run([sys.executable, "-c", CODE], env=given, capture_output=True, text=True, check=True)
    seen = dict(json.loads(line) for line in done.stdout.splitlines())
    assert all(one.items() >= of_ray.items() for one in seen.values())
    worker, driver = seen["worker"], seen["driver"]
    assert worker["MLFLOW_DISABLE_TELEMETRY"] == "true" and worker["TORCHINDUCTOR_COMPILE_THREADS"] == "1"
    assert not (hostile.keys() - {"MLFLOW_HTTP_REQUEST_TIMEOUT"}) & worker.keys()
    assert driver.items() >= hostile.items() and "TORCHINDUCTOR_COMPILE_THREADS" not in driver
