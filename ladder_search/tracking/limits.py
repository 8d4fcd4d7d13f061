"""MLflow's limits on names and values, applied by rewriting instead of raising (measured with MLflow 3.17).

A name has at most 250 letters, digits, ``_ - . : /`` and blanks, and is a normal relative path (no ``//``, no ``..``).
A parameter has at most 6000 characters, a tag 8000. A rewritten name ends in eight hexadecimal digits of its sha256, so
that names stay unique.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Mapping

MAX_NAME = 250
MAX_PARAM = 6000
MAX_TAG = 8000
MAX_STEP = 2**63 - 1

_FORBIDDEN = re.compile(r"[^A-Za-z0-9_\-. :/]")
_CUT = " [cut]"


def safe_name(name: object) -> str:
    """Return ``name`` if MLflow accepts it, otherwise a similar name with a digest of the original."""
    raw = str(name)
    cleaned = _FORBIDDEN.sub("_", raw)
    if cleaned:
        cleaned = posixpath.normpath(cleaned).lstrip("/")
    if cleaned.startswith("..") or cleaned in ("", "."):
        cleaned = cleaned.replace(".", "_") or "_"
    if cleaned == raw and len(cleaned) <= MAX_NAME:
        return cleaned
    digest = hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{cleaned[: MAX_NAME - 9].rstrip('/ ')}_{digest}"


def safe_prefix(prefix: str) -> str:
    return _FORBIDDEN.sub("_", prefix)


def safe_value(value: object, limit: int) -> str:
    """Return ``value`` as text without NUL and lone surrogates, at most ``limit`` characters."""
    text = str(value).replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT


def safe_params(params: Mapping[str, object]) -> dict[str, str]:
    return {safe_name(name): safe_value(value, MAX_PARAM) for name, value in params.items()}


def safe_tags(tags: Mapping[str, object]) -> dict[str, str]:
    return {safe_name(name): safe_value(value, MAX_TAG) for name, value in tags.items()}


def safe_folder(folder: str) -> str:
    return safe_name(folder) if folder else ""
