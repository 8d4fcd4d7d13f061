"""The profiles of Ray's launcher: Ray takes them, they keep our rules, and every rule is shown to fail where broken."""

from __future__ import annotations

import ast
import copy
import fnmatch
import json
import re
from pathlib import Path

import click
import jsonschema
import pytest
import ray
import yaml

from ladder_search.commands.search import parse_arguments
from tests.unit.clusters.breakages import Breakage, Config, Rule, drop, edit, put

ROOT = Path(__file__).resolve().parents[3]
PROFILES = ("gpu", "onprem")
TOKEN = "~/.ray/auth_token"
CHECKOUT = "~/ladder-search"


def ray_accepts(config: Config) -> None:
    """Ray's own two steps (private), or its published schema where they have moved."""
    try:
        from ray.autoscaler._private.util import prepare_config, validate_config
    except ImportError:
        ray_schema_accepts(config)
    else:
        validate_config(prepare_config(copy.deepcopy(config)))


def ray_schema_accepts(config: Config) -> None:
    schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    jsonschema.validate(config, json.loads(schema.read_text()))


def nothing_listens_to_the_world(config: Config) -> None:
    assert "0.0.0.0" not in json.dumps(config)
    for command in starts(config, "head"):
        assert "--dashboard-host=127.0.0.1" in command


def token_mode_is_set_on_every_side(config: Config) -> None:
    for command in starts(config, "head") + starts(config, "worker"):
        assert "RAY_AUTH_MODE=token ray start" in command
    login = [c for c in config["initialization_commands"] if "RAY_AUTH_MODE=token" in c and "~/.bashrc" in c]
    assert login, "login shells do not set the mode"
    assert config["file_mounts"].get(TOKEN) == TOKEN
    assert any(f"chmod 600 {TOKEN}" in c for c in config["initialization_commands"])


def ray_is_restarted_with_enough_files(config: Config) -> None:
    for kind in ("head", "worker"):
        assert config[f"{kind}_start_ray_commands"][0] == "ray stop"
        assert all("ulimit -n 65536" in command for command in starts(config, kind))
    assert all("--head" in command for command in starts(config, "head"))
    assert all("--address=$RAY_HEAD_IP:" in command for command in starts(config, "worker"))


def head_runs_no_trials_and_is_on_demand(config: Config) -> None:
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"].get("CPU") == 0
    assert head["resources"].get("GPU", 0) == 0
    assert head.get("max_workers") == 0
    assert "InstanceMarketOptions" not in head["node_config"]


def spot_comes_first_and_on_demand_is_the_fallback(config: Config) -> None:
    workers = {k: v for k, v in config["available_node_types"].items() if k != config["head_node_type"]}
    spot = [t for t in workers.values() if t["node_config"].get("InstanceMarketOptions") == {"MarketType": "spot"}]
    paid = [t for t in workers.values() if "InstanceMarketOptions" not in t["node_config"]]
    assert spot
    assert paid
    assert min(t["priority"] for t in spot) > max(t["priority"] for t in paid)
    assert all(t["min_workers"] == 0 for t in workers.values()), "an idle cluster pays for its head alone"
    assert all(0 < t["max_workers"] <= config["max_workers"] for t in workers.values())
    assert len({t["node_config"]["InstanceType"] for t in workers.values()}) == 1, "a trial fits on either"
    assert not config["provider"]["cache_stopped_nodes"]


def code_and_pins_are_shipped(config: Config) -> None:
    for part in (*packages_of_the_script(), "pyproject.toml", "constraints.txt"):
        assert config["file_mounts"].get(f"{CHECKOUT}/{part}") == part
    for source in config["file_mounts"].values():
        assert source == TOKEN or (ROOT / source).exists()


