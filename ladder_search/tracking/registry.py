"""Registers one network as a model in MLflow.

Exporting and checking take seconds, so only the winner of a final training is registered. The model is saved by
``torch.export`` (MLflow's ``pt2``) without pickle; it accepts any batch size, because its example has several rows.
Only MLflow's fluent API can do this, which is safe in a command that is about to end.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from typing import Any

# First, because it sets variables that MLflow reads when it is imported.
from ladder_search.tracking import mlflow_store  # isort: skip  # noqa: F401

import mlflow
import mlflow.pytorch
from mlflow.models import infer_signature
from mlflow.tracking import MlflowClient

from ladder_search import environment
from ladder_search.errors import TrackingError
from ladder_search.tracking.address import redacted

DIGEST = "ladder.bundle"
"""Tag with the digest of the network's bundle, which makes registering idempotent."""
REQUIRED = ("torch", "cloudpickle", "numpy")


def register_model(
    address: str,
    run_id: str,
    *,
    name: str,
    network: Any,
    example: Any,
    output: Any,
    digest: str,
    tags: Mapping[str, str],
) -> str:
    """Log ``network`` as a model of a run, register it under ``name`` once per ``digest``, and return its version.

    Args:
        network: a ``torch.nn.Module`` in eval mode on the CPU.
        example, output: its input and output, float32 arrays of several rows.

    Raises ``TrackingError`` if the store cannot be reached or refuses the model.
    """
    try:
        silent = redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO())
        with warnings.catch_warnings(), environment.ours(), silent[0], silent[1]:
            warnings.simplefilter("ignore")
            # Ignore MLFLOW_REGISTRY_URI, which may be set for another program.
            client = MlflowClient(address, registry_uri=address)
            for model_version in client.search_model_versions(f"name = '{name}'"):
                if model_version.tags.get(DIGEST) == digest:
                    return str(model_version.version)
            mlflow.set_tracking_uri(address)
            mlflow.set_registry_uri(address)
            with mlflow.start_run(run_id=run_id):
                model = mlflow.pytorch.log_model(
                    network,
                    name="model",
                    signature=infer_signature(example, output),
                    input_example=example,
                    serialization_format="pt2",
                    registered_model_name=name,
                    # Otherwise MLflow starts two interpreters to find the requirements.
                    pip_requirements=[f"{package}=={version(package).partition('+')[0]}" for package in REQUIRED],
                )
            number = str(model.registered_model_version)
            for tag, value in {DIGEST: digest, **tags}.items():
                client.set_model_version_tag(name, number, tag, value)
            return number
    except Exception as error:
        reason = " ".join(redacted(str(error)).split())[:300]
        raise TrackingError(f"the model was not registered in {redacted(address)}: {reason}.") from error
