import posixpath
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladder_search.tracking.limits import safe_folder, safe_name, safe_params, safe_prefix, safe_tags, safe_value


def accepted_by_mlflow(name: str) -> bool:
    """MLflow 3.17's rules, written down from its documentation and error messages."""
    normal = posixpath.normpath(name)
    unique = normal == name and normal != "." and not normal.startswith("..") and not normal.startswith("/")
    return bool(re.fullmatch(r"[A-Za-z0-9_\-. :/]+", name)) and len(name) <= 250 and unique


@pytest.mark.parametrize("name", ["valid_error", "model/noise", "time: total", "a.b-c", "x" * 250])
def test_a_good_name_is_kept(name: str) -> None:
    assert safe_name(name) == name


@given(st.text(alphabet=st.characters(codec=None), max_size=300))
def test_every_name_becomes_one_that_mlflow_accepts(name: str) -> None:
    assert accepted_by_mlflow(safe_name(name))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/x", "//", "a//b", "λ", "x" * 251, "a/", "./a", "\ud800", "a\x00b"]
)
def test_awkward_names(name: str) -> None:
    assert accepted_by_mlflow(safe_name(name))


def test_different_names_stay_different() -> None:
    assert safe_name("a=b") != safe_name("a?b") != safe_name("a_b")
    assert safe_name("x" * 300) != safe_name("x" * 301)


def test_values_are_cut_and_say_so() -> None:
    assert safe_value("a" * 6000, 6000) == "a" * 6000
    cut = safe_value("a" * 6001, 6000)
    assert len(cut) == 6000 and cut.endswith("[cut]")
    assert safe_value("a\x00\ud800b", 100) == "a?b"


def test_mappings() -> None:
    assert safe_params({"lr": 0.1, "n": 3, "on": True}) == {"lr": "0.1", "n": "3", "on": "True"}
    assert len(safe_params({"p": "x" * 9000})["p"]) == 6000
    assert len(safe_tags({"t": "x" * 9000})["t"]) == 8000


def test_folder_and_prefix() -> None:
    assert safe_folder("") == ""
    assert accepted_by_mlflow(safe_folder("../../etc"))
    assert safe_prefix("digits/ab/") == "digits/ab/"
    assert safe_prefix("a'%") == "a__"
