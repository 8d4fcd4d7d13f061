"""A bundle: one exported configuration in one folder, readable without pickle and without this package.

Files::

    settings.yaml        study name and whole trial, as accepted by ``TrialSpec.from_mapping``
    weights.safetensors  the network's ``state_dict``: parameters and test-time statistics
    metrics.json         trial key, state, errors, the epochs' history
    provenance.json      code, versions, machine and data; see ``provenance``
    plugin.py            only with a family of a plugin: a copy of its file, which reading does not execute
    schema.json          only with data from files: the columns of raw rows, see ``data.files.RowSchema``
    MANIFEST.json        format, sha256 of each file above, and the bundle's digest

The digest is the sha256 of the output of ``sha256sum`` for these files, sorted by name.
Reading executes nothing and verifies every file before use.
"""

from __future__ import annotations

import hashlib
import json
import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from ladder_search.config import as_mapping, build, check_yaml
from ladder_search.disk.folders import write_folder
from ladder_search.disk.foreign import parse_json, read_file
from ladder_search.errors import CheckpointError, LadderSearchError, UnknownNameError
from ladder_search.models import find_family
from ladder_search.trial import TrialSpec

if TYPE_CHECKING:  # it imports PyArrow, and bundles of the table need none
    from ladder_search.data.files import RowSchema

FORMAT = "ladder-search bundle 1"

SETTINGS, WEIGHTS, METRICS, PROVENANCE = "settings.yaml", "weights.safetensors", "metrics.json", "provenance.json"
PLUGIN, SCHEMA = "plugin.py", "schema.json"
"""Copy of the plugin that brings the bundle's family, and the schema of raw rows; both are optional."""
MANIFEST = "MANIFEST.json"

# Far above the size of a bundle, but harmless: 8 GiB are two thousand million parameters in float32.
_LIMITS = {
    SETTINGS: 1 << 16,
    METRICS: 1 << 26,
    PROVENANCE: 1 << 22,
    SCHEMA: 1 << 26,
    MANIFEST: 1 << 16,
    WEIGHTS: 1 << 33,
}
_HEADER_LIMIT = 1 << 20  # of the weights file: names and shapes

_COMMENT = """\
# One configuration of ladder-search. The network, ready for inference:
#     from ladder_search.bundles import load
#     probabilities = load("FOLDER OF THIS FILE")(x)  # x: (n, pixels), pixels in 0..1
# The file is covered by MANIFEST.json: to train a variation, copy it elsewhere first.
"""

