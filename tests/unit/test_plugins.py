"""Plugins: what a file or a package brings, and each fault in one sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ladder_search import plugins, studies
from ladder_search.bundles.bundle import BundleMetrics, read_bundle, write_bundle
from ladder_search.errors import CheckpointError, PluginError, StudyFolderError, UnknownNameError
from ladder_search.models import FAMILIES, check_packages, find_family, register
from ladder_search.record.folder import StudyFolder
from ladder_search.trial import TrialSpec
from tests.plugin_files import example, forgotten, write_plugin

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    with forgotten():
        yield


def spec() -> TrialSpec:
    return TrialSpec.from_mapping(
        {
            "family": "plain",
            "data": {"dataset": "digits", "labels": 40, "validation": 97},
            "model": {"widths": [64, 5, 10]},
            "training": {"epochs": 1},
        }
    )


def test_a_file_brings_a_family_and_a_study(tmp_path: Path) -> None:
    plugin = plugins.use(write_plugin(tmp_path))
    assert find_family("plain").plugin == plugin and not find_family("plain").built_in
    assert studies.find_study("plain-digits-100").trial().family == "plain"
    assert plugins.loaded() == plugins.sent() == (plugin,)
    assert plugins.use(write_plugin(tmp_path, name="copy.py")) == plugin  # the same text is the same plugin


def test_an_offered_file_is_imported_when_its_family_is_needed(tmp_path: Path) -> None:
    plugins.offer([plugins.read(write_plugin(tmp_path))])
    assert "plain" not in FAMILIES and plugins.loaded() == ()
    assert spec().family == "plain" and "plain" in FAMILIES


def test_the_same_text_works_where_the_file_does_not_exist(tmp_path: Path) -> None:
    """A process of another node: it receives the plugin pickled, and imports no PyTorch until it needs the family."""
    import pickle

    path = write_plugin(tmp_path)
    content = pickle.dumps(plugins.read(path))
    path.unlink()
    script = (
        "import pickle, sys\nfrom ladder_search import plugins\n"
        f"plugins.offer([pickle.loads({content!r})])\nassert 'torch' not in sys.modules\n"
        "from ladder_search.models import find_family\nprint(find_family('plain').build.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert (done.stdout, done.stderr) == ("Plain\n", "")


def refusal(path: Path) -> str:
    families, known = dict(FAMILIES), dict(studies.STUDIES)
    with pytest.raises(PluginError) as caught:
        plugins.use(path)
    assert known == studies.STUDIES and families == FAMILIES  # nothing of a refused plugin stays
    assert plugins.loaded() == () and "plain" not in FAMILIES
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("raise ValueError('no such thing')", "raised ValueError: no such thing (line 1)"),
        ("import ladder_search\n\nimport not_there", "ModuleNotFoundError: No module named 'not_there' (line 3)"),
        ("x = (1", "SyntaxError: '(' was never closed (line 1)"),
        ("import sys\nsys.exit(3)", "SystemExit: 3 (line 2)"),
        ("x = 1", "registers none"),
        ("\n", "is empty"),
        ("\n\n\0", "raised"),
    ],
)
def test_a_file_that_cannot_be_imported(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(text, encoding="utf-8")
    assert what in refusal(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.py")
    assert "must be a Python file" in refusal(tmp_path / "weights.bin")
    (tmp_path / "latin.py").write_bytes(b"x = '\xff'")
    assert "must be a readable file" in refusal(tmp_path / "latin.py")
    (tmp_path / "folder.py").mkdir()
    assert "must be a readable file" in refusal(tmp_path / "folder.py")


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ('"plain",\n    models', '"ladder",\n    models', "registers 'ladder', which ladder-search has registered"),
        ('name="plain-digits-100"', 'name="digits-100"', "registers 'digits-100', which ladder-search has registered"),
        ('"plain",\n    models', '"My family",\n    models', "lower-case letters"),
        ("frozen=True, kw_only", "frozen=False, kw_only", "PlainConfig must be a frozen dataclass"),
        ("config=PlainConfig,", "config=TrainingConfig,", "derived from ModelConfig"),
        ("def hyper", "def hyperparameters", "PlainConfig must define hyper"),
        ("def flops", "def operations", "PlainConfig must define flops"),
        ("class Plain(Network)", "class Plain(nn.Module)", "derived from Network"),
        ("def noise_size", "def noise", "its network must define noise_size"),
        ("def statistics", "def stats", "its network must define statistics"),
        ('stacking="vmap"', 'stacking="maybe"', "stacking must be vmap or none"),
        ("space=models.Space(suggest=suggest, published=published)", "space=suggest", "space must be a Space"),
        ("small=PlainConfig(widths=(64, 12, 10))", "small=None", "small must be a PlainConfig"),
        ("small=PlainConfig(widths=(64, 12, 10))", "stage='ladder', small=PlainConfig()", "belong together"),
        ("small=PlainConfig(widths=(64, 12, 10))", "small=PlainConfig(widths=(64,))", "at least 2 positive sizes"),
        ("dropout: float = 0.2", "dropout: object = 0.2", "small must be plain settings"),
    ],
)
def test_a_family_that_breaks_the_contract(tmp_path: Path, before: str, after: str, what: str) -> None:
    assert what in refusal(write_plugin(tmp_path, (before, after)))


def test_another_version_of_a_loaded_plugin_is_refused(tmp_path: Path) -> None:
    plugins.use(write_plugin(tmp_path))
    with pytest.raises(PluginError, match="start another process for another version"):
        plugins.use(write_plugin(tmp_path, ("0.9)", "0.8)")))
    assert find_family("plain").plugin == plugins.loaded()[0]


def package(folder: Path, family: str, monkeypatch: pytest.MonkeyPatch, *, name: str = "my_package") -> None:
    """An installed package whose entry point refers to the page's family."""
    text = example().replace('models.register(\n    "plain",\n    models.Family(', "(FAMILY,) = (\n    models.Family(")
    (folder / f"{name}.py").write_text(text[: text.index("studies.register")], encoding="utf-8")
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n", encoding="utf-8")
    entry = f"[{plugins.GROUP}]\n{family} = {name}:FAMILY\n"
    (info / "entry_points.txt").write_text(entry, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, name, raising=False)


