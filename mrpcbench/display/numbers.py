"""Number formats, and one sign for an absent number. Standard library only."""

from mrpcbench.schema.verdicts import Interval

# Not known, not measured, or not applicable.
ABSENT = "-"
# Infinite or NaN: an error, so it is not shown as absent.
NOT_FINITE = "not finite"


def fixed(value: float | None, digits: int = 0) -> str:
    """A number with `digits` decimals."""
    return ABSENT if value is None else f"{value:.{digits}f}"


def short(value: float | None) -> str:
    """A number of any size: one decimal below a thousand, none above."""
    return fixed(value, 1 if value is None or value < 999.95 else 0)


def whole_percent(share: float | None) -> str:
    """A share as a whole percentage."""
    return ABSENT if share is None else f"{share:.0%}"


def percent(share: float | None) -> str:
    """A share as a percentage with one decimal; 100% only for exactly 1."""
    if share is None or share == 1:
        return ABSENT if share is None else "100%"
    return f"{min(share, 0.999):.1%}"


def mebibytes(size: int | None) -> str:
    """A size in bytes as whole MiB."""
    return fixed(None if size is None else size / 2**20)


def multiple(value: float | None) -> str:
    """A speedup, such as 1.50x."""
    return ABSENT if value is None else f"{value:.2f}x"


def score(value: float | None) -> str:
    """An accuracy or F1 as a share with four decimals."""
    return fixed(value, 4)


def interval(found: Interval) -> str:
    """Both ends of the interval of a score."""
    return f"{score(found.low)} to {score(found.high)}"


def logged(value: float | None) -> str:
    """A metric as the reference training log prints it; None means not finite."""
    return NOT_FINITE if value is None else f"{value:.6f}"


def difference(value: float | None) -> str:
    """A difference of logits; None means not finite."""
    return NOT_FINITE if value is None else f"{value:.2e}"


def plain(value: object) -> str:
    """The value of an option: a float without trailing zeros."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def measured(number: float | None, unit: str) -> str:
    """A share with four decimals, an integer without decimals, any other number with about four digits."""
    if number is None:
        return ABSENT
    if unit != "share" and number == round(number, 0):
        return f"{number:.0f}"
    if unit != "share" and abs(number) < 0.001:
        return f"{number:.2e}"
    return fixed(number, 4 if unit == "share" or abs(number) < 1 else 2 if abs(number) < 100 else 1)


def change(number: float | None, unit: str, sign: str = "") -> str:
    """A change with its unit: no space before '%', one before any other."""
    if number is None:
        return ABSENT
    return f"{number:{sign}.2f}{'' if unit == '%' else ' '}{unit}".rstrip()


def probability(number: float | None) -> str:
    """A p-value with four decimals; one that would show as 0 is '<0.0001'."""
    if number is None:
        return ABSENT
    return "<0.0001" if number < 0.0001 else f"{number:.4f}"
