"""Captures the machine and the software, without names of people, hosts or folders."""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil
import torch

from mrpcbench.environment.machine import cpu_name, machine_sha256, traits
from mrpcbench.environment.redaction import public_argv, utf8
from mrpcbench.environment.versions import installed_versions
from mrpcbench.errors import MissingError, UsageError
from mrpcbench.schema.identity import Environment
from mrpcbench.schema.requests import Device

# Variables that torch, its libraries and ONNX Runtime read and that change results or speed.
SETTINGS = (
    "OMP_NUM_THREADS OMP_WAIT_POLICY OMP_DYNAMIC OMP_PROC_BIND OMP_PLACES OMP_SCHEDULE OMP_THREAD_LIMIT "
    "GOMP_SPINCOUNT GOMP_CPU_AFFINITY KMP_AFFINITY KMP_BLOCKTIME "
    "MKL_NUM_THREADS MKL_DYNAMIC MKL_CBWR MKL_ENABLE_INSTRUCTIONS MKL_DEBUG_CPU_TYPE "
    "OPENBLAS_NUM_THREADS OPENBLAS_CORETYPE ATEN_CPU_CAPABILITY "
    "ONEDNN_MAX_CPU_ISA DNNL_MAX_CPU_ISA ONEDNN_CPU_ISA_HINTS DNNL_CPU_ISA_HINTS "
    "ONEDNN_DEFAULT_FPMATH_MODE DNNL_DEFAULT_FPMATH_MODE "
    "CUDA_VISIBLE_DEVICES CUDA_LAUNCH_BLOCKING CUDA_MODULE_LOADING CUDA_DEVICE_MAX_CONNECTIONS CUDA_FORCE_PTX_JIT "
    "CUBLAS_WORKSPACE_CONFIG CUBLASLT_WORKSPACE_SIZE DISABLE_ADDMM_CUDA_LT "
    "NVIDIA_TF32_OVERRIDE TORCH_ALLOW_TF32_CUBLAS_OVERRIDE TORCH_BLAS_PREFER_CUBLASLT TORCH_CUDNN_V8_API_DISABLED "
    "TORCH_COMPILE_DISABLE TORCHDYNAMO_DISABLE FLASH_ATTENTION_DETERMINISTIC "
    "PYTORCH_CUDA_ALLOC_CONF PYTORCH_ALLOC_CONF PYTORCH_NO_CUDA_MEMORY_CACHING PYTORCH_JIT"
).split()
# These are too many to list. Names with these endings change no result: places for files, and reports to a maker.
SETTING_PREFIXES = ("ORT_", "TORCHINDUCTOR_", "TORCH_CUDNN_SDPA_", "PYTORCH_TUNABLEOP_")
NO_SETTING = ("_DIR", "_PATH", "_FILE", "_FILENAME", "_HOME", "_URL", "_TELEMETRY")

# The commit of a source that was copied without its .git folder.
COMMIT_VARIABLE = "MRPCBENCH_COMMIT"


def capture(argv: Sequence[str] | None = None) -> Environment:
    """The current environment. `argv` is the command line, by default that of this process."""
    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    commit, dirty = _checkout()
    return Environment(
        started_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        argv=public_argv(sys.argv if argv is None else argv),
        machine_sha256=machine_sha256(),
        system=f"{platform.system()} {platform.machine()}",
        cpu=cpu_name(),
        cpu_cores=usable_cores(),
        memory_bytes=psutil.virtual_memory().total,
        gpu=gpu.name if gpu else None,
        gpu_memory_bytes=gpu.total_memory if gpu else None,
        gpu_driver=_gpu_driver() if gpu else None,
        cuda=torch.version.cuda,
        python=platform.python_version(),
        packages=installed_versions(),
        settings={name: utf8(value) for name, value in sorted(os.environ.items()) if _is_setting(name)},
        git_commit=commit,
        git_dirty=dirty,
        source_sha256=_source_sha256(),
        machine=traits(),
    )


def _is_setting(name: str) -> bool:
    return name in SETTINGS or (name.startswith(SETTING_PREFIXES) and not name.endswith(NO_SETTING))


def _source_sha256() -> str:
    """SHA-256 over the names and bytes of this package's modules."""
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def resolve_device(asked: Device) -> str:
    """`cpu` or `cuda`; raises `MissingError` if CUDA is requested and torch cannot use it."""
    if asked == "cuda" and not torch.cuda.is_available():
        raise MissingError(f"--device cuda: {cuda_problem()}; use --device cpu, or see `mrpcbench env`")
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return asked


def exact_float32() -> None:
    """Compute float32 exactly on a GPU. Some containers enable TF32 with an environment variable."""
    torch.set_float32_matmul_precision("highest")


def device_name(device: str) -> str:
    """`cpu`, or `cuda` with the GPU's name, as placements show it."""
    return f"cuda {torch.cuda.get_device_name(0)}" if device == "cuda" else device


def cuda_problem() -> str | None:
    """Why torch cannot use CUDA here, as a message; None if it can."""
    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return f"the installed torch {torch.__version__} is a CPU build"
    return f"torch {torch.__version__} is built for CUDA {torch.version.cuda} but finds no usable GPU or driver"


def usable_cores() -> int:
    """Logical cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_threads(asked: int = 0) -> int:
    """CPU threads of an engine: `asked` (--threads) unless it is 0, else OMP_NUM_THREADS, else the usable cores.

    OMP_NUM_THREADS may be a list, for nested parallel regions; the first number counts. Raises `UsageError` if it is
    needed and is not a positive integer.
    """
    if asked:
        return asked
    text = os.environ.get("OMP_NUM_THREADS", "").strip()
    if not text:
        return usable_cores()
    first = text.split(",")[0].strip()
    if not re.fullmatch(r"0*[1-9][0-9]*", first, re.ASCII):
        raise UsageError(f"OMP_NUM_THREADS={text}: not a positive integer; set it to a number of threads, or unset it")
    return int(first)


def _gpu_driver() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    return _output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0")


def _checkout() -> tuple[str | None, bool | None]:
    """Commit and dirty flag of this package's source, if git tracks it.

    Without git, the commit is the value of `COMMIT_VARIABLE`, and whether files were changed is unknown.
    """
    package = Path(__file__).parents[1]
    if _output_of("git", "-C", str(package), "ls-files", "--error-unmatch", "__init__.py") is None:
        return _given_commit(), None
    commit = _output_of("git", "-C", str(package), "rev-parse", "HEAD")
    status = _output_of("git", "-C", str(package), "status", "--porcelain", "--", ".")
    return commit, None if status is None else bool(status)


def _given_commit() -> str | None:
    """The commit in `COMMIT_VARIABLE`; None if it is unset. Raises `UsageError` if it is not a commit."""
    given = os.environ.get(COMMIT_VARIABLE, "").strip()
    if given and not re.fullmatch(r"[0-9a-f]{7,64}", given, re.ASCII):
        raise UsageError(f"{COMMIT_VARIABLE}={given}: not a commit; set it to the output of `git rev-parse HEAD`")
    return given or None


def _output_of(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
