"""What is read is data: pickles, YAML tags and archives of PyTorch and NumPy run nothing, wherever they are put."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch

from ladder_search.data.mnist import from_folder, from_pickle
from ladder_search.driver.samplers import SAMPLERS
from ladder_search.errors import LadderSearchError
from tests.properties.test_fuzz import TARGETS


class Touches:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, int]]:
        return os.open, (str(self.path), os.O_CREAT)


def as_pickle(path: Path) -> bytes:
    return pickle.dumps(Touches(path))


def as_torch(path: Path) -> bytes:
    with io.BytesIO() as file:
        torch.save({"weight": Touches(path)}, file)
        return file.getvalue()


def as_numpy(path: Path) -> bytes:
    with io.BytesIO() as file:
        np.savez(file, x=np.array([Touches(path)], dtype=object))
        return file.getvalue()


def as_yaml(path: Path) -> bytes:
    return f'study: !!python/object/apply:os.open ["{path}", {os.O_CREAT}]\n'.encode()


MALICE = [as_pickle, as_torch, as_numpy, as_yaml]


def test_the_malice_works(tmp_path: Path) -> None:
    """Where it is loaded as what it is, it does what it is for."""
    import yaml

    pickle.loads(as_pickle(tmp_path / "1"))
    torch.load(io.BytesIO(as_torch(tmp_path / "2")), weights_only=False)
    np.load(io.BytesIO(as_numpy(tmp_path / "3")), allow_pickle=True)["x"]
    yaml.unsafe_load(as_yaml(tmp_path / "4"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "3", "4"]


@pytest.mark.parametrize("malice", MALICE, ids=lambda malice: malice.__name__)
@pytest.mark.parametrize(("name", "file"), [(name, file) for name, target in TARGETS.items() for file in target.files])
def test_no_file_that_is_read_runs(name: str, file: str, malice: Callable[[Path], bytes], tmp_path: Path) -> None:
    target, ran = TARGETS[name], tmp_path / "ran"
    target.make(tmp_path / "it")
    (tmp_path / "it" / file).write_bytes(malice(ran))
    if target.seal:
        with suppress(ValueError, LookupError, TypeError):
            target.seal(tmp_path / "it")
    with pytest.raises(LadderSearchError):
        target.use(tmp_path / "it")
    assert not ran.exists()


def test_no_data_file_runs(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    with pytest.raises(LadderSearchError, match="plain arrays only"):
        from_pickle("the wheel", as_pickle(ran))
    for malice in MALICE:
        for file in (
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte.gz",
            "t10k-labels-idx1-ubyte",
        ):
            (tmp_path / file).write_bytes(malice(ran))
        with pytest.raises(LadderSearchError):
            from_folder(tmp_path)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("sampler", "runs"), [(optuna.samplers.CmaEsSampler(seed=1), True), (SAMPLERS["cma-es"](1), False)]
)
def test_no_state_of_a_sampler_runs(sampler: optuna.samplers.BaseSampler, runs: bool, tmp_path: Path) -> None:
    """Optuna's own CMA-ES keeps a pickle among the attributes of a trial, and loads it; ours does not look at it."""
    study = optuna.create_study(sampler=sampler)
    range_ = optuna.distributions.FloatDistribution(0, 1)
    planted = {"cma:optimizer:0": as_pickle(tmp_path / "ran").hex()}
    for value in (0.1, 0.2, 0.3):
        study.add_trial(
            optuna.trial.create_trial(
                params={"x": value, "y": value}, distributions={"x": range_, "y": range_}, value=value,
                system_attrs=planted,
            )
        )  # fmt: skip
    trial = study.ask()
    with suppress(Exception):
        trial.suggest_float("x", 0, 1)
    assert (tmp_path / "ran").exists() is runs
