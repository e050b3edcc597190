"""Environment variables that libraries read: malformed ones are named before, or after, a library fails over them.

Standard library only.
"""

import atexit
import codecs
import linecache
import locale
import os
import pwd
import re
import shutil
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from traceback import walk_tb
from types import TracebackType

from mrpcbench.errors import MrpcbenchError, UsageError, first_line

_COUNT = r"\+?0*[1-9]\d*"
_LOGICAL = r"true|false"
_BIND = r"master|primary|close|spread"
_INTEGER = r"[+-]?\d+"
_AFFINITY = r"\d+(-\d+(:\d+)?)?"
_PLACES = r"(threads|cores|sockets|ll_caches|numa_domains)\s*(\(\s*\d+\s*\))?|[{}\d:,!\s-]+"
_SCHEDULE = r"((non)?monotonic\s*:\s*)?(static|dynamic|guided|auto)\s*(,\s*\d+)?"
# What GNU OpenMP takes; it prints a line of its own about anything else (libgomp manual, "Environment Variables"), and
# never returns from some values of GOMP_CPU_AFFINITY. What the hub's client and datasets parse when they are imported.
EXPECTED = {
    "OMP_NUM_THREADS": (rf"{_COUNT}(\s*,\s*{_COUNT})*", "a positive integer"),
    "OMP_THREAD_LIMIT": (_COUNT, "a positive integer"),
    "OMP_SCHEDULE": (_SCHEDULE, "a kind of schedule such as static"),
    "OMP_PLACES": (_PLACES, "a list of places such as cores"),
    "GOMP_CPU_AFFINITY": (rf"{_AFFINITY}([\s,]+{_AFFINITY})*", "a list of cores such as 0-3"),
    "OMP_PROC_BIND": (rf"{_LOGICAL}|({_BIND})(\s*,\s*({_BIND}))*", "true, false, primary, close or spread"),
    "OMP_WAIT_POLICY": ("active|passive", "active or passive"),
    "OMP_DISPLAY_ENV": (rf"{_LOGICAL}|verbose", "true, false or verbose"),
    "GOMP_SPINCOUNT": (r"\d+\s*[kmgt]?|infinite|infinity", "an integer or infinity"),
    **dict.fromkeys(("OMP_STACKSIZE", "GOMP_STACKSIZE"), (r"\d+\s*[bkmg]?", "a size such as 4M")),
    **dict.fromkeys(
        ("OMP_DYNAMIC", "OMP_NESTED", "OMP_CANCELLATION", "OMP_DISPLAY_AFFINITY"), (_LOGICAL, "true or false")
    ),
    **dict.fromkeys(
        ("OMP_MAX_ACTIVE_LEVELS", "OMP_MAX_TASK_PRIORITY", "OMP_DEFAULT_DEVICE", "GOMP_DEBUG"), (_INTEGER, "an integer")
    ),
    **dict.fromkeys(
        ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_LOCAL_DIR_AUTO_SYMLINK_THRESHOLD"),
        (_INTEGER, "an integer"),
    ),
    "HF_DATASETS_IN_MEMORY_MAX_SIZE": (r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", "a number"),
}
LARGEST_INT = 2**31 - 1
# A variable whose value must not be shown.
SECRET = re.compile(r"TOKEN|KEY|SECRET|PASS|CREDENTIAL|AUTH")
# The names that the libraries of this project give their variables.
OF_LIBRARIES = re.compile(
    r"(HF|HUGGINGFACE|TRANSFORMERS|DATASETS|EVALUATE|ACCELERATE|OPTIMUM|TORCH\w*|PYTORCH|TRITON|CUDA|CUBLAS|NCCL|ORT|"
    r"ONNX\w*|OMP|GOMP|MKL|KMP|NUMEXPR|ARROW|TOKENIZERS|RICH|TYPER|TERMINAL)_\w+|LOCAL_RANK|RANK|WORLD_SIZE|MASTER_PORT"
)


def check_variables(environ: MutableMapping[str, str]) -> None:
    """Raise `UsageError` for a variable of `EXPECTED` with another value; an empty one is removed."""
    for name, (pattern, meaning) in EXPECTED.items():
        text = environ.get(name)
        if text is None:
            continue
        if not text.strip():
            del environ[name]
        elif not re.fullmatch(pattern, text.strip(), re.ASCII | re.IGNORECASE) or _too_large(text):
            raise UsageError(f"{name}={text}: not {meaning}; correct or unset it")


def is_first_process(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process prints and writes: it is alone, or the first of those that a launcher has started."""
    return environ.get("RANK", "0").strip() in ("", "-1", "0")


def ensure_user(environ: MutableMapping[str, str]) -> None:
    """Give a user id that is not in the user database a name and an empty home folder, deleted at exit.

    Libraries need both for their caches, and some fail without them.
    """
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        environ.setdefault("LOGNAME", f"uid{os.getuid()}")
        if not environ.get("HOME"):
            folder = tempfile.mkdtemp(prefix="mrpcbench-")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            # One level below, because what lies beside a home counts as another's.
            environ["HOME"] = f"{folder}/home"


def _too_large(text: str) -> bool:
    return any(int(number[:20]) > LARGEST_INT for number in re.findall(r"\d+", text))


def blamed_variable(error: BaseException, environ: Mapping[str, str]) -> str | None:
    """One line on the variable of `environ` that made a library raise `error`, or None if it was none.

    That is a variable that the failing line of a library reads by its name while it is imported, or one of a library
    whose value the message quotes. It is also one that makes Python read files as ASCII, as some libraries read theirs.
    """
    for link in _chain(error):
        if isinstance(link, UnicodeError) and "'ascii' codec" in str(link) and _is_ascii(locale.getencoding()):
            return "the encoding of this locale is ASCII, and a library reads files that are UTF-8; set PYTHONUTF8=1"
        names = [name for name in _read_at_import(link.__traceback__) if name in environ]
        names += [name for name, value in environ.items() if OF_LIBRARIES.fullmatch(name) and _quotes(link, value)]
        if names:
            value = "..." if SECRET.search(names[0]) else environ[names[0]][:40]
            return f"{names[0]}={value}: a library does not take this value ({first_line(link)}); correct or unset it"
    return None


def _is_ascii(encoding: str) -> bool:
    return codecs.lookup(encoding).name == "ascii"


def _quotes(error: BaseException, value: str) -> bool:
    """Whether the message of `error` quotes `value`, which is more than a number that may be anything."""
    return len(value) > 1 and not value.isdigit() and repr(value) in str(error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Those of `error` and what caused it that are not of this project, the first cause first."""
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in links:
        links.append(link)
        link = link.__cause__ or link.__context__
    yield from (link for link in reversed(links) if not isinstance(link, MrpcbenchError))


def _read_at_import(trace: TracebackType | None) -> Iterator[str]:
    """The names in capitals that stand in quotes on a line of a library's module that failed."""
    libraries = tuple({sysconfig.get_path(name) for name in ("purelib", "platlib")})
    for frame, line in walk_tb(trace):
        file = frame.f_code.co_filename
        if frame.f_code.co_name == "<module>" and file.startswith(libraries):
            yield from re.findall(r"""["']([A-Z][A-Z0-9_]{2,})["']""", linecache.getline(file, line))
