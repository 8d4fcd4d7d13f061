"""The result of a final training: the score of every seed, the mean compared with the target, and the result's folder.

A result's folder::

    result.json    settings, test errors, mean, deviation, interval and verdict; written last
    seed-1001/ …   a bundle for each seed that did not diverge
    progress/      checkpoints of an unfinished training; see ``checkpoints``
    spool/         tracking events, stored and waiting
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from ladder_search.config import as_mapping, build
from ladder_search.disk.documents import read_document, refused
from ladder_search.disk.files import write_atomically
from ladder_search.disk.folders import taken, unwritable
from ladder_search.disk.lock import LOCK_FILES
from ladder_search.errors import CheckpointError, LadderSearchError, StudyFolderError
from ladder_search.final.folder import PROGRESS, held
from ladder_search.metrics import CLASS_MEASURES, EPOCH, MEASURES, STEP, TEST_ERROR, Measure
from ladder_search.provenance import collect
from ladder_search.statistics import LEVEL, AgainstTarget, Summary, Verdict
from ladder_search.studies.study import Target
from ladder_search.trial import TrialSpec

if TYPE_CHECKING:
    from ladder_search.data.files import RowSchema  # it imports PyArrow

FORMAT = "ladder-search result 1"
RESULT = "result.json"
SPOOL = "spool"

ResultVerdict = Literal[Verdict, "no target", "reduced schedule", "no verdict"]

_PATIENCE_SECONDS = 120.0
"""Seconds to wait for another process that writes the same result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedResult:
    seed: int
    test_error: float | None
    """Fraction after the whole schedule; None if the seed diverged."""
    test_scores: dict[str, float] = field(default_factory=dict)
    """All scores on the test set, by the names of the network's ``measures``."""
    best_epoch: int | None = None
    """Epoch of the weights if it was selected on the data set's own validation examples; None: the last."""
    diverged_epoch: int | None = None
    """Epoch, from 1, in which values became non-finite."""
    epochs: tuple[dict[str, Any], ...] = ()
    """Metrics of every epoch (names of ``metrics``), including test errors if a learning curve was requested."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FinalResult:
    """A final training over several seeds; mean, deviation and interval are over the seeds that finished."""

    study: str
    """Name of the study, or ""."""
    spec: TrialSpec
    """The configuration as trained: nothing is held out; its own seeds are the first of the run."""
    target: Target | None
    outcomes: tuple[SeedResult, ...]
    data_digest: str
    settings_digest: str
    """Digest of configuration, seeds, data and kind of device."""
    compiled: bool
    device: str
    seconds: float
    reduced: bool = False
    """Whether it was trained for fewer epochs than its study has; not comparable with the published number."""
    modules: Mapping[int, nn.Module] = field(default_factory=dict, repr=False, compare=False)
    """Seed -> network with its test-time statistics, for seeds that finished."""
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """Facts of the data for the provenance, see ``Dataset.facts``."""
    schema: RowSchema | None = field(default=None, repr=False, compare=False)
    """Schema of the raw rows, for data from files."""

    @property
    def test_errors(self) -> list[float]:
        return [outcome.test_error for outcome in self.outcomes if outcome.test_error is not None]

    @property
    def diverged(self) -> tuple[int, ...]:
        """Seeds without a test error; always reported beside the mean."""
        return tuple(outcome.seed for outcome in self.outcomes if outcome.test_error is None)

    @property
    def convergence(self) -> Measure | None:
        """The measure whose rule decides whether a seed has converged; None without a rule."""
        return next((MEASURES[name] for name in self.spec.model.measures if MEASURES[name].convergence), None)

    @property
    def converged(self) -> tuple[int, ...]:
        """Seeds that finished and converged, see ``convergence``; without a rule all that finished."""
        rule, first, seeds = self.convergence, self.spec.measure.name, []
        for outcome in self.outcomes:
            if outcome.test_error is None:
                continue
            scores = {first: outcome.test_error, **outcome.test_scores}
            if rule is None or (rule.name in scores and rule.converged(scores[rule.name])):
                seeds.append(outcome.seed)
        return tuple(seeds)

    @property
    def n(self) -> int:
        return len(self.test_errors)

    @property
    def summary(self) -> Summary | None:
        """Mean, deviation and number of the seeds that finished; None without any."""
        return Summary.of(self.test_errors) if self.n else None

    @property
    def mean(self) -> float | None:
        return self.summary.mean if self.summary else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation of the seeds' errors (n - 1); None for fewer than 2."""
        return self.summary.deviation if self.summary and self.n > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student's 95 % confidence interval of the mean; None for fewer than 2 seeds."""
        return self.summary.interval() if self.summary else None

    @property
    def verdict(self) -> ResultVerdict:
        """Verdict on the mean against the published one, as one look at one configuration; see ``statistics``."""
        if self.target is None:
            return "no target"
        if self.reduced:
            return "reduced schedule"
        if self.target.withheld:
            return "no verdict"
        against = AgainstTarget.of(self.summary, self.target) if self.summary else None
        if against is None:
            return "not enough seeds"
        return against.verdict(p=against.p, p_margin=against.p_margin, level=LEVEL)

    @property
    def curve(self) -> dict[int, dict[int, float]]:
        """Learning curve, epoch -> seed -> test error; never used for selection."""
        points: dict[int, dict[int, float]] = {}
        for outcome in self.outcomes:
            for row in outcome.epochs:
                if TEST_ERROR in row:
                    points.setdefault(int(row[EPOCH]), {})[outcome.seed] = row[TEST_ERROR]
        return points

    @property
    def others(self) -> dict[str, Summary]:
        """Summaries of the other measures, by the names of ``metrics.MEASURES``."""
        measure = self.spec.measure.name
        scores: dict[str, list[float]] = {}
        for outcome in self.outcomes:
            for name, value in outcome.test_scores.items():
                if name != measure:
                    scores.setdefault(name, []).append(value)
        return {name: Summary.of(values) for name, values in scores.items()}

    def lines(self) -> list[str]:
        """Return a line of text for each measure."""
        measure = self.spec.measure
        lines = [f"{measure.title} {self}" if measure.name in CLASS_MEASURES[1:] else str(self)]
        for name, summary in self.others.items():
            other = MEASURES[name]
            spread = f" ± {other.number(summary.deviation)}" if summary.n > 1 else ""
            lines.append(f"{other.title} {other.text(summary.mean)}{spread}")
        return lines

    def __str__(self) -> str:
        """Example: ``1.05 % ± 0.12 over 10 seeds, 95 % interval 0.96 .. 1.14 %, target 1.06 % ± 0.37: reproduced``."""
        measure = self.spec.measure
        text = "no seed finished" if self.mean is None else measure.text(self.mean)
        if self.deviation is not None:
            text += f" ± {measure.number(self.deviation)}"
        if self.n:
            text += f" over {self.n} seed{'s' if self.n > 1 else ''}"
        if self.diverged:
            text += f", {len(self.diverged)} of {len(self.outcomes)} diverged ({', '.join(map(str, self.diverged))})"
        if self.convergence is not None:
            seeds = f"{len(self.converged)} of {len(self.outcomes)} seeds"
            text += f", converged in {seeds} ({self.convergence.convergence})"
        if self.interval is not None:
            text += f", 95 % interval {measure.number(self.interval[0])} .. {measure.text(self.interval[1])}"
        if self.target is None:
            return text
        reason = f", {self.target.withheld}" if self.verdict == "no verdict" else ""
        return f"{text}, target {self.target}: {self.verdict}{reason}"


