"""Registers one network as a model in MLflow, without pickle.

Exporting and checking take seconds, so only the winner of a final training is registered. A network of a data set of
the table is saved by ``torch.export`` (MLflow's ``pt2``); it accepts any batch size, because its example has several
rows. A network of data from files is saved as its bundle with this package as code, so that the model takes raw rows.
Only MLflow's fluent API can do this, which is safe in a command that is about to end.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

# First, because it sets variables that MLflow reads when it is imported.
from ladder_search.tracking import mlflow_store  # isort: skip  # noqa: F401

import mlflow
import mlflow.pytorch
from mlflow.models import ModelSignature, infer_signature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import AnyType

from ladder_search import environment
from ladder_search.errors import TrackingError
from ladder_search.tracking.address import redacted

DIGEST = "ladder.bundle"
"""Tag with the digest of the network's bundle, which makes registering idempotent."""
REQUIRED = ("torch", "cloudpickle", "numpy")
REQUIRED_FOR_ROWS = ("torch", "numpy", "pandas", "pillow", "pyarrow", "pyyaml", "safetensors", "scipy")
_PACKAGE = Path(__file__).resolve().parents[1]


def register_network(
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

    def log() -> Any:
        return mlflow.pytorch.log_model(
            network,
            name="model",
            signature=infer_signature(example, output),
            input_example=example,
            serialization_format="pt2",
            registered_model_name=name,
            # Otherwise MLflow starts two interpreters to find the requirements.
            pip_requirements=_pinned(REQUIRED),
        )

    return _registered(address, run_id, log, name=name, digest=digest, tags=tags)


def register_rows(
    address: str,
    run_id: str,
    *,
    name: str,
    bundle: Path,
    loader: str,
    example: Any,
    images: frozenset[str],
    output: Any,
    digest: str,
    tags: Mapping[str, str],
) -> str:
    """Log a bundle as a model of a run that takes raw rows, register it as ``register_network`` does, and return its
    version.

    Args:
        bundle: folder of the bundle.
        loader: module with MLflow's ``_load_pyfunc``.
        example, output: data frames of rows and of their predictions.
        images: columns of the example with files of images.
    """
    # Any type: a column of whole numbers may have fractions in other rows, which MLflow would refuse; the model checks.
    some: Any = AnyType()  # type: ignore[no-untyped-call]
    columns: list[Any] = [
        ColSpec(DataType.binary, column) if column in images else ColSpec(some, column, required=False)
        for column in example.columns
    ]

    def log() -> Any:
        import mlflow.pyfunc  # its import warns, and warnings are ignored here

        return mlflow.pyfunc.log_model(
            name="model",
            loader_module=loader,
            data_path=str(bundle),
            code_paths=[str(_PACKAGE)],
            signature=ModelSignature(inputs=Schema(columns), outputs=infer_signature(output).inputs),
            input_example=example,
            registered_model_name=name,
            pip_requirements=_pinned(REQUIRED_FOR_ROWS),
        )

    return _registered(address, run_id, log, name=name, digest=digest, tags=tags)


def _pinned(packages: Sequence[str]) -> list[str]:
    return [f"{package}=={version(package).partition('+')[0]}" for package in packages]


def _registered(
    address: str, run_id: str, log: Callable[[], Any], *, name: str, digest: str, tags: Mapping[str, str]
) -> str:
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
                model = log()
            number = str(model.registered_model_version)
            for tag, value in {DIGEST: digest, **tags}.items():
                client.set_model_version_tag(name, number, tag, value)
            return number
    except Exception as error:
        reason = " ".join(redacted(str(error)).split())[:300]
        raise TrackingError(f"the model was not registered in {redacted(address)}: {reason}.") from error