def test_a_package_brings_a_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "mine", monkeypatch)
    check_packages()
    assert "my_package" not in sys.modules  # nothing is imported until the family is needed
    plugin = find_family("mine").plugin
    assert plugin is not None and (plugin.name, plugin.version, plugin.is_file) == ("my_package", "1.2", False)
    assert plugins.sent() == ()  # every node has it installed
    check_packages()
    with pytest.raises(UnknownNameError, match="did you mean 'mine'"):
        find_family("mines")


def test_a_package_with_a_taken_name_or_without_a_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "ladder", monkeypatch)
    with pytest.raises(PluginError, match="my_package brings 'ladder' again"):
        check_packages()
    (tmp_path / "b").mkdir()
    package(tmp_path / "b", "mine", monkeypatch, name="second_package")
    (tmp_path / "b" / "second_package.py").write_text("FAMILY = 3", encoding="utf-8")
    with pytest.raises(PluginError, match="it must be a Family, got int"):
        find_family("mine")
    (tmp_path / "c").mkdir()
    package(tmp_path / "c", "mine", monkeypatch, name="third_package")
    with pytest.raises(PluginError, match="both bring 'mine'"):
        check_packages()


def test_a_family_of_a_running_program_has_no_plugin(tmp_path: Path) -> None:
    plugins.use(write_plugin(tmp_path))
    register("second", find_family("plain"))
    assert find_family("second").plugin is None and not find_family("second").built_in


def test_a_study_folder_keeps_the_file_and_offers_it(tmp_path: Path) -> None:
    plugin = plugins.use(write_plugin(tmp_path))
    folder = StudyFolder(tmp_path / "study")
    rows = folder.keep_plugins([plugin])
    assert rows == [{"name": "my_family.py", "sha256": plugin.version}]
    with forgotten():
        pass
    for table in (FAMILIES, plugins._loaded):
        table.clear() if table is plugins._loaded else table.pop("plain")
    studies.STUDIES.pop("plain-digits-100")
    studies._owners.pop("plain-digits-100")
    assert folder.offer_plugins({"plugins": rows}) == []
    assert spec().family == "plain"
    copy = folder.plugins / "my_family.py"
    copy.write_text(copy.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(StudyFolderError, match="must have the sha256"):
        folder.offer_plugins({"plugins": rows})
    copy.unlink()
    with pytest.raises(StudyFolderError, match="must hold a copy of its plugin"):
        folder.offer_plugins({"plugins": rows})
    with pytest.raises(StudyFolderError, match="which is not installed"):
        folder.offer_plugins({"plugins": [{"name": "no-such-package", "version": "3"}]})
    assert "of version 0.0 and is now of" in folder.offer_plugins({"plugins": [{"name": "torch", "version": "0.0"}]})[0]


def test_a_bundle_names_its_plugin_and_executes_nothing(tmp_path: Path) -> None:
    with forgotten():
        plugin = plugins.use(write_plugin(tmp_path))
        network = spec().empty_network()
        metrics = BundleMetrics(trial="t0001", state="COMPLETE")
        place = tmp_path / "bundle"
        write_bundle(place, study="", spec=spec(), module=network, metrics=metrics, provenance={})
        bundle = read_bundle(place)
        assert bundle.provenance == {"plugin_name": "my_family.py", "plugin_version": plugin.version}
        x = torch.rand(3, 64)
        expected = bundle.module()(x)
    with pytest.raises(CheckpointError, match=r"family 'plain' from the plugin 'my_family.py', which is not loaded"):
        read_bundle(place)
    with forgotten():
        plugins.use(write_plugin(tmp_path, ("0.9)", "0.8)")))
        with pytest.raises(CheckpointError, match="is loaded here; read .*plugin.py and give it with --plugin"):
            read_bundle(place)
    plugins.use(place / "plugin.py")
    assert torch.equal(read_bundle(place).module()(x), expected)
    (place / "plugin.py").unlink()
    read_bundle(place)  # not needed to read the values