# Errors of damaged or hostile settings while a network is created, in addition to our own.
_SURPRISES = (LadderSearchError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, AttributeError)


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleMetrics:
    """Scores of the configuration; errors are fractions."""

    trial: str
    """Key of the trial in its search, ``t0007``; for a final training ``seed-1001``."""
    state: str
    """Final state of the training, such as ``COMPLETE``."""
    validation_error: float | None = None
    """Validation error in the search's ranking: the mean over label draws at the last report."""
    weights_validation_error: float | None = None
    """Error of the bundle's own weights (those of the first label draw) on the validation rows of their split."""
    test_error: float | None = None
    """Test error, for final trainings only; a search never reads the test set."""
    step: int | None = None
    """Number of updates of the weights."""
    epochs: tuple[dict[str, Any], ...] = ()
    """Metrics of every epoch (names of ``metrics``), oldest first."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Bundle:
    """A verified bundle."""

    folder: Path
    study: str
    spec: TrialSpec
    metrics: BundleMetrics
    provenance: dict[str, Any]
    digest: str
    """Digest of the whole content; equal digests mean equal bundles."""
    tensors: Mapping[str, Tensor]
    schema: RowSchema | None = None
    """Encodes raw rows as input of the network, and names the classes; None for data sets of the table."""

    def module(self) -> nn.Module:
        """Return a new network with the bundle's values, in eval mode and without gradients; it maps pixels in 0..1,
        (n, d), to class probabilities, (n, classes)."""
        module = self.spec.empty_module().to(_dtype(self.spec))
        module.load_state_dict(dict(self.tensors))
        return module.eval().requires_grad_(False)


def write_bundle(
    folder: Path,
    *,
    study: str,
    spec: TrialSpec,
    module: nn.Module,
    metrics: BundleMetrics,
    provenance: Mapping[str, Any],
    schema: RowSchema | None = None,
    force: bool = False,
) -> str:
    """Write a bundle atomically and return its digest.

    Args:
        study: name of the study, or "".
        spec: the configuration as it was trained.
        module: a plain network with its test-time statistics, as returned by ``Pack.module``.
        provenance: see ``provenance.collect``.
        schema: of the raw rows, for data from files.
        force: replace a bundle at ``folder``; other content is never replaced, and raises ``StudyFolderError``.
    """
    plugin = find_family(spec.family).plugin
    facts = {} if plugin is None else {"plugin_name": plugin.name, "plugin_version": plugin.version}
    files = {
        METRICS: _to_json(as_mapping(metrics)),
        PROVENANCE: _to_json({**provenance, **facts}),
        SETTINGS: _to_yaml({"study": study, "trial": spec.as_mapping()}),
        WEIGHTS: save_tensors({name: _plain(value) for name, value in module.state_dict().items()}, {"format": "pt"}),
    }
    if plugin is not None and plugin.is_file:
        files[PLUGIN] = plugin.source.encode()
    if schema is not None:
        files[SCHEMA] = _to_json(schema.as_json())
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    digest = bundle_digest(sums)
    files[MANIFEST] = _to_json({"format": FORMAT, "files": sums, "digest": digest})
    write_folder(folder, files, replace=force)
    return digest


def read_bundle(folder: Path) -> Bundle:
    """Return the bundle in ``folder`` after checking its format, every digest, every setting and every tensor's shape;
    raise ``CheckpointError`` if the bundle is missing, damaged or altered."""
    sums, digest = _read_manifest(folder)
    contents = {name: _read(folder, name, sums) for name in (SETTINGS, METRICS, PROVENANCE)}
    try:
        provenance = _from_json(contents[PROVENANCE])
    except _SURPRISES as error:
        raise _damaged(folder, f"{PROVENANCE} must be a bundle's", error) from error
    study, spec = _read_settings(folder, contents[SETTINGS], provenance)
    try:
        raw = _from_json(contents[METRICS])
        metrics = build(BundleMetrics, {**raw, "epochs": tuple(raw.get("epochs", ()))})
    except _SURPRISES as error:
        raise _damaged(folder, f"{METRICS} must be a bundle's", error) from error
    return Bundle(
        folder=folder,
        study=study,
        spec=spec,
        metrics=metrics,
        provenance=provenance,
        digest=digest,
        tensors=_read_weights(folder, spec, sums),
        schema=_read_schema(folder, sums) if SCHEMA in sums else None,
    )


def digest_of(folder: Path) -> str:
    """Return the digest of the bundle in ``folder``, as recorded in the manifest; raise ``CheckpointError`` if the
    bundle is missing, or its manifest is damaged."""
    return _read_manifest(folder)[1]


def bundle_digest(sums: Mapping[str, str]) -> str:
    """Return the sha256 over the files' sha256 (name -> hexadecimal digest), sorted by name."""
    lines = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))
    return hashlib.sha256(lines.encode()).hexdigest()


def _read_manifest(folder: Path) -> tuple[dict[str, str], str]:
    try:
        is_folder, exists = folder.is_dir(), folder.exists()
    except OSError as error:
        raise _damaged(folder, "every file must be readable", error.strerror) from error
    if not is_folder:
        actual = "is no folder" if exists else "does not exist"
        raise CheckpointError(
            f"a bundle is a folder with a {MANIFEST} and {folder} {actual}; correct the path, or export "
            "a search's best trials."
        )
    try:
        manifest = _from_json(read_file(folder / MANIFEST, _LIMITS[MANIFEST]))
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"{MANIFEST} must be readable JSON", error) from error
    if manifest.get("format") != FORMAT:
        actual = _short(repr(manifest.get("format")))
        raise CheckpointError(f"bundles have format {FORMAT!r}, {folder} has {actual}; use the version that wrote it.")
    sums, expected = manifest.get("files"), {SETTINGS, WEIGHTS, METRICS, PROVENANCE}
    complete = set(manifest) == {"format", "files", "digest"}
    if not complete or not isinstance(sums, dict) or set(sums) - {PLUGIN, SCHEMA} != expected:
        raise _damaged(folder, f"{MANIFEST} must list {', '.join(sorted(expected))}", _short(repr(manifest)))
    if not all(isinstance(value, str) for value in sums.values()) or manifest["digest"] != bundle_digest(sums):
        raise _damaged(folder, "the bundle's digest must be that of its files", _short(repr(manifest["digest"])))
    return sums, manifest["digest"]


def _read(folder: Path, name: str, sums: Mapping[str, str], limit: int | None = None) -> bytes:
    try:
        content = read_file(folder / name, _LIMITS[name] if limit is None else limit)
    except OSError as error:
        raise _damaged(folder, f"{name} must be a readable file", error) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != sums[name]:
        raise _damaged(folder, f"{name} must have sha256 {sums[name]}", digest)
    return content


