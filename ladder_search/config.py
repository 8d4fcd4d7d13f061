"""Conversion between plain mappings (YAML, JSON, suggestions) and strict, frozen dataclasses of settings.

Only lossless coercions are made: int -> float, a whole float -> int (1e4 epochs), list -> tuple, text -> Path.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import reprlib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ladder_search.errors import SettingError, UnknownNameError

T = TypeVar("T")

DEPTH_LIMIT = 20
"""Maximum depth of settings, which need less than 10; deeper ones may exhaust Python's stack."""

_OPTIONAL = "optional"

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 200
_repr.maxlong = 60
_shown = _repr.repr  # limits the length of messages


def build(cls: type[T], mapping: Mapping[str, Any], *, where: str = "") -> T:
    """Build the dataclass ``cls``, including nested dataclasses, from ``mapping``; fields with a default are optional.

    Its ``__post_init__`` checks ranges. ``where`` is the dotted path of the mapping for messages ("model"). Raise
    ``UnknownNameError`` if a key is not a field, with the nearest one, ``SettingError`` if a field is missing, or a
    value has another type or is not finite, and ``TypeError``, a bug, if the type of a field is not supported.
    """
    if not isinstance(mapping, Mapping):
        raise SettingError(
            f"{where or cls.__name__} must be a mapping of settings, got {_shown(mapping)}; write key: value lines."
        )
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, cls)) if f.init}
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
    """Return the JSON-ready nested mapping from which ``build`` makes ``settings``; see also ``optional``."""
    values = [(f, getattr(settings, f.name)) for f in dataclasses.fields(settings) if f.init]
    return {f.name: _plain(value) for f, value in values if _OPTIONAL not in f.metadata or value != f.default}


def optional(default: T) -> T:
    """Declare a field of settings that ``as_mapping`` omits while it has its default.

    A setting that is added to a dataclass this way changes neither the mappings nor the digests of settings that were
    written before.
    """
    field: T = dataclasses.field(default=default, metadata={_OPTIONAL: True})
    return field


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Return a deep copy of ``base``, updated recursively with ``overlay``."""
    merged = {key: merge(value, {}) if isinstance(value, Mapping) else value for key, value in base.items()}
    for key, value in overlay.items():
        below = merged.get(key)
        if isinstance(value, Mapping):
            merged[key] = merge(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str | float | int | bool]:
    """Return nested settings in one level, ``model/lr``; values other than numbers, text and flags become text."""
    found: dict[str, str | float | int | bool] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}/")
        else:
            found[prefix + name] = value if isinstance(value, (str, float, int, bool)) else str(value)
    return found


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Turn ``["model.combinator=gauss", "training.lr=0.002"]`` into a nested mapping; ``read_yaml`` parses the values.

    Raises ``SettingError`` for a missing ``=``, an empty part of a name, invalid YAML or contradicting assignments.
    """
    nested: dict[str, Any] = {}
    for text in assignments:
        path, equals, raw = text.partition("=")
        parts = [part.strip() for part in path.split(".")]
        if not equals or not all(parts):
            raise SettingError(
                f"a setting is given as name=value, got {_shown(text)}; write for example training.lr=0.002."
            )
        if len(parts) > DEPTH_LIMIT:
            raise SettingError(
                f"a setting lies at most {DEPTH_LIMIT} levels deep, got {_shown(text)}; shorten its name."
            )
        name = ".".join(parts)
        # Commas make a list, because a shell without quoting (`ray submit`) may remove brackets.
        listed = f"[{raw}]" if "," in raw and not raw.lstrip().startswith(("[", "{", '"', "'")) else raw
        value = read_yaml(listed, what=f"the value of {name!r}")
        here = nested
        for depth, parent in enumerate(parts[:-1], start=1):
            here = here.setdefault(parent, {})
            if not isinstance(here, dict):
                above = ".".join(parts[:depth])
                raise SettingError(f"{name!r} goes below {above!r}, which has a value already; give one of the two.")
        if parts[-1] in here:
            raise SettingError(f"setting {name!r} or a part of it is given twice; give it once.")
        here[parts[-1]] = value
    return nested


