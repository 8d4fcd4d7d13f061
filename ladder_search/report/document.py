"""A report: Markdown, and the same as one HTML page that opens offline.

markdown-it converts the Markdown with raw HTML disabled, and texts from names, settings and files are escaped. Pictures
are embedded in the page; their interactive forms are in ``pictures/``.
"""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

import ladder_search
from ladder_search.console.tables import Table
from ladder_search.disk.files import write_atomically
from ladder_search.disk.folders import unwritable
from ladder_search.errors import LadderSearchError, StudyFolderError
from ladder_search.metrics import ERROR, Measure
from ladder_search.pictures import canvas
from ladder_search.pictures.intervals import intervals
from ladder_search.record.folder import StudyFolder
from ladder_search.report.leaderboard import leaderboard, summary_lines
from ladder_search.report.rows import ROOT, cells, header, measures, rule, sentences
from ladder_search.reproduction.reproduction import Reproduction
from ladder_search.reproduction.table import table
from ladder_search.studies import Study, study_of

MARKDOWN, PAGE, PICTURES = "report.md", "report.html", "pictures"

_FACTS = ("collected_utc", "git_sha", "git_dirty", "data_name", "data_digest", "host_cpu", "host_accelerators")
_SCRIPT = "plotly.min.js"  # shared by pages of searches of earlier versions

