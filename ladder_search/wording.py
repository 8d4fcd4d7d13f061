"""Formatting of names, values, errors and times for the console, reports and pictures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

from ladder_search import metrics
from ladder_search.metrics import Measure
from ladder_search.record.trial import OWN as OWN
from ladder_search.record.trial import PROPOSED as PROPOSED
from ladder_search.record.trial import TrialRecord

BASELINE = "supervised baseline"
"""Name of the reference trial of a study."""
NOTHING = metrics.NOTHING


def finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def percent(share: float | None, digits: int = 2) -> str:
    """Format a fraction: 0.0106 -> ``1.06 %``; – for None. Errors are formatted by their ``Measure``."""
    return f"{100 * share:.{digits}f} %" if finite(share) else NOTHING


def titles(measures: Iterable[Measure]) -> str:
    """Return the distinct titles of the measures of several studies: ``error / NLL``."""
    return " / ".join(dict.fromkeys(measure.title for measure in measures))


def duration(seconds: float | None) -> str:
    """Format seconds in at most two units: ``34 s``, ``4 min 10 s``, ``1 h 05 min``, ``2 d 03 h``; – if unknown."""
    if not finite(seconds):
        return NOTHING
    if 0 <= seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = max(0, round(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour:02d} h"
    if hours:
        return f"{hours} h {minute:02d} min"
    return f"{minutes} min {second:02d} s" if minutes else f"{second} s"


def value(setting: Any) -> str:
    """Format a setting with three significant digits: 0.0020000001 -> ``0.002``, 1234.5 -> ``1230``."""
    if not isinstance(setting, float):
        return str(setting)
    text = f"{setting:.3g}"
    return f"{float(text):.0f}" if "e+" in text and abs(setting) < 1e7 else text


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Map ``model/lambda_0`` to ``lambda_0``; the section is kept if two sections share the name."""
    unique = list(dict.fromkeys(names))
    leaves = Counter(name.rpartition("/")[2] for name in unique)
    return {name: leaf if leaves[leaf := name.rpartition("/")[2]] == 1 else name for name in unique}


def assignments(params: Mapping[str, Any]) -> str:
    """Format parameters: ``lambda_0=1000 noise=0.3``; – if there are none."""
    names = short_names(params)
    return " ".join(f"{names[name]}={value(chosen)}" for name, chosen in params.items()) or NOTHING


def epochs_trained(record: TrialRecord) -> int:
    """Return the epoch of the trial's last report; 0 if it never reported."""
    last = record.epochs[-1].get(metrics.EPOCH) if record.epochs else None
    return int(last) if finite(last) else len(record.epochs)
