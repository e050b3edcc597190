"""Draws the figures of the HTML report: layers of Vega-Lite, which vl-convert renders as SVG.

A layer is a dictionary in the format of Vega-Lite (https://vega.github.io/vega-lite/docs/).
"""

import math
from collections.abc import Sequence
from typing import Any

from mrpcbench.display.report.compact import compact
from mrpcbench.display.report.content import Figure, Table, clean
from mrpcbench.errors import MissingError, first_line

Row = dict[str, Any]
Layer = dict[str, Any]
Ends = tuple[float, float]

# vl-convert has several versions of Vega-Lite; a fixed one gives the same figures after an update of the package.
VEGA_LITE = "6.4"
# Width of a plot in pixels. A screen of 360 pixels shows it at about nine tenths of its size.
WIDTH = 348
PADDING = {"left": 10, "right": 18, "top": 4, "bottom": 4}
# A slot is a line of text above a bar or an interval.
SLOT, BAR = 38, 13
INK, SOFT, LINE, GRID, ACCENT, PALE = "#1f2328", "#59636e", "#d1d9e0", "#e8ecf0", "#0b5cad", "#a9cdf0"
# Series differ in lightness, dash and shape, and not only in colour.
SERIES = ("#0b3d73", "#c2560a", "#4a9fd8", "#7a7f87", "#111111", "#8a5fb0")
DASHES = ((1, 0), (5, 3), (2, 2), (8, 3, 2, 3), (1, 3), (10, 4))
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
# The fill of what is INVALID: `compact` adds the pattern.
HATCH = "url(#hatch)"

CONFIG = {
    "aria": False,
    "view": {"stroke": None},
    "axis": {
        "gridColor": GRID,
        "domainColor": LINE,
        "ticks": False,
        "labelColor": SOFT,
        "labelFontSize": 12,
        "labelPadding": 5,
        "titleColor": SOFT,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
    },
}
# About the width of a character of 12 pixels, to place texts without measuring them: fonts differ between machines.
CHARACTER = 6.4


def layer(rows: Sequence[Row], mark: str, style: Row, **encoding: Any) -> Layer:
    """A layer of one mark for each of `rows`, whose texts are cleaned. `encoding` has the channels."""
    values = [{key: clean(one) if isinstance(one, str) else one for key, one in row.items()} for row in rows]
    return {"data": {"values": values}, "mark": {"type": mark, **style}, "encoding": encoding}


def number(field: str, **more: Any) -> Row:
    """A channel that shows the numbers of `field`."""
    return {"field": field, "type": "quantitative", **more}


def name(field: str, **more: Any) -> Row:
    """A channel that shows the names of `field`."""
    return {"field": field, "type": "nominal", **more}


def as_given(field: str) -> Row:
    """A channel whose values are colours already."""
    return name(field, scale=None)


def among(field: str, names: Sequence[str], values: Sequence[Any]) -> Row:
    """A channel that shows the k-th of `names` as the k-th of `values`, which are repeated if they are too few."""
    chosen = [values[at % len(values)] for at in range(len(names))]
    return name(field, scale={"domain": list(names), "range": chosen}, legend=None)


# --- axes -------------------------------------------------------------------------------------------------------------


def span(values: Sequence[float], *, log: bool = False, zero: bool = False, room: float = 0.06) -> Ends:
    """The ends of an axis for `values`, with the share `room` more at each end; `zero`: from 0."""
    low, high = min(values), max(values)
    if log:
        factor = max((high / low) ** room, 1.05)
        return low / factor, high * factor
    gap = (high - low) * room or abs(high) * 0.1 or 1.0
    return (0.0 if zero else low - gap), high + gap


def is_wide(values: Sequence[float]) -> bool:
    """Whether `values` are above 0 and span so much that only a logarithmic axis shows all."""
    return min(values) > 0 and max(values) / min(values) > 20


def axis(field: str, title: str, ends: Ends, *, log: bool = False, **more: Any) -> Row:
    """A channel with an axis from one of `ends` to the other, and few marks."""
    shown = {"title": title + (" (logarithmic)" if log else ""), "tickCount": 5, **more}
    if log:
        shown = {"values": _powers(ends), "format": "~s" if ends[1] > 1e4 else "~g", **shown}
    scale = {"type": "log" if log else "linear", "domain": list(ends), "nice": False, "zero": False, "padding": 0}
    return number(field, scale=scale, axis=shown)


def upright(field: str, title: str, ends: Ends, *, log: bool = False) -> Row:
    """A vertical axis, whose title is above it."""
    placed = {"titleAngle": 0, "titleAlign": "left", "titleAnchor": "end", "titleY": -8, "titleX": 0}
    return axis(field, title, ends, log=log, **placed)


