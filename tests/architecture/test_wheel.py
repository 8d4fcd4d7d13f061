"""What is published, and what an editable install puts on the path."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the build reads, in a folder with a space in its name; building writes beside its sources."""
    folder = tmp_path_factory.mktemp("a check out")
    for name in ("ladder_search", "spaces", "trainables", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    (folder / "README.md").write_text("# ladder-search\n")
    return folder


def build(checkout: Path, *how: str) -> zipfile.ZipFile:
    """Build without isolation, so that nothing is fetched: torch needs the same setuptools at run time."""
    target = checkout / "-".join(("dist", *how))
    command = [sys.executable, "-m", "pip", "-q", *how, "--no-deps", "--no-build-isolation"]
    result = subprocess.run(
        [*command, "--wheel-dir", str(target), str(checkout)], cwd=checkout, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = target.glob("*.whl")
    return zipfile.ZipFile(wheel)


def test_the_wheel_holds_the_library_alone(checkout: Path) -> None:
    with build(checkout, "wheel") as wheel:
        names = wheel.namelist()
        top = {name.partition("/")[0] for name in names}
        (info,) = (name for name in top if name.endswith(".dist-info"))
        entries = wheel.read(f"{info}/entry_points.txt").decode()

    assert top == {"ladder_search", info}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "ladder_search").rglob("*.py")}
    assert sources <= set(names)
    assert "ladder_search/py.typed" in names
    assert f"{info}/licenses/LICENSE" in names
    assert "ladder-search = ladder_search.cli:main" in entries


def test_an_editable_install_puts_the_checkout_itself_on_the_path(checkout: Path) -> None:
    """So that `spaces` and `trainables` are found by the names of their folders, on every node."""
    script = "import sys; from setuptools import build_meta; build_meta.build_editable(sys.argv[1])"
    target = checkout / "editable"
    target.mkdir()
    subprocess.run([sys.executable, "-c", script, str(target)], cwd=checkout, capture_output=True, check=True)
    (wheel,) = target.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (pth,) = (name for name in archive.namelist() if name.endswith(".pth"))
        assert archive.read(pth).decode().strip() == str(checkout)


def test_every_dependency_is_pinned_and_says_who_needs_it() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, equals, version = line.partition("==")
            assert equals, line
            assert "+" not in version, f"{line}: a local version would shut other machines out"
            pins[name.lower().replace("_", "-")] = version
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    for requirement in wanted:
        name = requirement.partition("[")[0].partition(">=")[0]
        assert name.lower() in pins, f"{name} has no pin in constraints.txt"
        (line,) = (line for line in text.splitlines() if line.strip().startswith(f'"{requirement}"'))
        assert "#" in line, f"{name}: say which file needs it"


def test_what_is_installed_here_is_what_is_pinned() -> None:
    """A newer release of anything shows as a changed pin; a local version (+cpu) is the same release."""
    different = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, equals, pinned = line.partition("==")
        if not equals or name.startswith("#"):
            continue
        try:
            installed = version(name).partition("+")[0]
        except PackageNotFoundError:
            continue  # an extra that is not installed
        if installed != pinned:
            different[name] = (installed, pinned)
    if "torch" in different:
        pytest.skip(f"torch {different['torch'][0]}: this is a machine that measures the core, with its own releases")
    assert different == {}
