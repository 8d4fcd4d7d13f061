"""A tested ordering as text: the cells and sentences for the console and for Markdown."""

from __future__ import annotations

import json
from pathlib import Path

from ladder_search.console import Console
from ladder_search.console.tables import Table
from ladder_search.disk.files import write_atomically
from ladder_search.disk.folders import unwritable
from ladder_search.ordering.claims import trained
from ladder_search.ordering.judging import FILE, JudgedClaim, JudgedOrdering, Reached, Whole
from ladder_search.pictures import canvas
from ladder_search.pictures.intervals import differences
from ladder_search.pictures.learning import learning_bands
from ladder_search.reproduction.learning import Learning
from ladder_search.statistics import LEVEL
from ladder_search.wording import NOTHING

_WHOLE: dict[Whole, str] = {
    "holds": "the ordering holds",
    "not shown": "the ordering is not shown",
    "contradicted": "the ordering is contradicted",
    "not tested": "no verdict",
}


def study_cells(result: JudgedOrdering, one: Reached) -> tuple[str, ...]:
    measure, summary = result.ordering.unit, one.summary
    if summary is None:
        return one.study, "0", NOTHING, NOTHING, _listed(one.diverged)
    spread = f" ± {measure.number(summary.deviation)}" if summary.n > 1 else ""
    interval = summary.interval()
    return (
        one.study,
        str(summary.n),
        f"{measure.text(summary.mean)}{spread}",
        NOTHING if interval is None else f"{measure.number(interval[0])} .. {measure.text(interval[1])}",
        _listed(one.diverged),
    )


def claim_cells(result: JudgedOrdering, claim: JudgedClaim) -> tuple[str, ...]:
    measure = result.ordering.unit
    low, high = claim.interval or (None, None)
    return (
        str(claim.number),
        result.relation(claim),
        str(len(claim.seeds)),
        NOTHING if claim.difference is None else f"{claim.difference * measure.scale:+.{measure.digits}f}",
        NOTHING if low is None or high is None else f"{measure.number(low)} .. {measure.number(high)}",
        _p(claim.p),
        _p(claim.p_against_holm if claim.verdict == "contradicted" else claim.p_holm),
        claim.verdict,
    )


def verdict(result: JudgedOrdering) -> str:
    """Return the verdict on the whole ordering as a sentence."""
    n_held = sum(claim.verdict == "held" for claim in result.claims)
    cut = "" if result.epochs is None else f", for schedules reduced to {result.epochs} epochs"
    text = f"{_WHOLE[result.verdict]}{cut}: {n_held} of {len(result.claims)} claims are held"
    others = [
        f"{len(numbers)} {'is' if len(numbers) == 1 else 'are'} {kind} ({_listed(numbers)})"
        for kind in ("contradicted", "not shown", "not tested")
        if (numbers := tuple(claim.number for claim in result.claims if claim.verdict == kind))
    ]
    return f"{text[0].upper()}{text[1:]}{''.join(f', {other}' for other in others)}."


def sentences(result: JudgedOrdering) -> list[str]:
    """Return the notes below the tables: the claims, omissions and the verdict."""
    lines = [f"{claim.number}: {claim.text}." for claim in result.claims]
    if len(result.seeds) < 2:
        lines.append(f"{_seeds(len(result.seeds)).capitalize()} in common: a test needs 2 or more.")
    if result.missing:
        lines.append(f"No result yet of {_listed(result.missing)}: claims about them are not tested.")
    for claim in result.claims:
        if claim.left_out:
            lines.append(
                f"{claim.number}: left out of {_seeds(len(result.seeds))}: {_listed(claim.left_out)}, where one of the "
                "two diverged."
            )
    measure = result.ordering.unit
    if measure.convergence:
        counts = [
            f"{one.study} in {sum(map(measure.converged, one.values.values()))} of {len(one.seeds)}"
            for one in result.reached
            if one.study == trained(one.study)
        ]
        lines.append(f"Converged seeds ({measure.convergence}): {', '.join(counts)}.")
    for row in result.ordering.references:
        means = [(one.study, one.summary.mean) for one in result.reached if one.summary]
        better = [study for study, mean in means if measure.gain(mean, row.target.error) > 0]
        lines.append(f"Not trained here: {row.method}, published {row.target}; better means: {_listed(tuple(better))}.")
    if result.epochs is not None:
        lines.append(
            f"Every schedule was reduced to {result.epochs} epochs: the result is no evidence for full schedules."
        )
    return [*lines, verdict(result)]


