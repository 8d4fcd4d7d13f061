"""Table of environment variables and how they are treated.

The environment must not influence the results of a search. The libraries read about two thousand variables, so those
with the prefix of a library, including future ones, are removed unless a row below differs. Variables that describe the
machine (paths, devices, logins, addresses) are kept.

Rows are matched by the whole name, then by the longest prefix. Names without a row are kept.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

Treatment = Literal["input", "fixed", "removed", "harmless"]
"""* ``input``: read as documented by this project or the library.
* ``fixed``: set to a constant, overriding the user's value.
* ``removed``: unset, so that the library's default holds.
* ``harmless``: kept, because no result depends on it.
"""


@dataclass(frozen=True, slots=True)
class Row:
    names: tuple[str, ...]
    """Whole names, or prefixes with a trailing ``*``."""
    treatment: Treatment
    reason: str
    value: str | None = None
    """Value of a fixed variable; default of an input that is unset or not ``allowed``."""
    allowed: str | None = None
    """Pattern of an input's valid values; others would raise inside the library."""


def _row(names: str, treatment: Treatment, reason: str, value: str | None = None, allowed: str | None = None) -> Row:
    return Row(tuple(names.split()), treatment, reason, value, allowed)


_SWITCH = "(?i)true|false|1|0"

TABLE = (
    # This project.
    _row("LADDER_SEARCH_*", "input", "settings of this project; docs/tracking.md explains them"),
    # MLflow.
    _row("MLFLOW_* _MLFLOW_* DISABLE_MLFLOWDBFS ENABLE_MLFLOW_TRACING", "removed", "asynchronous logging, "
         "for example, loses points when a server fails for a moment, and another registry would receive the models"),
    _row("MLFLOW_TRACKING_URI", "input", "the default of --tracking"),
    _row("MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD MLFLOW_TRACKING_TOKEN MLFLOW_TRACKING_AUTH "
         "MLFLOW_TRACKING_SERVER_CERT_PATH MLFLOW_TRACKING_CLIENT_CERT_PATH MLFLOW_KERBEROS_* MLFLOW_MYSQL_SSL_*",
         "input", "login and certificates of a tracking server"),
    _row("MLFLOW_TRACKING_INSECURE_TLS MLFLOW_TRACKING_AWS_SIGV4", "input", "how a tracking server is reached",
         allowed=_SWITCH),
    _row("MLFLOW_WORKSPACE", "input", "the part of a tracking server that belongs to the user"),
    _row("MLFLOW_S3_ENDPOINT_URL MLFLOW_S3_UPLOAD_EXTRA_ARGS MLFLOW_S3_EXPECTED_BUCKET_OWNER "
         "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", "input", "how a bucket of artifacts is reached"),
    _row("MLFLOW_S3_IGNORE_TLS", "input", "how a bucket of artifacts is reached", allowed=_SWITCH),
    _row("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "fixed", "ladder_search/tracking/courier.py retries and looks "
         "for the run in between: a request that MLflow repeats after a timeout could create a run twice", "0"),
    _row("MLFLOW_HTTP_REQUEST_TIMEOUT", "input", "seconds that a server may take for an answer; a late answer is "
         "requested again, and stored once", "10", allowed="[1-9][0-9]{0,3}"),
    _row("MLFLOW_DISABLE_TELEMETRY", "fixed", "a search reports no usage", "true"),
    _row("MLFLOW_DISABLE_AGENT_HINT MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "fixed", "MLflow prints nothing", "true"),
    _row("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "fixed", "MLflow prints nothing", "false"),
    _row("DATABRICKS_* _DATABRICKS_* SPARK_* PYSPARK_* GATEWAY_* KUBE_MLFLOW_TRACKING_URI", "harmless",
         "MLflow reads them for kinds of stores that a search refuses"),
    _row("OPENAI_* TIKTOKEN_* AGENT AI_AGENT CURSOR_* JSL_* JOHNSNOWLABS_* USE_TF USE_TORCH RUST_LOG DB_SESSION_UUID "
         "IS_IN_DB_* DB_* SERVERLESS_* SERVING_ENVIRONMENT ENV_MANAGER HEALTHCARE_* VISUAL_* IPYNB_FILE "
         "__vsc_ipynb_file__", "harmless", "MLflow reads them for serving, language models and notebooks"),
    _row("OTEL_*", "removed", "they configure traces of MLflow and Ray, which a search does not make"),
    _row("DO_NOT_TRACK TQDM_*", "harmless", "telemetry and progress bars are off"),
    _row("ALEMBIC_CONFIG SQLALCHEMY_*", "removed", "MLflow has its own configuration of both"),
    # Connections to servers, buckets and package indices.
    _row("HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy", "input",
         "the proxy of this network; connections to loopback never use it"),
    _row("REQUESTS_CA_BUNDLE CURL_CA_BUNDLE SSL_CERT_FILE SSL_CERT_DIR SSLKEYLOGFILE NETRC OPENSSL_*", "input",
         "certificates and logins of the site"),
    _row("AWS_* BOTO_* AZURE_* GOOGLE_* GCS_* CLOUDSDK_* STORAGE_EMULATOR_HOST FSSPEC_* SMART_OPEN_*", "input",
         "accounts and addresses of buckets"),
    _row("PG* MYSQL_* ODBC* FREETDS*", "input", "login and address of a database server; its driver reads them"),
    _row("PSYCOPG_*", "harmless", "they choose the build of a database driver"),
    _row("PIP_*", "input", "the package index that MNIST can come from"),
    _row("GIT_*", "harmless", "the state of the code is read without the variables that point to another place"),
    # Ray.
    _row("RAY_* _RAY_* TUNE_* RLLIB_* SERVE_* BAD_RUNTIME_ENV_* RUNTIME_ENV_*", "removed", "they can buffer results, "
         "skip checkpoints, or let servers listen elsewhere; a search sets the ones that it needs"),
    _row("RAY_ADDRESS", "input", "the default of --address"),
    _row("RAY_AUTH_MODE RAY_AUTH_TOKEN RAY_AUTH_TOKEN_PATH RAY_USE_TLS RAY_TLS_*", "input", "login of a cluster"),
    _row("RAY_TMPDIR", "input", "the folder of Ray's sockets and logs"),
    _row("RAY_JOB_*", "input", "`ray job submit` sets them for the programs that it starts"),
    _row("RAY_CLUSTER_* RAY_PORT RAY_IP RAY_NODE_TYPE_NAME RAY_CLOUD_* RAY_HEAD_* RAY_INTERNAL_* RAY_DASHBOARD_* "
         "RAY_USAGE_STATS_*", "harmless", "KubeRay sets them in every pod; they configure the servers of a cluster"),
    _row("RAY_memory_* RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE RAY_object_spilling_directory", "input",
         "memory of this machine; a trial that Ray ends for lack of memory continues from its checkpoint"),
    _row("RAY_AIR_NEW_OUTPUT", "fixed", "Tune's newer output prints tables at every verbosity", "0"),
    _row("RAY_CLIENT_MODE", "fixed", "a driver runs on a node of its cluster", "0"),
    _row("RAY_USAGE_STATS_ENABLED", "fixed", "a search reports no usage", "0"),
    _row("TUNE_PRINT_ALL_TRIAL_ERRORS", "fixed", "the errors are in the trials' records and in their error.txt", "0"),
    _row("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "fixed", "the records of the project are enough", "1"),
    _row("TUNE_DISABLE_SIGINT_HANDLER", "fixed", "ladder_search/driver/halt.py has the handler", "1"),
    _row("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "fixed",
         "a snapshot per checkpoint needs no warning", "0"),
    _row("RAY_CHDIR_TO_TRIAL_DIR", "fixed", "trials keep the working directory", "0"),
    _row("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "fixed", "a trial without a GPU sees none", "1"),
    _row("RAY_TRAIN_V2_ENABLED", "fixed", "a search does not use Ray Train, whose second version takes 8 MB in "
         "every process", "0"),
    _row("RAY_prestart_worker_first_driver", "fixed", "trials are actors, which never use the processes that Ray "
         "starts in advance", "0"),
    _row("AUTOSCALER_* KUBERAY_* KUBERNETES_* KUBECONFIG VLLM_* RAYLLM_* HOROVOD_* collective_* NEURON_* JAX_* XLA_* "
         "TPU_* TF_* WANDB_* COMET_* REMOTE_PDB_* DASHBOARD_* EVENT_* AGENT_* PERFTOOLS_* RAYLET_PERFTOOLS_PATH "
         "CPUPROFILE LANCE_* FURIOSA_DEVICES MEGASCALE_PORT TEST_* TESTS_* DMLC_* FUNCTION_SIZE_* LOG_NAME_* "
         "TIMEOUT_FOR_* ROCPROFSYS_* ACCELERATE_TORCH_DEVICE TRAIN_* POLARS_* TENSOR_COLUMN_* TORCHFT_* TURBOPUFFER_* "
         "_TEST_TUNE_* __RAY_*", "harmless",
         "parts of Ray that a search does not use read them, or its launcher, or its own tests"),
    # Optuna.
    _row("OPTUNA_*", "removed", "a search has its own journal"),
    # PyTorch.
    _row("TORCH_* _TORCH* TORCHINDUCTOR_* TORCHDYNAMO_* INDUCTOR_* PYTORCH_* AOT_* AOTI_* AOTINDUCTOR_* FX_* ATEN_* "
         "PARTITIONER_* CUTLASS_* CUTEDSL_* HALIDE_* QUACK_* TORCHEXPORT_* TORCHCOMM_* UNSAFE_SKIP_* TENSORIFY_* "
         "FAKE_* PT2_* LTC_* TVM_* TRITON_* STRICT_DEFAULT KINETO_* DCP_* SYMPY_* USE_SYMENGINE LOGLEVEL MAST_* "
         "ENABLE_PERSISTENT_* ENABLE_PYTORCH_* ENABLE_TEMPLATE_* ENABLE_TMA_* DUMP_AOTI_MINIFIER COMPILE_STROBELIGHT_* "
         "LOG_AUTOTUNE_RESULTS LOG_TLPARSE TEARDOWN_CUPTI DISABLE_CUPTI_* IS_FBCODE _SPLITTER_* BENCHMARK_USE_*",
         "removed", "other instructions, another precision or another program change the numbers"),
    _row("TORCHINDUCTOR_CACHE_DIR TRITON_CACHE_DIR TRITON_HOME TORCH_HOME", "input", "folders of compiled programs"),
    _row("TRITON_PTXAS_PATH TRITON_LIBDEVICE_PATH CXX CC CUDA_HOME CUDA_PATH CPATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH "
         "LIBRARY_PATH CUDACXX CUDNN_HOME ROCM_HOME ROCM_PATH CONDA_* CONDA VIRTUAL_ENV UV_* PYENV_ROOT MKLROOT "
         "ONEAPI_ROOT NVTOOLSEXT_PATH LEVEL_ZERO_* MAX_JOBS", "input",
         "places of compilers and their files"),
    _row("MKL_* DNNL_* ONEDNN_* OPENBLAS_* BLIS_* GOTO_* VECLIB_* OMP_* KMP_* GOMP_* NPY_* NUMPY_* SCIPY_* SKLEARN_* "
         "JOBLIB_* LOKY_* PRIMA_* CUBLAS_* CUDNN_* NVIDIA_TF32_OVERRIDE ARROW_* LIBXSMM_*", "removed",
         "other instructions or other sums change the numbers; a search sets its numbers of threads itself"),
    _row("OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS", "harmless", "how many threads a library may start; "
         "trials and trainings set how many compute a sum"),
    _row("OMP_PROC_BIND OMP_PLACES OMP_WAIT_POLICY OMP_STACKSIZE KMP_AFFINITY KMP_BLOCKTIME KMP_DUPLICATE_LIB_OK "
         "KMP_INIT_AT_FORK GOMP_CPU_AFFINITY", "harmless", "where threads run and how they wait"),
    _row("ARROW_DEFAULT_MEMORY_POOL", "fixed", "Arrow's own pool allocates 4 MB in processes that do not use it",
         "system"),
    _row("CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER NVIDIA_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES HIP_VISIBLE_DEVICES "
         "ZE_AFFINITY_MASK ZE_FLAT_DEVICE_HIERARCHY ASCEND_* HABANA_* ONEAPI_DEVICE_SELECTOR QBRUNTIME_* RBLN_* TT_*",
         "input", "the devices that a batch system has assigned"),
    _row("CUDA_* NCCL_* GLOO_* RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE GROUP_* NODE_RANK ROLE_* MASTER_ADDR "
         "MASTER_PORT TORCHELASTIC_* FI_*", "harmless", "for programs with several processes, and CUDA's debugging"),
    # Pictures and terminals.
    _row("MPL* MATPLOTLIBRC QT_*", "removed", "pictures are written to files, always in the same style"),
    _row("MPLCONFIGDIR", "input", "the folder of matplotlib's list of fonts"),
    _row("SCIKIT_LEARN_DATA", "harmless", "the package contains the digits"),
    _row("COLUMNS LINES TERM COLORTERM NO_COLOR FORCE_COLOR TTY_COMPATIBLE TTY_INTERACTIVE UNICODE_VERSION JUPYTER_* "
         "DATABRICKS_RUNTIME_VERSION PAGER EDITOR DISPLAY WAYLAND_DISPLAY JUPYTERHUB_* COCALC_* COLAB_* VSCODE_* "
         "NTERACT_*", "harmless", "how lines look on a terminal"),
    _row("LANG LANGUAGE LC_* TZ TZDIR", "harmless", "every file is opened with its encoding; dates in names are local"),
    # Python.
    _row("PYTHON*", "removed", "for developers of Python; they apply to this process, not to those that it starts"),
    _row("PYTHONOPTIMIZE", "removed", "it removes docstrings, which Ray reads: a command restarts itself without it"),
    _row("PYTHONPATH PYTHONHOME PYTHONPLATLIBDIR PYTHONUSERBASE PYTHONNOUSERSITE PYTHONSAFEPATH PYTHONPYCACHEPREFIX "
         "PYTHONDONTWRITEBYTECODE PYTHONCASEOK PYTHONEXECUTABLE", "input", "places of the code"),
    _row("PYTHONIOENCODING PYTHONUTF8 PYTHONCOERCECLOCALE PYTHONUNBUFFERED PYTHONFAULTHANDLER", "harmless",
         "they concern the console; every file is opened with its encoding"),
    _row("PYTHON_*", "harmless", "container images and the prompt use them"),
    _row("PYTHON_CPU_COUNT PYTHON_GIL", "removed", "ladder_search/cores.py counts the usable cores"),
    _row("PYTHONHASHSEED", "harmless", "nothing depends on the order of a set; tests/unit/spaces runs under two seeds"),
    # The machine.
    _row("HOME USER LOGNAME USERNAME USERPROFILE PATH PWD OLDPWD SHELL TMPDIR TEMP TMP XDG_* LD_* DYLD_* HOSTNAME",
         "input", "the user, the folders and the programs of this machine"),
    _row("SLURM_* SBATCH_* PBS_* LSB_* NVIDIA_*", "input", "resources assigned by a batch system or container"),
    _row("MALLOC_* GLIBC_TUNABLES PSUTIL_DEBUG", "harmless", "how memory is allocated from the system"),
    _row("CI GITHUB_* SOURCE_DATE_EPOCH APPVEYOR PYTEST_* HYPOTHESIS_* COVERAGE_* MY_ENV_VAR PATH_DATASETS CFLAGS "
         "CPPFLAGS OPT ABSOFT ACCELERATE ATLAS_VERSION LAHEY NUMERIX TCSDS_PATH USE_COLOR PKG_CONFIG DISTUTILS_* "
         "_PYTHON_HOST_PLATFORM", "harmless", "build services, tests and the building of packages use them"),
    _row("APPDATA LOCALAPPDATA PROGRAM* Program* PROCESSOR_* SYSTEMROOT WINDIR WINDOWS_* VC* VSCMD_* MSYSTEM OSTYPE "
         "SVN_* MACOSX_* __PYVENV_LAUNCHER__ _MPLHIDEEXECUTABLES", "harmless", "other operating systems use them"),
)  # fmt: skip
"""Rows of all variables that the pinned packages read; ``tests/unit/test_environment.py`` checks this."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_OUTERMOST: list[str] = []


@functools.cache
def row_of(name: str) -> Row | None:
    best, length = None, -1
    for row in TABLE:
        for pattern in row.names:
            if pattern == name:
                return row
            if pattern.endswith("*") and name.startswith(pattern[:-1]) and len(pattern) > length:
                best, length = row, len(pattern)
    return best


@functools.cache
def _values() -> dict[str, str]:
    return {name: row.value for row in TABLE if row.value is not None for name in row.names}


def settled(environment: Mapping[str, str], *, but: Iterable[str] = ()) -> dict[str, str]:
    """Return an environment with the table applied; names with a prefix in ``but`` are left unchanged."""
    alone, result = tuple(but), {}
    for name, value in environment.items():
        row = None if name.startswith(alone) else row_of(name)
        keep = row is None or row.treatment in ("input", "harmless")
        if keep and (row is None or row.allowed is None or re.fullmatch(row.allowed, value)):
            result[name] = value
    for name, value in _values().items():
        if not name.startswith(alone) and (name not in result or _is_fixed(name)):
            result[name] = value
    if any(name.lower().endswith("_proxy") and name.lower() != "no_proxy" and result[name] for name in result):
        past = result.get("no_proxy", result.get("NO_PROXY", "")).split(",")
        result["no_proxy"] = result["NO_PROXY"] = ",".join(dict.fromkeys([*filter(None, past), *_LOOPBACK]))
    return result


def _is_fixed(name: str) -> bool:
    row = row_of(name)
    return row is not None and row.treatment == "fixed"


def without_effect(environment: Mapping[str, str]) -> list[str]:
    """Return the sorted names of variables that the user has set and that have no effect.

    Names that begin with an underscore are left out: libraries set them in their own process, for example PyTorch when
    it compiles.
    """
    result = settled(environment)
    return sorted(
        name
        for name, value in environment.items()
        if not name.startswith("_") and name.lower() != "no_proxy" and result.get(name) != value
    )


def ignored() -> list[str]:
    """Return the variables without effect, as of the outermost active ``ours`` if there is one."""
    return list(_OUTERMOST) if _OUTERMOST else without_effect(os.environ)


def in_words(names: Sequence[str], most: int = 6) -> str:
    """Return a sentence that reports variables without effect."""
    first = [*names[:most], *([f"{len(names) - most} more"] if len(names) > most else [])]
    listed = " and ".join(filter(None, [", ".join(first[:-1]), first[-1]]))
    have = "has" if len(names) == 1 else "have"
    return f"{listed} of the environment {have} no effect on a search; ladder_search/environment.py says why."


def settle(*, but: Iterable[str] = ()) -> None:
    """Apply the table to this process permanently; for processes that the project has started."""
    _become(settled(os.environ, but=but))


@contextmanager
def ours() -> Iterator[None]:
    """Apply the table to this process while active, and restore the environment afterwards.

    The filters of ``PYTHONWARNINGS``, which Python reads at startup, are replaced by the defaults meanwhile.
    """
    before, outermost = dict(os.environ), not _OUTERMOST
    with ExitStack() as stack:
        if "PYTHONWARNINGS" in before:
            stack.enter_context(warnings.catch_warnings())
            warnings.resetwarnings()
            for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
                warnings.simplefilter("ignore", category)
        if outermost:
            _OUTERMOST.extend(without_effect(before))
        _become(settled(before))
        try:
            yield
        finally:
            _become(before)
            if outermost:
                _OUTERMOST.clear()


def start_anew_unoptimised() -> None:
    """Restart this process without ``PYTHONOPTIMIZE`` if that was set."""
    if sys.flags.optimize and os.environ.pop("PYTHONOPTIMIZE", None) is not None:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _become(environment: Mapping[str, str]) -> None:
    for name in [name for name in os.environ if name not in environment]:
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
