"""The shape of the repository: imports, file sizes, names, and what may not be written down."""

from __future__ import annotations

import ast
import functools
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "ladder_search"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = {contract["id"]: contract for contract in PYPROJECT["tool"]["importlinter"]["contracts"]}
LAYERS = [re.findall(r"\w+", layer) for layer in CONTRACTS["layers"]["layers"]]
FRAMEWORKS = ("ray", "optuna", "mlflow")
BARE_MACHINE = ("torch", "numpy", "pyarrow")
"""What a machine that only measures the core has installed, pytest apart."""

FILES_ON_DISK = "ladder_search.training.checkpoint"
"""The one core module that needs more, safetensors; nothing else of the core imports it when it is loaded."""

LONGEST_FILE = 450


@functools.cache
def tracked() -> tuple[Path, ...]:
    """The repository's files; in an unpacked archive, or inside somebody's own repository, all but the hidden ones."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    names = [name for name in listed.stdout.split("\0") if name]
    if "pyproject.toml" not in names:
        skipped = {"results", "build", "dist", "__pycache__"}
        found = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
        names = [str(p) for p in found if not any(part.startswith(".") or part in skipped for part in p.parts)]
    return tuple(ROOT / name for name in names if (ROOT / name).is_file())


def modules() -> list[str]:
    """The top-level modules and packages of the library that are there."""
    files = {path.stem for path in LIBRARY.glob("*.py")} - {"__init__"}
    return sorted(files | {path.parent.name for path in LIBRARY.glob("*/__init__.py")})


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = "from importlinter.cli import lint_imports_command as main; main()"
    return subprocess.run(
        [sys.executable, "-c", command, "--no-cache", "--no-logo"], cwd=folder, capture_output=True, text=True
    )


# --- who may import whom


def test_the_import_contracts_are_kept() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(CONTRACTS)} kept, 0 broken" in result.stdout


# Contract, file, its one line, and the import that the report must name; without an import, the module has no layer.
PLANTED = [
    ("layers", "ladder_search/data/planted_1.py", "import ladder_search.driver", "ladder_search.driver"),
    ("layers", "ladder_search/models/planted_2.py", "import ladder_search.training", "ladder_search.training"),
    ("layers", "ladder_search/training/planted_3.py", "import ladder_search.models", "ladder_search.models"),
    ("layers", "ladder_search/training/planted_4.py", "def late():\n    import ladder_search.tracking",
     "ladder_search.tracking"),
    ("layers", "ladder_search/planted_5.py", "", ""),
    ("layers", "ladder_search/planted_6/__init__.py", "", ""),
    ("bare", "ladder_search/nn/planted_7.py", "import ray", "ray"),
    ("bare", "ladder_search/models/planted_8.py", "from optuna.trial import Trial", "optuna"),
    ("bare", "ladder_search/training/planted_9.py", "def late():\n    import mlflow", "mlflow"),
    ("mlflow", "ladder_search/tracking/planted_10.py", "import mlflow", "mlflow"),
    ("mlflow", "ladder_search/driver/planted_11.py", "import mlflow", "mlflow"),
    ("mlflow", "trainables/planted_12.py", "from mlflow import MlflowClient", "mlflow"),
    ("ray", "ladder_search/tracking/planted_13.py", "import ray", "ray"),
    ("ray", "spaces/planted_14.py", "from ray import tune", "ray"),
    ("optuna", "trainables/planted_15.py", "import optuna", "optuna"),
    ("optuna", "ladder_search/bundles/planted_16.py", "import optuna", "optuna"),
    ("pyarrow", "ladder_search/bundles/planted_17.py", "import pyarrow", "pyarrow"),
    ("pyarrow", "trainables/planted_18.py", "from pyarrow.fs import LocalFileSystem", "pyarrow"),
    ("drawing", "ladder_search/report/planted_19.py", "import matplotlib.pyplot", "matplotlib"),
    ("drawing", "ladder_search/driver/planted_20.py", "def late():\n    from matplotlib.figure import Figure",
     "matplotlib"),
    ("rich", "ladder_search/commands/planted_21.py", "from rich.table import Table", "rich"),
    ("search", "ladder_search/driver/planted_22.py", "import ladder_search.final", "ladder_search.final"),
    ("disk", "ladder_search/disk/planted_23.py", "def late():\n    import numpy", "numpy"),
    ("trainables", "trainables/planted_24.py", "import ladder_search.statistics", "ladder_search.statistics"),
    ("library", "ladder_search/driver/planted_25.py", "import spaces", "spaces"),
    ("library", "ladder_search/driver/planted_26.py", "import trainables", "trainables"),
    ("spaces", "spaces/planted_27.py", "import ladder_search.metrics", "ladder_search.metrics"),
    ("spaces", "spaces/planted_28.py", "import torch", "torch"),
    ("trainables", "trainables/planted_29.py", "import ladder_search.driver", "ladder_search.driver"),
    ("tracking", "ladder_search/tracking/planted_30.py", "import ladder_search.config", "ladder_search.config"),
    ("models", "ladder_search/models/planted_31.py", "import ladder_search.data", "ladder_search.data"),
    ("families", "ladder_search/models/planted_32.py", "import ladder_search.models.other",
     "ladder_search.models.other"),
]  # fmt: skip


def copy_of_the_packages(folder: Path) -> None:
    for package in ("ladder_search", "spaces", "trainables"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


@pytest.fixture(scope="module")
def violations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The report on each broken contract, by its name, of a copy in which all of ``PLANTED`` is planted."""
    folder = tmp_path_factory.mktemp("planted")
    copy_of_the_packages(folder)
    (folder / "ladder_search/models/other.py").touch()
    for _, file, text, _ in PLANTED:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(text + "\n")
    result = lint_imports(folder)
    assert result.returncode == 1 and "Broken contracts" in result.stdout, result.stdout + result.stderr
    reports = result.stdout.partition("Broken contracts")[2]
    name = "|".join(re.escape(contract["name"]) for contract in CONTRACTS.values())
    _, *parts = re.split(rf"(?m)^({name})\n-+$", reports)
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize(("contract", "file", "text", "imported"), PLANTED)
def test_the_contract_notices(contract: str, file: str, text: str, imported: str, violations: dict[str, str]) -> None:
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    line = rf"{module} -> {imported} \(l\.\d+\)" if imported else rf"- {module}"
    report = violations[CONTRACTS[contract]["name"]]
    assert re.search(rf"(?m)^\W*{line}$", report), report


