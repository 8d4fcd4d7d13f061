"""A comparison of studies by learning curves: its table, its paired tests and its files."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from statistics import fmean, stdev

from ladder_search.console import Console
from ladder_search.console.tables import Table
from ladder_search.disk.files import write_atomically
from ladder_search.disk.folders import unwritable
from ladder_search.disk.foreign import read_json
from ladder_search.metrics import ERROR, Measure
from ladder_search.pictures import canvas
from ladder_search.pictures.learning import learning_bands
from ladder_search.reproduction.learning import Learning, as_json, differences, marks, transfer_scores

FILE = "learning"
PICTURE = "learning-curves"
_LIMIT = 1 << 28


def write_comparison(output: Path, found: list[Learning], title: str) -> None:
    """Write curves, areas and tests as JSON, and the picture of the curves."""
    text = json.dumps(as_json(found, found[0].name), indent=1, allow_nan=False) + "\n"
    suffix = _suffix(output, [one.name for one in found])
    try:
        write_atomically(output / f"{FILE}{suffix}.json", text.encode())
        with canvas.style():
            canvas.save(learning_bands(title, found), output, f"{PICTURE}{suffix}")
    except OSError as error:
        raise unwritable(output, error) from error


def _suffix(output: Path, studies: list[str]) -> str:
    """Return a suffix for the files of a comparison, so that those of other studies in the folder are kept."""
    try:
        if list(read_json(output / f"{FILE}.json", _LIMIT)["curves"]) == studies:
            return ""
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, LookupError, TypeError):
        pass  # other content is kept
    return f"-{hashlib.sha256(' '.join(studies).encode()).hexdigest()[:8]}"


def print_comparison(console: Console, found: list[Learning], dataset: str) -> None:
    """Print the table of errors and areas, and the paired tests."""
    seeds = max(len(one.curves) for one in found)
    measure, rises = found[0].measure, found[0].rises
    what = "accuracy in %" if measure == ERROR else measure.label
    title = f"{dataset}: test {what}, mean ± standard deviation over {seeds} seeds, nothing held out"
    console.say(title)
    epochs = marks(found)
    rows = []
    scores = transfer_scores(found, found[0].name)
    for one in found:
        cells = [_cell(list(one.after(epoch).values()), measure) for epoch in epochs]
        score = f"{scores[one.name]:.3f}" if one.name in scores else "–"
        area = _cell(list(one.area.values()), measure)
        rows.append((one.name, *cells, area, score, str(len(one.diverged) or "–")))
    header = ("study", *(f"epoch {epoch}" for epoch in epochs), "area", "transfer", "lost")
    Table(header=header, rows=rows, left=("study",), plain=True).print(console, columns=110)
    transfer = f"transfer: area over that of {found[0].name}{'' if rises else ', less is better'}"
    console.print(f"{transfer}; lost: seeds that diverged")
    for moment in ("area", *(f"epoch {epoch}" for epoch in dict.fromkeys((epochs[0], epochs[-1])))) if epochs else ():
        pairs = math.comb(len(found), 2)
        console.print(f"Paired tests, {moment} (two-sided t-test over common seeds; p after Holm, over {pairs} pairs):")
        for d in differences(found, moment):
            apart = f"{measure.number(d.mean)} ± {measure.apart(d.sd)}, n {d.n}, p {d.p_holm:.3g}"
            side = "above" if rises else "below"
            console.say(f"  {d.better} {side} {d.worse}: {apart}")
    if epochs:
        console.print("Each p is of this table and moment: nothing corrects for other studies, moments or more seeds.")


def _cell(values: list[float], measure: Measure) -> str:
    if not values:
        return "–"
    return measure.number(fmean(values)) + (f" ± {measure.number(stdev(values))}" if len(values) > 1 else "")
