"""Write the pages of ``docs/reference/`` from the code: ``python docs/generate.py``; with ``--check`` compare only.

A range is the rule in the error message that a value far outside of it causes. So the pages state what the code does.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import itertools
import os
import re
import subprocess
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ladder_search import environment
from ladder_search.config import build
from ladder_search.console.tables import Table
from ladder_search.data.config import DataConfig
from ladder_search.data.datasets import DATASETS
from ladder_search.driver.settings import SearchSettings
from ladder_search.errors import LadderSearchError, UnknownNameError
from ladder_search.models import FAMILIES
from ladder_search.nn.mean_teacher import TeacherConfig
from ladder_search.nn.protocol import ModelConfig
from ladder_search.ordering.claims import ORDERINGS
from ladder_search.report.published_rows import HEADER, page, published_rows, read_costs, read_results
from ladder_search.studies import STUDIES, StopConfig, Study
from ladder_search.training.settings import TrainingConfig
from ladder_search.trial import SourceConfig

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "reference"
RESULTS = ROOT / "reproductions" / "results"
BEGIN, END = "<!-- results: made by docs/generate.py -->", "<!-- end of the results -->"
MADE = "<!-- Made by docs/generate.py from the code: change the code, then run `make reference`. -->\n\n"

_FAR = {int: 10**30, float: 1e30}
_RULE = re.compile(r"must (?:lie |be )?(.*?)(?:, got .*|; .*|)\Z", re.DOTALL)


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    lines = [list(header), *([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


def docstrings(cls: type) -> dict[str, str]:
    """Return the docstring under each field of a class, in one line."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError):  # a class without a source file
            continue
        body = typing.cast(ast.ClassDef, tree.body[0]).body
        for field, below in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                value = getattr(below.value, "value", None)
                if isinstance(value, str):
                    texts[typing.cast(ast.Name, field.target).id] = as_markdown(value)
    return texts


def as_markdown(text: str) -> str:
    """Return a docstring as Markdown, in one line."""
    return " ".join(text.split()).replace("``", "`").replace("*", "\\*").replace("<", "&lt;")