def _check_plugin(folder: Path, trial: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    """Raise ``CheckpointError`` if the bundle's family comes from a plugin that this process does not use."""
    name, version, family = provenance.get("plugin_name"), provenance.get("plugin_version"), trial.get("family")
    if name is None:
        return
    copy = folder / PLUGIN
    what = f"the bundle {folder} has a network of the family {family!r:.80} from the plugin {name!r:.80}"
    remedy = (
        f"read {copy} and give it with --plugin, or call ladder_search.plugins.use on it"
        if copy.exists()
        else f"install this package in version {version!r:.80}"
    )
    try:
        plugin = find_family(str(family)).plugin
    except UnknownNameError as error:
        raise CheckpointError(f"{what}, which is not loaded; {remedy}.") from error
    if plugin is None or plugin.version != version:  # a copy of a file has another name
        here = "another family has this name here" if plugin is None else f"{plugin.title} is loaded here"
        raise CheckpointError(f"{what} of version {str(version)[:12]!r}, and {here}; {remedy} in a new process.")


def _read_settings(folder: Path, content: bytes, provenance: Mapping[str, Any]) -> tuple[str, TrialSpec]:
    try:
        # Not config.read_yaml, which follows YAML 1.2: PyYAML writes texts such as 1e-3 without quotes.
        check_yaml(content.decode())
        raw = yaml.safe_load(content.decode())
        if not isinstance(raw, dict) or set(raw) != {"study", "trial"} or not isinstance(raw["study"], str):
            raise ValueError(f"it needs the keys study and trial, found {raw!r}")
        if not isinstance(raw["trial"], dict):
            raise ValueError(f"trial must be a mapping of settings, found {raw['trial']!r}")
        _check_plugin(folder, raw["trial"], provenance)
        return raw["study"], TrialSpec.from_mapping(raw["trial"])
    except CheckpointError:
        raise
    except (*_SURPRISES, yaml.YAMLError, RecursionError) as error:
        raise _damaged(folder, f"{SETTINGS} must hold the settings of one trial", error) from error


def _read_schema(folder: Path, sums: Mapping[str, str]) -> RowSchema:
    from ladder_search.data.files import RowSchema  # it imports PyArrow, which other bundles do not need

    try:
        return RowSchema.from_json(_from_json(_read(folder, SCHEMA, sums)))
    except CheckpointError:
        raise
    except _SURPRISES as error:
        raise _damaged(folder, f"{SCHEMA} must be the schema of rows", error) from error


def _read_weights(folder: Path, spec: TrialSpec, sums: Mapping[str, str]) -> dict[str, Tensor]:
    try:
        # Networks on the meta device have shapes but no values, so that settings cannot allocate memory.
        with torch.device("meta"):
            state = spec.empty_module().to(_dtype(spec)).state_dict()
        needed = {name: (tuple(value.shape), value.dtype) for name, value in state.items()}
        size = sum(math.prod(shape) * dtype.itemsize for shape, dtype in needed.values())
    except _SURPRISES as error:
        raise _damaged(folder, f"{SETTINGS} must describe a network that can be built", error) from error
    content = _read(folder, WEIGHTS, sums, min(size + _HEADER_LIMIT, _LIMITS[WEIGHTS]))
    try:
        tensors = load_tensors(content)
    except (SafetensorError, *_SURPRISES) as error:
        raise _damaged(folder, f"{WEIGHTS} must be readable safetensors", error) from error
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in tensors.items()}
    for name in sorted(needed.keys() | shapes.keys()):
        if needed.get(name) != shapes.get(name):
            rule = f"{WEIGHTS} must fit its settings, where {name} is {needed.get(name, 'unknown')}"
            raise _damaged(folder, rule, shapes.get(name, "no such tensor"))
    return tensors


def _damaged(folder: Path, rule: str, found: object) -> CheckpointError:
    return CheckpointError(f"in the bundle {folder} {rule}, found: {_short(str(found))}; copy or export it again.")


def _short(text: str) -> str:
    return textwrap.shorten(text[:2000], 300, placeholder=" …").rstrip(".")


def _dtype(spec: TrialSpec) -> torch.dtype:
    return torch.float32 if spec.training.dtype == "float32" else torch.float64


def _plain(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous().clone()  # cloned, because safetensors refuses tensors that share memory


def _to_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(_finite(content), indent=1, allow_nan=False) + "\n").encode()


def _finite(value: Any) -> Any:
    """Return ``value`` with null for non-finite numbers, which JSON cannot represent."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def _from_json(content: bytes) -> dict[str, Any]:
    mapping = parse_json(content)
    if not isinstance(mapping, dict):
        raise ValueError(f"it must be an object, found {type(mapping).__name__}")
    return mapping


def _to_yaml(content: Mapping[str, Any]) -> bytes:
    text = yaml.safe_dump(dict(content), sort_keys=False, default_flow_style=None, allow_unicode=True, width=100)
    return (_COMMENT + text).encode()