def nothing_secret_is_shipped(config: Config) -> None:
    # A list of what may go, not of what may not: parts of this repository, by name, and Ray's token.
    for target, source in config["file_mounts"].items():
        inside = Path(source).parts and not source.startswith(("/", "~", ".")) and ".." not in Path(source).parts
        assert inside or (target, source) == (TOKEN, TOKEN), f"{source} does not belong on a node"
    for secret in (".env", "my-key.pem"):
        assert any(fnmatch.fnmatch(secret, pattern) for pattern in config["rsync_exclude"])
    assert ".gitignore" in config["rsync_filter"]
    assert not {"ssh_public_key", "ssh_proxy_command"} & set(config["auth"])


def results_can_be_fetched(config: Config) -> None:
    for name in ("results", "digits-100", "mlflow.db", "journal.log", "bundle", "model.safetensors", "report.html"):
        assert not any(fnmatch.fnmatch(name, pattern.strip("/")) for pattern in config["rsync_exclude"])


def setup_installs_the_pins_into_the_python_of_the_login_shell(config: Config) -> None:
    common, head = config["setup_commands"], config["head_setup_commands"]
    installs = [command for command in [*common, *head] if "pip install" in command]
    assert any("pip install" in command for command in common), "the nodes get nothing"
    for command in installs:
        assert command.startswith("python -m pip install ")
        assert f"-c {CHECKOUT}/constraints.txt" in command
        assert "-e " in command
    path = [i for i, c in enumerate(common) if "ladder-venv/bin:$PATH" in c and "~/.bashrc" in c]
    assert path
    assert path[0] < min(i for i, c in enumerate(common) if "pip install" in c)


def searches_join_and_their_checkpoints_outlive_a_node(config: Config) -> None:
    (line,) = [command for command in config["head_setup_commands"] if "LADDER_SEARCH_OPTIONS" in command]
    found = re.search(r'export LADDER_SEARCH_OPTIONS="([^"]*)"', line)
    assert found
    settings = parse_arguments(["digits-100", *found[1].split()])
    assert settings.address == "auto"
    assert settings.storage
    assert settings.storage.startswith(("/", "s3://"))


def the_head_can_start_aws_workers(config: Config) -> None:
    assert any("[aws]" in command for command in config["head_setup_commands"]), "no boto3"


def every_machine_joins(config: Config) -> None:
    assert not {"min_workers", "max_workers"} & set(config), "Ray takes all workers, or stumbles"
    machines = [config["provider"]["head_ip"], *config["provider"]["worker_ips"]]
    assert len(set(machines)) == len(machines)
    # The second autoscaler takes the head for a worker.
    assert all("RAY_enable_autoscaler_v2=0 RAY_AUTH_MODE=token ray start" in c for c in starts(config, "head"))


def packages_of_the_script() -> set[str]:
    """What ``search.py`` imports from this repository."""
    tree = ast.parse((ROOT / "search.py").read_text())
    modules = {
        node.module.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
    }
    return {module for module in modules if (ROOT / module).is_dir()}


def starts(config: Config, kind: str) -> list[str]:
    found = [command for command in config[f"{kind}_start_ray_commands"] if "ray start" in command]
    assert found, f"nothing starts Ray on a {kind}"
    return found


COMMON: list[Rule] = [
    ray_accepts,
    ray_schema_accepts,
    nothing_listens_to_the_world,
    token_mode_is_set_on_every_side,
    ray_is_restarted_with_enough_files,
    code_and_pins_are_shipped,
    nothing_secret_is_shipped,
    results_can_be_fetched,
    setup_installs_the_pins_into_the_python_of_the_login_shell,
    searches_join_and_their_checkpoints_outlive_a_node,
]
RULES: dict[str, list[Rule]] = {
    "gpu": [
        *COMMON,
        head_runs_no_trials_and_is_on_demand,
        spot_comes_first_and_on_demand_is_the_fallback,
        the_head_can_start_aws_workers,
    ],
    "onprem": [*COMMON, every_machine_joins],
}


def load(profile: str) -> Config:
    loaded: Config = yaml.safe_load((ROOT / "clusters" / f"{profile}.yaml").read_text())
    return loaded


