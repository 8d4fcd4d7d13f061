"""Plugins: Python files and installed packages that register families and studies.

A file is named with ``--plugin FILE``; a package has an entry point in the group ``ladder_search.families`` whose name
is the family's and whose value is a ``models.Family``. Files are offered to a process and imported when a family or a
study is not registered yet, so that Ray's thin processes stay free of PyTorch::

    plugin = read(Path("my_family.py"))  -> its text and sha256; nothing is executed
    offer([plugin])                      -> imported when it is first needed
    load_offered()                       -> imported now

Equal texts are one plugin, whatever their files are called; of two versions, a process can use one.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import linecache
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ladder_search.disk.foreign import read_file
from ladder_search.errors import LadderSearchError, PluginError

GROUP = "ladder_search.families"
"""Group of the entry points of installed packages."""
_LIMIT = 1 << 20  # bytes of a file
_PACKAGE = "ladder_search_plugins"  # of the modules' names


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A file with its text, or an installed package."""

    name: str
    """Name of the file, ``my_family.py``, or of the package."""
    version: str
    """sha256 of the file's text, or the package's version."""
    source: str = field(default="", repr=False)
    """Text of the file; "" for a package, which every node must have installed."""

    @property
    def is_file(self) -> bool:
        return bool(self.source)

    @property
    def title(self) -> str:
        return f"{self.name} ({'sha256' if self.is_file else 'version'} {self.version[:12]})"


@dataclass(slots=True)
class _Import:
    """An import in progress, with what it has registered."""

    plugin: Plugin
    undo: list[Callable[[], object]] = field(default_factory=list)


_offered: dict[str, Plugin] = {}
"""Files by version."""
_loaded: dict[str, Plugin] = {}
"""Files by version, packages by name."""
_running: list[_Import] = []
_lock = threading.RLock()
"""Guards the three above; imports run inside it, because threads of a host may need a family at the same time."""


def read(path: Path) -> Plugin:
    """Return the plugin in a Python file without executing it; raise ``PluginError`` if it is not readable text."""
    if path.suffix != ".py":
        raise PluginError(f"a plugin must be a Python file, NAME.py, got {path}; correct its path.")
    try:
        content = read_file(path, _LIMIT)
        source = content.decode()
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise PluginError(f"a plugin must be a readable file, {path} is not: {reason}; correct its path.") from error
    if not source.strip():
        raise PluginError(f"a plugin must register a family or a study, and {path} is empty; correct its path.")
    return Plugin(name=path.name, version=hashlib.sha256(content).hexdigest(), source=source)


def offer(plugins: Iterable[Plugin]) -> None:
    """Let this process import files of plugins when it needs them."""
    with _lock:
        _offered.update({plugin.version: plugin for plugin in plugins if plugin.version not in _loaded})


def load_offered() -> None:
    """Import the offered files; raise ``PluginError`` if one raises an error or registers nothing."""
    with _lock:
        for plugin in list(_offered.values()):
            if not any(running.plugin == plugin for running in _running):  # a plugin may use its own families
                del _offered[plugin.version]
                _load_file(plugin)


def use(path: Path) -> Plugin:
    """Import the plugin in a file unless it is loaded; return it."""
    plugin = read(path)
    offer([plugin])
    load_offered()
    return _loaded.get(plugin.version, plugin)


def loaded() -> tuple[Plugin, ...]:
    """Return the files and packages that this process has imported."""
    with _lock:
        return tuple(_loaded.values())


def sent() -> tuple[Plugin, ...]:
    """Return the files that this process uses, for the processes of a search on other nodes."""
    with _lock:
        return tuple(plugin for plugin in (*_loaded.values(), *_offered.values()) if plugin.is_file)


def packages() -> dict[str, importlib.metadata.EntryPoint]:
    """Return the entry points of installed packages by family; raise ``PluginError`` if two have the same name."""
    points: dict[str, importlib.metadata.EntryPoint] = {}
    for point in importlib.metadata.entry_points(group=GROUP):
        other = points.setdefault(point.name, point)
        if other.value != point.value:
            raise PluginError(
                f"a family must have one package, and {_distribution(other).name} and {_distribution(point).name} both "
                f"bring {point.name!r}; uninstall one of them."
            )
    return points


def load_package(point: importlib.metadata.EntryPoint, register: Callable[[str, object], None]) -> None:
    """Import the family of an installed package and register it; raise ``PluginError`` if that fails."""
    with _lock:
        plugin = _distribution(point)
        if any(running.plugin == plugin for running in _running):
            return
        _import(plugin, lambda: register(point.name, point.load()))


def importing() -> Plugin | None:
    """Return the plugin that is being imported; None outside of imports."""
    return _running[-1].plugin if _running else None


def registered(undo: Callable[[], object]) -> None:
    """Note a registration by the plugin that is being imported; ``undo`` is called if its import fails."""
    if _running:
        _running[-1].undo.append(undo)


def check_free(kind: str, name: str, owners: Mapping[str, Plugin | None]) -> None:
    """Raise ``PluginError`` if a name is taken; ``owners`` are the plugins of the registered names, None: built in."""
    if name in owners:
        plugin, owner = importing(), owners[name]
        origin = plugin.title if plugin else "this program"
        remedy = "choose another name" + (", or start another process for another version" if owner else "")
        raise PluginError(
            f"a {kind} must have a name of its own, and {origin} registers {name!r}, which "
            f"{owner.title if owner else 'ladder-search'} has registered; {remedy}."
        )


def _load_file(plugin: Plugin) -> None:
    module = types.ModuleType(f"{_PACKAGE}.{plugin.name.removesuffix('.py')}")
    module.__file__ = shown = f"<plugin {plugin.name}>"
    # Tracebacks show lines of the text; without a time, the entry stays.
    linecache.cache[shown] = (len(plugin.source), None, plugin.source.splitlines(keepends=True), shown)
    sys.modules[module.__name__] = module  # dataclasses look up their module
    try:
        _import(plugin, lambda: exec(compile(plugin.source, shown, "exec", dont_inherit=True), module.__dict__))
    except PluginError:
        del sys.modules[module.__name__]
        raise


def _import(plugin: Plugin, run: Callable[[], object]) -> None:
    running = _Import(plugin)
    _running.append(running)
    try:
        run()
        if not running.undo:
            raise PluginError(
                f"a plugin must register a family or a study, and {plugin.name} registers none; call "
                "ladder_search.models.register or ladder_search.studies.register in it."
            )
        _loaded[plugin.version if plugin.is_file else plugin.name] = plugin
    except (Exception, SystemExit) as error:
        for undo in reversed(running.undo):
            undo()
        if isinstance(error, PluginError):
            raise
        raise PluginError(
            f"a plugin must be importable, and {plugin.name} raised {_in_words(error, plugin)}; correct it."
        ) from error
    finally:
        _running.pop()


def _in_words(error: BaseException, plugin: Plugin) -> str:
    shown = f"<plugin {plugin.name}>"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == shown]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    text = " ".join(message.split())[:300].rstrip(".;")
    kind = "" if isinstance(error, LadderSearchError) else type(error).__name__
    what = f"{kind}: {text}" if kind and text else kind or text
    return f"{what} (line {line})" if line else what


def _distribution(point: importlib.metadata.EntryPoint) -> Plugin:
    if point.dist is None:
        return Plugin(name=point.module, version="unknown")
    return Plugin(name=point.dist.name, version=point.dist.version)
