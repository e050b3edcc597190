"""Versions of the packages that can affect results. Standard library only, so any process can import it."""

import re
import tomllib
from importlib import metadata, util
from pathlib import Path

# Packages that can change a number or a graph. Other installed packages do not belong in a record.
PACKAGES = (
    "mrpcbench torch transformers tokenizers datasets evaluate accelerate optimum optimum-onnx onnx onnxruntime "
    "onnxruntime-gpu openvino numpy safetensors huggingface-hub triton flash-attn"
).split()
# Packages with the same module. If both are installed, the module that is imported belongs to one of them.
ONNX_RUNTIMES = {"onnxruntime", "onnxruntime-gpu"}


def installed_versions() -> dict[str, str]:
    """Name and version of each of `PACKAGES` that is installed; mrpcbench itself may run from its source.

    Of `ONNX_RUNTIMES` it is only the one that is imported.
    """
    found = {name: version for name in PACKAGES if (version := _version(name))}
    if ONNX_RUNTIMES.issubset(found) and (imported := _imported_onnx_runtime()):
        found = {name: version for name, version in found.items() if name not in ONNX_RUNTIMES} | imported
    return found


def own_version() -> str:
    """The version of mrpcbench; "unknown" if it is neither installed nor in a checkout."""
    return _version("mrpcbench") or "unknown"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return _source_version() if name == "mrpcbench" else None


def _imported_onnx_runtime() -> dict[str, str]:
    """Name and version of the package to which the module `onnxruntime` belongs; empty if the module does not say.

    The module is not imported; a file in it has both.
    """
    module = util.find_spec("onnxruntime")
    if module is None or module.origin is None:
        return {}
    try:
        text = (Path(module.origin).parent / "capi" / "build_and_package_info.py").read_text(encoding="utf-8")
    except OSError:
        return {}
    values = dict(re.findall(r"^(package_name|__version__) = '([^']+)'", text, re.MULTILINE))
    return {values["package_name"]: values["__version__"]} if len(values) == 2 else {}


def _source_version() -> str | None:
    """The version in the pyproject.toml beside this package, which a checkout on PYTHONPATH has."""
    try:
        text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
        project = tomllib.loads(text).get("project", {})
    except (OSError, ValueError):
        return None
    return str(project["version"]) if project.get("name") == "mrpcbench" and "version" in project else None
