"""Settings: what is taken, what is refused, and in which words."""

from __future__ import annotations

import collections.abc
import typing
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import pytest

from ladder_search.config import as_mapping, build, in_range, merge, optional, parse_assignments, read_yaml
from ladder_search.errors import SettingError, UnknownNameError


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    width: int
    noise: float = 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    layers: tuple[Layer, ...] = ()
    combinator: Literal["gauss", "mlp"] = "gauss"
    size: tuple[int, int] = (8, 8)
    weights: tuple[float, ...] | None = None
    extra: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    study: str
    lr: float
    epochs: int = 10
    resume: bool = False
    folder: Path = Path("results")
    model: Model = field(default_factory=Model)


def one(hint: Any) -> type:
    """A settings class with the one required field ``x`` of type ``hint``."""
    return dataclass(frozen=True, kw_only=True)(type("One", (), {"__annotations__": {"x": hint}}))


def x_of(hint: Any, value: Any) -> Any:
    return build(one(hint), {"x": value}).x


def test_a_mapping_becomes_settings() -> None:
    built = build(
        Settings,
        {
            "study": "digits-100",
            "lr": 1,
            "epochs": 20.0,
            "folder": "out",
            "model": {
                "layers": [{"width": 10}, {"width": 5, "noise": 0}],
                "weights": [1000, 10, 0.1],
                "extra": {"a": 1},
            },
        },
    )
    assert built == Settings(
        study="digits-100",
        lr=1.0,
        epochs=20,
        folder=Path("out"),
        model=Model(
            layers=(Layer(width=10, noise=0.3), Layer(width=5, noise=0.0)),
            weights=(1000.0, 10.0, 0.1),
            extra={"a": 1.0},
        ),
    )
    assert type(built.lr) is float
    assert type(built.epochs) is int
    assert type(built.model.extra["a"]) is float


def test_as_mapping_is_plain_and_complete() -> None:
    assert as_mapping(Settings(study="s", lr=0.1, model=Model(layers=(Layer(width=3),)))) == {
        "study": "s",
        "lr": 0.1,
        "epochs": 10,
        "resume": False,
        "folder": "results",
        "model": {
            "layers": [{"width": 3, "noise": 0.3}],
            "combinator": "gauss",
            "size": [8, 8],
            "weights": None,
            "extra": {},
        },
    }


def test_settings_do_not_share_the_callers_mapping() -> None:
    extra = {"a": 1.0}
    built = build(Model, {"extra": extra})
    extra["a"] = 2.0
    assert built.extra == {"a": 1.0}


def test_any_mapping_will_do_and_a_built_part_is_kept() -> None:
    model = Model(size=(4, 4))
    assert build(Settings, MappingProxyType({"study": "s", "lr": 0.1, "model": model})).model is model


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"lr": 0.1}, "setting 'study' is required and missing; give it a value."),
        ({"study": 3, "lr": 0.1}, "study must be text, got 3; give text."),
        ({"study": "s", "lr": "fast"}, "lr must be a finite number, got 'fast'; give a finite number."),
        ({"study": "s", "lr": True}, "lr must be a finite number, got True; give a finite number."),
        ({"study": "s", "lr": float("nan")}, "lr must be a finite number, got nan; give a finite number."),
        ({"study": "s", "lr": 0.1, "epochs": 2.5}, "epochs must be a whole number, got 2.5; give a whole number."),
        ({"study": "s", "lr": 0.1, "epochs": True}, "epochs must be a whole number, got True; give a whole number."),
        ({"study": "s", "lr": 0.1, "resume": 1}, "resume must be true or false, got 1; give true or false."),
        ({"study": "s", "lr": 0.1, "folder": 1}, "folder must be a path, got 1; give a path."),
        (
            {"study": "s", "lr": 0.1, "model": 3},
            "model must be a mapping of settings, got 3; write key: value lines.",
        ),
        (
            {"study": "s", "lr": 0.1, "model": {"layers": {"width": 3}}},
            "model.layers must be a list, got {'width': 3}; write [a, b, ...].",
        ),
        (
            {"study": "s", "lr": 0.1, "model": {"layers": "10-5"}},
            "model.layers must be a list, got '10-5'; write [a, b, ...].",
        ),
        (
            {"study": "s", "lr": 0.1, "model": {"layers": [{"width": 3}, {"noise": 1}]}},
            "setting 'model.layers[1].width' is required and missing; give it a value.",
        ),
        ({"study": "s", "lr": 0.1, "model": {"size": [8]}}, "model.size must have 2 entries, got 1; give 2."),
        (
            {"study": "s", "lr": 0.1, "model": {"extra": {"a": "b"}}},
            "model.extra.a must be a finite number, got 'b'; give a finite number.",
        ),
        (
            {"study": "s", "lr": 0.1, "model": {"extra": {1: 2}}},
            "a name in model.extra must be text, got 1; give text.",
        ),
        (
            {"study": "s", "lr": 0.1, "model": {"combinator": 3}},
            "model.combinator must be one of gauss, mlp, got 3; choose one of them.",
        ),
    ],
)
def test_a_refusal_says_rule_value_remedy(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        build(Settings, mapping)
    assert str(caught.value) == message


def test_an_unknown_setting_names_the_nearest_with_its_path() -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown setting 'model.layers\[0\].widht': did you mean 'model.layers"
    ):
        build(Settings, {"study": "s", "lr": 0.1, "model": {"layers": [{"widht": 3}]}})


