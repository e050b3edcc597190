"""The environment variables of the process, for the libraries that read them when they are imported."""

import os
import sys


def prepare_process() -> None:
    """Set the environment variables that libraries read on import; values that the user has set stay."""
    # Idle threads of GNU OpenMP spin 300,000 times before they sleep. On a busy machine they take the cores from the
    # threads that they wait for: one pair through a tiny model then takes hundreds of ms (docs/architecture.md).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    # These variables could make transformers ignore the installed torch.
    for name in ("USE_TORCH", "USE_TF", "USE_FLAX", "FORCE_TF_AVAILABLE"):
        os.environ.pop(name, None)
    # Messages of libraries would mix with the output of the commands, which report what matters.
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "DATASETS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "" if sys.stderr.isatty() else "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "TOKENIZERS_PARALLELISM": "true",
    }.items():
        if value:
            os.environ.setdefault(name, value)
