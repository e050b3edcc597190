"""The limits of the gates. `gate.toml` next to this module documents the defaults.

A share is a fraction of 1: 0.01 is one point of accuracy. A missing key keeps its default. An unknown key is an error,
because a misspelt gate would never fail.
"""

import re
import tomllib
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from pydantic import Field, PlainValidator, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticSerializationError, to_json

from mrpcbench.errors import UsageError, first_line
from mrpcbench.gates.metrics import Limit, Side
from mrpcbench.records.documents import check_no_pipe
from mrpcbench.schema.fields import about, described
from mrpcbench.schema.gate_requests import LARGEST_SLOWDOWN, MARGIN_BELOW, ComparePlan
from mrpcbench.schema.rows import RowId

Alpha = Annotated[float, Field(gt=0, le=0.5)]
Loss = Annotated[float, Field(ge=0, lt=1)]
Floor = Annotated[float, Field(gt=0, le=1)]
Margin = Annotated[float, Field(gt=0, lt=MARGIN_BELOW)]
Ratio = Annotated[float, Field(gt=0, lt=1)]
Slowdown = Annotated[float, Field(gt=0, le=LARGEST_SLOWDOWN)]


def _row(value: object) -> RowId:
    return RowId.parse(value if isinstance(value, str) else repr(value))


Row = Annotated[RowId, PlainValidator(_row)]


def _limit(side: Side, value: object) -> Limit:
    return Limit.parse(value if isinstance(value, str) else repr(value), side)


Smallest = Annotated[Limit, PlainValidator(partial(_limit, "min"))]
Largest = Annotated[Limit, PlainValidator(partial(_limit, "max"))]


@described
class AccuracyPolicy:
    """Accuracy of evaluate and train records."""

    gate: bool = about("Whether accuracy is gated.", default=True)
    net_loss: Loss = about("Smallest loss that fails, if it is also significant.", default=0.01)
    floor: Floor | None = about(
        "Accuracy below which the current side fails, whatever the baseline; None: no floor.", default=None
    )
    margin: Margin | None = about(
        "Loss that evaluate records must rule out (non-inferiority); None: none.", default=None
    )


@described
class F1Policy:
    """F1 of evaluate and train records."""

    gate: bool = about("Whether F1 is gated.", default=False)
    net_loss: Loss = about("Smallest loss that fails, if it is also significant.", default=0.01)
    floor: Floor | None = about(
        "F1 below which the current side fails, whatever the baseline; None: no floor.", default=None
    )


@described
class SpeedPolicy:
    """Speed, measured live by `ab`."""

    gate: bool = about("Whether speed is gated.", default=True)
    slowdown: Ratio = about("Median slowdown above which B fails, if it is also significant.", default=0.03)


@described
class StoredSpeedPolicy:
    """Speed, compared with earlier bench records of the same machine. `alpha` has no effect here."""

    gate: bool = about("Whether speed is gated.", default=True)
    max_slowdown: Slowdown = about("Largest growth of the time per pair that passes, as a share.", default=0.10)
    rows: tuple[Row, ...] = about(
        "Gated rows, such as 'onnx offline batch 32'; if empty, the fastest offline row and the single-stream row of "
        "each case, in record order, at most five.",
        default=(),
    )


@described
class LimitsPolicy:
    """Limits of the current record, with or without a baseline, as in `--min` and `--max`."""

    min: tuple[Smallest, ...] = about("Smallest values that pass, such as 'f1=0.9'.", default=())
    max: tuple[Largest, ...] = about("Largest values that pass, such as 'onnx single-stream:p99_ms=2'.", default=())


@described
class Policy:
    """Which metrics are gated, and their limits."""

    alpha: Alpha = about(
        "False-alarm rate over all gated metrics of one comparison; for stored speed it is always 1%.",
        default=0.05,
    )
    accuracy: AccuracyPolicy = about("Accuracy.", default=AccuracyPolicy())
    f1: F1Policy = about("F1.", default=F1Policy())
    speed: SpeedPolicy = about("Speed, live.", default=SpeedPolicy())
    stored_speed: StoredSpeedPolicy = about("Speed against a stored record.", default=StoredSpeedPolicy())
    limits: LimitsPolicy = about("Fixed limits.", default=LimitsPolicy())