def write_result(folder: Path, result: FinalResult, *, provenance: Mapping[str, Any] | None = None) -> None:
    """Write the bundles and then ``result.json``, and remove the checkpoints; an identical result is left unchanged.

    Args: ``provenance`` is collected by this function if it is None.

    Raises:
        StudyFolderError: the folder has another result or other content, or cannot be written; no bundle remains.
        CheckpointError: the existing result is damaged.
    """
    check_folder(folder)
    with held(folder, timeout=_PATIENCE_SECONDS):  # another process may have finished the same training
        if (folder / RESULT).exists():
            if read_result(folder) == result:
                return
            raise taken(folder / RESULT)
        if provenance is None:
            provenance = collect(
                **{"data_name": result.spec.data.name, "data_digest": result.data_digest, **result.facts}
            )
        _write(folder, result, provenance)
        shutil.rmtree(folder / PROGRESS, ignore_errors=True)


def _write(folder: Path, result: FinalResult, provenance: Mapping[str, Any]) -> None:
    """Write bundles and result into a locked folder; remove them on failure."""
    # Imported here, because it needs safetensors and PyYAML, which a training without a folder does not.
    from ladder_search.bundles.bundle import BundleMetrics, write_bundle

    digests: dict[int, str] = {}
    try:
        (folder / RESULT).unlink(missing_ok=True)  # it would describe other bundles
        for outcome in result.outcomes:
            if outcome.test_error is None:
                continue
            digests[outcome.seed] = write_bundle(
                bundle_folder(folder, outcome.seed),
                study=result.study,
                spec=replace(result.spec, seed=outcome.seed, label_seed=outcome.seed),
                module=result.modules[outcome.seed],
                metrics=BundleMetrics(
                    trial=f"seed-{outcome.seed}",
                    state="COMPLETE",
                    test_error=outcome.test_error,
                    step=outcome.epochs[-1][STEP] if outcome.epochs else None,
                    epochs=outcome.epochs,
                ),
                provenance=provenance,
                schema=result.schema,
                force=True,  # without a result.json it remains from a killed call of this function
            )
        content = json.dumps(_as_json(result, digests), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        write_atomically(folder / RESULT, content.encode())
    except BaseException as error:
        with suppress(OSError):
            (folder / RESULT).unlink(missing_ok=True)  # it exists if only the sync of its folder failed
        for seed in digests:
            shutil.rmtree(bundle_folder(folder, seed), ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, LadderSearchError):
            raise unwritable(folder, error) from error
        raise


def read_result(folder: Path, *, networks: bool = True) -> FinalResult:
    """Return the result in ``folder``; raise ``CheckpointError`` if it or one of its bundles is missing or damaged.

    With ``networks``, every bundle is read, for networks and all epochs; otherwise only points of the learning curve.
    """
    from ladder_search.bundles.bundle import read_bundle

    with refused(folder / RESULT, "be the result of a final training", "copy it again or train again"):
        raw = read_document(folder / RESULT, FORMAT)
        bundles: dict[str, str] = dict(raw["bundles"])
        curve: dict[str, dict[str, float]] = dict(raw["learning_curve"])
        outcomes = tuple(
            build(SeedResult, {**o, "epochs": tuple(o["epochs"]) or _points(curve, str(o["seed"]))})
            for o in raw["outcomes"]
        )
        result = FinalResult(
            spec=TrialSpec.from_mapping(raw["settings"]),
            target=None if raw["target"] is None else build(Target, raw["target"]),
            outcomes=outcomes,
            **{name: kind(raw[name]) for name, kind in _PLAIN.items()},
        )
    if not networks:
        return result
    modules, complete = {}, []
    for outcome in result.outcomes:
        if outcome.test_error is not None:
            bundle = read_bundle(bundle_folder(folder, outcome.seed))
            if bundle.digest != bundles.get(str(outcome.seed)):
                raise CheckpointError(
                    f"the bundle {bundle.folder} must have the digest that {RESULT} names, "
                    f"{bundles.get(str(outcome.seed))}, found {bundle.digest}; copy the folder again or train again."
                )
            modules[outcome.seed] = bundle.module()
            outcome = replace(outcome, epochs=bundle.metrics.epochs)
        complete.append(outcome)
    return replace(result, outcomes=tuple(complete), modules=modules)


def _points(curve: Mapping[str, Mapping[str, float]], seed: str) -> tuple[dict[str, Any], ...]:
    return tuple({EPOCH: int(epoch), TEST_ERROR: row[seed]} for epoch, row in curve.items() if seed in row)


def bundle_folder(folder: Path, seed: int) -> Path:
    return folder / f"seed-{seed}"


def check_folder(folder: Path) -> None:
    """Raise ``StudyFolderError`` if ``folder`` contains anything that is not part of a final training."""
    try:
        names = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    except OSError as error:
        raise unwritable(folder, error) from error
    strange = sorted(
        name for name in names - {RESULT, PROGRESS, SPOOL, *LOCK_FILES} if not name.startswith(("seed-", "."))
    )
    if strange:
        raise StudyFolderError(
            f"a final training needs an empty folder or one of its own, and {folder} holds {strange[0]!r}; "
            "choose another place."
        )


_PLAIN: dict[str, type[Any]] = {
    "study": str,
    "data_digest": str,
    "settings_digest": str,
    "compiled": bool,
    "device": str,
    "seconds": float,
    "reduced": bool,
}


def _as_json(result: FinalResult, digests: Mapping[int, str]) -> dict[str, Any]:
    outcomes = []
    for outcome in result.outcomes:
        # The epochs of a seed with a bundle are in its metrics.json.
        epochs = () if outcome.seed in digests else outcome.epochs
        outcomes.append(as_mapping(replace(outcome, epochs=epochs)))
    return {
        "format": FORMAT,
        "summary": str(result),
        "n": result.n,
        "diverged": list(result.diverged),
        **({"converged": list(result.converged)} if result.convergence else {}),
        "mean": result.mean,
        "standard_deviation": result.deviation,
        "confidence_interval_95": result.interval,
        "verdict": result.verdict,
        "level": LEVEL,
        "target": None if result.target is None else as_mapping(result.target),
        **{name: getattr(result, name) for name in _PLAIN},
        "settings": result.spec.as_mapping(),
        "outcomes": outcomes,
        "bundles": {str(seed): digest for seed, digest in digests.items()},
        "learning_curve": {str(epoch): {str(s): e for s, e in row.items()} for epoch, row in result.curve.items()},
    }
