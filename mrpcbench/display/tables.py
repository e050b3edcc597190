"""The parts that all results share: tables of plain text, and one-line texts for models, placements and machines."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar

from rich.box import SIMPLE_HEAD, Box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.containers import Lines
from rich.style import StyleType
from rich.table import Table
from rich.text import Text

from mrpcbench.display.numbers import fixed
from mrpcbench.records.figures import percentile_ms
from mrpcbench.schema.bench_results import BenchRow
from mrpcbench.schema.identity import Environment, ModelIdentity, Placement
from mrpcbench.statistics import samples_needed

Row = TypeVar("Row")
Cell = str | Text
# SIMPLE_HEAD with gaps in the line below the headers, to separate columns that are one space apart.
NARROW_BOX = Box("    \n    \n ─  \n    \n    \n    \n    \n    \n")


class PlainTable(Table):
    """A table whose cells are plain text: a name may contain brackets, which rich would read as markup.

    The title and `below`, a caption, are as wide as the terminal; those of rich are as wide as the table. A `tight`
    table has two spaces between columns, or one if the terminal is too narrow.
    """

    below = ""
    tight = False

    def add_row(self, *cells: RenderableType | None, style: StyleType | None = None, end_section: bool = False) -> None:
        """Add a row of texts or other renderables."""
        plain = (Text(cell) if isinstance(cell, str) else cell for cell in cells)
        super().add_row(*plain, style=style, end_section=end_section)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.tight:
            self.box, self.padding = SIMPLE_HEAD, (0, 1, 0, 0)
            if console.measure(self, options=options.update(width=10_000)).maximum > options.max_width:
                self.box, self.padding = NARROW_BOX, (0, 0, 0, 0)
        # A title of rich wraps at the width of the table.
        title, self.title = self.title, None
        if title is not None:
            yield title if isinstance(title, Text) else Text(title)
        yield from super().__rich_console__(console, options)
        self.title = title
        if self.below:
            yield Text(("\n" if self.tight else "") + self.below, "dim italic")
        yield Text("")


class HyphenatedName(Text):
    """A name of words joined by hyphens, which wraps after a hyphen."""

    def wrap(self, console: Console, width: int, **options: Any) -> Lines:
        """Lines of at most `width`; a longer word is split."""
        lines = [""]
        for part in re.findall(r"[^- ]*[- ]|[^- ]+", self.plain):
            if lines[-1] and cell_len(lines[-1] + part.rstrip()) > width:
                lines.append("")
            lines[-1] += part
        return Text("\n".join(line.rstrip() for line in lines), self.style).wrap(console, width, **options)


def table(
    title: str, *columns: str, numeric: bool = False, caption: str = "", tight: bool = False, names: int = 1
) -> PlainTable:
    """A table with a header. With `numeric`, only the first column wraps, and all but the first `names` are
    right-aligned.

    `tight` omits the lines between columns, so that a table of many columns fits 80 columns.
    """
    made = PlainTable(title=Text(title, "bold"), title_justify="left", pad_edge=not tight, show_edge=not tight)
    made.below, made.tight = caption, tight
    for index, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if numeric and index >= names else "left"
        whole = numeric and index > 0
        # A truncated name could be taken for another engine, so it wraps; a truncated number shows an ellipsis.
        made.add_column(Text(column), justify=justify, no_wrap=whole, overflow="ellipsis" if whole else "fold")
    return made


def table_of(
    title: str,
    columns: Sequence[tuple[str, Callable[[Row], Cell]]],
    rows: Iterable[Row],
    *,
    bold: Sequence[Row] = (),
    caption: str = "",
    names: int = 1,
) -> PlainTable:
    """A tight table of numbers with a line per row; a column is a header and a function that formats a row's cell.

    The rows in `bold` are bold.
    """
    made = table(title, *(name for name, _ in columns), numeric=True, tight=True, caption=caption, names=names)
    for row in rows:
        is_bold = any(row is one for one in bold)
        name, *cells = (cell(row) for _, cell in columns)
        made.add_row(HyphenatedName(str(name)), *cells, style="bold" if is_bold else None)
    return made


def facts(title: str, rows: Iterable[tuple[str, RenderableType]] = ()) -> PlainTable:
    """A table of names and values without a header."""
    made = PlainTable(title=Text(title, "bold"), title_justify="left", show_header=False)
    for name, value in rows:
        made.add_row(name, value)
    return made


def notes(models: Iterable[ModelIdentity], *more: str) -> Iterator[Text]:
    """Warnings about `models` and the lines in `more`, below a table; nothing if there are none."""
    lines = list(more)
    for model in models:
        if model.proven is False:
            lines.append(_unverified(model))
        if model.weights == "random-init":
            lines.append(
                "random-init: speed, memory and numerics are those of the architecture, but accuracy and F1 are "
                "meaningless."
            )
    if lines:
        yield Text("\n".join(dict.fromkeys(lines)))


def _unverified(model: ModelIdentity) -> str:
    graph = model.graph_label or "graph"
    command = "mrpcbench export" + (f" --optimize {model.optimize}" if model.graph_label else "")
    return (
        f"UNVERIFIED: the {graph} of {model.name} did not pass the export gate, or has changed since, so its answers "
        f"may differ from the model's. Verify it with `{command}`."
    )


def environment_facts(found: Environment) -> list[tuple[str, RenderableType]]:
    """Machine, GPU and versions."""
    gpu = f"{found.gpu}, driver {found.gpu_driver}, CUDA {found.cuda}" if found.gpu else "none"
    versions = [f"{name} {found.packages[name]}" for name in ("torch", "transformers") if name in found.packages]
    commit = f", commit {found.git_commit[:12]}" if found.git_commit else ""
    changed = " (changed)" if found.git_dirty else ""
    return [
        ("machine", f"{found.system}, {found.cpu}, {found.cpu_cores} cores, {found.memory_bytes / 2**30:.0f} GiB"),
        ("GPU", gpu),
        ("python", ", ".join([found.python, *versions])),
        ("mrpcbench", found.packages.get("mrpcbench", "not installed") + commit + changed),
    ]


def machine_line(found: Environment, placement: Placement) -> str:
    """The GPU, or the CPU with its number of cores."""
    return placement.device if placement.device != "cpu" else f"{found.cpu}, {found.cpu_cores} cores"


def model_line(model: ModelIdentity) -> str:
    """Name, architecture, size and origin of the weights."""
    graph = f", {model.graph_label}" if model.graph_label else ""
    return f"{model.name} ({model.architecture}, {model.parameters / 1e6:.1f} M, {model.weights_label} weights{graph})"


def placement_line(placement: Placement) -> str:
    """Engine, kernels, precision, device and threads."""
    return f"{placement.description}, {placement.threads} threads"


def caption(model: ModelIdentity, placement: Placement, n: str) -> str:
    """The caption of every results table: the model, its weights, where it ran, and the number of pairs."""
    return f"{model_line(model)}\n{placement_line(placement)}; {n}"


def unverified_label(row: BenchRow) -> str:
    """The name of a row's case, with UNVERIFIED for a graph that did not pass the gate."""
    return row.case + (" UNVERIFIED" if row.model.proven is False else "")


def case_label(row: BenchRow) -> str:
    """`unverified_label`, with ! for an INVALID row."""
    return unverified_label(row) + ("!" if row.broken_rules else "")


def batch_label(row: BenchRow) -> str:
    """The batch size, and the number of pairs if all of them fit into a smaller batch."""
    small = row.scenario == "offline" and row.pairs < row.batch_size
    return f"{row.batch_size} ({row.pairs})" if small else str(row.batch_size)


def short_name(row: BenchRow) -> str:
    """A row within its scenario, as `--relative-to` reads it: CASE for single-stream, else CASE:BATCH."""
    return row.case if row.scenario == "single-stream" else f"{row.case}:{row.batch_size}"


def percentile(row: BenchRow, share: float) -> str:
    """A percentile of a row's samples in ms, or the number of samples that would bound it at 99% confidence."""
    found = percentile_ms(row, share)
    return f"n<{samples_needed(share)}" if found is None else fixed(found, 2)


def name_header(rows: Iterable[BenchRow]) -> str:
    """The header of the column of `case_label`: 'backend', or 'case' if a preset named the rows."""
    return "backend" if all(row.case == row.spec.backend for row in rows) else "case"
