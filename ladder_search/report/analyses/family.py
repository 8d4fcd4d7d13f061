"""The parts of a family's analysis, and shared functions for tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ladder_search.analysis.result import Analysis, Part, Report
from ladder_search.bundles.bundle import Bundle
from ladder_search.config import build
from ladder_search.console import Console
from ladder_search.console.tables import Table
from ladder_search.data.dataset import Dataset
from ladder_search.errors import SettingError
from ladder_search.pictures.canvas import Picture


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
    items: str
    """What examples are called in the title."""
    detail: Callable[[Any], str] = lambda settings: ""
    """(settings) -> end of the title."""
    table: Callable[[Any], Table]
    sentences: Callable[[Analysis], list[str]]
    draw: Callable[[str, Any], Mapping[str, Picture]]
    """(title, result) -> file name -> picture."""
    values: Callable[[Any], Mapping[str, Mapping[int, float]]]
    """Metric -> step -> value, for the tracking store."""

    def title(self, analysis: Analysis) -> str:
        """Return a title such as ``digits-100: test rows of digits``."""
        study = analysis.study or "a bundle of no study"
        return f"{study}: {analysis.part} {self.items} of {analysis.dataset}{self.detail(analysis.settings)}"

    def show(self, console: Console, analysis: Analysis) -> None:
        console.print(f"\n{self.title(analysis)}")
        self.table(analysis.found).print(console)
        for line in self.sentences(analysis):
            console.say(line)

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