def test_an_unknown_setting_that_is_like_nothing_gets_no_suggestion() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown setting 'model.qqq'. Known: model.combinator, model.extra"):
        build(Settings, {"study": "s", "lr": 0.1, "model": {"qqq": 3}})


def test_an_unknown_choice_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown model.combinator 'gaus': did you mean 'gauss'"):
        build(Settings, {"study": "s", "lr": 0.1, "model": {"combinator": "gaus"}})


def test_a_top_that_is_no_mapping_is_named_by_its_class() -> None:
    with pytest.raises(SettingError, match="Settings must be a mapping of settings, got \\[\\]"):
        build(Settings, [])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (float | int, 2, 2),  # a value that needs no coercion keeps its type
        (int | float, 2.0, 2.0),
        (int | None, None, None),
        (int | None, 2.0, 2),
        (typing.Optional[float], 3, 3.0),  # noqa: UP045 - both spellings of a union
        (str | tuple[float, ...], [1], (1.0,)),
        (Literal[1, 2], 2, 2),
        (Literal["a", None], None, None),
        (collections.abc.Sequence[int], [1, 2], (1, 2)),
        (collections.abc.Mapping[str, int], {"a": 1.0}, {"a": 1}),
        (dict, {"a": [1]}, {"a": [1]}),
        (tuple[()], [], ()),
        (tuple[tuple[int, ...], ...], [[1], []], ((1,), ())),
        (tuple[int | None, ...], [1, None], (1, None)),
        (Any, {"a": 1}, {"a": 1}),
        (Path, Path("a"), Path("a")),
        (int, 1e300, int(1e300)),
    ],
)
def test_a_value_of_a_kind_is_taken(hint: Any, value: Any, expected: Any) -> None:
    got = x_of(hint, value)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (Literal[1, 2], True, "x must be one of 1, 2, got True; choose one of them."),  # True == 1
        (Literal[1, 2], 1.0, "x must be one of 1, 2, got 1.0; choose one of them."),
        (Literal[True], 1, "x must be one of True, got 1; choose one of them."),
        (float, 10**400, None),  # beyond the floats
        (float, float("inf"), None),
        (float, None, "x must be a finite number, got None; give a finite number."),
        (int, float("inf"), "x must be a whole number, got inf; give a whole number."),
        (int, "3", "x must be a whole number, got '3'; give a whole number."),
        (int | str, 2.5, "x must be a whole number or text, got 2.5; give a whole number or text."),
        (float | None, "a", "x must be a finite number or null, got 'a'; give a finite number or null."),
        (tuple[float, ...] | None, 3, "x must be a list, got 3; write [a, b, ...]."),
        (tuple[float, ...], b"ab", "x must be a list, got b'ab'; write [a, b, ...]."),
        (tuple[float, ...], {1.0, 2.0}, None),  # a set has no order
        (dict[str, int], [("a", 1)], "x must be a mapping, got [('a', 1)]; write key: value lines."),
        (str, b"a", "x must be text, got b'a'; give text."),
    ],
)
def test_a_value_of_another_kind_is_refused(hint: Any, value: Any, message: str | None) -> None:
    with pytest.raises(SettingError) as caught:
        x_of(hint, value)
    if message is not None:
        assert str(caught.value) == message


@pytest.mark.parametrize("hint", [list[int], list, set[int], tuple, complex, dict[int, str], object])
def test_a_declaration_without_a_rule_is_our_defect_not_the_users(hint: Any) -> None:
    value: Any = {1: "a"} if typing.get_origin(hint) is dict else [1]
    with pytest.raises(TypeError, match="x is declared"):
        x_of(hint, value)


def test_a_computed_field_is_neither_read_nor_written() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Sized:
        width: int
        area: int = field(init=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "area", self.width**2)

    sized = Sized(width=3)
    assert as_mapping(sized) == {"width": 3}
    with pytest.raises(UnknownNameError, match="unknown setting 'area'"):
        build(Sized, {"width": 3, "area": 9})


def test_merge_goes_nested_mapping_by_nested_mapping() -> None:
    base = {"model": {"depth": 3, "noise": [0.1]}, "lr": 0.1, "old": {"a": 1}}
    overlay = {"model": {"noise": [0.2]}, "epochs": 4, "old": 5, "lr": {"start": 1}}
    assert merge(base, overlay) == {
        "model": {"depth": 3, "noise": [0.2]},
        "lr": {"start": 1},
        "old": 5,
        "epochs": 4,
    }


