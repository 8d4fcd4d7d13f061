"""The list of the studies: every study with its target, the state of its data, and existing results."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ladder_search.console import Console
from ladder_search.console.tables import Table
from ladder_search.data.dataset import ABSENT
from ladder_search.data.datasets import state
from ladder_search.errors import LadderSearchError
from ladder_search.ordering.claims import ORDERINGS
from ladder_search.record.folder import searches_of
from ladder_search.reproduction.reproduction import FILE, FOLDER, read_reproduction
from ladder_search.studies import STUDIES, Study, own_studies
from ladder_search.wording import titles


def print_studies(console: Console, root: Path, only: Sequence[Study] = ()) -> None:
    """Print the studies by paper and data set, with their results in ``root``, and the orderings.

    Without ``only``, these are the studies of the table and those of files that were searched in ``root``.
    """
    listed = only or [*STUDIES.values(), *own_studies(root).values()]
    groups = {study.name: (_source(study), study.data.name) for study in listed}
    for source, dataset in dict.fromkeys(groups.values()):
        studies = [study for study in listed if groups[study.name] == (source, dataset)]
        target = f"target (test {titles(study.measure for study in studies)})"
        Table(
            title=f"{source}; {dataset}: {_state(studies[0])}",
            header=("study", target, "what", "here"),
            rows=[(s.name, str(s.target or "none published"), s.title, _done(s, root)) for s in studies],
            left=("study", target, "what", "here"),
            folded=("what", "here"),
            least=[("study", 27), (target, 28)],
            plain=True,
        ).print(console)
        console.print("")
    if only:
        return
    Table(
        title="Orderings, for `ladder-search ordering`",
        header=("ordering", "claims", "what"),
        rows=[(ordering.name, str(len(ordering.claims)), ordering.title) for ordering in ORDERINGS.values()],
        left=("ordering", "what"),
        folded=("what",),
        plain=True,
    ).print(console)


def _state(study: Study) -> str:
    try:
        return state(study.data)
    except LadderSearchError:
        if study.data.file is None:
            raise
        return ABSENT  # `doctor` says why a file cannot be read


def _source(study: Study) -> str:
    if study.target is not None:
        return study.target.source
    return "studies of your own" if study.proposed else "no published result"


def _done(study: Study, root: Path) -> str:
    searches = len(searches_of(root, study.name))
    parts = [f"searched {searches}x" if searches > 1 else "searched"] if searches else []
    for path in sorted((root / FOLDER).glob(f"*/{FILE}")):
        with suppress(LadderSearchError):  # `report` mentions a damaged one
            reproduction = read_reproduction(path.parent)
            if reproduction.study == study.name:
                seeds = len(reproduction.contenders[0].outcomes)
                parts.append(f"{'reduced' if reproduction.reduced else 'reproduced'} ({seeds} seeds)")
    return ", ".join(parts)
