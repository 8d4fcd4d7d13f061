"""What an analysis of a family of networks consists of, and what the tables of all have in common."""

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
"""Called with how much is done, of how much, and what is next."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilyAnalysis:
    """How a family is analysed and how that is shown; a row of ``ANALYSES``."""

    settings: type[Any]
    """A frozen dataclass with ``rows`` and ``seed``; its fields are options of the command."""
    found: type[Any]
    """The frozen dataclass that ``run`` returns."""
    choose: Callable[[Bundle, Dataset, Part, Any, int | None], tuple[Any, Any]]
    """(bundle, data, part, settings, rows that are asked for) -> settings with the rows that there are, and what is
    looked at. Called before any work: what cannot be done is refused here."""
    run: Callable[[Bundle, Dataset, Any, Any, torch.device, Report], Any]
    """(bundle, data, what is looked at, settings, device, report) -> what was found."""
    title: Callable[[Analysis], str]
    show: Callable[[Console, Analysis], None]
    """Prints tables and sentences."""
    draw: Callable[[str, Any], Mapping[str, Picture]]
    """(title, what was found) -> file name -> picture."""
    values: Callable[[Any], Mapping[str, Mapping[int, float]]]
    """Metric -> step -> value, for the tracking store."""

    def read_settings(self, bundle: Bundle, options: Mapping[str, Any]) -> Any:
        """Return the settings of this analysis by the options that were given.

        Raises:
            SettingError: one of them belongs to another analysis, or breaks its rule.
        """
        known = [field.name for field in dataclasses.fields(self.settings)]
        foreign = [name for name in options if name not in known]
        if foreign:
            names = ", ".join(map(_option, known))
            raise SettingError(
                f"the analysis of {bundle.folder} has the options {names}, got {_option(foreign[0])}; leave it out."
            )
        return build(self.settings, options)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def titled(analysis: Analysis, what: str) -> str:
    """``digits-100: test rows of digits``, where ``what`` are rows."""
    return f"{analysis.study or 'a bundle of no study'}: {analysis.part} {what} of {analysis.dataset}"


def show_table(console: Console, heading: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of numbers, whose first column has their names."""
    console.print(f"\n{heading}")
    Table(header=header, rows=rows, left=header[:1]).print(console)