def test_what_was_merged_can_be_changed_without_changing_its_parts() -> None:
    base: dict[str, Any] = {"model": {"deep": {"a": 1}}}
    overlay: dict[str, Any] = {"new": {"b": 2}}
    merged = merge(base, overlay)
    merged["model"]["deep"]["a"] = 9
    merged["new"]["b"] = 9
    assert (base, overlay) == ({"model": {"deep": {"a": 1}}}, {"new": {"b": 2}})


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        ([], {}),
        (
            ["model.combinator=gauss", "training.lr=0.002"],
            {"model": {"combinator": "gauss"}, "training": {"lr": 0.002}},
        ),
        (["lr=1e-3"], {"lr": 0.001}),
        (["weights=[1e3, 1e1, .1]"], {"weights": [1000.0, 10.0, 0.1]}),  # inside a list as well
        (["name='1e-3'"], {"name": "1e-3"}),  # quoted is text
        (["model.extra={a: 1}", "model.extra.b=2"], {"model": {"extra": {"a": 1, "b": 2}}}),
        ([" training . lr = 2 "], {"training": {"lr": 2}}),
        (["note=a=b"], {"note": "a=b"}),
        (["stop="], {"stop": None}),
    ],
)
def test_assignments(assignments: list[str], expected: dict[str, Any]) -> None:
    assert parse_assignments(assignments) == expected


@pytest.mark.parametrize("text", ["lr", "=3", "", " = 3", "model..lr=3", ".lr=3", "lr.=3", "model. =3"])
def test_an_assignment_that_is_none(text: str) -> None:
    with pytest.raises(
        SettingError, match="a setting is given as name=value, got .*; write for example training.lr=0.002"
    ):
        parse_assignments([text])


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["lr=1", "lr=2"], "setting 'lr' or a part of it is given twice; give it once."),
        (["a=1", "a.b=2"], "'a.b' goes below 'a', which has a value already; give one of the two."),
        (["m.a=1", "m.a.b.c=2"], "'m.a.b.c' goes below 'm.a', which has a value already; give one of the two."),
        (["a.b=2", "a=1"], "setting 'a' or a part of it is given twice; give it once."),  # in either order
        (["a={b: 1}", "a.b=2"], "setting 'a.b' or a part of it is given twice; give it once."),
    ],
)
def test_assignments_that_contradict_each_other(assignments: list[str], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_assignments(assignments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-3", 0.001),
        ("-1.5E+2", -150.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("010", 10),  # YAML 1.1: eight
        ("1:30", "1:30"),  # YAML 1.1: ninety
        ("1_000", "1_000"),
        ("no", "no"),  # YAML 1.1: false
        ("on", "on"),
        ("2024-02-30", "2024-02-30"),  # YAML 1.1: a date, and one that is none
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("'true'", "true"),
        ("gauss", "gauss"),
        ("٣", "٣"),  # an Arabic three: float() would take it
        ("nan", "nan"),
        ("[a, {b: no}]", ["a", {"b": "no"}]),
        ("a: 1\nb:\n  - 1e2\n", {"a": 1, "b": [100.0]}),
    ],
)
def test_yaml_is_read_as_a_researcher_means_it(text: str, expected: Any) -> None:
    got = read_yaml(text)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{a: 1, a: 2}", "a key is given twice"),
        ("a: 1\nb: {c: 1, c: 1}", "a key is given twice"),
        ("!!python/object:os.system x", "tags and aliases are not read"),
        ("!!timestamp foo", "tags and aliases are not read"),
        ("!!bool maybe", "tags and aliases are not read"),
        ("&x [1, *x]", "tags and aliases are not read"),
        ("a: b: c", "mapping values are not allowed here"),
        ("\x00", "special characters are not allowed"),
        ("9" * 5000, "it is too large"),
        ("[" * 5000, "it is nested more than 20 levels deep"),
        ("--- 1\n--- 2", "but found another document"),
    ],
)
def test_yaml_that_cannot_be_read(text: str, reason: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_yaml(text, what="the value of 'a'")
    message = str(caught.value)
    assert message.startswith("the value of 'a' must be readable as YAML, got ")
    assert message.endswith(f": {reason}; quote it or simplify it.")
    assert len(message) < 200  # a long text is cut


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5])
def test_in_range_takes_both_ends(value: float) -> None:
    in_range("noise", value, 0, 1)


@pytest.mark.parametrize("value", [-1e-9, 1.0000001, float("nan"), float("inf")])
def test_out_of_range(value: float) -> None:
    with pytest.raises(SettingError, match=r"noise must lie in \[0, 1\], got .*; choose a value between 0 and 1\."):
        in_range("noise", value, 0, 1)


def test_out_of_range_with_a_remedy_of_its_own() -> None:
    with pytest.raises(SettingError, match=r"lr must lie in \[0, inf\], got -1; drop the sign\."):
        in_range("lr", -1, 0, float("inf"), remedy="drop the sign")


@dataclass(frozen=True, kw_only=True)
class _Grown:
    old: int = 1
    new: str | None = optional(None)


def test_a_field_that_was_added_is_written_once_it_is_changed() -> None:
    assert as_mapping(_Grown()) == {"old": 1}
    assert as_mapping(_Grown(new="x")) == {"old": 1, "new": "x"}
    assert build(_Grown, {"old": 1}) == _Grown()