def _powers(ends: Ends) -> list[float]:
    """The marks of a logarithmic axis: powers of ten, with more numbers between them if there are few."""
    low, high = ends
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inside: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        found = [float(f"{step}e{exponent}") for exponent in exponents for step in steps]
        inside = [one for one in found if low <= one <= high]
        if len(inside) >= 4:
            break
    return inside


def share_of(value: float, ends: Ends, *, log: bool = False) -> float:
    """Where `value` lies on an axis: 0 at its beginning, 1 at its end."""
    low, high = map(math.log, ends) if log else ends
    return ((math.log(value) if log else value) - low) / (high - low)


# --- slots ------------------------------------------------------------------------------------------------------------


def pixels(field: str, height: int) -> Row:
    """A vertical channel in pixels from the top, without an axis."""
    return number(field, scale={"domain": [height, 0], "nice": False, "padding": 0}, axis=None)


def slots(count: int) -> tuple[list[Row], int]:
    """The vertical positions of `count` slots, and the height of the plot, in pixels."""
    return [{"text": SLOT * at + 9, "bar": SLOT * at + 25} for at in range(count)], SLOT * count


def texts(rows: Sequence[Row], height: int) -> list[Layer]:
    """The texts above each slot: `label` at the left, `value` at the right."""
    style = {"fontSize": 12, "baseline": "middle"}
    cut = [{**row, "label": shortened(row["label"], WIDTH - CHARACTER * (len(row["value"]) + 2))} for row in rows]
    return [
        layer(
            [{"text": row["text"], "shown": row[key]} for row in cut if row[key]],
            "text",
            {**style, "align": align, "color": colour},
            x={"value": at},
            y=pixels("text", height),
            text=name("shown"),
        )
        for key, align, colour, at in (("label", "left", INK, 0), ("value", "right", SOFT, WIDTH))
    ]


def shortened(text: str, width: float) -> str:
    """`text`, or as much of it as fits in `width` pixels and an ellipsis."""
    most = max(4, int(width / CHARACTER))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def legend(names: Sequence[str], colours: Sequence[str], shapes: Sequence[str], top: int = -30) -> list[Layer]:
    """The symbol and the name of each series in rows whose last one is `top` pixels below the upper edge."""
    rows: list[list[Row]] = [[]]
    x = 0.0
    for at, one in enumerate(names):
        shown = shortened(one, WIDTH - 30)
        width = 18 + CHARACTER * len(shown) + 14
        if x + width > WIDTH + 14 and rows[-1]:
            rows.append([])
            x = 0.0
        rows[-1].append({"x": x, "name": shown, "at": at})
        x += width
    layers = []
    for line, items in enumerate(rows):
        y = {"value": top - 18 * (len(rows) - 1 - line)}
        for item in items:
            dot = {"filled": True, "size": 80, "opacity": 1, "color": colours[item["at"] % len(colours)]}
            dot["shape"] = shapes[item["at"] % len(shapes)]
            text = {"align": "left", "baseline": "middle", "fontSize": 12, "color": INK}
            layers.append(layer([{}], "point", dot, x={"value": item["x"] + 6}, y=y))
            layers.append(layer([item], "text", text, x={"value": item["x"] + 16}, y=y, text=name("name")))
    return layers


def renderer() -> Any:
    """The function of vl-convert that renders a chart. Raises `MissingError` without the extra `report`."""
    try:
        from vl_convert import vegalite_to_svg
    except ImportError as error:
        raise MissingError(
            f"--output: figures need vl-convert-python ({first_line(error)}); install mrpcbench with its extra: "
            "mrpcbench[report]"
        ) from None
    return vegalite_to_svg


def figure(
    layers: Sequence[Layer],
    *,
    height: int,
    id: str,
    title: str,
    source: str,
    description: str,
    table: Table,
    note: str = "",
) -> Figure:
    """The figure of a chart of `layers`, `height` pixels high; the chart has its title and description too."""
    svg = render(layers, id, title, description, height)
    return Figure(id=id, title=title, source=source, description=description, svg=svg, table=table, note=note)


def render(layers: Sequence[Layer], figure: str, title: str, description: str, height: int) -> str:
    """A chart of `layers` as an SVG element whose ids begin with `figure`, with a title and a description."""
    chart = {"width": WIDTH, "height": height, "padding": PADDING, "config": CONFIG, "layer": list(layers)}
    return compact(renderer()(chart, vl_version=VEGA_LITE), figure, clean(title), clean(description))
