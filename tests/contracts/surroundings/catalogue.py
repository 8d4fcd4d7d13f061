"""Surroundings that a command may meet, by name, and those in which it can only refuse."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import signal
import socket
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.contracts.surroundings import acts


@dataclass(frozen=True, kw_only=True)
class Surrounding:
    """What a command finds around it."""

    env: Mapping[str, str | None] = field(default_factory=dict)
    """Variables, None: absent; ``{home}``, ``{tmp}``, ``{work}`` and so on are the case's folders."""
    prepare: acts.Act = acts.nothing
    """Called once, before the first command."""
    enter: acts.Act = acts.nothing
    """Called in the process of each command."""
    undo: acts.Act = acts.nothing
    """Called after the last command, so that the records can be read."""
    folders: Mapping[str, str] = field(default_factory=dict)
    """Of the case, where they are elsewhere or named otherwise: ``work``, ``home``, ``tmp`` and ``cache``."""
    needs: tuple[int, ...] = ()
    """Capabilities of root; without them the surrounding cannot be made."""
    refused: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """Commands that do not do what they do otherwise: their exit code and a word of the one sentence."""


SURROUNDINGS: dict[str, Surrounding] = {
    # -- variables -----------------------------------------------------------------------------------------------
    "a time zone of a quarter hour": Surrounding(env={"TZ": "Asia/Kathmandu"}, enter=lambda place: time.tzset()),
    "a time zone that is none": Surrounding(env={"TZ": ":/nowhere"}, enter=lambda place: time.tzset()),
    "a locale that is not installed": Surrounding(env={"LC_ALL": "tr_TR.ISO-8859-9", "LANGUAGE": "tr", "LANG": None}),
    "variables of MLflow": Surrounding(
        env={
            "MLFLOW_ENABLE_ASYNC_LOGGING": "true",
            "MLFLOW_EXPERIMENT_NAME": "other",
            "MLFLOW_RUN_ID": "0" * 32,
            "MLFLOW_EXPERIMENT_ID": "77",
            "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true",
            "MLFLOW_TRUNCATE_LONG_VALUES": "false",
            "MLFLOW_REGISTRY_URI": "sqlite:///{tmp}/other.db",
            "MLFLOW_LOGGING_LEVEL": "DEBUG",
            "MLFLOW_WORKSPACE": "x",
            "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",
            "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "true",
            "MLFLOW_DEFAULT_ARTIFACT_ROOT": "{tmp}/artifacts",
            "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "1",
        }
    ),
    "variables of MLflow that are no numbers": Surrounding(
        env={
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "soon",
            "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "many",
            "MLFLOW_ASYNC_LOGGING_THREADPOOL_SIZE": "x",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "x",
        }
    ),
    "variables of Databricks": Surrounding(
        env={"DATABRICKS_RUNTIME_VERSION": "15.4", "DATABRICKS_HOST": "https://127.0.0.1:9", "DATABRICKS_TOKEN": "x"}
    ),
    "variables of a notebook, a pipeline and a cluster": Surrounding(
        env={
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "JPY_PARENT_PID": "1",
            "JUPYTER_COLUMNS": "10",
            "VSCODE_PID": "1",
            "KUBERNETES_SERVICE_HOST": "10.0.0.1",
            "SLURM_JOB_ID": "7",
            "SLURM_CPUS_ON_NODE": "64",
            "SLURM_NTASKS": "8",
            "SLURM_JOB_NUM_NODES": "4",
            "PBS_JOBID": "3",
            "LSB_JOBID": "4",
            "RANK": "3",
            "WORLD_SIZE": "8",
            "LOCAL_RANK": "3",
            "MASTER_ADDR": "10.0.0.1",
            "MASTER_PORT": "1",
        }
    ),
    "proxies that are not there": Surrounding(
        env={
            name: "http://127.0.0.1:9"
            for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        }
    ),
    "certificates that are not there": Surrounding(
        env={
            "SSL_CERT_FILE": "/nowhere",
            "SSL_CERT_DIR": "/nowhere",
            "REQUESTS_CA_BUNDLE": "/nowhere",
            "CURL_CA_BUNDLE": "/nowhere",
        }
    ),
    "variables of git": Surrounding(
        env={
            "GIT_DIR": "/nowhere",
            "GIT_WORK_TREE": "/",
            "GIT_TRACE": "1",
            "GIT_INDEX_FILE": "/nowhere",
            "GIT_PAGER": "false",
        }
    ),
    "no programs but git": Surrounding(env={"PATH": "{base}/programs"}, prepare=acts.git_alone),
    "no variable PATH": Surrounding(env={"PATH": None}),
    "no variables": Surrounding(env={name: None for name in ("PATH", "HOME", "LANG", "COLUMNS", "OMP_NUM_THREADS")}),
    "a user name that is not text": Surrounding(
        env={"USER": "j\udcfcrg", "LOGNAME": "j\udcfcrg", "USERNAME": "\udcff"}
    ),
    "huge and odd variables": Surrounding(
        env={"HUGE": "x" * 100_000, "LINES_OF_TEXT": "a\nb\r\n", "ODD": "\udcff\udcfe", "BASH_FUNC_x%%": "() {{ :; }}"}
    ),
    "threads without number": Surrounding(
        env={"OMP_NUM_THREADS": "many", "MKL_NUM_THREADS": "-1", "NUMEXPR_MAX_THREADS": "x"}
    ),
    "GPUs that are none": Surrounding(
        env={"CUDA_VISIBLE_DEVICES": "7,garbage", "NVIDIA_VISIBLE_DEVICES": "all", "ROCR_VISIBLE_DEVICES": "x"}
    ),
    "variables of Tune and Ray": Surrounding(
        env={
            "TUNE_MAX_PENDING_TRIALS_PG": "1",
            "TUNE_GLOBAL_CHECKPOINT_S": "0",
            "RAY_CHDIR_TO_TRIAL_DIR": "1",
            "RAY_AIR_NEW_OUTPUT": "1",
            "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "0",
            "TUNE_RESULT_BUFFER_LENGTH": "10",
            "TUNE_PRINT_ALL_TRIAL_ERRORS": "1",
            "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
            "RAY_TRAIN_V2_ENABLED": "1",
        }
    ),
    "folders of an old Tune": Surrounding(env={"TUNE_RESULT_DIR": "{tmp}/a", "RAY_AIR_LOCAL_CACHE_DIR": "{tmp}/b"}),
    "variables of torch": Surrounding(
        env={
            "TORCH_LOGS": "+dynamo",
            "TORCHINDUCTOR_CACHE_DIR": "/proc/x",
            "TORCH_HOME": "/proc/x",
            "TORCH_COMPILE_DEBUG": "1",
            "TORCHDYNAMO_DISABLE": "1",
            "TRITON_CACHE_DIR": "/proc/x",
        }
    ),
    "a window of a column": Surrounding(env={"COLUMNS": "1", "LINES": "1"}),
    "a window of no number": Surrounding(env={"COLUMNS": "wide", "LINES": "-3"}),
    "a window of none": Surrounding(env={"COLUMNS": "0", "LINES": "0"}),
    "colours into files": Surrounding(
        env={"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1"}
    ),
    "data that is not there": Surrounding(
        env={"LADDER_SEARCH_DATA": "{base}/nowhere"},
        refused={"studies": (2, "LADDER_SEARCH_DATA"), "doctor": (1, "LADDER_SEARCH_DATA")},
    ),
    # -- home and temporary folder -------------------------------------------------------------------------------
    "a home that is not there": Surrounding(env={"HOME": "{base}/absent/home"}),
    "no home": Surrounding(env={"HOME": None}),
    "a home without name": Surrounding(env={"HOME": ""}),
    "a home that is a file": Surrounding(
        env={"HOME": "{base}/file"}, prepare=lambda place: (place.base / "file").write_text("")
    ),
    "a home that is relative": Surrounding(env={"HOME": "."}),
    "a read-only home": Surrounding(
        prepare=acts.in_turn(acts.owned_by(acts.NOBODY), acts.read_only("home")),
        enter=acts.becomes(acts.NOBODY),
        needs=acts.CHANGE_USER,
        undo=acts.writable("home"),
    ),
    "a cache folder that is relative": Surrounding(
        env={"LADDER_SEARCH_CACHE": "cache of mine"}, folders={"cache": "work/cache of mine"}
    ),
    "a temporary folder with a space": Surrounding(folders={"tmp": "tmp of mine"}),
    "a temporary folder that is not there": Surrounding(env={"TMPDIR": "{tmp}/nowhere"}),
    "a temporary folder that is relative": Surrounding(env={"TMPDIR": "of mine"}, folders={"tmp": "work/of mine"}),
    # -- working directory, results ------------------------------------------------------------------------------
    "a working directory with odd letters": Surrounding(folders={"work": "it's [my] #1; $HOME & «é» \\ {0} -x"}),
    "a working directory with a line's end": Surrounding(folders={"work": "two\nlines"}),
    "a working directory full of modules' names": Surrounding(prepare=acts.modules),
    "results behind a link": Surrounding(prepare=acts.linked_root),
    "results with other things": Surrounding(prepare=acts.strangers, refused={"sync": (2, "study.json")}),
    "results of a group": Surrounding(
        prepare=lambda place: place.results.chmod(0o2775), enter=lambda place: os.umask(0o002)
    ),
    # -- permissions, users --------------------------------------------------------------------------------------
    "a mask of 077": Surrounding(enter=lambda place: os.umask(0o077)),
    "a mask of 002": Surrounding(enter=lambda place: os.umask(0o002)),
    "no mask": Surrounding(enter=lambda place: os.umask(0)),
    "a mask of 027": Surrounding(enter=lambda place: os.umask(0o027)),
    "another user": Surrounding(
        prepare=acts.owned_by(acts.NOBODY), enter=acts.becomes(acts.NOBODY), needs=acts.CHANGE_USER
    ),
    "a user without name and home": Surrounding(
        env={"HOME": None},
        prepare=acts.owned_by(acts.NAMELESS),
        enter=acts.in_turn(acts.becomes(acts.NAMELESS), acts.no_names),
        needs=acts.CHANGE_USER,
    ),
    # -- signals, limits -----------------------------------------------------------------------------------------
    "ended children unseen": Surrounding(enter=acts.ignored(signal.SIGCHLD)),
    "Ctrl-C ignored": Surrounding(enter=acts.ignored(signal.SIGINT, signal.SIGQUIT)),
    "hangups ignored": Surrounding(enter=acts.ignored(signal.SIGHUP)),
    "signals blocked": Surrounding(
        enter=lambda place: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD})
    ),
    "few open files": Surrounding(enter=acts.limit(resource.RLIMIT_NOFILE, 96)),
    "far handles": Surrounding(enter=acts.far_handles),
    "small files": Surrounding(enter=acts.limit(resource.RLIMIT_FSIZE, 16 << 20)),
    "the first process": Surrounding(enter=acts.first_process, needs=acts.CHANGE_SYSTEM),
    "a small stack": Surrounding(enter=acts.limit(resource.RLIMIT_STACK, 1 << 20)),
    "no core dumps and no locked memory": Surrounding(
        enter=acts.in_turn(acts.limit(resource.RLIMIT_CORE, 0), acts.limit(resource.RLIMIT_MEMLOCK, 0))
    ),
    "the lowest priority": Surrounding(enter=lambda place: os.nice(19)),
    "one core": Surrounding(enter=lambda place: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})),
    # -- standard streams ----------------------------------------------------------------------------------------
    "no input": Surrounding(enter=acts.closed(0)),
    "no output": Surrounding(enter=acts.closed(1)),
    "no errors' output": Surrounding(enter=acts.closed(2)),
    "no streams": Surrounding(enter=acts.closed(0, 1, 2)),
    "output to a full disk": Surrounding(enter=acts.opened("/dev/full", 1)),
    "output and errors to a full disk": Surrounding(enter=acts.opened("/dev/full", 1, 2)),
    "output without reader": Surrounding(enter=acts.no_reader),
    "output that would block": Surrounding(enter=acts.non_blocking),
    "output in ASCII": Surrounding(env={"PYTHONIOENCODING": "ascii"}),
    "output in Latin-1": Surrounding(env={"PYTHONIOENCODING": "latin-1"}),
    "a terminal without size": Surrounding(env={"COLUMNS": None}, enter=acts.terminal(0, 0)),
    "a terminal of a letter": Surrounding(env={"COLUMNS": None}, enter=acts.terminal(1, 1)),
    "a dumb terminal": Surrounding(env={"TERM": "dumb"}, enter=acts.terminal(24, 80)),
    "an unknown terminal": Surrounding(env={"TERM": "what"}, enter=acts.terminal(24, 80)),
    # -- file systems, machines ----------------------------------------------------------------------------------
    "no symbolic links": Surrounding(enter=acts.refuses(os, "symlink", errno.EPERM)),
    "no hard links": Surrounding(enter=acts.refuses(os, "link", errno.EPERM)),
    "no locks": Surrounding(
        enter=acts.in_turn(acts.refuses(fcntl, "flock", errno.ENOLCK), acts.refuses(fcntl, "lockf", errno.ENOLCK))
    ),
    "no locks at all": Surrounding(
        enter=acts.in_turn(acts.refuses(fcntl, "flock", errno.ENOSYS), acts.refuses(fcntl, "lockf", errno.ENOSYS))
    ),
    "no waiting for folders": Surrounding(enter=acts.refuses(os, "fsync", errno.EINVAL, acts.is_folder)),
    "no waiting for the disk": Surrounding(
        enter=acts.in_turn(acts.refuses(os, "fsync", errno.EINVAL), acts.refuses(os, "fdatasync", errno.EINVAL))
    ),
    "no permissions": Surrounding(
        enter=acts.in_turn(*(acts.refuses(os, name, errno.EPERM) for name in ("chmod", "fchmod", "chown", "lchown")))
    ),
    "no times of files": Surrounding(enter=acts.refuses(os, "utime", errno.EPERM)),
    "no copies by the kernel": Surrounding(
        enter=acts.in_turn(acts.refuses(os, "sendfile", errno.EINVAL), acts.refuses(os, "copy_file_range", errno.EXDEV))
    ),
    "no size of the disk": Surrounding(
        enter=acts.in_turn(acts.refuses(os, "statvfs", errno.ENOSYS), acts.refuses(shutil, "disk_usage", errno.ENOSYS))
    ),
    "no /proc": Surrounding(enter=acts.no_proc),
    "no count of cores": Surrounding(
        enter=acts.in_turn(acts.put(os, "cpu_count", lambda: None), lambda place: delattr(os, "sched_getaffinity"))
    ),
    "a machine without names": Surrounding(enter=acts.no_host),
    "a machine with an odd name": Surrounding(
        enter=acts.in_turn(
            acts.put(socket, "gethostname", lambda: "jörg’s “big” box\n"),
            acts.put(os, "uname", lambda: os.uname_result(("Linux", "jörg’s “big” box", "6", "#1", "x86_64"))),
        )
    ),
    "a clock of 2001": Surrounding(enter=acts.clock(-800_000_000.0)),
    "a clock of 2060": Surrounding(enter=acts.clock(1_100_000_000.0)),
    "a clock that is set back": Surrounding(enter=acts.clock(0.0, back=3600.0)),
    "warnings as errors": Surrounding(enter=lambda place: warnings.simplefilter("error")),
}

