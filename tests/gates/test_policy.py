"""Tests of the policy file: the defaults, the keys and values, and that nothing is silently ignored."""

from dataclasses import fields
from pathlib import Path

import pytest

import mrpcbench
from mrpcbench.errors import UsageError
from mrpcbench.gates.policy import AccuracyPolicy, F1Policy, Policy, StoredSpeedPolicy, load, policy_of
from mrpcbench.schema.gate_requests import ComparePlan
from mrpcbench.schema.rows import RowId

SHIPPED = Path(mrpcbench.__file__).parent / "gates" / "gate.toml"


def read(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "gate.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


# --- what ships -------------------------------------------------------------------------------------------------------


def test_the_bundled_file_has_the_defaults() -> None:
    assert load(SHIPPED) == Policy() == load(None)


def test_the_bundled_file_names_every_key_at_least_in_a_comment() -> None:
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    keys = {line.removeprefix("# ").partition(" = ")[0] for line in lines if " = " in line}
    sections = {line.strip("[]") for line in lines if line.startswith("[")}
    assert sections | {"alpha"} == {item.name for item in fields(Policy)}
    for section in sections:
        assert {item.name for item in fields(getattr(Policy(), section))} <= keys


def test_the_commented_keys_of_the_bundled_file_are_valid(tmp_path: Path) -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    for key in ("floor", "margin"):
        text = text.replace(f"# {key} = ", f"{key} = ")
    found = read(tmp_path, text)
    assert (found.accuracy.floor, found.accuracy.margin, found.f1.floor) == (0.85, 0.02, 0.88)


def test_the_limits_are_those_of_the_design() -> None:
    policy = Policy()
    assert policy.alpha == 0.05
    assert policy.accuracy.net_loss == 0.01
    assert policy.speed.slowdown == 0.03
    assert policy.stored_speed.max_slowdown == 0.10


# --- what a file says -------------------------------------------------------------------------------------------------


def test_a_missing_key_keeps_its_default(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Policy()
    assert read(tmp_path, "[f1]\ngate = true\nnet_loss = 0.02") == Policy(f1=F1Policy(gate=True, net_loss=0.02))


def test_a_file_may_name_the_gated_rows(tmp_path: Path) -> None:
    names = ("torch single-stream", "hf-autocast offline batch 32", "onnx server batch 8")
    found = read(tmp_path, f"[stored_speed]\nrows = {list(names)}")
    assert found == Policy(stored_speed=StoredSpeedPolicy(rows=tuple(map(RowId.parse, names))))


UNKNOWN = [
    ("alhpa = 0.05", "alhpa", "alpha, accuracy, f1, speed, stored_speed, limits"),
    ("[accuracy]\nnetloss = 0.01", "accuracy.netloss", "gate, net_loss, floor, margin"),
    ("[recall]\ngate = true", "recall", "alpha, accuracy, f1, speed, stored_speed, limits"),
    ("[f1]\nmargin = 0.02", "f1.margin", "gate, net_loss, floor"),
    ("[speed]\nrows = []", "speed.rows", "gate, slowdown"),
    ("[stored_speed]\nchange = 0.1", "stored_speed.change", "gate, max_slowdown, rows"),
    ("[limits]\nf1 = 0.9", "limits.f1", "min, max"),
]


def test_an_unknown_key_is_an_error_that_names_the_known_ones(tmp_path: Path) -> None:
    for text, key, allowed in UNKNOWN:
        with pytest.raises(UsageError) as caught:
            read(tmp_path, text)
        assert str(caught.value) == f"--policy {tmp_path / 'gate.toml'}: {key}: unknown; allowed are {allowed}"


IMPOSSIBLE = [
    ("alpha = 0", "alpha", "greater than 0"),
    ("alpha = 0.6", "alpha", "less than or equal to 0.5"),
    ("alpha = nan", "alpha", "finite"),
    ("alpha = '0.05'", "alpha", "number"),
    ("alpha = true", "alpha", "number"),
    ("alpha = 1979-05-27", "alpha", "number"),
    ("accuracy = 0.9", "accuracy", "object"),
    ("[accuracy]\ngate = 1", "accuracy.gate", "boolean"),
    ("[accuracy]\nnet_loss = -0.01", "accuracy.net_loss", "greater than or equal to 0"),
    ("[accuracy]\nnet_loss = 1", "accuracy.net_loss", "less than 1"),
    ("[accuracy]\nfloor = 85", "accuracy.floor", "less than or equal to 1"),
    ("[accuracy]\nfloor = 0", "accuracy.floor", "greater than 0"),
    ("[accuracy]\nmargin = 0", "accuracy.margin", "greater than 0"),
    ("[accuracy]\nmargin = 2", "accuracy.margin", "less than 1"),
    ("[f1]\nnet_loss = inf", "f1.net_loss", "finite"),
    ("[f1]\nfloor = 1.01", "f1.floor", "less than or equal to 1"),
    ("[speed]\nslowdown = 0", "speed.slowdown", "greater than 0"),
    ("[speed]\nslowdown = 3", "speed.slowdown", "less than 1"),
    ("[stored_speed]\nmax_slowdown = 0.6", "stored_speed.max_slowdown", "less than or equal to 0.5"),
    ("[stored_speed]\nmax_slowdown = 0", "stored_speed.max_slowdown", "greater than 0"),
    ("[stored_speed]\nrows = ['onnx:32']", "stored_speed.rows.0", "'onnx:32' is not a row; write it as 'onnx off"),
    ("[stored_speed]\nrows = ['onnx offline']", "stored_speed.rows.0", "'onnx offline' is not a row"),
    ("[stored_speed]\nrows = [32]", "stored_speed.rows.0", "'32' is not a row"),
    ("[stored_speed]\nrows = 'onnx single-stream'", "stored_speed.rows", "array"),
]


def test_an_invalid_value_is_an_error_that_names_the_allowed_ones(tmp_path: Path) -> None:
    for text, key, said in IMPOSSIBLE:
        with pytest.raises(UsageError) as caught:
            read(tmp_path, text)
        assert str(caught.value).startswith(f"--policy {tmp_path / 'gate.toml'}: {key} = "), text
        assert said in str(caught.value), text


def test_an_error_counts_the_others(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\(and 1 more\)"):
        read(tmp_path, "alpha = 2\n[f1]\ngate = 3")


@pytest.mark.parametrize("text", ["alpha =", "[accuracy", "alpha = 0.1\nalpha = 0.2"])
def test_a_file_that_is_not_toml_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"gate\.toml: not TOML"):
        read(tmp_path, text)


def test_a_policy_key_that_is_given_twice_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "gate.toml").write_text("[f1]\ngate = true\ngate = false\n\n[speed]\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"gate\.toml: not TOML: Cannot overwrite a value \(line 3: gate = false\)$"):
        load(tmp_path / "gate.toml")


def test_a_policy_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "gate.toml").write_text("alpha = 0.1\n", encoding="utf-8-sig")
    assert load(tmp_path / "gate.toml").alpha == 0.1


def test_a_missing_or_unreadable_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--policy .*none\.toml: no such file"):
        load(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "latin.toml")


# --- limits with an option of their own -------------------------------------------------------------------------------


def test_margin_and_max_slowdown_replace_the_limits_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "gate.toml"
    path.write_text("[accuracy]\ngate = false\nmargin = 0.05\nfloor = 0.8\n[stored_speed]\nmax_slowdown = 0.2\n")
    file = str(path)
    assert policy_of(ComparePlan()) == Policy()
    assert policy_of(ComparePlan(policy=file)) == load(path)
    assert policy_of(ComparePlan(policy=file, margin=0.02)).accuracy == AccuracyPolicy(margin=0.02, floor=0.8)
    assert policy_of(ComparePlan(policy=file, max_slowdown=0.05)).stored_speed.max_slowdown == 0.05


@pytest.mark.parametrize("option", ["margin", "max_slowdown"])
@pytest.mark.parametrize("value", [0.0, -0.02, 1.0, 2.0, float("nan"), float("inf")])
def test_an_impossible_limit_is_an_error_that_names_the_option(option: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"--{option.replace('_', '-')} .*: a share "):
        policy_of(ComparePlan(**{option: value}))
