"""Shared parts of the benchmarks: interleaved timing, facts about the machine, tables and result files. Needs no
package; facts about PyTorch are added where it is installed."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from ladder_search import provenance
from ladder_search.errors import LadderSearchError, ResourceError

Cell = str | int | float | None
Row = dict[str, Cell]


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Wall and CPU seconds of every round of one variant. CPU time is that of the whole process; compare it for
    one-threaded programs on a machine with other load."""

    wall: list[float]
    cpu: list[float]

    def per(self, count: float, unit: float = 1e3) -> tuple[list[float], list[float]]:
        """Return wall and CPU times of one of ``count`` repetitions, in milliseconds by default."""
        return [value * unit / count for value in self.wall], [value * unit / count for value in self.cpu]

    def over(self, other: Times) -> float:
        """Return the median over rounds of this variant's CPU time divided by the other's in the same round."""
        return median(a / b for a, b in zip(self.cpu, other.cpu, strict=True))


def interleaved(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Times]:
    """Time every variant once per round, A B C A B C …, so that a slowdown of the machine affects all of them."""
    times = {name: Times(wall=[], cpu=[]) for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            times[name].wall.append(time.perf_counter() - wall)
            times[name].cpu.append(time.process_time() - cpu)
    return times


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def say(line: str) -> None:
    """Print a line about the progress, which is no part of the result."""
    print(line, file=sys.stderr, flush=True)


class Report:
    """Tables and notes of a script, printed as they are added, and written as JSON and text at the end."""

    def __init__(self, question: str, options: argparse.Namespace) -> None:
        self._options = options
        self._content: dict[str, Any] = {
            "question": question,
            "options": {name: value for name, value in vars(options).items() if name != "output"},
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "tables": {},
            "notes": [],
        }
        self._text: list[str] = []
        self._load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        self._busy, self._own = machine_seconds(), sum(os.times()[:4])
        self._say(question)
        self._say(", ".join(f"{name}: {value}" for name, value in self._content["machine"].items()))

    @property
    def tables(self) -> dict[str, list[Row]]:
        tables: dict[str, list[Row]] = self._content["tables"]
        return tables

    def table(self, title: str, rows: Iterable[Row]) -> None:
        rows = list(rows)
        self._content["tables"][title] = rows
        self._say(f"\n{title}\n{_format(rows)}")

    def note(self, text: str) -> None:
        self._content["notes"].append(text)
        self._say(f"\n{text}")

    def close(self, *, one_process: bool) -> None:
        """Write the files if ``--output`` names one; add the share of other load, which needs all work in
        ``one_process``."""
        self._content["load_average_at_start"] = self._load
        total, idle = (now - earlier for now, earlier in zip(machine_seconds(), self._busy, strict=True))
        if one_process and total:
            others = max(0.0, total - idle - (sum(os.times()[:4]) - self._own)) / total
            self._content["share_of_the_machine_used_by_others"] = round(others, 3)
            self.note(f"Other processes used {100 * others:.0f} % of the machine meanwhile.")
        else:
            self.note(f"Load average when it began: {self._load:.1f}.")
        output: Path | None = self._options.output
        if output is not None:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps(self._content, indent=1, default=str) + "\n", encoding="utf-8")
            output.with_suffix(".txt").write_text("\n".join(self._text) + "\n", encoding="utf-8")

    def _say(self, text: str) -> None:
        self._text.append(text)
        print(text, flush=True)


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a script, with its defaults in a full and in a quick run."""

    name: str
    help: str
    full: Any = None
    quick: Any = None
    how: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of ``add_argument``."""

    def add_to(self, parser: argparse.ArgumentParser, *, quick: bool) -> None:
        if self.full is False:
            parser.add_argument(self.name, action="store_true", help=self.help)
            return
        kind = {"type": type(self.full)} if isinstance(self.full, int | float) else {}
        defaults = [_shown(self.full), *([] if self.quick is None else [f"quick: {_shown(self.quick)}"])]
        text = self.help if self.full is None else f"{self.help} ({'; '.join(defaults)})"
        default = self.quick if quick and self.quick is not None else self.full
        parser.add_argument(self.name, default=default, help=text.replace("%", "%%"), **{**kind, **self.how})


def check_device(device: str) -> None:
    """Raise ``ResourceError`` unless PyTorch can use ``device``."""
    if device == "cuda" and not sys.modules["torch"].cuda.is_available():
        raise ResourceError("--device cuda needs a GPU that PyTorch can use, and there is none: choose --device cpu.")


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


Main = Callable[[Report, argparse.Namespace], None]


def benchmark(question: str, *options: Option, one_process: bool) -> Callable[[Main], Callable[..., None]]:
    """Return a decorator that makes the main function of a script from one that measures and reports.

    The result takes a command line, by default this process's. It closes the report at the end, even after an error.
    ``one_process`` means that all work is done in this process.
    """

    def decorate(run: Main) -> Callable[..., None]:
        def main(arguments: Sequence[str] | None = None) -> None:
            words = sys.argv[1:] if arguments is None else arguments
            parser = argparse.ArgumentParser(
                description=run.__globals__["__doc__"], formatter_class=argparse.RawDescriptionHelpFormatter
            )
            parser.add_argument("--quick", action="store_true", help="only check that it works; figures mean nothing")
            parser.add_argument("--output", type=Path, metavar="FILE.json", help="write the result and its tables here")
            for option in options:
                option.add_to(parser, quick="--quick" in words)
            values = parser.parse_args(words)
            torch = sys.modules.get("torch")
            if torch is not None:
                torch.set_num_threads(1)
            start = time.perf_counter()
            report = Report(question, values)
            try:
                run(report, values)
            except LadderSearchError as error:
                parser.error(str(error))
            finally:
                if report.tables:
                    report.note(f"Took {time.perf_counter() - start:.0f} s.")
                    report.close(one_process=one_process)

        return main

    return decorate


def machine() -> dict[str, Cell]:
    """Return the facts about the machine and the code that figures depend on."""
    facts = provenance.collect()
    result: dict[str, Cell] = {"cores": facts["host_cores"], "cpu": facts["host_cpu"]}
    result |= {"memory_gib": round(int(facts["host_memory_bytes"] or 0) / 2**30, 1), "python": facts["version_python"]}
    result |= {"torch": facts["version_torch"], "code": facts["git_sha"]}
    torch = sys.modules.get("torch")
    if torch is not None:
        result["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            result |= {"gpu": facts["host_accelerators"], "cuda": torch.version.cuda}
    return result


def machine_seconds() -> tuple[float, float]:
    """Return all and idle CPU seconds of the machine since its start; zeros if unknown."""
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9]]
    except OSError:
        return 0.0, 0.0
    ticks = os.sysconf("SC_CLK_TCK")
    return sum(fields) / ticks, (fields[3] + fields[4]) / ticks


def spread_cells(name: str, values: Sequence[float]) -> Row:
    """Return median and range of repeated measurements as two columns."""
    return {name: median(values), f"{name} min..max": f"{_text(min(values))}..{_text(max(values))}"}


def _format(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [columns, *([_text(row.get(name)) for name in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    numeric = [not any(isinstance(row.get(name), str) for row in rows) for name in columns]
    lines = [
        "  ".join(c.rjust(w) if number else c.ljust(w) for c, w, number in zip(line, widths, numeric, strict=True))
        for line in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def _text(value: Cell) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
