"""The command line that all commands share: its help, its lists of options, its mistakes in one sentence."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ladder_search.cli import COMMANDS
from ladder_search.commands.command_line import Parser, number, path
from ladder_search.errors import LadderSearchError, SettingError

HELP = """
import json, sys, importlib
from ladder_search.cli import COMMANDS, _list
from ladder_search.commands.command_line import Parser
texts = {"": _list().format_help()}
for name, text in COMMANDS.items():
    parser = Parser(name, text)
    importlib.import_module(f"ladder_search.commands.{name}").add_arguments(parser)
    texts[name] = parser.format_help()
heavy = [name for name in ("torch", "ray", "mlflow", "optuna", "numpy", "matplotlib", "plotly") if name in sys.modules]
print(json.dumps([texts, heavy]))
"""


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Command -> its help in 80 columns."""
    environment = {"PATH": "", "COLUMNS": "80"}
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True, env=environment)
    shown, heavy = json.loads(done.stdout)
    assert heavy == [], "--help and a mistake in the options do not wait for these"
    return dict(shown)


def test_each_command_is_listed_and_has_its_help(texts: dict[str, str]) -> None:
    for name, purpose in COMMANDS.items():
        assert f"  {name}  " in texts[""] and purpose in texts[""]
        assert texts[name].startswith("usage: ") and purpose in texts[name]
    for text in texts.values():
        assert max(map(len, text.splitlines())) <= 80 and "None" not in text and "[]" not in text


def test_defaults_are_shown(texts: dict[str, str]) -> None:
    assert "number of fresh seeds (default: 10)" in texts["train"]
    assert "(default: configs)" in texts["export"] and "(default: 24)" in texts["search"]
    from ladder_search.report.analyses import ANALYSES

    shown = " ".join(texts["analyse"].split())
    for analysis in ANALYSES.values():
        for field in dataclasses.fields(analysis.settings):
            start = shown.index(f"--{field.name.replace('_', '-')} ", shown.index("all analyses:"))
            assert str(field.default) in shown[start : start + 120], f"{field.name} of {analysis.settings.__name__}"


def test_a_file_of_a_command_has_no_options_beside_those_of_its_help() -> None:
    for name in COMMANDS:
        module = importlib.import_module(f"ladder_search.commands.{name}")
        assert callable(module.add_arguments) and callable(module.run)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--seed", "3"], "unknown option '--seed': did you mean '--seeds'? Known: --kind, --root, --seeds."),
        (["--seeds", "x"], "--seeds must be a whole number, got 'x'; correct it."),
        (["--seeds", "0"], "--seeds must be at least 1, got 0; give a larger number."),
        (["--kind", "tal"], "unknown kind 'tal': did you mean 'tall'? Known: short, tall."),
        (["--root", "$UNSET_HERE/x"], "--root may use only variables that are set and $UNSET_HERE is not, got"),
        (["--seeds"], "invalid command line: --seeds: expected one argument; see `"),
        (["more"], "invalid command line: unrecognized arguments: more; see `"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], sentence: str) -> None:
    parser = Parser("doctor", "Look.")
    parser.add_argument("--seeds", type=number())
    parser.add_argument("--kind", choices=("tall", "short"))
    parser.add_argument("--root", type=path, default=Path("results"))
    with pytest.raises(LadderSearchError) as refused:
        parser.parse_args(words)
    assert sentence in str(refused.value)


def test_a_number_or_the_word_auto() -> None:
    read = number(float, auto=True, least=None)
    assert (read("auto"), read("0.5"), number(least=0)("0")) == ("auto", 0.5, 0)
    with pytest.raises(Exception, match="must be a number or auto, got 'many'"):
        read("many")


def test_paths_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/s")
    assert path("$SCRATCH/x y ") == Path("/s/x y ")
    parser = Parser("export", "Write.")
    parser.add_argument("-o", "--output", type=path)
    with pytest.raises(SettingError, match=r"^-o/--output must be a path that can be looked up"):
        parser.parse_args(["-o", "a" * 300])
