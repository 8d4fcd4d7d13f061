"""Bundles: exact round trips, and a sentence for every kind of damage and malice."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import ladder_search.bundles
from ladder_search.bundles.bundle import BundleMetrics, read_bundle, write_bundle
from ladder_search.data.dataset import Dataset
from ladder_search.errors import CheckpointError, StudyFolderError
from ladder_search.trial import TrialSpec

FILES = ("metrics.json", "provenance.json", "settings.yaml", "weights.safetensors")
METRICS = BundleMetrics(
    trial="t0007",
    state="COMPLETE",
    validation_error=0.125,
    epochs=({"epoch": 1, "cost": 3.5}, {"epoch": 2, "cost": 2.5}),
)


@pytest.fixture(scope="module")
def trained(dataset: Dataset, spec: TrialSpec) -> tuple[nn.Module, Tensor, Tensor]:
    """A trained member as a module, pixels, and the pack's own predictions for them."""
    pack = spec.pack(dataset, slots=2, compiled=False, device=torch.device("cpu"))
    pack.join(spec.member(dataset, 1))
    slot = pack.join(spec.member(dataset, 0))
    pack.run(20)
    module = pack.module(slot)
    x = torch.from_numpy(dataset.test_x.copy()).float() / dataset.full_scale
    return module, x, module(x).detach()


Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, spec: TrialSpec, trained: tuple[nn.Module, Tensor, Tensor]) -> Write:
    def call(folder: Path = tmp_path / "bundle", **others: Any) -> str:
        values: dict[str, Any] = {"study": "digits-50", "spec": spec, "module": trained[0], "metrics": METRICS}
        return write_bundle(folder, **{**values, "provenance": {"git_sha": "abc", "host_cores": 2}, **others})

    return call


@pytest.fixture
def bundle(tmp_path: Path, write: Write) -> Path:
    write()
    return tmp_path / "bundle"


def sign(folder: Path) -> None:
    """Make a manifest for whatever is in the folder, as an attacker would; written from the format's description."""
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}
    digest = hashlib.sha256("".join(f"{sums[n]}  {n}\n" for n in sorted(FILES)).encode()).hexdigest()
    content = {"format": "ladder-search bundle 1", "files": sums, "digest": digest}
    (folder / "MANIFEST.json").write_text(json.dumps(content))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_network_of_a_bundle_predicts_what_the_pack_predicted(
    bundle: Path, trained: tuple[nn.Module, Tensor, Tensor]
) -> None:
    _, x, expected = trained
    module = read_bundle(bundle).module()
    assert torch.equal(module(x), expected)
    assert torch.equal(ladder_search.bundles.load(str(bundle))(x), expected)
    assert not module.training and not module(x).requires_grad


def test_everything_comes_back(bundle: Path, spec: TrialSpec, write: Write) -> None:
    found = read_bundle(bundle)
    assert (found.study, found.spec, found.metrics) == ("digits-50", spec, METRICS)
    assert found.provenance == {"git_sha": "abc", "host_cores": 2}
    before = contents(bundle)
    sign(bundle)  # the manifest is what its description says
    assert json.loads(before["MANIFEST.json"]) == json.loads((bundle / "MANIFEST.json").read_text())
    assert write(bundle.with_name("again")) == found.digest, "equal bundles have equal digests"
    assert sorted(before) == sorted([*FILES, "MANIFEST.json"])


def test_a_network_in_float64_and_numbers_that_json_lacks(tmp_path: Path, spec: TrialSpec, write: Write) -> None:
    double = replace(spec, training=replace(spec.training, dtype="float64"))
    metrics = replace(METRICS, epochs=({"cost": float("nan"), "error": float("inf")},))
    write(spec=double, module=double.empty_module().double(), metrics=metrics)
    found = read_bundle(tmp_path / "bundle")
    assert found.module()(torch.rand(3, 64, dtype=torch.float64)).dtype == torch.float64
    assert found.metrics.epochs == ({"cost": None, "error": None},)


