"""The parts of a family's analysis, and shared functions for tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ladder_search.analysis.result import Analysis, Part
from ladder_search.bundles.bundle import Bundle
from ladder_search.config import build
from ladder_search.console import Console
from ladder_search.console.tables import Table
from ladder_search.data.dataset import Dataset
from ladder_search.errors import SettingError
from ladder_search.pictures.canvas import Picture

Report = Callable[[int, int, str], None]
"""Called with the number done, the total and the next item."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilyAnalysis:
    """Analysis of a family and its presentation; a row of ``ANALYSES``."""

    settings: type[Any]
    """A frozen dataclass with ``rows`` and ``seed``; its fields are options of the command."""
    found: type[Any]
    """The frozen dataclass returned by ``run``."""
    choose: Callable[[Bundle, Dataset, Part, Any, int | None], tuple[Any, Any]]
    """(bundle, data, part, settings, requested rows) -> settings with the available rows, and the selection. Called
    before any work; raises for impossible requests."""
    run: Callable[[Bundle, Dataset, Any, Any, torch.device, Report], Any]
    """(bundle, data, selection, settings, device, report) -> result."""
    title: Callable[[Analysis], str]
    show: Callable[[Console, Analysis], None]
    draw: Callable[[str, Any], Mapping[str, Picture]]
    """(title, result) -> file name -> picture."""
    values: Callable[[Any], Mapping[str, Mapping[int, float]]]
    """Metric -> step -> value, for the tracking store."""

    def read_settings(self, bundle: Bundle, options: Mapping[str, Any]) -> Any:
        """Return the settings of this analysis for ``options``; raise ``SettingError`` if an option belongs to another
        analysis or is out of range."""
        fields = [field.name for field in dataclasses.fields(self.settings)]
        foreign = [name for name in options if name not in fields]
        if foreign:
            names = ", ".join(map(_option, fields))
            raise SettingError(
                f"the analysis of {bundle.folder} has the options {names}, got {_option(foreign[0])}; leave it out."
            )
        return build(self.settings, options)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def titled(analysis: Analysis, what: str) -> str:
    """Return a title such as ``digits-100: test rows of digits``, with ``rows`` as ``what``."""
    return f"{analysis.study or 'a bundle of no study'}: {analysis.part} {what} of {analysis.dataset}"


def show_table(console: Console, heading: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of numbers, whose first column contains names."""
    console.print(f"\n{heading}")
    Table(header=header, rows=rows, left=header[:1]).print(console)
