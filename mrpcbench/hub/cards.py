"""The section about an ONNX graph in a model card, between two marks. Standard library only."""

import re

BEGIN, END = "<!-- mrpcbench: onnx -->", "<!-- mrpcbench: end of onnx -->"
SECTION = re.compile(rf"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)


def section_of(card: str) -> str:
    """The text between the marks of `card`; empty without them."""
    found = SECTION.search(card)
    return found[0].removeprefix(BEGIN).removesuffix(END).strip() if found else ""


def with_section(card: str, text: str) -> str:
    """`card` with `text` between the marks; at its end, with the marks, if it has none."""
    section = f"{BEGIN}\n{text}\n{END}"
    if SECTION.search(card):
        return SECTION.sub(lambda _: section, card, count=1)
    return f"{card.rstrip()}\n\n{section}\n"