@pytest.mark.parametrize("name", [*FILES, "MANIFEST.json"])
def test_a_file_that_is_changed_cut_or_missing_is_found(bundle: Path, name: str) -> None:
    whole = (bundle / name).read_bytes()
    for damaged in (whole[:-2], b"", whole[: len(whole) // 2] + b"\x00" + whole[len(whole) // 2 + 1 :], whole + b"x"):
        (bundle / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            read_bundle(bundle)
    (bundle / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        read_bundle(bundle)
    os.mkfifo(bundle / name)  # an ordinary open would wait for ever
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_bundle(bundle)
    (bundle / name).unlink()
    (bundle / name).symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_bundle(bundle)


def test_no_bundle_at_all(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a folder with a MANIFEST\.json and .*absent does not exist; correct"):
        read_bundle(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"file is no folder; correct"):
        read_bundle(tmp_path / "file")
    with pytest.raises(CheckpointError, match=r"MANIFEST\.json"):
        read_bundle(tmp_path)


BOMB = "a: &a [1, 2]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefghij", "bcdefghijk", strict=True)
)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ('study: !!python/object/apply:os.system ["touch HERE"]\ntrial: {}\n', "tags and aliases are not read"),
        ("study: !!str x\ntrial: {}\n", "tags and aliases are not read"),
        (BOMB, "tags and aliases are not read"),
        ("%YAML 1.1\n---\nstudy: x\ntrial: {}\n", "tags and aliases are not read"),
        ("study: x\ntrial: " + "[" * 60_000 + "\n", "20 levels"),
        ("study: x\n", "keys study and trial"),
        ("study: x\ntrial: {}\nextra: 1\n", "keys study and trial"),
        ("study: x\ntrial: 5\n", "mapping of settings"),
        ("just text", "keys study and trial"),
        ("study: x\ntrial: {family: ladder}\n", "required and missing"),
        ("study: x\ntrial: {family: lader}\n", "did you mean 'ladder'"),
        (b"\xff\xfe\x00", "settings.yaml must hold"),
        ("study: x\ntrial: {}\n#" + "x" * (1 << 16), "more than the 65536"),
    ],
)
def test_hostile_settings_end_in_a_sentence(bundle: Path, settings: str | bytes, told: str) -> None:
    here = bundle.parent / "touched"
    content = settings if isinstance(settings, bytes) else settings.replace("HERE", str(here)).encode()
    (bundle / "settings.yaml").write_bytes(content)
    sign(bundle)
    with pytest.raises(CheckpointError) as caught:
        read_bundle(bundle)
    assert told in str(caught.value) and len(str(caught.value)) < 900 and not here.exists()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("draws: 1", "draws: 1\n  drows: 2", "did you mean 'draws'"),
        ("labels: 50", "labels: 5.5", "whole number"),
        ("lr: 0.002", "lr: .nan", "finite"),
        ("lr: 0.002", "lr: '0.002'", "number, got '0.002'"),
        ("widths: [64, 12, 10]", "widths: [64, 13, 10]", "must fit its settings"),
        ("widths: [64, 12, 10]", "widths: [64, 3000000000, 10]", "must fit its settings"),
        ("widths: [64, 12, 10]", "widths: [64, 4611686018427387904, 10]", "can be built"),
        ("widths: [64, 12, 10]", "widths: [64, 0x" + "f" * 5000 + ", 10]", "settings.yaml must"),
        ("combinator: gauss", "combinator: vanilla", "must fit its settings"),
        ("dtype: float32", "dtype: float64", "must fit its settings"),
    ],
)
def test_settings_that_do_not_fit(bundle: Path, old: str, new: str, told: str) -> None:
    text = (bundle / "settings.yaml").read_text()
    assert old in text
    (bundle / "settings.yaml").write_text(text.replace(old, new))
    sign(bundle)
    with pytest.raises(CheckpointError) as caught:
        read_bundle(bundle)
    assert told in str(caught.value) and len(str(caught.value)) < 900