def test_imports_that_are_meant_keep_the_contracts(tmp_path: Path) -> None:
    copy_of_the_packages(tmp_path)
    for file, text in {
        "ladder_search/tracking/mlflow_store.py": "import mlflow\nimport ladder_search.errors",
        "ladder_search/driver/planted.py": "import ray, optuna\nfrom ladder_search.tracking import mlflow_store",
        "ladder_search/bundles/planted.py": "import ladder_search.studies, ladder_search.training, torch",
        "ladder_search/models/planted.py": "import ladder_search.nn, ladder_search.config, torch",
        "ladder_search/training/planted.py": "import ladder_search.nn, ladder_search.data, safetensors",
        "spaces/planted.py": "import optuna, math",
        "trainables/planted.py": "import ray, ladder_search.training, ladder_search.models, ladder_search.tracking",
    }.items():
        (tmp_path / file).write_text(text + "\n")

    result = lint_imports(tmp_path)

    assert result.returncode == 0, result.stdout + result.stderr


def test_every_layer_that_must_run_bare_is_in_that_contract() -> None:
    names = [name for layer in LAYERS for name in layer]
    bare = set(names[names.index("analysis") :]) - {"tracking", "internals"}
    listed = {module.removeprefix("ladder_search.") for module in CONTRACTS["bare"]["source_modules"]}
    assert bare & set(modules()) <= listed, "add it to source_modules of the contract `bare` in pyproject.toml"


def test_trainables_are_kept_from_the_command_line_too() -> None:
    forbidden = CONTRACTS["trainables"]["forbidden_modules"]
    above = {name for layer in LAYERS[: LAYERS.index(["driver"])] for name in layer}
    assert {f"ladder_search.{name}" for name in above & set(modules())} <= set(forbidden), "add it to `trainables`"