_ADAPTER: TypeAdapter[Policy] = TypeAdapter(Policy)
_MARGIN: TypeAdapter[float] = TypeAdapter(Margin)
_SLOWDOWN: TypeAdapter[float] = TypeAdapter(Slowdown)


def load(path: Path | None) -> Policy:
    """The policy in `path`, or the default one. Raises `UsageError` with the file, the key and the allowed values."""
    if path is None:
        return Policy()
    check_no_pipe(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        document = tomllib.loads(text)
    except FileNotFoundError:
        raise UsageError(f"--policy {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--policy {path}: cannot be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"--policy {path}: not TOML: {_explained_toml(text, error)}") from None
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits, or tables in tables
        raise UsageError(f"--policy {path}: not a policy ({first_line(error)})") from None
    try:
        # From JSON, pydantic accepts a list for a tuple in strict mode.
        return _ADAPTER.validate_json(to_json(document))
    except PydanticSerializationError as error:  # tables in tables, beyond any depth of a policy
        raise UsageError(f"--policy {path}: not a policy ({first_line(error)})") from None
    except ValidationError as error:
        others = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UsageError(f"--policy {path}: {_explained(error.errors()[0])}{others}") from None


def _explained_toml(text: str, error: tomllib.TOMLDecodeError) -> str:
    """The error with its line number and that line of `text`, which shows the key if it is a repeated one."""
    what, found = str(error).split(" (at ")[0], re.search(r"at line (\d+)", str(error))
    lines = text.rstrip().split("\n")
    number = min(int(found[1]), len(lines)) if found else len(lines)
    return f"{what} (line {number}: {lines[number - 1].strip()[:60]})"


def policy_of(plan: ComparePlan) -> Policy:
    """The policy of `--policy`, with the limits of the options applied. Raises `UsageError` for an invalid limit.

    `--margin` gates accuracy even if the file does not. The bounds of the options cannot exclude 0 and 1, so they are
    checked here.
    """
    policy = load(Path(plan.policy) if plan.policy else None)
    if plan.margin is not None:
        margin = _checked(_MARGIN, "--margin", plan.margin, f"above 0 and below {MARGIN_BELOW:g}; 0.02 is two points")
        policy = replace(policy, accuracy=replace(policy.accuracy, gate=True, margin=margin))
    if plan.max_slowdown is not None:
        allowed = f"above 0, at most {LARGEST_SLOWDOWN:g}; 0.1 is 10% more time per pair"
        slowdown = _checked(_SLOWDOWN, "--max-slowdown", plan.max_slowdown, allowed)
        policy = replace(policy, stored_speed=replace(policy.stored_speed, max_slowdown=slowdown))
    given = option_limits(plan)
    limits = LimitsPolicy(min=policy.limits.min + given.min, max=policy.limits.max + given.max)
    return replace(policy, limits=limits)


def option_limits(plan: ComparePlan) -> LimitsPolicy:
    """The limits of `--min` and `--max`. Raises `UsageError` for one that is malformed."""
    sides: dict[Side, tuple[str, ...]] = {"min": plan.min, "max": plan.max}
    found: dict[Side, tuple[Limit, ...]] = {}
    for side, texts in sides.items():
        try:
            found[side] = tuple(Limit.parse(text, side) for text in texts)
        except ValueError as error:
            raise UsageError(f"--{side} {error}") from None
    return LimitsPolicy(min=found["min"], max=found["max"])


def _checked(adapter: TypeAdapter[float], option: str, value: float, allowed: str) -> float:
    try:
        return adapter.validate_python(value)
    except ValidationError:
        raise UsageError(f"{option} {value:g}: a share {allowed}") from None


def _explained(error: ErrorDetails) -> str:
    """A pydantic error as one line: the key, the problem and the allowed values."""
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "value_error":
        return f"{key} = {error['ctx']['error']}"
    if error["type"] != "unexpected_keyword_argument":
        return f"{key} = {error['input']!r}: {error['msg']}"
    kind: Any = Policy
    for part in error["loc"][:-1]:
        kind = get_type_hints(kind)[str(part)]
    return f"{key}: unknown; allowed are {', '.join(item.name for item in fields(kind))}"
