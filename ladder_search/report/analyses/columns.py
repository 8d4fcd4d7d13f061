"""The analysis of progressive networks: contributions of their columns, by noise and by Fisher information."""

from __future__ import annotations

from dataclasses import replace

import torch

from ladder_search.analysis.columns import Sensitivity, SensitivityConfig, sensitivities
from ladder_search.analysis.result import Analysis, Examples, Part, Report, examples
from ladder_search.bundles.bundle import Bundle
from ladder_search.console.tables import Table
from ladder_search.data.dataset import Dataset
from ladder_search.data.whitening import Prepared
from ladder_search.nn.network import Columns
from ladder_search.pictures.sensitivity import column_shares
from ladder_search.report.analyses.family import FamilyAnalysis
from ladder_search.wording import NOTHING, percent, value


def _choose(
    bundle: Bundle, dataset: Dataset, part: Part, settings: SensitivityConfig, rows: int | None
) -> tuple[SensitivityConfig, Examples]:
    selection = examples(bundle, dataset, part, rows=rows, seed=settings.seed, usual=settings.rows)
    return replace(settings, rows=len(selection.y)), selection


def _run(
    bundle: Bundle, dataset: Dataset, shown: Examples, settings: SensitivityConfig, device: torch.device, report: Report
) -> Sensitivity:
    network = bundle.module().to(device)
    dtype = next(network.parameters()).dtype
    x = torch.from_numpy(shown.x).to(device, dtype) / dataset.full_scale
    y = torch.from_numpy(shown.y).to(device).long()
    if isinstance(network, Prepared):
        x = network.prepared(x)
        network = network.network
    spec = bundle.spec
    assert isinstance(network, Columns), "the command analyses a network of columns"
    sources = [f"source {name}" for name in spec.stages][: len(network.source_features(x[:2]))]
    return sensitivities(network, x, y, settings, columns=(*sources, "target"), report=report)


_HEADER = ("layer", "column", "units", "critical σ", "1/σ²", "APS", "Fisher", "AFS")


def _table(sensitivity: Sensitivity) -> Table:
    rows = [
        (
            str(one.layer) if one.column == sensitivity.layer(one.layer)[0].column else "",
            one.column,
            str(one.units),
            f"> {value(sensitivity.cap)}" if one.sigma is None else value(one.sigma),
            f"{'< ' if one.sigma is None else ''}{value(one.precision)}",
            NOTHING if one.aps is None else f"{'< ' if one.sigma is None else ''}{percent(one.aps, 1)}",
            value(one.fisher),
            percent(one.afs, 1),
        )
        for one in sensitivity.layers
    ]
    styles = ["dim" if one.sigma is None else "" for one in sensitivity.layers]
    return Table(header=_HEADER, rows=rows, left=("column",), folded=("column",), styles=styles)


def _sentences(analysis: Analysis) -> list[str]:
    found, settings = analysis.found, analysis.settings
    unit = "standard deviations of each unit" if settings.noise == "scaled" else "units of the activations, for all"
    sentences = [
        f"Accuracy: {percent(found.accuracy)} on {found.rows} {analysis.part} rows; halved is {percent(found.halved)}, "
        f"over {settings.draws} draws of noise. σ is in {unit}."
    ]
    if len(found.columns) == 1:
        sentences.append("One column: its shares are all 1, there is nothing to compare.")
    constant = [one for one in found.layers if one.constant]
    if constant:
        names = ", ".join(f"{one.constant} in layer {one.layer} of {one.column}" for one in constant)
        sentences.append(f"Units that never change, which take no scaled noise and carry no information: {names}.")
    if found.insensitive:
        names = ", ".join(f"layer {one.layer} of {one.column}" for one in found.insensitive)
        sentences.append(
            f"Insensitive: {names}. The greatest noise, σ = {value(found.cap)}, does not halve the accuracy; its "
            "precision enters the shares as the bound that it is."
        )
    return sentences


def _values(found: Sensitivity) -> dict[str, dict[int, float]]:
    values: dict[str, dict[int, float]] = {"accuracy": {0: found.accuracy}}
    for one in found.layers:
        for name, number in (("aps", one.aps), ("afs", one.afs), ("sigma", one.sigma), ("fisher", one.fisher)):
            if number is not None:
                values.setdefault(f"{name}/{one.column}", {})[one.layer] = number
    return values


COLUMNS = FamilyAnalysis(
    settings=SensitivityConfig,
    found=Sensitivity,
    choose=_choose,
    run=_run,
    items="rows",
    detail=lambda settings: f", {settings.noise} noise",
    table=_table,
    sentences=_sentences,
    draw=lambda heading, found: {"column-shares": column_shares(heading, found)},
    values=_values,
)