def test_spaces_import_optuna_and_the_standard_library_only() -> None:
    allowed = {"optuna", "spaces", *sys.stdlib_module_names}
    for path in sorted((ROOT / "spaces").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            assert {name.partition(".")[0] for name in names} <= allowed, f"{path.name}: {names}"


# --- what must run where little is installed

IMPORT_ALL = """
import importlib, pkgutil, sys
blocked, left_out, names = sys.argv[1].split(","), sys.argv[2], sys.argv[3:]
sys.modules.update(dict.fromkeys(blocked))  # None: importing it raises ImportError
for name in names:
    module = importlib.import_module(name)
    for info in pkgutil.walk_packages(getattr(module, "__path__", ()), name + "."):
        if info.name != left_out:
            importlib.import_module(info.name)
loaded = sorted({name.partition(".")[0] for name, module in sys.modules.items() if module is not None})
print(" ".join(loaded))
"""


def import_fresh(names: list[str], blocked: list[str], left_out: str = "") -> subprocess.CompletedProcess[str]:
    """Import modules with all that is below them, in a new interpreter that lacks what is blocked."""
    arguments = [",".join(blocked), left_out, *names]
    return subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def import_names_of_dependencies() -> list[str]:
    other = {"pyyaml": "yaml", "scikit-learn": "sklearn", "markdown-it-py": "markdown_it", "pillow": "PIL"}
    names = [re.match(r"[\w-]+", line) for line in PYPROJECT["project"]["dependencies"]]
    return [other.get(name[0], name[0]) for name in names if name]


def bare_modules() -> list[str]:
    return [
        name
        for name in modules()
        if name
        not in ("cli", "programs", "commands", "driver", "report", "pictures", "console", "tracking", "internals")
    ]


FORKED = """
import json, os, sys, traceback
libraries, *names = sys.argv[1:]
for library in libraries.split(","):
    __import__(library)
print(json.dumps(["the libraries", sorted({name.partition(".")[0] for name in sys.modules})]), flush=True)
for name in names:
    if os.fork() == 0:
        try:
            sys.argv[1:] = ["nothing", "", name]
            exec(IMPORT_ALL)
        except BaseException:
            loaded = traceback.format_exc()
        print(json.dumps([name, loaded]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str] | str]:
    """Module of the core -> what is loaded once it is imported with all that is below it, or its traceback.

    Each is imported in a process that has loaded libraries that are slow to load and nothing of ours.
    """
    script = FORKED.replace("IMPORT_ALL", repr(IMPORT_ALL.rpartition("print")[0]))
    names = [f"ladder_search.{module}" for module in bare_modules()]
    libraries = "torch.export,pyarrow.parquet,scipy.stats,scipy.io,sklearn.datasets,matplotlib.font_manager,PIL.Image"
    result = subprocess.run(
        [sys.executable, "-c", script, libraries, *names], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    answers = dict(json.loads(line) for line in result.stdout.splitlines())
    assert not {"ladder_search", *FRAMEWORKS} & set(answers["the libraries"])
    return answers


@pytest.mark.parametrize("module", bare_modules())
def test_the_core_loads_no_framework(module: str, loaded: dict[str, list[str] | str]) -> None:
    answer = loaded[f"ladder_search.{module}"]
    assert isinstance(answer, list), answer
    assert "ladder_search" in answer and not set(FRAMEWORKS) & set(answer)


def test_the_core_loads_on_a_bare_machine() -> None:
    blocked = [name for name in import_names_of_dependencies() if name not in BARE_MACHINE]
    assert set(FRAMEWORKS) <= set(blocked)
    above = ("analysis", "ordering", "classifier", "bundles", "final", "reproduction")
    core = [f"ladder_search.{name}" for name in bare_modules() if name not in above]
    result = import_fresh(core, blocked, left_out=FILES_ON_DISK)
    assert result.returncode == 0, result.stderr


def test_a_trial_that_shares_a_pack_is_thin() -> None:
    """Its process imports the trainables, and PyTorch would be three times the memory of all the rest."""
    script = "import sys, trainables; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "ray" in result.stdout.split() and "torch" not in result.stdout.split()


def test_a_blocked_module_is_noticed() -> None:
    assert import_fresh(["json"], ["json"]).returncode != 0
    assert "json" in import_fresh(["json"], ["nothing"]).stdout.split()


# --- files and texts


def test_there_is_no_utils() -> None:
    assert [str(path) for path in tracked() if path.name in ("utils.py", "util.py", "helpers.py", "common.py")] == []


def test_no_python_file_is_too_long() -> None:
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in tracked() if p.suffix == ".py"}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_the_entry_point_is_dull() -> None:
    entry = ROOT / "search.py"
    assert not entry.exists() or len(entry.read_text().splitlines()) < 60


# Written in pieces, so that this file does not find itself.
MACHINE_PATH = re.compile(
    r"(?<![\w./~-])/(?:wor" + r"k|ro" + r"ot|Use" + r"rs|ho" + r"me/(?!(ray|ubuntu|someone)/)\w+)/"
)
REGISTRY_HOST = re.compile(
    r"pypi\."
    + r"org|python"
    + r"hosted|download\.py"
    + r"torch|conda\.ana"
    + r"conda|registry\.np"
    + r"mjs|deb\.deb"
    + r"ian"
)


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY_HOST], ids=["machine path", "registry host"])
def test_no_text_names_a_machine_or_a_registry(pattern: re.Pattern[str]) -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {hit[0]}" for hit in pattern.finditer(text)]
    assert found == []


@pytest.mark.parametrize(
    ("pattern", "text", "noticed"),
    [
        (MACHINE_PATH, "cd /" + "work/main", True),
        (MACHINE_PATH, "'/" + "home/ann/x'", True),
        (MACHINE_PATH, "/" + "Users/ann/x", True),
        (MACHINE_PATH, "/" + "home/ray/x and /" + "home/ubuntu/x", False),  # images of clusters
        (MACHINE_PATH, "data/" + "work/x and ~/" + "work/", False),
        (REGISTRY_HOST, "https://" + "pypi" + ".org/simple", True),
        (REGISTRY_HOST, "the Python package index", False),
    ],
)
def test_the_patterns_find_what_they_should(pattern: re.Pattern[str], text: str, noticed: bool) -> None:
    assert bool(pattern.search(text)) is noticed


# --- nothing that is read is executed

EXECUTES = {
    "eval", "exec", "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve",
    "torch.load", "torch.jit.load", "yaml.unsafe_load", "yaml.full_load", "yaml.UnsafeLoader", "yaml.Loader",
}  # fmt: skip
"""What can run the content of a file; of PyYAML's loaders, the safe one and those made of it are left."""

EXECUTION_ALLOWED = {"ladder_search/data/sources.py": {"pickle"}, "ladder_search/plugins.py": {"exec"}}
"""The one restricted unpickler, for the one file that is published as a pickle; and plugins, which the user names."""


def executing(text: str) -> set[str]:
    """Names of ``EXECUTES`` that Python text imports or uses, and arrays of objects that it lets NumPy read."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Attribute):
            found.add(ast.unparse(node))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found.add(node.func.id)
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            found.add("pickle")
    return found & EXECUTES


def test_nothing_that_is_read_is_executed() -> None:
    shipped = [
        p for p in tracked() if p.suffix == ".py" and p.relative_to(ROOT).parts[0] not in ("tests", "benchmarks")
    ]
    found = {str(path.relative_to(ROOT)): names for path in shipped if (names := executing(path.read_text()))}
    assert found == EXECUTION_ALLOWED


@pytest.mark.parametrize(
    "text",
    ["import pickle", "from pickle import loads", "torch.load(p)", "from torch import load", "eval(x)", "exec(x)",
     "yaml.load(x, yaml.Loader)", "yaml.unsafe_load(x)", "np.load(p, allow_pickle=True)", "import marshal"],
)  # fmt: skip
def test_what_executes_is_noticed(text: str) -> None:
    assert executing(text)


# --- files are read and written alike in every locale

OPENERS = {"open", "fdopen", "read_text", "write_text", "NamedTemporaryFile", "TemporaryFile", "SpooledTemporaryFile"}
RUNNERS = {"run", "Popen", "call", "check_call", "check_output"}


def in_the_locales_encoding(text: str) -> list[int]:
    """Lines of Python text that read or write text and name no encoding."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = {keyword.arg for keyword in node.keywords}
        values = [node.args, [keyword.value for keyword in node.keywords if keyword.arg == "mode"]]
        modes = [value.value for part in values for value in part if isinstance(value, ast.Constant)]
        binary = any(isinstance(mode, str) and re.fullmatch(r"[rwxa+]*b[rwxa+]*", mode) for mode in modes)
        # Those of temporary files are binary unless they are told.
        text_file = name in OPENERS and not binary and ("Temporary" not in name or bool(modes))
        owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        other = name == "open" and owner in OTHER_OPENERS
        text_pipe = name in RUNNERS and bool(given & {"text", "universal_newlines"})
        if "encoding" not in given and (text_pipe or (text_file and not other)):
            found.append(node.lineno)
    return found


OTHER_OPENERS = {"os", "tarfile", "zipfile", "gzip", "Image", "webbrowser"}
"""Modules whose ``open`` gives no text."""


def test_every_file_names_its_encoding() -> None:
    shipped = [p for p in tracked() if p.suffix == ".py" and p.relative_to(ROOT).parts[0] != "tests"]
    found = {str(p.relative_to(ROOT)): lines for p in shipped if (lines := in_the_locales_encoding(p.read_text()))}
    assert found == {}


@pytest.mark.parametrize(
    ("text", "noticed"),
    [
        ("open(p)", True), ("open(p, 'w')", True), ("p.open('a')", True), ("p.read_text()", True),
        ("p.write_text(t)", True), ("os.fdopen(f, 'w')", True), ("p.open(mode='r', errors='replace')", True),
        ("NamedTemporaryFile('w')", True), ("subprocess.run(c, text=True)", True),
        ("subprocess.Popen(c, universal_newlines=True)", True),
        ("open(p, 'rb')", False), ("p.open('xb')", False), ("p.open(mode='r+b')", False), ("os.open(p, 1)", False),
        ("p.read_text(encoding='utf-8')", False), ("open(p, 'w', encoding='ascii')", False),
        ("tempfile.TemporaryFile()", False), ("subprocess.run(c, encoding='utf-8')", False), ("run(c)", False),
        ("subprocess.run(c, text=True, encoding='utf-8')", False), ("Image.open(p)", False), ("p.read_bytes()", False),
    ],
)  # fmt: skip
def test_a_file_that_names_no_encoding_is_noticed(text: str, noticed: bool) -> None:
    assert bool(in_the_locales_encoding(text)) is noticed
