"""A final training in MLflow: a parent run, a child run for every seed, and the winner as a registered model.

The winner is the configuration; its network is that of the first seed that finished, because selecting the best seed
would use the test set.
"""

from __future__ import annotations

from pathlib import Path

from ladder_search.bundles.bundle import read_bundle
from ladder_search.bundles.rows import RowClassifier
from ladder_search.commands.sending import AGAIN, SPOOL, close, metric_points
from ladder_search.config import flat
from ladder_search.console import Console
from ladder_search.data.files.examples import example_rows
from ladder_search.errors import TrackingError
from ladder_search.final.results import RESULT, FinalResult, SeedResult, bundle_folder
from ladder_search.metrics import NLL, STEP, TEST_ERROR
from ladder_search.provenance import as_tags
from ladder_search.tracking import SpoolTracker, Tracker
from ladder_search.tracking.address import redacted

SERVED_STEPS = 8
"""Steps of music that a registered model takes."""


def record(result: FinalResult, folder: Path, *, name: str, store: str, console: Console) -> None:
    """Log the result in ``folder`` and register its winner; print a note if the store refuses it. Repeated calls send
    what is missing and store nothing twice."""
    experiment = result.study or name
    key = f"{experiment}/final/{result.settings_digest[:16]}"
    console.print("Sending the results to the tracking store …")
    tracker = SpoolTracker(folder / SPOOL, store, experiment)
    _log(tracker, key, result, folder, name)
    close(tracker, store, console)
    run_id = tracker.run_id(key)
    stored = tracker.stored_but_files
    if stored and run_id is None:
        note = f"note: {redacted(store)} returned no run ID for this result, so no model was registered; {AGAIN}."
        console.say(note)
    elif stored and run_id is not None and result.modules:
        try:
            version = _register(result, folder, store, experiment, run_id)
            line = f"registered as model {experiment}, version {version}, in {redacted(store)}"
        except TrackingError as error:
            line = f"note: {error} {AGAIN[0].upper()}{AGAIN[1:]}."
        console.say(line)


def _log(tracker: Tracker, key: str, result: FinalResult, folder: Path, name: str) -> None:
    tags = {
        "study": result.study,
        "family": result.spec.family,
        "kind": "final",
        "mlflow.source.name": "ladder-search train",
        "target": str(result.target or "none published"),
        "verdict": result.verdict,
        "summary": str(result),
        "data.sha256": result.data_digest,
    }
    finished = [outcome for outcome in result.outcomes if outcome.test_error is not None]
    provenance = read_bundle(bundle_folder(folder, finished[0].seed)).provenance if finished else {}
    settings = flat(result.spec.as_mapping())
    tracker.start_run(key, name=f"final {name}", params=settings, tags={**as_tags(provenance), **tags})
    for outcome in result.outcomes:
        _log_seed(tracker, key, outcome, folder, tags)
    low, high = result.interval or (None, None)
    values = {
        "test_error_mean": result.mean,
        "test_error_deviation": result.deviation,
        "test_error_low": low,
        "test_error_high": high,
        "target": result.target.error if result.target else None,
        "seeds": result.n,
        "diverged": len(result.diverged),
        "converged": len(result.converged),
        "seconds": result.seconds,
    }
    tracker.log_metrics(key, metric_points(folder / RESULT, {name: {0: value} for name, value in values.items()}))
    tracker.log_artifact(key, folder / RESULT)
    tracker.end_run(key, "FINISHED" if result.n else "FAILED")


def _log_seed(tracker: Tracker, parent: str, outcome: SeedResult, folder: Path, tags: dict[str, str]) -> None:
    key = f"{parent}/seed-{outcome.seed}"
    common_tags = {what: tags[what] for what in ("study", "family", "data.sha256", "mlflow.source.name")}
    tracker.start_run(
        key,
        name=f"seed {outcome.seed}",
        params={"seed": outcome.seed},
        tags={**common_tags, "kind": "final seed"},
        parent=parent,
    )
    last = int(outcome.epochs[-1][STEP]) if outcome.epochs else 0
    values: dict[str, dict[int, float | None]] = {}
    for row in outcome.epochs:
        for name, value in row.items():
            if name != STEP and (name != TEST_ERROR or row[STEP] < last):  # the last test error follows below
                values.setdefault(name, {})[int(row[STEP])] = value
    if outcome.test_error is not None:
        values.setdefault(TEST_ERROR, {})[last] = outcome.test_error
        others = list(outcome.test_scores.items())[1:]  # the first is the error
        values |= {f"test_{name}": {last: score} for name, score in others}
        tracker.log_artifact(key, bundle_folder(folder, outcome.seed), "bundle")
    tracker.log_metrics(key, metric_points(folder / RESULT, values))
    tracker.end_run(key, "FAILED" if outcome.test_error is None else "FINISHED")


def _register(result: FinalResult, folder: Path, store: str, experiment: str, run_id: str) -> str:
    import torch

    from ladder_search.tracking.registry import register_network, register_rows  # imports MLflow

    seed = next(outcome.seed for outcome in result.outcomes if outcome.test_error is not None)
    bundle = read_bundle(bundle_folder(folder, seed))
    tags = {"study": result.study, "seed": str(seed), "summary": str(result), "verdict": result.verdict}
    if bundle.schema is not None:
        classifier = RowClassifier(bundle)
        rows = example_rows(bundle.spec.data, bundle.schema)
        return register_rows(
            store,
            run_id,
            name=experiment,
            bundle=bundle.folder,
            loader=RowClassifier.__module__,
            example=rows,
            images=frozenset(column.name for column in bundle.schema.columns if column.image is not None),
            output=classifier.predict(rows),
            digest=bundle.digest,
            tags=tags,
        )
    network = bundle.module()
    shape = bundle.spec.model.example_shape
    if bundle.spec.measure is NLL:  # an exported program has a fixed number of steps; the bundle takes any number
        shape = (SERVED_STEPS, *shape[1:])
        tags["steps"] = str(SERVED_STEPS)
    example = torch.rand(4, *shape, generator=torch.Generator().manual_seed(seed))
    return register_network(
        store,
        run_id,
        name=experiment,
        network=network,
        example=example.numpy(),
        output=network(example).numpy(),
        digest=bundle.digest,
        tags=tags,
    )