@pytest.mark.parametrize(("profile", "rule"), [(profile, rule) for profile in PROFILES for rule in RULES[profile]])
def test_the_profile_keeps(profile: str, rule: Rule) -> None:
    rule(load(profile))


HEAD = ("available_node_types", "head")
SPOT = ("available_node_types", "gpu_spot")
PAID = ("available_node_types", "gpu_on_demand")

PINS = f"-c {CHECKOUT}/constraints.txt"

EVERYWHERE: dict[Rule, dict[str, Breakage]] = {
    ray_accepts: {
        "unknown key": put("max_worker", 4),
    },
    ray_schema_accepts: {
        "unknown key": put("max_worker", 4),
        "workers is text": put("max_workers", "4"),
    },
    nothing_listens_to_the_world: {
        "dashboard for all": edit("127.0.0.1", "0.0.0.0", "head_start_ray_commands"),
        "dashboard by default": edit("--dashboard-host=127.0.0.1", "", "head_start_ray_commands"),
        "ssh for all": put("provider", "security_group", {"IpPermissions": ["0.0.0.0/0"]}),
    },
    token_mode_is_set_on_every_side: {
        "head untold": edit("RAY_AUTH_MODE=token ", "", "head_start_ray_commands"),
        "worker untold": edit("RAY_AUTH_MODE=token ", "", "worker_start_ray_commands"),
        "mode disabled": edit("=token", "=disabled", "worker_start_ray_commands"),
        "login shell untold": edit("RAY_AUTH_MODE=token", "", "initialization_commands"),
        "no token": drop("file_mounts", TOKEN),
        "token for all to read": edit("chmod 600", "chmod 644", "initialization_commands"),
    },
    ray_is_restarted_with_enough_files: {
        "an old ray stays": edit("ray stop", "true", "worker_start_ray_commands"),
        "few files": edit("ulimit -n 65536; ", "", "head_start_ray_commands"),
        "worker without head": edit("$RAY_HEAD_IP", "10.0.0.1", "worker_start_ray_commands"),
        "worker starts nothing": put("worker_start_ray_commands", ["ray stop"]),
    },
    code_and_pins_are_shipped: {
        "no package": drop("file_mounts", f"{CHECKOUT}/ladder_search"),
        "no trainables": drop("file_mounts", f"{CHECKOUT}/trainables"),
        "no pins": drop("file_mounts", f"{CHECKOUT}/constraints.txt"),
        "a file that is not there": put("file_mounts", f"{CHECKOUT}/x", "x.lock"),
    },
    nothing_secret_is_shipped: {
        "ssh keys": put("file_mounts", "~/.ssh", "~/.ssh"),
        "credentials": put("file_mounts", "~/.aws/credentials", "~/.aws/credentials"),
        "an absolute path": put("file_mounts", "~/etc", "/etc"),
        "beside the repository": put("file_mounts", "~/x", "spaces/../../x"),
        "the whole folder": put("file_mounts", CHECKOUT, "."),
        "a dotfile": put("file_mounts", "~/.env", ".env"),
        "token somewhere else": put("file_mounts", "~/results/token", TOKEN),
        "secrets not excluded": put("rsync_exclude", ["__pycache__"]),
        "ignored files shipped": put("rsync_filter", []),
        "a proxy of somebody": put("auth", "ssh_proxy_command", "nc -x proxy %h %p"),
    },
    results_can_be_fetched: {
        "results stay behind": put("rsync_exclude", ["results"]),
        "records stay behind": put("rsync_exclude", ["*.db"]),
    },
    setup_installs_the_pins_into_the_python_of_the_login_shell: {
        "no pins used": edit(PINS, "", "setup_commands"),
        "another python": edit("python -m pip install", "pip3 install", "setup_commands"),
        "python not on the path": edit("ladder-venv/bin:$PATH", "", "setup_commands"),
        "path set too late": lambda config: config["setup_commands"].reverse(),
        "nothing installed": put("setup_commands", []),
    },
    searches_join_and_their_checkpoints_outlive_a_node: {
        "no options": put("head_setup_commands", []),
        "another cluster": edit("--address auto", "", "head_setup_commands"),
        "checkpoints on one node": edit("--storage ", "--storage ./", "head_setup_commands"),
        "an option that is none": edit("--storage ", "--store ", "head_setup_commands"),
    },
}
BREAKAGES: dict[str, dict[Rule, dict[str, Breakage]]] = {
    "gpu": {
        **EVERYWHERE,
        ray_accepts: {
            **EVERYWHERE[ray_accepts],
            "no resources": drop(*HEAD, "resources"),
            "no such head": put("head_node_type", "haed"),
            "unknown key of a type": put(*SPOT, "max_worker", 4),
            "more minimum than maximum": put(*SPOT, "min_workers", 5),
        },
        head_runs_no_trials_and_is_on_demand: {
            "head takes trials": put(*HEAD, "resources", "CPU", 4),
            "head takes what AWS says": put(*HEAD, "resources", {}),
            "more heads": put(*HEAD, "max_workers", 1),
            "heads by default": drop(*HEAD, "max_workers"),
            "spot head": put(*HEAD, "node_config", "InstanceMarketOptions", {"MarketType": "spot"}),
        },
        spot_comes_first_and_on_demand_is_the_fallback: {
            "no spot": drop(*SPOT, "node_config", "InstanceMarketOptions"),
            "no fallback": drop(*PAID),
            "fallback first": put(*PAID, "priority", 2),
            "workers that never leave": put(*PAID, "min_workers", 1),
            "no worker at all": put(*SPOT, "max_workers", 0),
            "two kinds of GPU": put(*PAID, "node_config", "InstanceType", "p4d.24xlarge"),
            "disks stay": put("provider", "cache_stopped_nodes", True),
        },
        the_head_can_start_aws_workers: {
            "no boto3": put("head_setup_commands", []),
        },
    },
    "onprem": {
        **EVERYWHERE,
        ray_accepts: {
            **EVERYWHERE[ray_accepts],
            "no machines": drop("provider", "worker_ips"),
            "node types": put("available_node_types", {"head": {"node_config": {}, "resources": {}}}),
        },
        every_machine_joins: {
            "fewer workers than machines": put("max_workers", 1),
            "a machine twice": put("provider", "worker_ips", ["10.0.0.1"]),
            "the second autoscaler": edit("RAY_enable_autoscaler_v2=0 ", "", "head_start_ray_commands"),
        },
    },
}


