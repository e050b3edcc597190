"""The parts that every result is shown with: tables of plain text, and the words for models, places and numbers."""

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

from mrpcbench.schema.bench_results import BenchRow
from mrpcbench.schema.identity import Environment, ModelIdentity, Placement

Row = TypeVar("Row")
# SIMPLE_HEAD with a gap in the line below the headers, which tells columns apart that are one space apart.
CRAMPED = Box("    \n    \n ─  \n    \n    \n    \n    \n    \n")


class PlainTable(Table):
    """A table that shows its cells word for word: a name may hold brackets, which rich would take for markup.

    `below` is printed under it at the terminal's full width; rich's own caption wraps at the table's. A `tight` one has
    two spaces between its columns where the terminal is wide enough for that, and else one.
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
                self.box, self.padding = CRAMPED, (0, 0, 0, 0)
        yield from super().__rich_console__(console, options)
        if self.below:
            yield Text(("\n" if self.tight else "") + self.below, "dim italic")
        yield Text("")


class Name(Text):
    """A name of words joined by hyphens, which is folded after one of them where it does not fit."""

    def wrap(self, console: Console, width: int, **options: Any) -> Lines:
        """Lines of at most `width`; a word that is longer is folded within."""
        lines = [""]
        for part in re.findall(r"[^- ]*[- ]|[^- ]+", self.plain):
            if lines[-1] and cell_len(lines[-1] + part.rstrip()) > width:
                lines.append("")
            lines[-1] += part
        return Text("\n".join(line.rstrip() for line in lines), self.style).wrap(console, width, **options)


def table(
    title: str, *columns: str, numeric: bool = False, caption: str = "", tight: bool = False, names: int = 1
) -> PlainTable:
    """A table with a header; with `numeric` no column but the first is folded to make the table fit, and all but the
    first `names` are aligned to the right.

    `tight` leaves out the lines between columns, for tables of many columns on a terminal of 80.
    """
    made = PlainTable(title=Text(title, "bold"), title_justify="left", pad_edge=not tight, show_edge=not tight)
    made.below, made.tight = caption, tight
    for index, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if numeric and index >= names else "left"
        whole = numeric and index > 0
        # Cut off, one engine's name could pass for another's; a number that is cut must show it.
        made.add_column(Text(column), justify=justify, no_wrap=whole, overflow="ellipsis" if whole else "fold")
    return made


def table_of(
    title: str,
    columns: Sequence[tuple[str, Callable[[Row], str]]],
    rows: Iterable[Row],
    *,
    bold: Sequence[Row] = (),
    caption: str = "",
    names: int = 1,
) -> PlainTable:
    """A tight table of numbers with a line for each of `rows`; a column is a header and what gives a row's cell."""
    made = table(title, *(name for name, _ in columns), numeric=True, tight=True, caption=caption, names=names)
    for row in rows:
        stands_out = any(row is one for one in bold)
        name, *cells = (cell(row) for _, cell in columns)
        made.add_row(Name(name), *cells, style="bold" if stands_out else None)
    return made


def facts(title: str, rows: Iterable[tuple[str, RenderableType]] = ()) -> PlainTable:
    """A table of names and values without a header."""
    made = PlainTable(title=Text(title, "bold"), title_justify="left", show_header=False)
    for name, value in rows:
        made.add_row(name, value)
    return made


def notes(models: Iterable[ModelIdentity], *more: str) -> Iterator[Text]:
    """What a reader of figures about `models` must not overlook, and `more` of it; nothing where there is nothing."""
    lines = list(more)
    for model in models:
        if model.proven is False:
            lines.append(_unproven(model))
        if model.weights == "random-init":
            lines.append(
                "random-init: speed, memory and numerics are those of the architecture; accuracy and F1 mean nothing."
            )
    if lines:
        yield Text("\n".join(dict.fromkeys(lines)))


def _unproven(model: ModelIdentity) -> str:
    graph = model.graph_label or "graph"
    command = "mrpcbench export" + (f" --optimize {model.optimize}" if model.graph_label else "")
    return (
        f"UNPROVEN: the {graph} of {model.name} did not pass the export gate, or was changed since; its answers and "
        f"its speed may be those of another model. `{command}` proves it, or shows by how much it differs."
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
    """What computed, in a few words."""
    return placement.device if placement.device != "cpu" else f"{found.cpu}, {found.cpu_cores} cores"


def model_line(model: ModelIdentity) -> str:
    """Name, architecture, size and where the weights come from."""
    graph = f", {model.graph_label}" if model.graph_label else ""
    return f"{model.name} ({model.architecture}, {model.parameters / 1e6:.1f} M, {model.weights_label} weights{graph})"


def placement_line(placement: Placement) -> str:
    """Engine, kernels, arithmetic, device and threads."""
    return f"{placement.in_words}, {placement.threads} threads"


def caption(model: ModelIdentity, placement: Placement, n: str) -> str:
    """What every table of figures carries: the model, its weights, where it ran, and how many pairs."""
    return f"{model_line(model)}\n{placement_line(placement)}; {n}"


def engine(row: BenchRow) -> str:
    """The name of a benchmark row's case, never silent about a graph that is not proven or a row that is INVALID."""
    return row.case + (" UNPROVEN" if row.model.proven is False else "") + ("!" if row.broken_rules else "")


def name_header(rows: Iterable[BenchRow]) -> str:
    """What the column of `engine` is of: a case of a preset has a name of its own."""
    return "backend" if all(row.case == row.spec.backend for row in rows) else "case"