_STYLE = f"""
body {{ font: 15px/1.5 "DejaVu Sans", system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto;
       padding: 0 1.5rem; }}
h1 {{ font-size: 1.7rem; margin-bottom: 0.2rem; }}
h2 {{ font-size: 1.25rem; margin-top: 2.8rem; padding-top: 0.8rem; border-top: 2px solid {canvas.BLUE}; }}
h3 {{ font-size: 1rem; margin-top: 1.8rem; }}
table {{ border-collapse: collapse; font-size: 0.82rem; display: block; overflow-x: auto; margin: 1rem 0; }}
th {{ text-align: left; border-bottom: 2px solid #444; }}
th, td {{ padding: 0.3rem 0.7rem 0.3rem 0; vertical-align: top; }}
td {{ border-bottom: 1px solid #e6e6e6; font-variant-numeric: tabular-nums; }}
img {{ max-width: 100%; border: 1px solid #e6e6e6; padding: 0.5rem; box-sizing: border-box; }}
a {{ color: {canvas.BLUE}; }}
ul {{ padding-left: 1.2rem; }}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    folder: StudyFolder
    description: dict[str, Any]


def write_report(
    output: Path, searches: Sequence[Search], reproductions: Sequence[Reproduction], *, root: Path = ROOT
) -> list[Path]:
    """Write the report, replacing an existing one in ``output``, and return its two files; ``root`` contains the
    searches. Raise ``StudyFolderError`` if ``output`` has other content or cannot be written, or a trial's record is
    damaged, ``UnknownNameError`` if a study is unknown in this version."""
    try:
        strange = sorted({p.name for p in output.iterdir()} - {MARKDOWN, PAGE, PICTURES}) if output.exists() else []
        if strange:
            raise StudyFolderError(
                f"a report needs a folder of its own and {output} holds {strange[0]!r}; choose another -o."
            )
        (output / PICTURES).mkdir(parents=True, exist_ok=True)
        lines = ["# Report", "", _made_by(searches), ""]
        if reproductions:
            lines += _reproductions(output / PICTURES, reproductions, root)
        for number, search in enumerate(searches, start=1):
            lines += _search(output / PICTURES, number, search)
        markdown = "\n".join(lines).rstrip() + "\n"
        files = {output / MARKDOWN: markdown, output / PAGE: _page(output, markdown)}
        for path, text in files.items():
            write_atomically(path, text.encode())
    except OSError as error:
        if isinstance(error, StudyFolderError):
            raise
        raise unwritable(output, error) from error
    return list(files)


def escaped(text: object) -> str:
    """Escape ``text`` for Markdown, on one line."""
    line = re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", " ".join(str(text).split()))
    return re.sub(r"^(\d*)([-+.)]\s|#)", r"\1\\\2", line)  # at the start of a line these make a heading or a list


def _made_by(searches: Sequence[Search]) -> str:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    judged_by = _plural([_study(search).measure for search in searches] or [ERROR])
    sentence = f"{judged_by[0].upper()}{judged_by[1:]} of searches are validation {judged_by}."
    return f"ladder-search {ladder_search.__version__}, {now}. {sentence}"


def _plural(of: Iterable[Measure]) -> str:
    return " and ".join(dict.fromkeys(f"{measure.title}s" for measure in of))


def _cell(text: str) -> str:
    """Return the text of a cell as Markdown, without line breaks between values and units."""
    return re.sub(r" (?=%|±|\.\.)|(?<=±) |(?<=\.\.) ", "\u00a0", escaped(text))


def _bullets(texts: Iterable[str]) -> list[str]:
    return [*(f"* {_with_code(text)}" for text in texts), ""]


def _with_code(text: str) -> str:
    """Return ``text`` as Markdown that keeps commands in backticks as code."""
    return re.sub(r"\\`(.+?)\\`", lambda code: "`" + re.sub(r"\\(.)", r"\1", code[1]) + "`", escaped(text))


def _reproductions(pictures: Path, reproductions: Sequence[Reproduction], root: Path) -> list[str]:
    rows = table(reproductions)
    with canvas.style():
        canvas.save(intervals("Reproductions", rows), pictures, "reproductions")
    return [
        "## Reproductions",
        "",
        f"Test {_plural(measures(rows))} at the end of the schedule, mean ± standard deviation over fresh seeds.",
        "",
        *Table(header=header(rows), rows=[*map(cells, rows)]).markdown(_cell),
        *_bullets([*sentences(rows, reproductions, root=root), *rule(rows)]),
        *_picture("reproductions", "published, re-run and found"),
    ]


def _search(pictures: Path, number: int, search: Search) -> list[str]:
    folder, description = search.folder, search.description
    study, records = _study(search), folder.read_trials()
    name = folder.path.name
    changes = description["settings"].get("overrides") or {}
    lines = [f"## Search {escaped(name)}", "", f"{escaped(study.name)}: {escaped(study.title)}.", ""]
    if changes:
        lines += [f"Overridden settings: {escaped(changes)}.", ""]
    if records:
        lines += leaderboard(study, records, top=20).markdown(_cell)
    lines += _bullets(summary_lines(study, records))
    files = sorted(folder.pictures.glob("*.png"))
    for path in files:
        target = f"{number:02d}-{re.sub(r'[^A-Za-z0-9.-]', '-', name)}-{path.stem}"
        for kind in (".png", ".html"):
            if path.with_suffix(kind).is_file():
                shutil.copyfile(path.with_suffix(kind), pictures / f"{target}{kind}")
        lines += _picture(target, path.stem.replace("-", " "))
    if files and (folder.pictures / _SCRIPT).is_file():
        shutil.copyfile(folder.pictures / _SCRIPT, pictures / _SCRIPT)
    if not files:
        lines += ["This search has drawn no pictures; they come at its end.", ""]
    provenance = description.get("provenance")
    if isinstance(provenance, Mapping):
        versions = [key for key in provenance if str(key).startswith("version_")]
        facts = [(key, str(provenance[key])) for key in (*_FACTS, *versions) if provenance.get(key) not in (None, "")]
        lines += ["### Provenance", "", *Table(header=("fact", "value"), rows=facts).markdown(_cell)]
    return lines


def _study(search: Search) -> Study:
    """Return the study of a search, without settings that are unknown in this version."""
    settings = search.description["settings"]
    study, changes = study_of(settings), settings.get("overrides")
    with suppress(LadderSearchError):
        return study.with_overrides(changes) if isinstance(changes, Mapping) else study
    return study


def _picture(name: str, title: str) -> list[str]:
    return [
        f"### {escaped(title[0].upper() + title[1:])}",
        "",
        f"![{escaped(title)}]({PICTURES}/{name}.png)",
        "",
        f"[interactive]({PICTURES}/{name}.html)",
        "",
    ]


def _page(output: Path, markdown: str) -> str:
    def inlined(self: RendererHTML, tokens: Sequence[Token], place: int, options: OptionsDict, env: EnvType) -> str:
        image = base64.b64encode((output / str(tokens[place].attrs["src"])).read_bytes()).decode()
        tokens[place].attrs["src"] = f"data:image/png;base64,{image}"
        return self.image(tokens, place, options, env)

    renderer = MarkdownIt("commonmark", {"html": False}).enable("table")
    renderer.add_render_rule("image", inlined)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>ladder-search report</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{_STYLE}</style></head>\n'
        f"<body>\n{renderer.render(markdown)}</body></html>\n"
    )
