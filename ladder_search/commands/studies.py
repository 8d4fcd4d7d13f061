"""``ladder-search studies``: every study with its target, the state of its data, and what was done with it here."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path

from rich.table import Table

from ladder_search.console import Console
from ladder_search.data.datasets import state
from ladder_search.errors import LadderSearchError
from ladder_search.ordering.claims import ORDERINGS
from ladder_search.record.folder import searches_of
from ladder_search.reproduction.reproduction import FILE, FOLDER, read_reproduction
from ladder_search.studies import STUDIES, Study
from ladder_search.wording import titles


def run(arguments: argparse.Namespace) -> None:
    console = Console()
    groups = {
        study.name: (study.target.source if study.target else "no published result", study.data.dataset)
        for study in STUDIES.values()
    }
    for source, dataset in dict.fromkeys(groups.values()):
        title = f"{source}; {dataset}: {state(dataset)}"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        studies = [study for study in STUDIES.values() if groups[study.name] == (source, dataset)]
        target = f"target (test {titles(study.measure for study in studies)})"
        for header, width in (("study", 27), (target, 28), ("what", None), ("here", None)):
            table.add_column(header, no_wrap=width is not None, min_width=width)
        for study in studies:
            target = str(study.target or "none published")
            table.add_row(study.name, target, study.title, _done(study, arguments.root))
        console.print(table, "")
    table = Table(title="Orderings, for `ladder-search ordering`", title_justify="left", box=None, pad_edge=False)
    for header in ("ordering", "claims", "what"):
        table.add_column(header, no_wrap=header == "ordering", justify="right" if header == "claims" else "left")
    for ordering in ORDERINGS.values():
        table.add_row(ordering.name, str(len(ordering.claims)), ordering.title)
    console.print(table)


def _done(study: Study, root: Path) -> str:
    searches = len(searches_of(root, study.name))
    parts = [f"searched {searches}x" if searches > 1 else "searched"] if searches else []
    for path in sorted((root / FOLDER).glob(f"*/{FILE}")):
        with suppress(LadderSearchError):  # a damaged one is told by `report`
            found = read_reproduction(path.parent)
            if found.study == study.name:
                seeds = len(found.contenders[0].outcomes)
                parts.append(f"{'reduced' if found.reduced else 'reproduced'} ({seeds} seeds)")
    return ", ".join(parts)
