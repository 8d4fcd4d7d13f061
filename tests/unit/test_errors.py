"""The messages that users read, and the way of an error from a worker process to the driver."""

from __future__ import annotations

import builtins
import copy
import inspect
import pickle

import pytest

from ladder_search import errors
from ladder_search.errors import LadderSearchError, UnknownNameError, nearest

LEAVES = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, LadderSearchError) and cls is not LadderSearchError
]


def test_every_leaf_is_listed_here() -> None:
    assert {cls.__name__ for cls in LEAVES} >= {"SettingError", "UnknownNameError", "DataError", "CheckpointError"}


@pytest.mark.parametrize("cls", LEAVES)
def test_a_leaf_is_of_the_root_and_of_a_fitting_builtin(cls: type[LadderSearchError]) -> None:
    fitting = [base for base in cls.__mro__ if base.__module__ == builtins.__name__ and base not in (object, Exception)]
    assert issubclass(cls, LadderSearchError)
    assert any(base is not BaseException for base in fitting)


@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("cls", LEAVES)
def test_an_error_arrives_as_it_left(cls: type[LadderSearchError], again: object) -> None:
    error = UnknownNameError("study", "a", ["b"]) if cls is UnknownNameError else cls("rule, value, remedy.")
    arrived = again(error)  # type: ignore[operator]
    assert type(arrived) is cls
    assert str(arrived) == str(error)


def test_unknown_name_says_the_nearest_and_lists_the_valid() -> None:
    error = UnknownNameError("study", "mnist-10-full", ["mnist-all-full", "mnist-100-full"])
    assert str(error) == (
        "unknown study 'mnist-10-full': did you mean 'mnist-100-full'? Known: mnist-100-full, mnist-all-full."
    )
    assert (error.kind, error.name, error.known) == ("study", "mnist-10-full", ("mnist-100-full", "mnist-all-full"))


def test_unknown_name_without_a_near_one() -> None:
    assert str(UnknownNameError("family", "zebra", ["ladder", "tagger"])) == (
        "unknown family 'zebra': Known: ladder, tagger."
    )


def test_unknown_name_of_an_empty_table() -> None:
    assert str(UnknownNameError("bundle", "best", [])) == "unknown bundle 'best': Known: none."


def test_the_names_may_be_any_iterable() -> None:
    assert UnknownNameError("family", "lader", iter(["tagger", "ladder"])).known == ("ladder", "tagger")


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("lader", ["ladder", "tagger"], "ladder"),
        ("LADDER", ["ladder", "tagger"], "ladder"),  # case is no distance
        ("ladder", ["Ladder"], "Ladder"),  # the name is given as it is listed
        ("model.nois", ["model.noise", "model.depth"], "model.noise"),
        ("model.xyz", ["model.abc", "model.def"], None),  # a shared section is no likeness
        ("modl.noise", ["model.noise"], "model.noise"),  # and a misspelt one no obstacle
        ("zebra", ["ladder"], None),
        ("", ["ladder"], None),
        ("ladder", [], None),
    ],
)
def test_nearest(name: str, known: list[str], expected: str | None) -> None:
    assert nearest(name, known) == expected
