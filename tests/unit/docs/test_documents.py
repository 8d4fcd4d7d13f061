"""The documents: their commands parse, their links lead somewhere, and the pages of reference are current."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ladder_search.commands.search import parse_arguments
from ladder_search.studies import STUDIES
from tests.plugin_files import forgotten, write_plugin

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md"))
    if path.parent.name != "reference" and path.name != "CHANGELOG.md"
)

BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"^(?: {4,})(?![-*|])(\S.*)$", re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PLACEHOLDER = re.compile(r"(?<![A-Z])[A-Z][A-Z-]{2,}(?![A-Z])|…|\.\.\.")
"""Words for the reader to replace: such a command is not parsed."""


def commands_of(page: Path) -> list[str]:
    """Return every line of code and every piece of inline code of a page."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for language, block in BLOCK.findall(text) if language in ("", "bash") for line in block.splitlines()]
    rest = BLOCK.sub("", text)
    lines += INDENTED.findall(rest)
    return [" ".join(line.split()) for line in (*lines, *re.findall(r"`([^`\n]+)`", rest))]


ALL = sorted({line for page in PAGES for line in commands_of(page)})
COMMANDS = [line for line in ALL if re.match(r"(\.venv/bin/)?ladder-search [a-z]", line)]
SEARCHES = [
    line for line in ALL if re.search(r"(^| )search\.py [a-z][\w-]*( |$)", line) and not PLACEHOLDER.search(line)
]
SCRIPTS = sorted({found for line in ALL for found in re.findall(r"\bpython ((?!search)[\w/]+\.py)", line)})
MODULES = sorted({found for line in ALL for found in re.findall(r"python -m (benchmarks\.\w+)", line)})
TARGETS = sorted({target for line in ALL for target in re.findall(r"^make ([a-z-]+)", line)})


def test_the_documents_are_read() -> None:
    assert {page.name for page in PAGES} >= {
        "README.md",
        "CONTRIBUTING.md",
        "index.md",
        "clusters.md",
        "architecture.md",
    }
    assert len(COMMANDS) >= 30 and len(SEARCHES) >= 15 and len(MODULES) >= 10 and len(TARGETS) >= 6


def test_the_readme_is_short_and_starts_with_the_two_commands() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    commands = [line for line in lines if line.startswith("make ")]
    assert commands == ["make search", "make test"], "continuous integration runs these two, in this order"
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [line for line in script if line.startswith("make ")] == [*commands, "make docs"]


@pytest.mark.parametrize("target", TARGETS)
def test_targets_of_make_exist(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", SEARCHES)
def test_searches_parse(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # There is no search here to resume.
    words = [word for word in shlex.split(line.partition("search.py ")[2]) if word != "--resume"]
    if "--plugin" not in words:
        assert parse_arguments(words).study in STUDIES
        return
    monkeypatch.chdir(tmp_path)
    with forgotten():
        write_plugin(tmp_path)  # the file of docs/families.md
        assert parse_arguments(words).study in STUDIES


@pytest.mark.parametrize("name", sorted({line.split("ladder-search ")[1].split()[0] for line in COMMANDS}))
def test_commands_exist_with_the_options_that_are_shown(name: str) -> None:
    words = [sys.executable, "-m", "ladder_search.cli", name, "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    lines = [line for line in COMMANDS if f"ladder-search {name}" in line]
    options = {option for line in lines for option in re.findall(r"(?<!\S)--?[a-z-]+", line)}
    assert [option for option in sorted(options) if option not in done.stdout] == []


@pytest.mark.parametrize("line", [line for line in COMMANDS if not PLACEHOLDER.search(line)])
def test_studies_and_orderings_in_commands_exist(line: str) -> None:
    from ladder_search.ordering.claims import ORDERINGS

    words = shlex.split(line.partition("ladder-search ")[2])
    if words[0] in ("reproduce", "compare", "ordering", "train"):
        named = [word for word in words[1:] if re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)+", word)]
        unknown = [word for word in named if word not in STUDIES and word not in ORDERINGS]
        assert unknown == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_exist(script: str) -> None:
    assert (ROOT / script).is_file()


@pytest.mark.parametrize("module", MODULES)
def test_benchmarks_exist(module: str) -> None:
    assert (ROOT / f"{module.replace('.', '/')}.py").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = []
    for target in LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):  # elsewhere; no network is needed here
            continue
        place, _, anchor = target.partition("#")
        path = page.parent / place if place else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert broken == []


def anchors(page: Path) -> set[str]:
    """Return the addresses of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(
        r"`((?:ladder_search|spaces|trainables|benchmarks|reproductions|clusters|docs|tests)/[\w/.-]+\.\w+)`",
        page.read_text(encoding="utf-8"),
    )
    assert [name for name in named if not PLACEHOLDER.search(name) and not (ROOT / name).is_file()] == []


def test_every_package_has_its_sentence_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = text[text.index("## The tree") : text.index("## Import rules")]
    rules = text[text.index("## Import rules") : text.index("## How a search runs")]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = (contract["layers"] for contract in contracts if contract["id"] == "layers")
    names = [name.strip() for layer in layers for name in layer.split("|")]
    for name in names:
        assert f"`ladder_search/{name}/`" in tree or f"`ladder_search/{name}.py`" in tree, name
    listed = re.findall(
        r"(?<=\.)[a-z_]+", re.findall(r"```text\n(.*?)```", rules, re.DOTALL)[0].partition("ladder_search")[2]
    )
    assert [name for name in listed if name in names] == names, "the list of the page is that of the contract"


def test_troubleshooting_quotes_messages_of_the_code() -> None:
    strings = " ".join(
        node.value
        for path in sorted((ROOT / "ladder_search").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(quoted) >= 20
    assert [message for message in quoted if message not in strings] == []


def test_the_pages_of_reference_are_current_and_complete() -> None:
    generator = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    assert generator["outdated"]() == [], "run `make reference`"
    settings = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    assert [line for line in settings.splitlines() if line.endswith("|  |")] == [], "each setting says what it means"