_ALL = ("search", "train", "reproduce", "export", "sync", "report", "studies", "doctor", "ui")
_WRITERS = ("search", "train")


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Surroundings in which commands cannot work, and a word of the one sentence that says so."""

    where: Surrounding
    word: str
    commands: tuple[str, ...] = _WRITERS


REFUSALS: dict[str, Refusal] = {
    "a working directory that is gone": Refusal(
        where=Surrounding(enter=acts.deleted), word="working directory", commands=_ALL
    ),
    "a working directory that is not text": Refusal(
        where=Surrounding(folders={"work": "j\udcfcrg"}), word="UTF-8", commands=_ALL
    ),
    "a working directory with a percent sign": Refusal(where=Surrounding(folders={"work": "100 % sure?"}), word="'%'"),
    "a deep working directory": Refusal(where=Surrounding(folders={"work": "/".join(["x" * 200] * 12)}), word="bytes"),
    "a home that cannot be made": Refusal(
        where=Surrounding(env={"HOME": "/proc/home", "LADDER_SEARCH_CACHE": None}),
        word="LADDER_SEARCH_CACHE",
        commands=("search", "reproduce"),
    ),
    "a cache folder that is a file": Refusal(
        where=Surrounding(prepare=acts.a_file("cache")), word="LADDER_SEARCH_CACHE", commands=("search", "reproduce")
    ),
    "results that are a file": Refusal(where=Surrounding(prepare=acts.a_file("results")), word="results"),
    "results of another user": Refusal(
        where=Surrounding(prepare=acts.held_by_root, enter=acts.becomes(acts.NOBODY), needs=acts.CHANGE_USER),
        word="writable",
    ),
    "a Ray that does not answer": Refusal(
        where=Surrounding(env={"RAY_ADDRESS": "127.0.0.1:1"}), word="RAY_ADDRESS", commands=("search",)
    ),
    "data that is a file": Refusal(
        where=Surrounding(
            env={"LADDER_SEARCH_DATA": "{base}/data"}, prepare=lambda place: (place.base / "data").write_text("")
        ),
        word="LADDER_SEARCH_DATA",
        commands=("studies",),
    ),
    "options that are none": Refusal(
        where=Surrounding(env={"LADDER_SEARCH_OPTIONS": "--trials 'many"}),
        word="LADDER_SEARCH_OPTIONS",
        commands=("search",),
    ),
}

GROUPS: dict[str, tuple[str, ...]] = {
    "variables": (
        "a time zone of a quarter hour",
        "a locale that is not installed",
        "variables of MLflow",
        "variables of MLflow that are no numbers",
        "variables of Databricks",
        "variables of a notebook, a pipeline and a cluster",
        "proxies that are not there",
        "certificates that are not there",
        "variables of git",
        "a user name that is not text",
        "huge and odd variables",
        "threads without number",
        "GPUs that are none",
        "variables of Tune and Ray",
        "folders of an old Tune",
        "variables of torch",
        "a window of none",
        "colours into files",
        "output to a full disk",
        "no errors' output",
    ),
    "folders": (
        "a working directory with odd letters",
        "a working directory full of modules' names",
        "results with other things",
        "a home that is not there",
        "a temporary folder with a space",
        "no programs but git",
        "a window of a column",
        "no output",
    ),
    "a moved system": (
        "results behind a link",
        "a home that is relative",
        "a temporary folder that is relative",
        "a cache folder that is relative",
        "a terminal without size",
        "output in Latin-1",
        "a clock of 2060",
        "a window of no number",
    ),
    "a poor file system": (
        "no symbolic links",
        "no hard links",
        "no locks",
        "no waiting for folders",
        "no permissions",
        "no times of files",
        "no copies by the kernel",
        "no size of the disk",
        "a working directory with a line's end",
        "one core",
        "no home",
        "a dumb terminal",
        "a terminal of a letter",
    ),
    "a poor machine": (
        "no /proc",
        "no count of cores",
        "a machine without names",
        "a machine with an odd name",
        "a clock that is set back",
        "few open files",
        "a small stack",
        "no core dumps and no locked memory",
        "the lowest priority",
        "ended children unseen",
        "Ctrl-C ignored",
        "hangups ignored",
        "signals blocked",
        "warnings as errors",
        "no variable PATH",
        "no input",
        "data that is not there",
    ),
    "a user": (
        "another user",
        "a mask of 027",
        "output and errors to a full disk",
        "a clock of 2001",
    ),
    "a number for a user": (
        "a user without name and home",
        "a mask of 077",
        "output without reader",
        "no waiting for the disk",
        "a time zone that is none",
    ),
    "nothing around": (
        "no variables",
        "no streams",
        "no mask",
        "no locks at all",
        "far handles",
        "a home without name",
    ),
    "a container": (
        "the first process",
        "small files",
        "output that would block",
        "results of a group",
        "a temporary folder that is not there",
        "a home that is a file",
    ),
    "a closed home": (
        "a read-only home",
        "an unknown terminal",
        "output in ASCII",
        "a mask of 002",
    ),
}
"""Surroundings that are met together, because they have nothing to do with each other."""
