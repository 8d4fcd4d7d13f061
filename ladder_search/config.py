"""Strict, typed settings: a mapping goes in, a frozen dataclass comes out, and every surprise is an error.

Settings are frozen, keyword-only dataclasses that live beside what they configure. This module turns plain mappings
(YAML, JSON, a search space's suggestion) into them and back, without coercion beyond int -> float and list -> tuple.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from ladder_search.errors import SettingError, UnknownNameError

T = TypeVar("T")


def build(cls: type[T], mapping: Mapping[str, Any], *, where: str = "") -> T:
    """Build the dataclass ``cls`` from ``mapping``; nested dataclasses are built from nested mappings.

    Args:
        cls: a dataclass type; its ``__post_init__`` checks ranges and raises ``SettingError``.
        mapping: field name -> value. Fields with a default may be left out.
        where: dotted path of this mapping in the whole, for messages ("model").

    Raises:
        UnknownNameError: a key that is no field, with the nearest field's name.
        SettingError: a missing field, a value of another type, or a value that is not finite.
    """
    if not isinstance(mapping, Mapping):
        raise SettingError(f"{where or cls.__name__} must be a mapping of settings, got {mapping!r}; write key: value lines.")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, cls))}
    values: dict[str, Any] = {}
    for key, value in mapping.items():
        if key not in fields:
            raise UnknownNameError("setting", _join(where, str(key)), [_join(where, name) for name in fields])
        values[key] = _convert(hints[key], value, _join(where, key))
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise SettingError(f"setting {_join(where, name)!r} is required and missing; give it a value.")
    return cls(**values)


def as_mapping(settings: Any) -> dict[str, Any]:
    """Return the plain nested mapping of a settings dataclass (tuples become lists): YAML- and JSON-ready."""
    return {f.name: _plain(getattr(settings, f.name)) for f in dataclasses.fields(settings)}


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the values of ``overlay`` put over it, nested mapping by nested mapping."""
    merged = dict(base)
    for key, value in overlay.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return merged


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Turn ``["model.combinator=gauss", "training.lr=0.002"]`` into a nested mapping; values are read as YAML.

    Raises:
        SettingError: an assignment without ``=``, or a value that YAML cannot read.
    """
    import yaml  # only the command line needs it: the training program runs where PyYAML is absent

    nested: dict[str, Any] = {}
    for text in assignments:
        path, equals, raw = text.partition("=")
        if not equals or not path.strip():
            raise SettingError(f"a setting is given as name=value, got {text!r}; write for example training.lr=0.002.")
        try:
            value = yaml.safe_load(raw)
        except yaml.YAMLError as error:
            raise SettingError(f"the value of {path!r} must be readable as YAML, got {raw!r}; quote it or simplify it.") from error
        if isinstance(value, str):
            value = _number_or_text(value)
        here = nested
        *parents, leaf = path.strip().split(".")
        for parent in parents:
            here = here.setdefault(parent, {})
            if not isinstance(here, dict):
                raise SettingError(f"setting {path!r} goes below {parent!r}, which was already given a value; give one of the two.")
        here[leaf] = value
    return nested


def in_range(name: str, value: float, low: float, high: float, *, remedy: str = "") -> None:
    """Raise ``SettingError`` unless ``low <= value <= high`` (NaN never is)."""
    if not low <= value <= high:
        tail = remedy or f"choose a value between {low:g} and {high:g}"
        raise SettingError(f"{name} must lie in [{low:g}, {high:g}], got {value!r}; {tail}.")


def _number_or_text(text: str) -> Any:
    # YAML 1.1 reads "1e-3" as a string; a researcher means the number. Commas make a list, because brackets may not
    # survive a shell that quotes nothing.
    if "," in text:
        return [_number_or_text(part.strip()) for part in text.split(",")]
    try:
        return float(text)
    except ValueError:
        return text


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return as_mapping(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return value


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        inner = [a for a in args if a is not type(None)]
        return _convert(inner[0] if len(inner) == 1 else _first_fit(inner, value), value, where)
    if origin is typing.Literal:
        if value not in args:
            if isinstance(value, str):
                raise UnknownNameError(where, value, [str(a) for a in args])
            raise SettingError(f"{where} must be one of {', '.join(map(str, args))}, got {value!r}; choose one of them.")
        return value
    if origin is tuple:
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
            raise SettingError(f"{where} must be a list, got {value!r}; write [a, b, ...].")
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
        if len(args) != len(value):
            raise SettingError(f"{where} must have {len(args)} entries, got {len(value)}; give {len(args)}.")
        return tuple(_convert(a, item, f"{where}[{i}]") for i, (a, item) in enumerate(zip(args, value, strict=True)))
    if origin in (dict, Mapping) or hint in (dict, Mapping) or getattr(origin, "__name__", "") == "Mapping":
        if not isinstance(value, Mapping):
            raise SettingError(f"{where} must be a mapping, got {value!r}; write key: value lines.")
        return dict(value)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type, hint)):
            return value
        return build(typing.cast(type, hint), value, where=where)
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise SettingError(f"{where} must be a number, got {value!r}; give a number.")
        if not math.isfinite(value):
            raise SettingError(f"{where} must be a finite number, got {value!r}; give a finite number.")
        return float(value)
    if hint is int:
        whole = isinstance(value, float) and value.is_integer()
        if isinstance(value, bool) or not (isinstance(value, int) or whole):
            raise SettingError(f"{where} must be a whole number, got {value!r}; give a whole number.")
        return int(value)
    if hint in (str, bool) and not isinstance(value, hint):
        kind = "text" if hint is str else "true or false"
        raise SettingError(f"{where} must be {kind}, got {value!r}; give {kind}.")
    return value


def _first_fit(hints: Sequence[Any], value: Any) -> Any:
    for hint in hints:
        try:
            _convert(hint, value, "")
        except (SettingError, UnknownNameError):
            continue
        return hint
    return hints[0]
