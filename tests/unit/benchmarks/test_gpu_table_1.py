"""Table 1 on one device: the studies' networks, as many epochs for all as fit, and results of several calls in one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks import gpu_table_1
from ladder_search.studies import find_study
from ladder_search.studies.recurrent import table_1_model


def test_networks_are_the_studies_with_other_channels() -> None:
    for kind in (*gpu_table_1.MODELS, *gpu_table_1.MORE):
        assert table_1_model(kind) == find_study(f"occluded-mnist-{kind}").model
    assert table_1_model("rladder", channels=16).levels == (
        "conv:16:3:1 conv:16:3:2 lstm:16:3", "conv:32:3:2 lstm:32:3", "conv:64:3:2 dense-lstm:256",
    )  # fmt: skip


def test_all_networks_get_as_many_epochs_as_fit() -> None:
    def runners(*step_seconds: float) -> Any:
        spec = SimpleNamespace(training=SimpleNamespace(epochs=100))
        return [cast(Any, SimpleNamespace(steps=600, step_seconds=s, spec=spec)) for s in step_seconds]

    # 600 steps of 10 ms and as many of 40 ms: 30 s an epoch.
    assert [gpu_table_1.fitting(runners(0.01, 0.04), limit) for limit in (10.0, 305.0, 1e6)] == [1, 10, 100]


def test_two_calls_make_one_table_and_what_is_cut_is_none_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    words = ["--device", "cpu", "--quick", "--epochs", "1"]
    gpu_table_1.main([*words, "--models", "static", "--output", str(first)])
    gpu_table_1.main([*words, "--models", "hierarchical", "temporal", "--add", str(first), "--output", str(second)])
    content = json.loads(second.read_text())
    every = content["tables"]["Every seed"]
    assert [(row["network"], row["seed"]) for row in every] == [
        (kind, seed) for kind in ("static", "hierarchical", "temporal") for seed in (1001, 1002)
    ]
    assert every[:2] == json.loads(first.read_text())["tables"]["Every seed"]
    (claim,) = (row for row in content["tables"]["Claims of occluded-mnist-table-1"] if row["pairs"])
    errors = {(row["network"], row["seed"]): row["error"] for row in every}
    apart = [errors["temporal", seed] - errors["hierarchical", seed] for seed in (1001, 1002)]
    assert claim["claim"] == "hierarchical < temporal"
    assert float(claim["difference, points"]) == pytest.approx(100 * sum(apart) / 2, abs=0.006)
    assert "Digits: made-up digits." in content["notes"]

    cut = tmp_path / "cut.json"
    gpu_table_1.main([*words, "--models", "static", "--limit", "0.01", "--output", str(cut)])
    notes = json.loads(cut.read_text())["notes"]
    assert any("static was cut after 0 of 1 epochs" in note for note in notes)
    assert "Every seed" not in json.loads(cut.read_text())["tables"]
    capsys.readouterr()

    for wrong, sentence in (
        (["--epochs", "2"], "share their epochs"),
        (["--channels", "4"], "give --channels 2, or leave --add out"),
    ):
        with pytest.raises(SystemExit):
            gpu_table_1.main([*words, "--add", str(first), *wrong])
        assert sentence in capsys.readouterr().err