@pytest.mark.parametrize(
    ("profile", "rule", "breakage"),
    [
        pytest.param(profile, rule, breakage, id=f"{profile}-{rule.__name__}-{name}")
        for profile in PROFILES
        for rule, breakages in BREAKAGES[profile].items()
        for name, breakage in breakages.items()
    ],
)
def test_the_rule_notices(profile: str, rule: Rule, breakage: Breakage) -> None:
    config = load(profile)
    rule(config)
    breakage(config)
    with pytest.raises((AssertionError, ValueError, LookupError, jsonschema.ValidationError, click.ClickException)):
        rule(config)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_rule_is_shown_to_fail(profile: str) -> None:
    assert set(BREAKAGES[profile]) == set(RULES[profile])


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        *(("gpu", words) for words in ("region:", "availability_zone:", "ImageId: &image", "ssh_private_key:")),
        ("gpu", "InstanceType: &gpu"),
        *(("onprem", words) for words in ("head_ip:", "worker_ips:", "ssh_user:", "ssh_private_key:", "--storage /")),
    ],
)
def test_what_a_user_must_fill_in_is_marked(profile: str, words: str) -> None:
    lines = (ROOT / "clusters" / f"{profile}.yaml").read_text().splitlines()
    (at,) = [i for i, line in enumerate(lines) if words in line]
    assert any("EDIT" in line for line in lines[max(0, at - 3) : at + 1])
