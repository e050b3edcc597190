"""How a number is written, and one sign for a number that is absent. Standard library only."""

from mrpcbench.schema.verdicts import Interval

# Not known, not measured, or not applicable.
ABSENT = "-"
# Known, but infinite or not a number: a fault, which is never shown as merely absent.
NOT_FINITE = "not finite"


def fixed(value: float | None, digits: int = 0) -> str:
    """A figure with so many decimals."""
    return ABSENT if value is None else f"{value:.{digits}f}"


def short(value: float | None) -> str:
    """A figure of any size: one decimal below a thousand, none above."""
    return fixed(value, 1 if value is None or value < 999.95 else 0)


def whole_percent(share: float | None) -> str:
    """A share as whole per cent."""
    return ABSENT if share is None else f"{share:.0%}"


def percent(share: float | None) -> str:
    """A share to a tenth of a per cent; 100% only where it is all."""
    if share is None or share == 1:
        return ABSENT if share is None else "100%"
    return f"{min(share, 0.999):.1%}"


def mebibytes(size: int | None) -> str:
    """A size in bytes as whole MiB."""
    return fixed(None if size is None else size / 2**20)


def multiple(value: float | None) -> str:
    """A ratio of speeds."""
    return ABSENT if value is None else f"{value:.2f}x"


def score(value: float | None) -> str:
    """An accuracy or F1, a share with four decimals."""
    return fixed(value, 4)


def interval(found: Interval) -> str:
    """Both ends of the interval of a score."""
    return f"{score(found.low)} to {score(found.high)}"


def logged(value: float | None) -> str:
    """A metric as the reference training log prints it; None is one that is not finite."""
    return NOT_FINITE if value is None else f"{value:.6f}"


def difference(value: float | None) -> str:
    """A difference of logits; None is one that is not finite."""
    return NOT_FINITE if value is None else f"{value:.2e}"


def plain(value: object) -> str:
    """The value of an option: a float without trailing zeros."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def measured(number: float | None, unit: str) -> str:
    """A share with four decimals, a count as one, anything else with about four digits."""
    if number is None:
        return ABSENT
    if unit != "share" and number == round(number, 0):
        return f"{number:.0f}"
    if unit != "share" and abs(number) < 0.001:
        return f"{number:.2e}"
    return fixed(number, 4 if unit == "share" or abs(number) < 1 else 2 if abs(number) < 100 else 1)


def change(number: float | None, unit: str, sign: str = "") -> str:
    """A change: per cent without a space, other units with one."""
    if number is None:
        return ABSENT
    return f"{number:{sign}.2f}{'' if unit == '%' else ' '}{unit}".rstrip()


def probability(number: float | None) -> str:
    """A p value with four decimals; what they cannot show is not shown as 0."""
    if number is None:
        return ABSENT
    return "<0.0001" if number < 0.0001 else f"{number:.4f}"
