"""The registry is the store's own, whatever the environment names for other programs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from ladder_search.tracking.mlflow_store import open_store
from ladder_search.tracking.registry import register_network


@pytest.fixture(autouse=True)
def _fluent_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MLflow keeps the addresses of its fluent calls in the process and in its environment."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    yield
    mlflow.set_tracking_uri("")
    mlflow.set_registry_uri("")


def log_model(*_: Any, registered_model_name: str, **__: Any) -> SimpleNamespace:
    """Register as MLflow's own function does, with clients that take their addresses from MLflow itself."""
    client = MlflowClient()
    with suppress(MlflowException):
        client.create_registered_model(registered_model_name)
    version = client.create_model_version(registered_model_name, Path.cwd().as_uri())
    return SimpleNamespace(registered_model_version=version.version)


def test_the_model_is_registered_in_the_store_of_the_run(
    sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(tmp_path / "mlflow.db", tmp_path / "others.db")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{tmp_path}/others.db")
    monkeypatch.setattr("mlflow.pytorch.log_model", log_model)
    store = open_store(sqlite_store, "exp", tmp_path / "a" / "spool", "spool")
    run_id = store.create_run_once("k", name="k", parent_id=None, time_ms=1)
    example = np.zeros((4, 3), np.float32)
    versions = [
        register_network(
            sqlite_store,
            run_id,
            name="exp",
            network=None,
            example=example,
            output=example,
            digest="d",
            tags={"seed": "1"},
        )
        for _ in range(2)
    ]
    assert versions == ["1", "1"]  # once per digest
    tags = {
        name: [version.tags for version in MlflowClient(uri, registry_uri=uri).search_model_versions("name = 'exp'")]
        for name in ("mlflow", "others")
        for uri in [f"sqlite:///{tmp_path}/{name}.db"]
    }
    assert tags == {"mlflow": [{"ladder.bundle": "d", "seed": "1"}], "others": []}
