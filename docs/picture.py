"""Draw README's picture, docs/bench.svg: what `mrpcbench bench` shows of a record, on a terminal of 80 columns.

    python docs/picture.py

The figures are those of the record below, and a test compares them with the picture.
"""

import re
from io import StringIO
from pathlib import Path

from rich.console import Console

from mrpcbench.display.render import render
from mrpcbench.records import store
from mrpcbench.schema.bench_requests import BenchView

REPOSITORY = Path(__file__).parent.parent
RECORD = REPOSITORY / "results" / "quickstart" / "bench.json"
PICTURE = REPOSITORY / "docs" / "bench.svg"
TITLE = "mrpcbench bench --backend torch --backend onnx"


def console() -> Console:
    """A console of 80 columns that shows the record, whatever the terminal and the environment."""
    shown = Console(
        width=80,
        record=True,
        file=StringIO(),
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
        _environ={},
    )
    shown.print(render(store.load(RECORD), BenchView()))
    return shown


def picture() -> str:
    """The SVG. It loads no font, unlike rich's own."""
    svg = console().export_svg(title=TITLE, unique_id="bench")
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    svg = svg.replace("font-family: Fira Code, monospace", "font-family: ui-monospace, Menlo, Consolas, monospace")
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    print(PICTURE)
