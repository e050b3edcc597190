"""Help that shows the options of a command in one panel per group.

Typer's panels have separate columns for names and types, and cut long names with an ellipsis at 80 columns. Here names
and types share a column, and nothing is cut.
"""

from io import StringIO
from typing import Any

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from typer import echo
from typer.core import TyperCommand, TyperGroup

from mrpcbench.cli.streams import StyledStream

# Panels are shown in this order; others follow in the order of their options.
PANELS = ("Arguments", "Model and data", "Recipe", "Trials", "Timing", "Limits", "Output", "Advanced", "Options")
WIDTH = 80
NAMES_WIDTH = 32
# Two commands to copy for each command; "" is the program itself.
EXAMPLES: dict[str, tuple[str, str]] = {
    "": (
        "mrpcbench quickstart",
        "mrpcbench train --model quickstart --data quickstart --output-dir model",
    ),
    "train": (
        "mrpcbench train --model quickstart --data quickstart --output-dir model",
        "mrpcbench train --data ./mrpc --seed 1 --output-dir model-1",
    ),
    "study": (
        "mrpcbench study --model quickstart --data quickstart --max-steps 40",
        "mrpcbench study --seeds 8 --set learning_rate=5e-5,8e-5",
    ),
    "evaluate": (
        "mrpcbench evaluate --model model --data quickstart",
        "mrpcbench evaluate --model quickstart \\\n"
        '    --pair "The pilot bought 9 cars." "Nine cars were bought by the pilot."',
    ),
    "export": (
        "mrpcbench export --model model --data quickstart",
        "mrpcbench export --model model --data quickstart --optimize int8",
    ),
    "bench": (
        "mrpcbench bench --model model --data quickstart \\\n    --backend torch --backend onnx",
        "mrpcbench bench --model model --data quickstart --preset peers",
    ),
    "compare": (
        "mrpcbench compare main current.json --junit gate.xml",
        "mrpcbench compare bench.json --min f1=0.9 --max p99_ms=2",
    ),
    "report": (
        "mrpcbench report results --output report.html",
        "mrpcbench report bench.json --max-f1-drop 0.5 --max-p99-ms 20 \\\n    --price-per-hour 2.99",
    ),
    "ab": (
        "mrpcbench ab --a-model old --b-model new --data quickstart",
        "mrpcbench ab --a-model model --data quickstart \\\n    --a-python old/bin/python --b-python new/bin/python",
    ),
    "baseline": (
        "mrpcbench baseline set main evaluate.json",
        "mrpcbench baseline set speed bench/*.json --overwrite",
    ),
    "baseline set": (
        "mrpcbench baseline set main evaluate.json",
        "mrpcbench baseline set speed bench/*.json --overwrite",
    ),
    "quickstart": (
        "mrpcbench quickstart",
        "mrpcbench quickstart --output-dir tryout",
    ),
    "env": (
        "mrpcbench env",
        "mrpcbench env --json",
    ),
}


def show_help(ctx: Any) -> None:
    """Print the help of the command of `ctx`, with its styles."""
    echo(ctx.get_help(), file=StyledStream("stdout"), color=ctx.color)  # type: ignore[arg-type]


def _help_asked(ctx: Any, _: Any, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        show_help(ctx)
        ctx.exit()


class _Panels:
    """The --help of a command or a group, which has panels."""

    def get_help_option(self, ctx: Any) -> Any:
        """The option --help, with styles."""
        option: Any = super().get_help_option(ctx)  # type: ignore[misc]
        if option is not None:
            option.callback = _help_asked
        return option


class PanelCommand(_Panels, TyperCommand):
    """A command whose help has panels."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Add the panels of options, and the examples."""
        formatter.write(_panels(self, ctx) + _examples(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The arguments of the usage line, without the braces that Typer sets around a required one."""
        return [piece[1:-1] if piece.startswith("{") else piece for piece in super().collect_usage_pieces(ctx)]


class PanelGroup(_Panels, TyperGroup):
    """A group of commands whose help has panels."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Add the panels of options and of the commands, and the examples."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(Text(name, "bold cyan"), Text(item.get_short_help_str(2 * WIDTH))) for name, item in commands if item]
        formatter.write(_panels(self, ctx) + _rendered("Commands", rows) + _examples(ctx))


def _panels(command: TyperCommand | TyperGroup, ctx: Any) -> str:
    found: dict[str, list[tuple[Text, Text]]] = {}
    for item in command.get_params(ctx):
        is_argument = item.param_type_name == "argument"
        name = getattr(item, "rich_help_panel", None) or ("Arguments" if is_argument else "Options")
        found.setdefault(name, []).append((_names(item, ctx), _help_text(item, ctx)))
    order = [*(name for name in PANELS if name in found), *(name for name in found if name not in PANELS)]
    return "".join(_rendered(name, found[name]) for name in order)


def _names(item: Any, ctx: Any) -> Text:
    """The names and the type of an option; long names get a line each, and flags and choices show no type."""
    if item.param_type_name == "argument":
        return Text(item.make_metavar(ctx=ctx), "bold cyan")
    flags = sorted(item.opts, key=lambda flag: flag.startswith("--"))  # the short name first
    one_line = ", ".join(flags)
    names = Text(one_line if len(one_line) <= NAMES_WIDTH else "\n".join(flags), "bold cyan")
    if item.is_flag or _choices(item):
        return names
    return Text.assemble(names, (f" {item.make_metavar(ctx=ctx)}", "dim"))


def _help_text(item: Any, ctx: Any) -> Text:
    """The help text, followed by choices, bounds and default in brackets."""
    text = item.get_help_record(ctx)[1] if item.param_type_name == "option" else item.help or ""
    choices = " | ".join(_choices(item))
    return Text(f"{text} [{choices}]" if choices else text)


def _choices(item: Any) -> tuple[str, ...]:
    return tuple(str(getattr(one, "value", one)) for one in getattr(item.type, "choices", ()))


def _examples(ctx: Any) -> str:
    name = ctx.command_path.removeprefix(ctx.find_root().command_path).strip()
    lines = "\n".join(EXAMPLES.get(name, ())).replace("\n", "\n  ")
    return f"\nExamples:\n  {lines}\n" if lines else ""  # without a panel, whose borders would be copied too


def _rendered(title: str, rows: list[tuple[Text, Text]]) -> str:
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(max_width=NAMES_WIDTH, overflow="fold")
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    shown = StringIO()
    console = Console(file=shown, width=WIDTH, force_terminal=True, color_system="standard", legacy_windows=False)
    console.print(Panel(table, title=title, title_align="left", box=box.ROUNDED, border_style="dim"))
    return shown.getvalue()
