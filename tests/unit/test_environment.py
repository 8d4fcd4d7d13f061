"""The table of environment variables: whole, without doubt, and in force wherever a library runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import warnings
from pathlib import Path

import pytest

from ladder_search import environment
from ladder_search.environment import TABLE, ours, row_of, settled, without_effect

SITE = Path(sysconfig.get_paths()["purelib"])
PACKAGES = (
    "mlflow", "ray", "optuna", "torch", "rich", "sqlalchemy", "alembic", "requests", "urllib3", "certifi", "numpy",
    "scipy", "sklearn", "joblib", "pyarrow", "matplotlib", "safetensors", "yaml", "PIL", "cmaes", "psycopg",
)  # fmt: skip
UNUSED = {
    "tests", "testing", "f2py", "rllib", "serve", "llm", "dashboard", "autoscaler", "distributed", "genai", "gateway",
    "thirdparty_files", "_vendor", "release", "sagemaker", "onnx", "scripts", "benchmarks", "demos",
}  # fmt: skip
"""Folders of packages that a search neither imports nor starts."""
READS = re.compile(
    rb"""(?:environ|environ\.get|environ\.pop|environ\.setdefault|getenv|\benv_\w+|_env\w*|EnvironmentVariable)\s*[\[(]\s*"""
    rb"""["']([A-Za-z_]\w*)["']|["']([A-Z_][A-Z0-9_]+)["']\s+(?:not\s+)?in\s+(?:os\.|self\._?)?environ"""
    rb"""|env_name_\w+\s*=\s*["']([A-Za-z_]\w*)["']|_ENV\w*\s*=\s*["']([A-Z_]\w+)["']"""
)
"""Reads of a variable in Python: by ``os``, and by what MLflow, Ray and torch's configurations call it."""
MAY_READ = re.compile(rb"environ|getenv|EnvironmentVariable|env_|_env|_ENV")
NO_NAMES = re.compile(r"(?!https?_proxy|no_proxy|collective_|_+RAY|__vsc)[a-z_]+")
"""What the same functions are also called with: keys of Ray's runtime environments and the like."""
HOSTILE = {
    "MLFLOW_ENABLE_ASYNC_LOGGING": "true",
    "MLFLOW_REGISTRY_URI": "sqlite:////elsewhere.db",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "soon",
    "TUNE_RESULT_BUFFER_LENGTH": "100",
    "RAY_kill_idle_workers_interval_ms": "1",
    "TORCHINDUCTOR_FREEZING": "1",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    "ATEN_CPU_CAPABILITY": "default",
    "OMP_DYNAMIC": "true",
    "OPTUNA_STORAGE": "sqlite:///x.db",
    "PYTHONWARNINGS": "error",
    "PYTHONOPTIMIZE": "2",
}
FIXED = {name: row.value for row in TABLE if row.treatment == "fixed" for name in row.names}


def _read_by(package: str) -> set[str]:
    names: set[str] = set()
    for file in (SITE / package).rglob("*.py"):
        if UNUSED.isdisjoint(file.relative_to(SITE).parts) and MAY_READ.search(source := file.read_bytes()):
            names |= {name.decode() for match in READS.finditer(source) for name in match.groups() if name}
    return {name for name in names if not NO_NAMES.fullmatch(name)}


@pytest.mark.parametrize(
    ("packages", "among"),
    [
        (("mlflow",), {"MLFLOW_ENABLE_ASYNC_LOGGING", "MLFLOW_TRACKING_URI", "_MLFLOW_SERVER_FILE_STORE"}),
        (("ray",), {"TUNE_RESULT_BUFFER_LENGTH", "RAY_ADDRESS", "RAY_AIR_NEW_OUTPUT", "OMP_NUM_THREADS"}),
        (("torch",), {"TORCHINDUCTOR_FREEZING", "TORCHINDUCTOR_CACHE_DIR", "ATEN_CPU_CAPABILITY", "CXX"}),
        (PACKAGES[4:], {"COLUMNS", "REQUESTS_CA_BUNDLE", "MPLBACKEND", "SCIPY_ARRAY_API", "JOBLIB_MULTIPROCESSING"}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_every_variable_that_the_pinned_packages_read_has_a_row(packages: tuple[str, ...], among: set[str]) -> None:
    names = set().union(*map(_read_by, packages))
    assert among <= names, "the search for reads finds less than it should"
    assert [name for name in sorted(names) if row_of(name) is None] == []


def test_every_variable_of_python_and_of_ray_s_c_libraries_has_a_row() -> None:
    told = subprocess.run([sys.executable, "--help-env"], capture_output=True, text=True, check=True).stdout
    names = set(re.findall(r"\bPYTHON[A-Z0-9_]+", told))
    assert {"PYTHONWARNINGS", "PYTHONHASHSEED", "PYTHONUTF8"} <= names
    ray = (SITE / "ray" / "core" / "src" / "ray" / "raylet" / "raylet").read_bytes()
    names |= {name.decode() for name in re.findall(rb"\bRAY_[A-Za-z_]{3,60}(?=\0)", ray)}
    assert "RAY_DISABLE_FAILURE_SIGNAL_HANDLER" in names or len(names) > 40
    assert [name for name in sorted(names) if row_of(name) is None] == []


def test_a_name_has_one_row_and_a_row_a_reason() -> None:
    names = [name for row in TABLE for name in row.names]
    assert len(set(names)) == len(names)
    for row in TABLE:
        assert row.names and len(row.reason) > 10
        assert row.treatment != "fixed" or (row.value is not None and not any("*" in name for name in row.names))
        assert row.treatment in ("fixed", "input") or row.value is None
        assert row.value is None or row.allowed is None or re.fullmatch(row.allowed, row.value)


def test_a_whole_name_wins_over_a_prefix_and_a_long_one_over_a_short_one() -> None:
    def treatment(name: str) -> str:
        row = row_of(name)
        assert row is not None
        return row.treatment

    assert treatment("MLFLOW_OF_A_LATER_RELEASE") == "removed"
    assert treatment("MLFLOW_TRACKING_URI") == "input"
    assert treatment("RAY_memory_usage_threshold") == "input" and treatment("RAY_maximum_x") == "removed"
    assert treatment("OMP_NUM_THREADS") == "harmless" and treatment("OMP_SCHEDULE") == "removed"
    assert row_of("MY_OWN") is None


def test_what_is_hostile_has_no_effect_and_is_named() -> None:
    places = {"HOME": "/home/me", "MY_OWN": "1", "MLFLOW_TRACKING_TOKEN": "t", "CUDA_VISIBLE_DEVICES": "3"}
    result = settled({**HOSTILE, **places, "TUNE_DISABLE_SIGINT_HANDLER": "0", "RAY_AIR_NEW_OUTPUT": "0"})
    assert {name: result[name] for name in places} == places
    assert not (HOSTILE.keys() - {"MLFLOW_HTTP_REQUEST_TIMEOUT"}) & result.keys()
    assert result["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "10"  # an input, but no number of seconds
    assert result.items() >= FIXED.items()
    assert settled(result) == result
    told = without_effect({**HOSTILE, **places, "TUNE_DISABLE_SIGINT_HANDLER": "0", "RAY_AIR_NEW_OUTPUT": "0"})
    assert told == sorted([*HOSTILE, "TUNE_DISABLE_SIGINT_HANDLER"])


def test_variables_that_a_library_sets_for_itself_are_not_reported() -> None:
    private = {"_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR": "7", "_MLFLOW_IS_IN_SERVING_ENVIRONMENT": "true"}
    assert without_effect({**private, "TORCHINDUCTOR_FREEZING": "1"}) == ["TORCHINDUCTOR_FREEZING"]
    assert not private.keys() & settled(private).keys()


def test_what_has_no_effect_is_said_in_a_sentence() -> None:
    tail = "no effect on a search; ladder_search/environment.py says why."
    assert environment.in_words(["A"]) == f"A of the environment has {tail}"
    assert environment.in_words(["A", "B", "C"]) == f"A, B and C of the environment have {tail}"
    assert environment.in_words(list("ABCDE"), most=3) == f"A, B, C and 2 more of the environment have {tail}"


def test_an_input_is_taken_as_it_is() -> None:
    given = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60", "MLFLOW_TRACKING_INSECURE_TLS": "True", "RAY_ADDRESS": "auto"}
    assert settled(given).items() >= given.items()
    assert "MLFLOW_TRACKING_INSECURE_TLS" not in settled({"MLFLOW_TRACKING_INSECURE_TLS": "yes, please"})


def test_loopback_is_never_behind_a_proxy() -> None:
    loopback = "127.0.0.1,localhost,::1"
    assert settled({"http_proxy": "http://proxy:3128"})["no_proxy"] == loopback
    some = settled({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "example.org,localhost"})
    assert some["no_proxy"] == some["NO_PROXY"] == "example.org,localhost,127.0.0.1,::1"
    assert "no_proxy" not in settled({"NO_PROXY": "x"}) and "no_proxy" not in settled({"http_proxy": ""})


def test_the_environment_is_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    before, filters = dict(os.environ), list(warnings.filters)
    with pytest.warns(UserWarning), pytest.raises(ZeroDivisionError), ours():
        assert environment.ignored() == sorted(HOSTILE)
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
        with ours():
            os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = "3"  # by the search itself
        os.environ["ADDED_BY_A_LIBRARY"] = "1"
        del os.environ["PATH"]
        warnings.warn("is no error", UserWarning, stacklevel=1)
        raise ZeroDivisionError
    assert dict(os.environ) == before
    assert list(warnings.filters) == filters


CHILD = """
import json, os, subprocess, sys
from ladder_search.commands.command_line import run_command

def command():
    own = dict(os.environ)
    child = subprocess.run([sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"],
        capture_output=True, text=True, check=True)
    import warnings
    warnings.warn("no error", UserWarning)
    print(json.dumps([own, json.loads(child.stdout)]))

code = run_command(command)
assert sys.flags.optimize == 0
assert run_command.__doc__  # Ray, for one, cannot be imported where docstrings are taken away
sys.exit(code or os.environ["RAY_USAGE_STATS_ENABLED"] != "other")
"""


def test_a_command_and_what_it_starts_see_our_values() -> None:
    given = {**os.environ, **HOSTILE, **dict.fromkeys(FIXED, "other")}
    done = subprocess.run([sys.executable, "-c", CHILD], env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for seen in json.loads(done.stdout):
        assert seen.items() >= FIXED.items()
        assert not (HOSTILE.keys() - {"MLFLOW_HTTP_REQUEST_TIMEOUT"}) & seen.keys()


def test_no_library_is_imported_before_its_variables_are_set() -> None:
    code = "import sys, search, ladder_search.cli; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.strip("'[], ") for name in done.stdout.split(",")}
    assert "rich.console" in loaded
    assert not loaded & {"torch", "ray", "mlflow", "optuna", "numpy", "pyarrow", "matplotlib", "requests", "sqlalchemy"}
