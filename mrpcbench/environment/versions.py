"""Versions of the packages that can affect results. Standard library only, so any process can import it."""

import tomllib
from importlib import metadata
from pathlib import Path

# Packages that can change a number or a graph. Other installed packages do not belong in a record.
PACKAGES = (
    "mrpcbench torch transformers tokenizers datasets evaluate accelerate optimum optimum-onnx onnx onnxruntime "
    "onnxruntime-gpu openvino numpy safetensors huggingface-hub triton flash-attn"
).split()


def installed_versions() -> dict[str, str]:
    """Name and version of each of `PACKAGES` that is installed; mrpcbench itself may run from its source."""
    return {name: version for name in PACKAGES if (version := _version(name))}


def own_version() -> str:
    """The version of mrpcbench; "unknown" if it is neither installed nor in a checkout."""
    return _version("mrpcbench") or "unknown"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return _source_version() if name == "mrpcbench" else None


def _source_version() -> str | None:
    """The version in the pyproject.toml beside this package, which a checkout on PYTHONPATH has."""
    try:
        text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
        project = tomllib.loads(text).get("project", {})
    except (OSError, ValueError):
        return None
    return str(project["version"]) if project.get("name") == "mrpcbench" and "version" in project else None
