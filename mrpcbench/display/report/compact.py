"""Makes the SVG of a figure smaller and safe to place in a page with others. Standard library only."""

import re
from xml.etree.ElementTree import Element, SubElement, fromstring, register_namespace, tostring

SVG = "http://www.w3.org/2000/svg"
# What only a program reads, and the font: the page sets one for all. Sizes are in viewBox.
DROPPED = frozenset(
    "class role aria-hidden aria-roledescription font-family pointer-events version style stroke-miterlimit".split()
)
DEFAULTS = {"opacity": "1", "stroke-width": "1", "text-anchor": "start", "font-weight": "normal", "x2": "0", "y2": "0"}
DEFAULTS["transform"] = "translate(0,0)"
# Attributes that a group hands down to its elements.
INHERITED = ("fill", "stroke", "stroke-width", "stroke-dasharray", "font-size", "text-anchor")
LENGTHS = ("d", "transform", "x", "y", "x2", "y2", "width", "height")
NOTHING = (None, "none")
# The attributes of a line that say where it is.
ENDS = {"transform", "x2", "y2"}

register_namespace("", SVG)


def compact(svg: str, figure: str, title: str, description: str) -> str:
    """`svg` of vl-convert without what is invisible or a default, as an image with a title and a description.

    Ids begin with `figure`, because they must be unique in the page. A fill of url(#hatch) gets its pattern.
    """
    root = fromstring(svg)
    _drop_invisible(root)
    for item in root.iter():
        _shorten(item, figure)
    _hand_up(root)
    _join_lines(root)
    _dissolve(root)
    for key in ("width", "height"):
        del root.attrib[key]
    root.attrib |= {"role": "img", "aria-labelledby": f"{figure}-title", "aria-describedby": f"{figure}-desc"}
    for at, (tag, text) in enumerate((("title", title), ("desc", description))):
        made = Element(f"{{{SVG}}}{tag}", {"id": f"{figure}-{tag}"})
        made.text = text
        root.insert(at, made)
    if any(item.get("fill") == f"url(#{figure}-hatch)" for item in root.iter()):
        _add_hatch(root, figure)
    return tostring(root, encoding="unicode").replace(" />", "/>")


def _drop_invisible(parent: Element) -> None:
    for item in list(parent):
        _drop_invisible(item)
        is_empty = item.tag == f"{{{SVG}}}g" and len(item) == 0
        is_frame = item.get("class") in ("background", "foreground") and item.get("stroke") in NOTHING
        is_backdrop = item.tag == f"{{{SVG}}}rect" and item.get("fill") == "white"
        if is_empty or is_backdrop or item.get("display") == "none" or (is_frame and item.get("fill") in NOTHING):
            parent.remove(item)


def _shorten(item: Element, figure: str) -> None:
    item.tail = None
    for key, value in list(item.attrib.items()):
        if key in DROPPED or DEFAULTS.get(key) == value:
            del item.attrib[key]
        elif key == "id":
            item.set(key, f"{figure}-{value}")
        elif value.startswith("url(#"):
            item.set(key, value.replace("url(#", f"url(#{figure}-"))
        elif key == "font-size":
            item.set(key, value.removesuffix("px"))
        elif key in LENGTHS:
            item.set(key, re.sub(r"-?\d+\.\d+(?:e-?\d+)?", _tenth, value))
    place = re.fullmatch(r"translate\((-?[\d.]+),(-?[\d.]+)\)", item.get("transform", ""))
    if place and item.tag == f"{{{SVG}}}text":
        del item.attrib["transform"]
        item.attrib |= {key: value for key, value in zip("xy", place.groups(), strict=True) if value != "0"}


def _tenth(found: re.Match[str]) -> str:
    return f"{float(found[0]):.1f}".removesuffix(".0")


def _hand_up(parent: Element) -> None:
    """Set an attribute that all elements of a group share once, on the group."""
    for item in parent:
        _hand_up(item)
    if parent.tag == f"{{{SVG}}}g" and len(parent) > 1:
        for key in INHERITED:
            values = {item.get(key) for item in parent}
            if len(values) == 1 and None not in values:
                parent.set(key, values.pop() or "")
                for item in parent:
                    del item.attrib[key]


def _join_lines(parent: Element) -> None:
    """Replace the lines of a group, such as those of a grid, by one path, unless one has an attribute of its own."""
    for item in parent:
        _join_lines(item)
    if len(parent) > 1 and all(item.tag == f"{{{SVG}}}line" and set(item.attrib) <= ENDS for item in parent):
        starts = [re.findall(r"-?[\d.]+", item.get("transform", "0,0")) for item in parent]
        path = "".join(
            f"M{','.join(start)}l{item.get('x2', '0')},{item.get('y2', '0')}"
            for start, item in zip(starts, parent, strict=True)
        )
        for item in list(parent):
            parent.remove(item)
        SubElement(parent, f"{{{SVG}}}path", {"d": path})


def _dissolve(parent: Element) -> None:
    """Replace each group without attributes by its elements."""
    for item in list(parent):
        _dissolve(item)
        if item.tag == f"{{{SVG}}}g" and not item.attrib:
            at = list(parent).index(item)
            parent[at : at + 1] = list(item)


def _add_hatch(root: Element, figure: str) -> None:
    """The pattern of what is INVALID: diagonal lines, which also show without colour and in print."""
    size = {"width": "5", "height": "5"}
    pattern = SubElement(
        root,
        f"{{{SVG}}}pattern",
        {"id": f"{figure}-hatch", "patternUnits": "userSpaceOnUse", "patternTransform": "rotate(45)", **size},
    )
    SubElement(pattern, f"{{{SVG}}}rect", {**size, "fill": "#f3f5f7"})
    SubElement(pattern, f"{{{SVG}}}path", {"d": "M0,0V5", "stroke": "#59636e", "stroke-width": "2.5"})
