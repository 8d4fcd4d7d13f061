"""Settings survive every way out and back, and nothing that a user can write brings more than an error of ours."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from keyword import iskeyword
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladder_search.config import as_mapping, build, merge, parse_assignments, read_yaml
from ladder_search.errors import LadderSearchError, SettingError, UnknownNameError, nearest

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda name: not iskeyword(name))
TEXT = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=12)

# Kinds of a setting, each as its declared type and a strategy of its values.
SCALARS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (int, st.integers()),
    (bool, st.booleans()),
    (str, TEXT),
    (Path, TEXT.filter(bool).map(Path)),
    (Literal["gauss", "mlp", 3, None], st.sampled_from(["gauss", "mlp", 3, None])),
    (int | str, st.one_of(st.integers(), TEXT)),
    (float | None, st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))),
]


@st.composite
def a_class(draw: st.DrawFn, parts: st.SearchStrategy[tuple[Any, Any]]) -> tuple[Any, Any]:
    kinds = draw(st.dictionaries(NAMES, parts, min_size=1, max_size=4))
    cls = dataclasses.make_dataclass(
        "Drawn", [(name, hint) for name, (hint, _) in kinds.items()], frozen=True, kw_only=True, slots=True
    )
    return cls, st.builds(cls, **{name: values for name, (_, values) in kinds.items()})


def compound(parts: st.SearchStrategy[tuple[Any, Any]]) -> st.SearchStrategy[tuple[Any, Any]]:
    return st.one_of(
        parts.map(lambda part: (tuple[part[0], ...], st.lists(part[1], max_size=3).map(tuple))),
        st.tuples(parts, parts).map(lambda two: (tuple[two[0][0], two[1][0]], st.tuples(two[0][1], two[1][1]))),
        parts.map(lambda part: (dict[str, part[0]], st.dictionaries(TEXT, part[1], max_size=3))),  # type: ignore[name-defined]
        a_class(parts),
    )


KINDS = st.recursive(st.sampled_from(SCALARS), compound, max_leaves=6)


@st.composite
def some_settings(draw: st.DrawFn) -> Any:
    """An instance of a settings class that was made up for it."""
    _, values = draw(a_class(KINDS))
    return draw(values)


PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)
MAPPINGS = st.dictionaries(NAMES, PLAIN, max_size=4)


def assignments(mapping: dict[str, Any], above: str = "") -> list[str]:
    lines: list[str] = []
    for name, value in mapping.items():
        if isinstance(value, dict) and value and all(key.isidentifier() for key in value):
            lines += assignments(value, f"{above}{name}.")
        else:
            lines.append(f"{above}{name}={json.dumps(value, ensure_ascii=False)}")
    return lines


@given(some_settings())
def test_settings_come_back_from_mapping_json_yaml_and_command_line(drawn: Any) -> None:
    mapping, expected = as_mapping(drawn), repr(drawn)  # repr tells 1 from 1.0 and from True
    for way, back in (
        ("mapping", mapping),
        ("JSON", json.loads(json.dumps(mapping))),
        ("YAML", read_yaml(json.dumps(mapping, ensure_ascii=False))),
        ("command line", parse_assignments(assignments(mapping))),
    ):
        assert repr(build(type(drawn), back)) == expected, way


@given(some_settings(), MAPPINGS)
def test_whatever_is_laid_over_settings_is_taken_or_refused_in_our_words(drawn: Any, overlay: dict[str, Any]) -> None:
    names = list(as_mapping(drawn))
    over_fields = dict(zip(names, overlay.values(), strict=False))
    for mapping in (overlay, merge(as_mapping(drawn), overlay), merge(as_mapping(drawn), over_fields)):
        try:
            built = build(type(drawn), mapping)
        except (SettingError, UnknownNameError) as error:
            assert str(error).endswith(".")
        else:
            assert repr(build(type(drawn), as_mapping(built))) == repr(built)


@given(st.one_of(st.text(max_size=40), st.text("[]{}:,-?&*!|>'\"%@` \n#0123456789.eE+abn~", max_size=40)))
def test_no_text_brings_more_than_a_setting_error(text: str) -> None:
    try:
        value = read_yaml(text)
    except SettingError:
        return
    assert isinstance(value, (type(None), bool, int, float, str, list, dict))


@given(st.lists(st.text(max_size=20), max_size=4))
def test_no_assignment_brings_more_than_a_setting_error(assignments: list[str]) -> None:
    try:
        nested = parse_assignments(assignments)
    except SettingError:
        return
    assert all(isinstance(name, str) and name for name in nested)


@given(MAPPINGS, MAPPINGS)
def test_merge_is_pure_and_the_overlay_wins(base: dict[str, Any], overlay: dict[str, Any]) -> None:
    before = copy.deepcopy((base, overlay))
    merged = merge(base, overlay)
    assert repr((base, overlay)) == repr(before)
    assert set(merged) == set(base) | set(overlay)
    assert repr(merge(merged, overlay)) == repr(merged)
    assert repr(merge(base, {})) == repr(base)
    assert repr(merge({}, overlay)) == repr(overlay)


@given(st.text(), st.text(), st.lists(st.text(), max_size=5))
def test_an_unknown_name_arrives_as_it_left(kind: str, name: str, known: list[str]) -> None:
    error = UnknownNameError(kind, name, known)
    arrived = pickle.loads(pickle.dumps(error))
    assert isinstance(arrived, LadderSearchError)
    assert (str(arrived), arrived.args, arrived.known) == (str(error), error.args, tuple(sorted(known)))


@given(st.text(max_size=8), st.lists(st.text(max_size=8), max_size=5))
def test_nearest_is_one_of_the_known(name: str, known: list[str]) -> None:
    assert nearest(name, known) in {None, *known}


@pytest.mark.parametrize("name", ["model.noise", "noise", "a.b.c", "MNIST-100"])
def test_a_known_name_is_nearest_to_itself(name: str) -> None:
    assert nearest(name, [name, "model.depth", "digits"]) == name
