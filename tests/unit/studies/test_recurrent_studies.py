"""Tables 1 to 3 as studies: the reading's sizes, unread numbers that are marked as such, points that are in spaces."""

from __future__ import annotations

import pytest
import torch

from ladder_search.config import as_mapping
from ladder_search.data import datasets
from ladder_search.data.dataset import PRESENT
from ladder_search.models import FAMILIES, find_family
from ladder_search.models.recurrent import RecurrentConfig
from ladder_search.studies import STUDIES
from spaces import find_space
from tests.unit.studies.fitting import fitting_member

ROWS = [name for name, study in STUDIES.items() if study.family in ("recurrent", "sequence")]
TABLE_1 = {
    "static": 0.71,
    "temporal": 2.02,
    "hierarchical": 1.60,
    "no-prediction": 1.51,
    "no-feedback": 1.24,
    "rladder": 0.74,
}


def parameters(name: str) -> int:
    study = STUDIES[name]
    with torch.device("meta"):
        network = FAMILIES[study.family].build(study.model, generator=torch.Generator())
    return sum(value.numel() for value in network.parameters())


@pytest.mark.parametrize("name", ROWS)
def test_a_row_has_a_point_in_its_space_and_a_time_to_warm_up(name: str) -> None:
    study = STUDIES[name]
    space = find_space(find_family(study.family).space)
    assert space.published(study.trial().for_space(), as_mapping(study.space)) is not None
    assert study.report_every == 1
    rows = 1000 if study.data.dataset.startswith("occluded-digits") else 50_000
    steps = study.training.epochs * (rows // study.training.unlabelled_batch)
    if study.data.dataset.startswith("occluded"):
        assert 0.3 * steps <= study.stop.first_rung_steps <= 0.4 * steps
    if study.baseline is not None:
        assert STUDIES[study.baseline].data == study.data


@pytest.mark.parametrize("name", ROWS)
def test_a_row_fits_its_data(name: str) -> None:
    fitting_member(STUDIES[name])


@pytest.mark.parametrize(("row", "error"), TABLE_1.items())
def test_numbers_from_memory_say_so(row: str, error: float) -> None:
    target = STUDIES[f"occluded-mnist-{row}"].target
    assert target is not None and target.error == pytest.approx(error / 100)
    assert not target.verified and not target.spread_verified and "from memory" in str(target)
    assert STUDIES[f"occluded-mnist-half-{row}"].target is None and STUDIES[f"occluded-mnist-mini-{row}"].target is None


def test_units_are_those_of_what_a_row_is_judged_by() -> None:
    shown = {name: str(STUDIES[name].target) for name in ("occluded-mnist-no-classes", "jsb-rladder", "jsb-tcn")}
    assert shown["occluded-mnist-no-classes"].startswith("155.2 x 1e-5 ± 2.5 (unverified)")
    assert shown["jsb-rladder"].startswith("5.640 nats per step ± 0.020 (unverified)")
    assert shown["jsb-tcn"] == "8.100 nats per step"


def test_ablations_change_what_they_are_named_after_and_nothing_else() -> None:
    whole = STUDIES["occluded-mnist-rladder"].model
    assert whole == RecurrentConfig()
    for row, changed in (("no-prediction", {"lambda_p"}), ("no-feedback", {"feedback"}), ("no-classes", {"lambda_c"})):
        model = as_mapping(STUDIES[f"occluded-mnist-{row}"].model)
        assert {name for name, value in as_mapping(whole).items() if model[name] != value} == changed
    hierarchical, temporal = (STUDIES[f"occluded-mnist-{row}"].model for row in ("hierarchical", "temporal"))
    assert not hierarchical.decoder and hierarchical.levels == whole.levels
    assert not temporal.decoder and " ".join(temporal.levels).count("lstm") == 1


def test_networks_have_the_sizes_that_the_reading_of_the_paper_has() -> None:
    """About 4.0, 3.8 and 2.8 million parameters at full size, 0.13 million at half of it with 8 channels."""
    assert parameters("occluded-mnist-rladder") == pytest.approx(4.0e6, rel=0.05)
    assert parameters("occluded-mnist-no-feedback") == pytest.approx(3.8e6, rel=0.05)
    assert parameters("occluded-mnist-hierarchical") == pytest.approx(2.8e6, rel=0.05)
    assert parameters("occluded-mnist-half-rladder") == pytest.approx(0.13e6, rel=0.05)
    lstm = parameters("jsb-lstm")
    for name in ("jsb-rnn", "jsb-gru", "jsb-rladder-small", "jsb-tcn-small", "nottingham-tcn-small"):
        assert parameters(name) == pytest.approx(lstm, rel=0.05), name


def test_few_labels_come_with_unlabelled_sequences_or_a_teacher_as_their_names_say() -> None:
    for kind in ("static", "temporal", "rladder"):
        plain, taught = STUDIES[f"occluded-mnist-1000-{kind}"], STUDIES[f"occluded-mnist-1000-{kind}-mt"]
        assert plain.data.labels == taught.data.labels == 1000
        assert not plain.model.unlabelled and not plain.teacher.weight
        assert taught.model.unlabelled and taught.teacher.weight and taught.model.noise_std > 0
    alone = STUDIES["occluded-mnist-1000-rladder-unlabelled"]
    assert alone.model.unlabelled and alone.model.lambda_p > 0 and not alone.teacher.weight


@pytest.mark.parametrize("corpus", ["jsb", "nottingham", "musedata", "piano-midi"])
@pytest.mark.parametrize("kind", ["rladder", "rladder-small", "lstm", "tcn", "tcn-small"])
def test_a_search_on_music_gives_everybody_a_third_of_the_time(corpus: str, kind: str) -> None:
    study = STUDIES[f"{corpus}-{kind}"]
    if datasets.state(study.data.dataset) != PRESENT:
        pytest.skip(f"{study.data.dataset} is not here")
    steps = study.trial().member(datasets.load(study.data)).total_steps
    assert study.stop.first_rung_steps == pytest.approx(steps / 3, rel=0.06)
    assert study.training.labelled_batch == (1 if "tcn" in kind else 16)