def kinds(hint: Any) -> list[Any]:
    """Return the alternatives of a type hint, without None."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return [kind for member in typing.get_args(hint) for kind in kinds(member)]
    return [] if hint is type(None) else [hint]


def values(hint: Any, rule: str) -> str:
    """Return in words which values a setting takes."""
    words = []
    for kind in kinds(hint):
        origin = typing.get_origin(kind)
        if origin is typing.Literal:
            words += [f"`{choice}`" for choice in typing.get_args(kind)]
        elif kind is bool:
            words.append("`true` or `false`")
        elif kind in (int, float):
            words.append({int: "whole number", float: "number"}[kind] + (f" {rule}" if rule else ""))
        elif kind is str:
            words.append(rule or "text")
        elif origin is tuple:
            words.append(rule if rule.startswith("list ") else "list" + (f", each {rule}" if rule else ""))
        elif origin in (dict, Mapping) or kind in (dict, Mapping):
            words.append("groups of settings")
    if type(None) in typing.get_args(hint):
        words.append("`null`")
    return ", ".join(words)


def shown(value: Any) -> str:
    """Return a default as it is written in YAML and on the command line."""
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (tuple, list)):
        return f"`{', '.join(map(str, value))}`" if value else "none"
    if isinstance(value, float):
        return f"`{value:g}`"
    return "none" if isinstance(value, Mapping) else f"`{value}`"


def rule_of(name: str, hint: Any, value: Any, attempt: Callable[[Any], object]) -> str:
    """Return the rule that the code states for a setting when it refuses a value.

    Args:
        name: of the setting, as messages write it.
        value: a value that is accepted.
        attempt: builds the settings with another value of this one.
    """
    rules: list[str] = []
    for wrong in _wrong_values(hint, value):
        try:
            attempt(wrong)
        except UnknownNameError as error:
            rules.append("one of " + ", ".join(f"`{choice}`" for choice in error.known))
            continue
        except LadderSearchError as error:
            message = str(error)
        except (OverflowError, TypeError, ValueError):
            continue
        else:
            continue
        if re.search(rf"(^| ){re.escape(name)}(\[\d+\])?( and \S+)? must ", message):
            found = _RULE.search(message)
            assert found is not None
            rules.append(re.sub(r",? or null|,$", "", found[1]).replace("*", "\\*"))
    return " and ".join(dict.fromkeys(rules))


def _wrong_values(hint: Any, value: Any) -> list[Any]:
    wrong: list[Any] = []
    for kind in kinds(hint):
        if kind in _FAR:
            wrong += [-_FAR[kind], _FAR[kind]]
        elif kind is str:
            wrong.append("?")
        elif typing.get_origin(kind) is tuple and value and isinstance(value[0], (int, float)):
            far = _FAR[type(value[0])]
            wrong += [(-far, *value[1:]), (far, *value[1:])]
    return wrong


def group(cls: type, prefix: str, study: Study) -> str:
    """Return the table of a group of settings; ``study`` accepts its own values, which gives the ranges.

    Args:
        cls: the group's class.
        prefix: of the settings' names: ``training.``, ``sources.NAME.``.
    """
    name, _, member = prefix.rstrip(".").partition(".")
    own = getattr(study, name)
    key = next(iter(own)) if member else ""
    own = own[key] if member else own
    section = prefix.replace("NAME", "*").rstrip(".")
    hints, texts = typing.get_type_hints(cls), docstrings(cls)
    rows = []
    for field in dataclasses.fields(cls):
        if not field.init or dataclasses.is_dataclass(hints[field.name]) or hints[field.name] in (Any, ModelConfig):
            continue
        default = _default(field)

        def attempt(wrong: Any, setting: str = field.name) -> object:
            change = {setting: wrong}
            return study.with_overrides({name: {key: change} if member else change}).trial()

        rule = rule_of(f"{section}.{field.name}", hints[field.name], getattr(own, field.name), attempt)
        allowed = values(hints[field.name], rule)
        given = "set by the study" if default is dataclasses.MISSING else shown(default)
        rows.append([f"`{prefix}{field.name}`", given, allowed, texts.get(field.name, "")])
    return table(("setting", "default", "values", "meaning"), rows)


def _default(field: Any) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def options() -> str:
    """Return the table of the options of a search."""
    hints, texts = typing.get_type_hints(SearchSettings), docstrings(SearchSettings)
    rows = []
    for field in dataclasses.fields(SearchSettings):
        if not field.init:
            continue
        option = "--set" if field.name == "overrides" else f"--{field.name.replace('_', '-')}"
        default = _default(field)

        def attempt(wrong: Any, name: str = field.name) -> object:
            return build(SearchSettings, {"study": "digits-100", name: wrong}).resolved_study()

        rule = rule_of(option, hints[field.name], default, attempt)
        rule = rule or rule_of(f"training.{field.name}", hints[field.name], default, attempt)
        required = default is dataclasses.MISSING
        allowed = values(hints[field.name], rule)
        rows.append(
            [
                "`STUDY`" if required else f"`{option}`",
                "required" if required else shown(default),
                allowed,
                texts.get(field.name, ""),
            ]
        )
    return table(("option", "default", "values", "meaning"), rows)


def settings_page() -> str:
    """Return the page of all settings."""
    text = [
        MADE,
        "# Settings\n\nEvery setting with its default, the values that it accepts, and its meaning. "
        "`--set GROUP.NAME=VALUE` changes a setting on the command line; a file of `--config` has the same names, "
        "nested. Lists are written with commas. A study sets most settings: the defaults below are those of the code, "
        "where a study sets nothing.\n\n",
        "## Options of a search\n\nIn a file of `--config` an option has the same name with `_` for `-`, and "
        "`overrides` or `set` holds the groups below.\n\n",
        options(),
    ]
    ladder = STUDIES["mnist-100-full"]
    staged = next(study for study in STUDIES.values() if study.sources)
    for title, cls, prefix, study in (
        ("Data: `data`", DataConfig, "data.", ladder),
        ("Training: `training`", TrainingConfig, "training.", ladder),
        ("Mean teacher: `teacher`", TeacherConfig, "teacher.", ladder),
        ("Early stopping: `stop`", StopConfig, "stop.", ladder),
        ("Earlier stages: `sources.NAME`", SourceConfig, "sources.NAME.", staged),
    ):
        text.append(f"## {title}\n\n{group(cls, prefix, study)}")
    text.append(
        "A source has the groups `data`, `model` and `training` of its own as well: `sources.NAME.training.epochs`.\n\n"
        "## Networks: `model`\n\nOne table for each family; `ladder-search studies` says what a study trains, and "
        "[the list of studies](studies.md) names its family.\n\n"
    )
    for name, family in FAMILIES.items():
        study = next(study for study in STUDIES.values() if study.family == name)
        text.append(f"### Family `{name}`\n\n{group(family.config, 'model.', study)}")
    text.append("## What a search varies: `space`\n\nOne table for each kind of space.\n\n")
    kinds_of_space: dict[type, list[Study]] = {}
    for study in STUDIES.values():
        kinds_of_space.setdefault(type(study.space), []).append(study)
    for cls, studies in kinds_of_space.items():
        names = " and ".join(dict.fromkeys(f"`{study.family}`" for study in studies))
        text.append(f"### Space of {names}\n\n{group(cls, 'space.', studies[0])}")
    return "".join(text)


def environment_page() -> str:
    """Return the page of the environment variables."""
    meanings = {
        "input": "Read on purpose",
        "fixed": "Set to a value of the project",
        "removed": "Removed, so that the library's default holds",
        "harmless": "Left as they are: nothing that is computed or stored depends on them",
    }
    text = [
        MADE,
        "# Environment variables\n\nHow the project treats each variable that it or one of its libraries reads. `*` "
        "stands for the rest of a name; the row with the longest match counts.\n\n",
    ]
    for treatment, meaning in meanings.items():
        rows = [
            [" ".join(f"`{name}`" for name in row.names), row.reason + (f" (`{row.value}`)" if row.value else "")]
            for row in environment.TABLE
            if row.treatment == treatment
        ]
        text.append(f"## {meaning}\n\n{table(('variables', 'reason'), rows)}")
    return "".join(text)


def studies_page() -> str:
    """Return the page of all studies and orderings."""
    text = [
        MADE,
        "# List of studies\n\nEvery study with its family and target. A target marked *unverified* could not be "
        "confirmed in a source that was readable; `ladder-search studies` prints the same list with the state of the "
        "data on this machine.\n\n",
    ]
    groups: dict[tuple[str, str], list[list[str]]] = {}
    for study in STUDIES.values():
        source = study.target.source if study.target else "No published result"
        row = [f"`{study.name}`", study.title, f"`{study.family}`", str(study.target or "none published")]
        groups.setdefault((source, study.data.name), []).append(row)
    for (source, dataset), rows in groups.items():
        text.append(f"## {source}; data `{dataset}`\n\n{table(('study', 'what is trained', 'family', 'target'), rows)}")
    rows = [[f"`{o.name}`", str(len(o.claims)), o.title] for o in ORDERINGS.values()]
    text.append(f"## Orderings\n\nFor `ladder-search ordering`.\n\n{table(('ordering', 'claims', 'what'), rows)}")
    return "".join(text)


def datasets_page() -> str:
    """Return the page of all data sets."""
    rows = [[f"`{name}`", row.description, "; else ".join(row.sources)] for name, row in DATASETS.items()]
    return (
        f"{MADE}# List of data sets\n\nEvery data set with the places where it is looked for, in their order. "
        "`ladder-search doctor` prints which of them are on this machine.\n\n"
        f"{table(('name', 'what', 'from'), rows)}"
    )


def commands_page() -> str:
    """Return the page of all commands, as ``--help`` prints them."""
    text = [
        MADE,
        "# Commands\n\nWhat `--help` prints. `ladder-search search` is the same as `python search.py`.\n\n",
    ]
    for title, words in _commands():
        text.append(f"## `{title}`\n\n```text\n{_help(words)}\n```\n\n")
    return "".join(text)


def _commands() -> list[tuple[str, list[str]]]:
    listed = re.findall(r"^ {2,4}([a-z]+)  ", _help(["-m", "ladder_search.cli"]), re.MULTILINE)
    names = [name for name in listed if name != "search"]
    program = ["-m", "ladder_search.cli"]
    return [
        ("python search.py", ["search.py"]),
        *((f"ladder-search {name}", [*program, name]) for name in names),
    ]


def _help(words: list[str]) -> str:
    surroundings = {"PATH": os.environ.get("PATH", ""), "COLUMNS": "100", "LC_ALL": "C.UTF-8", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, *words, "--help"],
        cwd=ROOT,
        env=surroundings,
        check=True,
        capture_output=True,
        encoding="utf-8",
    )
    return done.stdout.strip()


def results_page() -> str:
    return MADE + page(read_results(RESULTS), read_costs(RESULTS))


def readme() -> str:
    """Return the README with the current table of results between its two marks."""
    table = published_rows(read_results(RESULTS), {}, run=True)
    columns = [HEADER.index(name) for name in ("study", "n", "result", "published", "verdict")]
    short = Table(header=[HEADER[i] for i in columns], rows=[[row[i] for i in columns] for row in table.rows])
    before, _, rest = (ROOT / "README.md").read_text(encoding="utf-8").partition(BEGIN)
    return before + BEGIN + "\n".join(["", *short.markdown()]) + END + rest.partition(END)[2]


WRITERS: dict[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "commands.md": commands_page,
    "environment.md": environment_page,
    "studies.md": studies_page,
    "datasets.md": datasets_page,
    "results.md": results_page,
    "../../README.md": readme,
}


def outdated() -> list[str]:
    """Return the names of the pages that differ from what the code would write."""
    names = []
    for name, write in WRITERS.items():
        if name == "commands.md" and sys.version_info >= (3, 13):  # argparse prints options in another form there
            continue
        page = PAGES / name
        if not page.is_file() or page.read_text(encoding="utf-8") != write().rstrip() + "\n":
            names.append(name)
    return names


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is not current")
    if parser.parse_args().check:
        names = outdated()
        for name in names:
            print(f"docs/reference/{name} is not current; run `make reference`.", file=sys.stderr)
        return bool(names)
    PAGES.mkdir(exist_ok=True)
    for name, write in WRITERS.items():
        (PAGES / name).write_text(write().rstrip() + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