def _reshaped(tensors: dict[str, Tensor]) -> None:
    tensors["W.0"] = tensors["W.0"].T.contiguous()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensors: tensors.pop("mean_1"), "mean_1"),
        (lambda tensors: tensors.update(extra=torch.zeros(3)), "extra is unknown"),
        (lambda tensors: tensors.update(gamma=tensors["gamma"].half()), "torch.float16"),
        (_reshaped, "W.0"),
        (lambda tensors: tensors.update(extra=torch.zeros(1 << 20)), "more than"),
    ],
)
def test_weights_that_do_not_fit(bundle: Path, change: Callable[[dict[str, Tensor]], Any], told: str) -> None:
    tensors = load_file(bundle / "weights.safetensors")
    change(tensors)
    save_file(tensors, bundle / "weights.safetensors")
    sign(bundle)
    with pytest.raises(CheckpointError) as caught:
        read_bundle(bundle)
    assert "weights.safetensors" in str(caught.value) and told in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("weights.safetensors", b"\xff" * 8 + b"{}", "readable safetensors"),
        ("weights.safetensors", b"\x80\x04\x95", "readable safetensors"),
        ("metrics.json", b'{"trial": "t1", "state": "COMPLETE", "best": 1}', "metrics.best"),
        ("metrics.json", b'{"trial": "t1", "state": "COMPLETE", "test_error": NaN}', "finite"),
        ("metrics.json", b'{"state": "COMPLETE"}', "missing"),
        ("metrics.json", b"[" * 100_000, "must be a bundle's"),
        ("provenance.json", b"[1]", "must be an object"),
        ("provenance.json", b"\xff", "must be a bundle's"),
    ],
)
def test_other_files_that_are_not_a_bundles(bundle: Path, name: str, content: bytes, told: str) -> None:
    (bundle / name).write_bytes(content)
    sign(bundle)
    with pytest.raises(CheckpointError) as caught:
        read_bundle(bundle)
    assert told.removeprefix("metrics.") in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": "ladder-search bundle 2"}, "bundle 2"),
        ({"extra": 1}, "must list"),
        ({"files": {"../../etc/passwd": "0" * 64}}, "must list"),
        ({"files": [1]}, "must list"),
        ({"files": dict.fromkeys(FILES, 3)}, "digest"),
        ({"digest": "0" * 64}, "digest"),
    ],
)
def test_manifests_of_another_kind(bundle: Path, change: dict[str, Any], told: str) -> None:
    manifest = json.loads((bundle / "MANIFEST.json").read_text())
    (bundle / "MANIFEST.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(CheckpointError, match=told):
        read_bundle(bundle)


def test_an_existing_folder_is_refused_and_left_as_it_is(bundle: Path, write: Write) -> None:
    before = contents(bundle)
    with pytest.raises(StudyFolderError, match="never overwritten"):
        write(study="other")
    assert contents(bundle) == before and os.listdir(bundle.parent) == ["bundle"]


def test_force_replaces_a_bundle_and_nothing_else(bundle: Path, write: Write, tmp_path: Path) -> None:
    write(study="other", force=True)
    assert read_bundle(bundle).study == "other" and os.listdir(tmp_path) == ["bundle"]
    (bundle / "thesis.tex").write_text("years of work")
    with pytest.raises(StudyFolderError, match=r"thesis\.tex"):
        write(force=True)
    assert (bundle / "thesis.tex").exists()
    (tmp_path / "link").symlink_to(bundle)
    (tmp_path / "file").write_text("")
    for name in ("link", "file"):
        with pytest.raises(StudyFolderError, match="only a folder"):
            write(tmp_path / name, force=True)


# Five files and their folder are synced, then one or two renames put the folder in place.
@pytest.mark.parametrize(("force", "fails_at"), [*((False, i) for i in range(7)), *((True, i) for i in range(8))])
def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch, force: bool, fails_at: int
) -> None:
    folder = tmp_path / "bundle"
    if force:
        write()
    before = contents(folder) if force else None
    calls = 0

    def full(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == fails_at + 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            return call(*arguments)

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full(os.fsync))
        patch.setattr(os, "rename", full(os.rename))
        with pytest.raises(StudyFolderError, match="No space left on device; nothing was written"):
            write(study="other", force=force)
    assert os.listdir(tmp_path) == (["bundle"] if force else [])
    assert not force or contents(folder) == before


def test_an_interrupt_leaves_nothing(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write()
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written(tmp_path: Path, write: Write) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyFolderError, match="must be writable"):
        write(tmp_path / "file" / "bundle")
    write(tmp_path / "new" / "deep" / "bundle")  # missing folders above are made
    assert read_bundle(tmp_path / "new" / "deep" / "bundle").study == "digits-50"