def read_yaml(text: str, *, what: str = "the file") -> Any:
    """Read one YAML document as plain data by the core schema of YAML 1.2; integers are decimal.

    PyYAML's version 1.1 reads ``1e-3`` as text, ``no`` as false, ``010`` as eight and ``1:30`` as ninety. Tags, aliases
    and repeated keys are errors. Args: ``what`` names ``text`` in messages.
    """
    import yaml  # GPU benchmarks import this module on machines without PyYAML

    try:
        check_yaml(text)
        return yaml.load(text, _core_schema())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # A ValueError that PyYAML does not raise is an int of more than 4300 digits.
        reason = getattr(error, "problem", None) or getattr(error, "reason", "it is too large")
        raise SettingError(
            f"{what} must be readable as YAML, got {reprlib.repr(text)}: {reason}; quote it or simplify it."
        ) from error


def write_yaml(mapping: Mapping[str, Any]) -> str:
    """Return plain data as a YAML document from which ``read_yaml`` reads equal data."""
    import yaml

    class CoreDumper(yaml.SafeDumper):
        """Quotes each text that the core schema would read as another type."""

        yaml_implicit_resolvers = _core_schema().yaml_implicit_resolvers

        def ignore_aliases(self, data: Any) -> bool:
            return True

        def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
            return super().represent_sequence(tag, sequence, flow_style=True)

    CoreDumper.add_representer(list, CoreDumper.represent_list)
    text: str = yaml.dump(
        dict(mapping), Dumper=CoreDumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=100
    )
    return text


def check_yaml(text: str) -> None:
    """Raise ``yaml.YAMLError`` if a document has tags, aliases or directives, or is nested deeper than ``DEPTH_LIMIT``.

    A tag names a type, an alias can make a small text a large value, and PyYAML takes minutes for many brackets.
    """
    import yaml

    depth = 0
    for token in yaml.scan(text, yaml.SafeLoader):
        kind = type(token).__name__
        if isinstance(token, (yaml.TagToken, yaml.AnchorToken, yaml.AliasToken, yaml.DirectiveToken)):
            problem = "tags and aliases are not read"
        else:
            depth += kind.endswith(("SequenceStartToken", "MappingStartToken"))
            depth -= kind.endswith(("SequenceEndToken", "MappingEndToken", "BlockEndToken"))
            problem = "" if depth <= DEPTH_LIMIT else f"it is nested more than {DEPTH_LIMIT} levels deep"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=token.start_mark)


def in_range(name: str, value: float, low: float, high: float, *, remedy: str = "") -> None:
    """Raise ``SettingError`` unless ``low <= value <= high``, also for NaN."""
    if not low <= value <= high:
        tail = remedy or f"choose a value between {low:g} and {high:g}"
        raise SettingError(f"{name} must lie in [{low:g}, {high:g}], got {value!r}; {tail}.")


def at_least_one(name: str, value: float) -> None:
    if not value >= 1:
        raise SettingError(f"{name} must be at least 1, got {value}; give a positive number.")


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return as_mapping(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, Path):
        return str(value)
    return value


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(args, value, where)
    if origin is typing.Literal:
        return _convert_literal(args, value, where)
    if origin in (tuple, Sequence):
        return _convert_tuple(args if origin is tuple else (*args, ...), value, where)
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        return _convert_mapping(args or (str, Any), value, where)
    if dataclasses.is_dataclass(hint):
        return (
            value if isinstance(value, typing.cast(type, hint)) else build(typing.cast(type, hint), value, where=where)
        )
    if hint in _SCALARS:
        return _convert_scalar(hint, value, where)
    if typing.Protocol in getattr(hint, "__bases__", ()) and dataclasses.is_dataclass(value):
        return value  # settings of a family, built by its own class
    raise TypeError(
        f"{where} is declared as {hint}, for which there is no conversion; use a type that _convert supports."
    )


