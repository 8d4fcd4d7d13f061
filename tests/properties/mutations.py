"""Damage and malice for files: every mutation takes a random source and gives other bytes, or another kind of file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

Mutation = Callable[[Random, bytes], bytes]

_ODD_JSON = [
    *("null", "true", "0", "-1", "0.5", "1e999", "1e-400", "NaN", "-Infinity", "18446744073709551616", "[]", "{}"),
    *('"x"', '""', '"\\ud800"', '"\\u0000"', '"../../etc/passwd"', '"\\u001b[2J"', '{"__class__": "os.system"}'),
    *("9" * 400, "9" * 5000, '"' + "x" * 100_000 + '"'),
    *("[" * 60 + "]" * 60, "[" * 900 + "]" * 900, "[" * 100_000, '{"a":' * 3000),
]  # fmt: skip

_ODD_YAML = [
    *("null", "~", "true", "yes", "-1", "0.5", ".nan", "-.inf", "1e999", "0x" + "f" * 5000, "9" * 5000, "010", "1:30"),
    *("[]", "{}", "[1, 2", "{a: b: c}", "'", '"\\x00"', '"\\uD800"', "2001-01-01", "|\n   text", "x" * 70_000),
    *("[" * 60_000, "{a: " * 3000, "- " * 3000, "[" * 30 + "]" * 30, "[" * 400 + "]" * 400),
    *('!!python/object/apply:os.abort []', "!!python/name:os.abort", "!!set {a}", "!!binary eHg=", "!<tag:x> 1"),
    *("&a [*a]", "*a", "&x [1]", "{<<: {epochs: 1}}", "{epochs: 1, epochs: 2}", "? [a, b]\n: c", "%YAML 1.1"),
]  # fmt: skip

_ODD_TENSORS: list[dict[str, Any]] = [
    {"dtype": "F64"}, {"dtype": "F16"}, {"dtype": "F4"}, {"dtype": "F8_E8M0"}, {"dtype": "I64"}, {"dtype": "os"},
    {"shape": [2**62, 4]}, {"shape": [-1]}, {"shape": []}, {"shape": [0]}, {"shape": "x"}, {"shape": [1.5]},
    {"data_offsets": [0, 2**63]}, {"data_offsets": [2**64, 2**65]}, {"data_offsets": [8, 0]}, {"data_offsets": [0]},
    {"data_offsets": [-8, 8]}, {"data_offsets": [0, 4]}, {"extra": 1},
]  # fmt: skip


def bits(random: Random, content: bytes) -> bytes:
    """Flip some bits."""
    changed = bytearray(content or b"\0")
    for _ in range(random.choice((1, 1, 2, 20))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def cut(random: Random, content: bytes) -> bytes:
    """Truncate, at the end or at the start, or take a part out."""
    start, end = sorted(random.choices(range(len(content) + 1), k=2))
    return random.choice((content[:start], content[end:], content[:start] + content[end:]))


def stuff(random: Random, content: bytes) -> bytes:
    """Put something in, or something before or behind."""
    at = random.choice((0, len(content), random.randrange(len(content) + 1)))
    what = (
        b"\0",
        b"\0" * 5000,
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\x1b[2J",
        b"\n",
        b"{",
        b'"',
        b"]",
        content,
        b"x" * 200_000,
    )
    return content[:at] + random.choice(what) + content[at:]


def encode(random: Random, content: bytes) -> bytes:
    """Write the text in another encoding, or something else altogether."""
    text = content.decode(errors="replace")
    whole = (text.encode("utf-16"), text.encode("utf-32"), b"", b"null", b"[]", b"5", b"\x80\x04\x95", b"PK\x03\x04")
    return random.choice(whole)


def structure(random: Random, content: bytes) -> bytes:
    """Remove, double, rename or replace something in JSON."""
    raw, key = "\0raw", "\0key"
    found = json.loads(content)
    here, name = random.choice(_places(found))
    other = name
    match random.randrange(5):
        case 0:
            del here[name]
        case 1 if isinstance(here, dict):  # given twice
            here[key] = raw
        case 2 if isinstance(here, dict):
            here[key], other = here.pop(name), random.choice(("x", str(name) + "s", "", "__init__", "\ud800"))
        case _:
            here[name] = raw
    text = json.dumps(found, indent=1).replace(json.dumps(raw), random.choice(_ODD_JSON))
    return text.replace(json.dumps(key), json.dumps(str(other))).encode()


def yaml_lines(random: Random, content: bytes) -> bytes:
    """Remove, double, indent or replace something in YAML."""
    lines = content.decode().splitlines()
    at = random.randrange(len(lines))
    name, colon, value = lines[at].partition(": ")
    match random.randrange(6):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[at])
        case 2:
            lines[at] = random.choice(("  ", "\t", "- ", "? ")) + lines[at]
        case 3 if colon:
            lines[at] = f"{name}s: {value}"
        case _:
            lines[at] = f"{name}: {random.choice(_ODD_YAML)}"
    return "\n".join(lines).encode()


def tensors(random: Random, content: bytes) -> bytes:
    """Give a safetensors file another header: offsets, shapes and types of tensors that are not there."""
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    if random.random() < 0.5:
        header = structure(random, header)
    else:
        found = json.loads(header)
        name = random.choice([name for name in found if name != "__metadata__"])
        found[name] |= random.choice(_ODD_TENSORS)
        header = json.dumps(found).encode()
    told = random.choice((*[len(header)] * 6, 0, len(header) - 1, len(content), 2**40, 2**63, 2**64 - 1))
    return told.to_bytes(8, "little") + header + data


def kind_of_file(random: Random, path: Path) -> None:
    """Put something else in the place of a file: nothing, a folder, a link, a pipe, a device."""
    path.unlink()
    match random.randrange(6):
        case 0:
            path.mkdir()
        case 1:
            os.mkfifo(path)  # an ordinary open would wait for ever
        case 2:
            path.symlink_to(path)
        case 3:
            path.symlink_to(random.choice(("/dev/zero", "/dev/full", "/proc/self/mem", "/nowhere", "..")))
        case 4:
            path.symlink_to(shutil.copy(__file__, path.with_name("other")))
        case _:
            pass


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in nested lists and mappings that something can be put into."""
    found: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        found += [(value, name), *_places(item)]
    return found


ANY: tuple[Mutation, ...] = (bits, cut, stuff, encode)
