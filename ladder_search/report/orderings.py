"""A tested ordering in words: the same cells and sentences on the console and in Markdown."""

from __future__ import annotations

from ladder_search.console import Console
from ladder_search.console.tables import Table
from ladder_search.ordering.judging import JudgedClaim, JudgedOrdering, Reached, Whole
from ladder_search.statistics import LEVEL
from ladder_search.wording import NOTHING

_WHOLE: dict[Whole, str] = {
    "holds": "the ordering holds",
    "not shown": "the ordering is not shown",
    "contradicted": "the ordering is contradicted",
    "not tested": "no verdict",
}


def study_cells(found: JudgedOrdering, one: Reached) -> tuple[str, ...]:
    """Texts of a study's row, one for each of the table of studies."""
    measure, summary = found.ordering.unit, one.summary
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


def claim_cells(found: JudgedOrdering, claim: JudgedClaim) -> tuple[str, ...]:
    """Texts of a claim's row, one for each of the table of claims."""
    measure = found.ordering.unit
    low, high = claim.interval or (None, None)
    return (
        str(claim.number),
        found.relation(claim),
        str(len(claim.seeds)),
        NOTHING if claim.difference is None else f"{claim.difference * measure.scale:+.{measure.digits}f}",
        NOTHING if low is None or high is None else f"{measure.number(low)} .. {measure.number(high)}",
        _p(claim.p),
        _p(claim.p_against_holm if claim.verdict == "contradicted" else claim.p_holm),
        claim.verdict,
    )


def verdict(found: JudgedOrdering) -> str:
    """The verdict on the whole ordering, a sentence."""
    held = sum(claim.verdict == "held" for claim in found.claims)
    cut = "" if found.epochs is None else f", for schedules reduced to {found.epochs} epochs"
    text = f"{_WHOLE[found.verdict]}{cut}: {held} of {len(found.claims)} claims are held"
    others = [
        f"{len(numbers)} {'is' if len(numbers) == 1 else 'are'} {kind} ({_listed(numbers)})"
        for kind in ("contradicted", "not shown", "not tested")
        if (numbers := tuple(claim.number for claim in found.claims if claim.verdict == kind))
    ]
    return f"{text[0].upper()}{text[1:]}{''.join(f', {other}' for other in others)}."


def sentences(found: JudgedOrdering) -> list[str]:
    """What a reader must know beside the tables: what each claim says, what is left out, the verdict."""
    said = [f"{claim.number}: {claim.text}." for claim in found.claims]
    if len(found.seeds) < 2:
        said.append(f"{_seeds(len(found.seeds)).capitalize()} in common: a test needs 2 or more.")
    if found.missing:
        said.append(f"No result yet of {_listed(found.missing)}: claims about them are not tested.")
    for claim in found.claims:
        if claim.left_out:
            said.append(
                f"{claim.number}: left out of {_seeds(len(found.seeds))}: {_listed(claim.left_out)}, where one of the "
                "two diverged."
            )
    if found.epochs is not None:
        said.append(
            f"Every schedule was reduced to {found.epochs} epochs: it says nothing of an ordering of full ones."
        )
    return [*said, verdict(found)]


def rule(found: JudgedOrdering) -> list[str]:
    """How the verdicts came about: tests, correction and level, as they were used."""
    level, whole = f"{100 * found.level:.3g} %", f"{100 * LEVEL:.3g} %"
    said = [
        "Below: a one-sided paired t-test over the seeds finds the difference above 0, or above what is named, at "
        f"{level}, after Holm's correction over all {len(found.claims)} claims. As good as: two such tests find it "
        "within the bound.",
        f"Contradicted: the opposite test finds so at {level}, after the same correction. Not shown: neither.",
        f"Table k of an ordering tests at {whole} / (k (k + 1)), this is table {found.number}. However many tables are "
        f"made as seeds are added, the chance that any of them holds a wrong claim is at most {whole}, and so is the "
        "chance that any of them contradicts a right one.",
    ]
    if found.looks.overspent:
        said.append(
            f"Table 1 was made by an earlier version, at {whole}; the rule above holds for the verdicts that are given "
            "now."
        )
    return said


def tables(found: JudgedOrdering) -> tuple[Table, Table]:
    """Return the table of the studies and that of the claims."""
    studies = Table(
        header=("study", "n", "mean ± sd", "95 % interval", "diverged"),
        rows=[study_cells(found, one) for one in found.reached],
        left=("study",),
    )
    claims = Table(
        header=("", "claim", "n", "difference", "95 % interval", "p", "Holm", "verdict"),
        rows=[claim_cells(found, claim) for claim in found.claims],
        left=("claim", "verdict"),
    )
    return studies, claims


def as_markdown(found: JudgedOrdering) -> str:
    """The tables and their sentences as Markdown."""
    studies, claims = tables(found)
    lines = [f"# {found.headline}", "", f"{found.ordering.source}: {found.ordering.title}.", "", *studies.markdown()]
    lines += [f"Differences: second minus first, in {_unit(found)}.", "", *claims.markdown()]
    return "\n".join([*lines, *(f"* {line}" for line in (*sentences(found), *rule(found)))]) + "\n"


def print_ordering(console: Console, found: JudgedOrdering) -> None:
    """Print the tables and their sentences."""
    studies, claims = tables(found)
    console.say("")
    console.say(found.headline)
    studies.print(console, columns=130)
    console.say(f"Claims ({found.ordering.source}); differences are second minus first, in {_unit(found)}")
    claims.print(console, columns=130)
    for line in (*rule(found), *sentences(found)):
        console.say(line)


def _unit(found: JudgedOrdering) -> str:
    return found.ordering.unit.difference


def _seeds(n: int) -> str:
    return f"{n} seed{'' if n == 1 else 's'}"


def _listed(things: tuple[int, ...] | tuple[str, ...]) -> str:
    return ", ".join(map(str, things)) or NOTHING


def _p(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.2g}" if value >= 1e-4 else f"{value:.0e}"