_SCALARS: dict[Any, str] = {
    float: "a finite number",
    int: "a whole number",
    str: "text",
    bool: "true or false",
    Path: "a path",
    type(None): "null",
}
"""Scalar types and their names in messages."""


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    # bool is a subclass of int, but true is not meant as the number one.
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is float and number:
        try:
            finite = float(value)
        except OverflowError:  # exceeds the range of floats
            finite = math.inf
        if math.isfinite(finite):
            return finite
    elif hint is int and number:
        if isinstance(value, int) or value.is_integer():
            return int(value)
    elif hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    elif hint in (str, bool, type(None)) and isinstance(value, hint):
        return value
    raise SettingError(f"{where} must be {_SCALARS[hint]}, got {_shown(value)}; give {_SCALARS[hint]}.")


def _convert_union(hints: Sequence[Any], value: Any, where: str) -> Any:
    errors: list[SettingError | UnknownNameError] = []
    # Prefer the type that needs no coercion: 2 stays an int in `float | int`.
    for hint in sorted(hints, key=lambda h: type(value) is not h):
        try:
            return _convert(hint, value, where)
        except (SettingError, UnknownNameError) as error:
            errors.append(error)
    if all(hint in _SCALARS for hint in hints):
        kinds = " or ".join(_SCALARS[hint] for hint in hints)
        raise SettingError(f"{where} must be {kinds}, got {_shown(value)}; give {kinds}.")
    raise errors[0]  # the error of the first alternative


def _convert_literal(choices: Sequence[Any], value: Any, where: str) -> Any:
    for choice in choices:
        if type(choice) is type(value) and choice == value:  # 1 == True == 1.0, but they are different settings
            return choice
    if isinstance(value, str):
        raise UnknownNameError(where, value, [str(choice) for choice in choices])
    names = ", ".join(map(str, choices))
    raise SettingError(f"{where} must be one of {names}, got {_shown(value)}; choose one of them.")


def _convert_tuple(hints: Sequence[Any], value: Any, where: str) -> tuple[Any, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise SettingError(f"{where} must be a list, got {_shown(value)}; write [a, b, ...].")
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = [hints[0]] * len(value)
    if len(hints) != len(value):
        raise SettingError(f"{where} must have {len(hints)} entries, got {len(value)}; give {len(hints)}.")
    return tuple(_convert(h, item, f"{where}[{i}]") for i, (h, item) in enumerate(zip(hints, value, strict=True)))


def _convert_mapping(hints: Sequence[Any], value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise SettingError(f"{where} must be a mapping, got {_shown(value)}; write key: value lines.")
    key_hint, item_hint = hints
    if key_hint is not str:
        raise TypeError(f"{where} is declared with keys of {key_hint}; declare them as str, which JSON can hold.")
    items = {_convert(str, key, f"a name in {where}"): item for key, item in value.items()}
    return {key: _convert(item_hint, item, _join(where, key)) for key, item in items.items()}


@functools.cache
def _core_schema() -> Any:
    import yaml

    class CoreSchema(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            mapping = super().construct_mapping(node, deep=True)
            if len(mapping) != len(node.value):
                raise yaml.constructor.ConstructorError(None, None, "a key is given twice", node.start_mark)
            return mapping

    CoreSchema.yaml_implicit_resolvers = {}  # instead of those of YAML 1.1
    for kind, pattern, first in (
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        ("int", r"[-+]?[0-9]+", list("-+0123456789")),
        ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
        ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
    ):
        CoreSchema.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(rf"^(?:{pattern})$"), first)
    # SafeLoader reads a leading zero as octal.
    CoreSchema.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))
    return CoreSchema
