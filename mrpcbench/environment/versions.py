"""Versions of the packages that can affect results. Standard library only, so any process can import it."""

from importlib import metadata

# Packages that can change a number or a graph. Other installed packages do not belong in a record.
PACKAGES = (
    "mrpcbench torch transformers tokenizers datasets evaluate accelerate optimum optimum-onnx onnx onnxruntime "
    "onnxruntime-gpu numpy safetensors huggingface-hub triton flash-attn"
).split()


def installed_versions() -> dict[str, str]:
    """Name and version of each of `PACKAGES` that is installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
