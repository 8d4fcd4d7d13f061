"""The plugin of docs/families.md, and variants of it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ladder_search import plugins, studies
from ladder_search.models import FAMILIES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "families.md"


def example() -> str:
    """The text of the page's Python blocks, in order."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return "\n\n".join(blocks)


def write_plugin(folder: Path, *changes: tuple[str, str], name: str = "my_family.py") -> Path:
    """The page's file, with texts replaced by others."""
    text = example()
    for before, after in changes:
        assert before in text, before
        text = text.replace(before, after)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@contextmanager
def forgotten() -> Iterator[None]:
    """Families, studies and plugins of this process are afterwards as they were."""
    tables: tuple[dict, ...] = (FAMILIES, studies.STUDIES, studies._owners, plugins._offered, plugins._loaded)
    before = [dict(table) for table in tables]
    try:
        yield
    finally:
        for table, content in zip(tables, before, strict=True):
            table.clear()
            table.update(content)
        for name in [name for name in sys.modules if name.startswith("ladder_search_plugins.")]:
            del sys.modules[name]