def rule(result: JudgedOrdering) -> list[str]:
    """Return the explanation of the verdicts: tests, correction and level."""
    level, whole = f"{100 * result.level:.3g} %", f"{100 * LEVEL:.3g} %"
    lines = [
        f"{result.ordering.unit.beyond(worse=False).capitalize()}: a one-sided paired t-test over the "
        "seeds finds the difference above 0, or above what is named, at "
        f"{level}, after Holm's correction over all {len(result.claims)} claims. As good as: two such tests find it "
        "within the bound.",
        f"Contradicted: the opposite test finds so at {level}, after the same correction. Not shown: neither.",
        f"Table k of an ordering tests at {whole} / (k (k + 1)); this is table {result.number}. However many tables "
        f"are made as seeds are added, the chance that any of them holds a wrong claim is at most {whole}, and so is "
        "the chance that any of them contradicts a right one.",
    ]
    if result.looks.overspent:
        lines.append(
            f"Table 1 was made by an earlier version, at {whole}; the rule above holds for the verdicts that are given "
            "now."
        )
    return lines


def tables(result: JudgedOrdering) -> tuple[Table, Table]:
    studies = Table(
        header=("study", "n", "mean ± sd", "95 % interval", "diverged"),
        rows=[study_cells(result, one) for one in result.reached],
        left=("study",),
    )
    claims = Table(
        header=("", "claim", "n", "difference", "95 % interval", "p", "Holm", "verdict"),
        rows=[claim_cells(result, claim) for claim in result.claims],
        left=("claim", "verdict"),
    )
    return studies, claims


def as_markdown(result: JudgedOrdering) -> str:
    """Return the tables and their sentences as Markdown."""
    studies, claims = tables(result)
    lines = [f"# {result.headline}", "", f"{result.ordering.source}: {result.ordering.title}.", "", *studies.markdown()]
    lines += [f"Differences: {result.sides}, in {result.ordering.unit.difference}.", "", *claims.markdown()]
    return "\n".join([*lines, *(f"* {line}" for line in (*sentences(result), *rule(result)))]) + "\n"


def print_ordering(console: Console, result: JudgedOrdering) -> None:
    studies, claims = tables(result)
    console.say("")
    console.say(result.headline)
    studies.print(console, columns=130)
    unit = result.ordering.unit.difference
    console.say(f"Claims ({result.ordering.source}); differences are {result.sides}, in {unit}")
    claims.print(console, columns=130)
    for line in (*rule(result), *sentences(result)):
        console.say(line)


def write_ordering(folder: Path, result: JudgedOrdering, learning: list[Learning]) -> None:
    """Write the result as JSON, Markdown and pictures, unless the folder has an identical one."""
    content = (json.dumps(result.as_json(), indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
    try:
        if (folder / FILE).is_file() and (folder / FILE).read_bytes() == content:
            return  # keeps the time of the points in the tracking store
        with canvas.style():
            canvas.save(differences(result), folder, "ordering")
            if learning:
                curves = learning_bands(f"{result.ordering.name}: learning curves", learning)
                canvas.save(curves, folder, "learning-curves")
        write_atomically(folder / "ordering.md", as_markdown(result).encode())
        write_atomically(folder / FILE, content)
    except OSError as error:
        raise unwritable(folder, error) from error


def _seeds(n: int) -> str:
    return f"{n} seed{'' if n == 1 else 's'}"


def _listed(things: tuple[int, ...] | tuple[str, ...]) -> str:
    return ", ".join(map(str, things)) or NOTHING


def _p(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.2g}" if value >= 1e-4 else f"{value:.0e}"
