"""Reading of JSON files with a format field."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ladder_search.disk.foreign import read_json
from ladder_search.errors import CheckpointError, LadderSearchError

LIMIT = 1 << 28
"""Maximum file size in bytes; the record of 100,000 epochs has about 30 MB."""


def read_document(path: Path, *formats: str, limit: int = LIMIT) -> dict[str, Any]:
    """Return the JSON object in ``path``, whose ``format`` is one of ``formats``; call it inside ``refused``. Raise
    ``OSError`` or ``ValueError`` if the file is missing or has another format."""
    document = read_json(path, limit)
    if not isinstance(document, dict) or document.get("format") not in formats:
        raise ValueError(f"its format must be {' or '.join(map(repr, formats))}")
    return document


@contextmanager
def refused(path: object, rule: str, remedy: str, kind: type[LadderSearchError] = CheckpointError) -> Iterator[None]:
    """Convert every error caused by damaged content into an error of this kind: ``path`` must ``rule``."""
    try:
        yield
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, LadderSearchError) as error:
        raise kind(f"{path} must {rule}, found: {str(error)[:300].rstrip('.')}; {remedy}.") from error
