"""The registry of families: what a family consists of, and the only way to add one."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from ladder_search import plugins
from ladder_search.config import as_mapping
from ladder_search.config import build as built
from ladder_search.errors import PluginError, UnknownNameError
from ladder_search.nn.network import Network
from ladder_search.nn.protocol import ColumnConfig, ModelConfig, Stacking, StagedConfig
from ladder_search.plugins import Plugin

_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
_REQUIRED = ("signature", "hyper", "on_network_of", "flops", "example_shape", "check_fits")
"""Members of ``ModelConfig`` without a default."""

Settings = Mapping[str, Any]


def _no_points(base: Settings, options: Settings) -> list[dict[str, Any]]:
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A search space in the plugin of its family; all three are module-level functions.

    They take the study's own settings, including ``variation`` (see ``nn.protocol.ModelConfig``), and the options of
    the space. Parameters are named ``section/field``.
    """

    suggest: Callable[[Any, Settings, Settings], dict[str, Any]]
    """Takes an ``optuna.trial.BaseTrial`` first; returns nested settings that replace the study's own."""
    published: Callable[[Settings, Settings], dict[str, Any] | None]
    """Returns flat parameters for which ``suggest`` returns the study's own settings; None if there are none."""
    first: Callable[[Settings, Settings], list[dict[str, Any]]] = _no_points
    """Returns flat parameters of points to suggest before those of the sampler."""
    options: type | None = None
    """Dataclass of the options, the section ``space`` of a study file; None: there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A kind of model: its settings, its network, and its properties for searches and packs."""

    config: type[ModelConfig]
    build: Callable[..., Network]
    """Class of the network: (config, *, generator, sources=()) -> network with initial weights from ``generator``;
    ``sources`` are networks of an earlier stage."""
    space: str | Space
    """The search space, or the name of its file in ``spaces/``."""
    stacking: Stacking
    """none: members of a pack take turns and trials share no pack, because stacking is impossible or not worthwhile."""
    compiling: bool = True
    """Whether ``--compile auto`` may compile the steps of long runs."""
    stage: str | None = None
    """Family of the earlier stage's networks; None without such a stage."""
    small: ModelConfig
    """A network for a test data set (``ladder_search.testing``) that trains in about a second."""
    plugin: Plugin | None = dataclasses.field(default=None, init=False)
    """The plugin that brought the family; None: this package, or a call of ``register`` in a running program."""

    @property
    def built_in(self) -> bool:
        return self.config.__module__.startswith("ladder_search.models.")


FAMILIES: dict[str, Family] = {}
"""The registered families by name."""


def register(name: str, family: Family) -> None:
    """Add a family; raise ``PluginError`` if the name is taken or the family breaks the contract of its types.

    ``ladder_search.testing.check_family`` also trains the family's small network.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PluginError(
            f"a family's name must consist of lower-case letters, digits and hyphens, got {name!r:.80}; rename it."
        )
    plugins.check_free("family", name, {known: row.plugin for known, row in FAMILIES.items()})
    _check(name, family)
    family = dataclasses.replace(family)
    object.__setattr__(family, "plugin", plugins.importing())  # set by the registry alone
    FAMILIES[name] = family
    plugins.registered(lambda: FAMILIES.pop(name))


def find_family(name: str) -> Family:
    """Return the family ``name``, and import the plugins that this process may use if it is not registered.

    Raises ``UnknownNameError``, or ``PluginError`` if a plugin cannot be imported.
    """
    if name not in FAMILIES:
        plugins.load_offered()
    if name not in FAMILIES:
        installed = plugins.packages()
        if name not in installed:
            raise UnknownNameError("family", name, {*FAMILIES, *installed})
        plugins.load_package(installed[name], _register_entry)
    return FAMILIES[name]


def check_packages() -> None:
    """Raise ``PluginError`` if an installed package brings a family whose name is taken; nothing is imported."""
    for name, point in plugins.packages().items():
        owner = FAMILIES.get(name)
        if owner is not None and (owner.plugin is None or owner.plugin.is_file):
            package = point.dist.name if point.dist else point.module
            raise PluginError(
                f"a family must have a name of its own, and the installed package {package} brings {name!r} again; "
                "rename its entry point or uninstall it."
            )


def _register_entry(name: str, family: object) -> None:
    if name in FAMILIES:  # the package registers its family when it is imported
        return
    register(name, family)  # type: ignore[arg-type]  # refused by the check below if it is none


def _check(name: str, family: Family) -> None:
    """Raise ``PluginError`` unless the family's parts have the types of the contract and its settings are plain."""

    def must(holds: bool, rule: str, remedy: str) -> None:
        if not holds:
            plugin = plugins.importing()
            origin = f" of {plugin.name}" if plugin else ""
            raise PluginError(f"the family {name!r}{origin} breaks the contract: {rule}; {remedy}.")

    must(isinstance(family, Family), f"it must be a Family, got {type(family).__name__}", "give a models.Family")
    config, network = family.config, family.build
    is_config = isinstance(config, type) and ModelConfig in config.__mro__
    must(is_config, f"config must be a class derived from ModelConfig, got {config!r:.80}", "derive it")
    frozen = dataclasses.is_dataclass(config) and config.__dataclass_params__.frozen
    must(frozen, f"{config.__name__} must be a frozen dataclass", "decorate it with dataclass(frozen=True)")
    members = vars(ModelConfig)
    lacking = [member for member in _REQUIRED if inspect.getattr_static(config, member) is members[member]]
    must(not lacking, f"{config.__name__} must define {', '.join(lacking)}", "define them as in nn/protocol.py")
    is_network = isinstance(network, type) and issubclass(network, Network)
    must(is_network, f"build must be a class derived from Network, got {network!r:.80}", "derive it")
    missing = sorted(getattr(network, "__abstractmethods__", ()))
    must(not missing, f"its network must define {', '.join(missing)}", "define them as in nn/network.py")
    must(isinstance(family.space, (str, Space)), f"space must be a Space, got {family.space!r:.80}", "give a Space")
    kinds = get_args(Stacking)
    must(family.stacking in kinds, f"stacking must be {' or '.join(kinds)}, got {family.stacking!r:.80}", "choose one")
    staged = issubclass(config, StagedConfig)
    must(staged == (family.stage is not None), "a StagedConfig and a stage belong together", "give both or neither")
    stage = FAMILIES.get(family.stage or "")
    fits = family.stage is None or (stage is not None and issubclass(stage.config, ColumnConfig))
    must(fits, f"stage must be a registered family of columns, got {family.stage!r:.80}", "name one")
    small = family.small
    must(isinstance(small, config), f"small must be a {config.__name__}, got {type(small).__name__}", "give one")
    for settings, what in ((small, "small"), (config, "the defaults")):
        try:
            model = settings() if isinstance(settings, type) else settings
            same = built(config, as_mapping(model)) == model
        except Exception as error:
            text = " ".join(str(error).split())[:200].rstrip(".;")
            must(False, f"{what} must be plain settings: {type(error).__name__}: {text}", "correct the fields")
        must(same, f"{what} must be equal after a round trip through plain settings", "compare fields by value")
