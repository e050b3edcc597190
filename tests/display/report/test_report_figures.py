"""Tests of the figures of the HTML report: findings, bands, and small SVG."""

import math
from xml.etree.ElementTree import fromstring

import pytest
from records import make_bench, make_epoch, make_record, make_row, make_study, make_train
from reports import at, benched, rows

from mrpcbench.display.report import drawing, history, latency, speed, training
from mrpcbench.display.report.compact import SVG, compact
from mrpcbench.display.report.history import history as over_time
from mrpcbench.records.reports import Named
from mrpcbench.schema.bench_results import BenchRow

pytest.importorskip("vl_convert", reason="the extra report is not installed")


# --- over time --------------------------------------------------------------------------------------------------------


def finding(*records: Named) -> str:
    section = over_time(records)
    assert section
    (figure,) = section.figures
    return figure.title


def test_a_slower_newest_record_leaves_the_band_of_the_baseline() -> None:
    steady = [benched(day, 1 + day / 1000) for day in range(1, 6)]
    assert finding(*steady, benched(6, 1.003)) == "Speed: no metric left its noise band (1 with a band)"
    title = finding(*steady, benched(6, 1.3))
    assert title.startswith("Speed: torch offline batch 32, tuned left its noise band (now +29.6")
    # Time counts, and not the order of the files.
    assert finding(benched(6, 1.3), *steady) == title


def test_a_band_needs_three_records_before_the_newest() -> None:
    assert "no noise band" in finding(benched(1), benched(2), benched(3))
    assert "1 with a band" in finding(benched(1), benched(2, 1.01), benched(3), benched(4))


def test_an_invalid_record_is_no_part_of_the_baseline() -> None:
    wild = make_record("bench", bench=make_bench(rows=(make_row("offline", samples=3, broken_rules=("noise",)),)))
    assert "no noise band" in finding(benched(3), ("a.json", wild), benched(4), benched(5))


def test_the_band_is_the_limit_of_compare() -> None:
    values = [benched(day, 1 + day / 100) for day in (1, 2, 3, 4)]
    (series,) = history._series([one for name, record in values for one in history._values(name, record)])
    assert series.band
    times = [math.log(1 + day / 100) for day in (1, 2, 3)]
    # t at 99% with 2 degrees of freedom is 6.965 (tables of Student's t).
    mean = sum(times) / 3
    deviation = math.sqrt(sum((one - mean) ** 2 for one in times) / 2)
    assert series.band[1] == pytest.approx(100 * math.expm1(6.9646 * deviation * math.sqrt(4 / 3)), rel=1e-3)


def test_records_of_other_machines_models_or_pairs_are_no_series() -> None:
    name, record = benched(1)
    other = type(record.environment)(**{**vars(record.environment), "machine_sha256": "6" * 64})
    assert over_time([(name, record), ("b.json", make_record("bench", bench=record.bench, environment=other))]) is None  # type: ignore[union-attr]
    assert over_time([(name, record)]) is None


# --- speedups ---------------------------------------------------------------------------------------------------------


def titles(*changed: object) -> list[str]:
    record = at(1, "bench", bench=make_bench(rows=changed or rows()))
    section = speed.speedups([("bench.json", record)])
    assert section
    return [figure.title for figure in section.figures]


def test_a_speedup_is_claimed_with_its_interval_and_only_for_valid_rows() -> None:
    offline, alone = titles()
    assert offline.startswith("offline: onnx, batch 32 is 2.")
    assert "faster than torch, batch 32 (95% CI 2." in offline
    assert alone.startswith("single-stream: onnx is 2.6")
    slow = make_row("offline", samples=8, broken_rules=())
    wild = make_row("offline", case="onnx", samples_ms=(1.0,) * 8, broken_rules=("noise",))
    assert titles(slow, wild) == ["offline: no other row is VALID, so no speedup is certain"]
    assert titles(wild, slow) == ["offline: the reference onnx is INVALID, so no speedup is certain"]
    later = make_row("offline", case="onnx", samples_ms=(20.0,) * 8, broken_rules=())
    assert titles(slow, later) == ["offline: no VALID row is faster than torch, batch 32"]
    mixed = tuple(
        one * factor for one, factor in zip(slow.samples_ms, (0.9, 1.1, 0.9, 1.1, 0.9, 1.1, 0.9, 0.9), strict=True)
    )
    unsure = make_row("offline", case="onnx", samples_ms=mixed, broken_rules=())
    assert "may not be faster than torch, batch 32" in titles(slow, unsure)[0]
    unchecked = make_row("offline", case="onnx", samples_ms=(5.0,) * 8)
    assert titles(slow, unchecked)[0].endswith("; UNCHECKED")


# --- latency ----------------------------------------------------------------------------------------------------------


def test_percentiles_are_marked_only_where_the_row_is_valid_and_has_the_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[drawing.Layer] = []
    monkeypatch.setattr(drawing, "render", lambda layers, *_: drawn.extend(layers) or "")

    def marks(*of: BenchRow) -> list[float]:
        drawn.clear()
        latency.latencies([("bench.json", at(1, "bench", bench=make_bench(rows=of)))])
        (rules,) = [one for one in drawn if one["mark"]["type"] == "rule"]
        return [row["x"] for row in rules["data"]["values"]]

    _, torch, _, _, _, int8 = rows()
    assert marks(torch, int8) == pytest.approx([6.495, 6.89, 6.98], abs=0.02)
    few = make_row("single-stream", samples=64)
    assert len(marks(few)) == 2
    assert len(marks(make_row("single-stream", samples=63))) == 1


# --- training ---------------------------------------------------------------------------------------------------------


def losses(*values: float | None) -> str:
    lines = tuple(make_epoch(at + 1, eval_loss=value) for at, value in enumerate(values))
    section = training.training([("train.json", at(1, "train", train=make_train(epochs=lines)))])
    assert section
    return section.figures[0].title


def test_the_finding_of_a_loss_curve_is_where_it_is_lowest() -> None:
    assert losses(0.5, 0.4) == "Validation loss still falls at the last epoch: 0.4000"
    assert losses(0.5, 0.4, 0.45) == "Validation loss is lowest at epoch 2: 0.4000, and 0.4500 at the end"
    assert losses(0.5, None) == "A validation loss is not finite"


def test_several_runs_from_the_same_weights_share_a_figure() -> None:
    section = training.training([("a.json", at(1, "train")), ("b.json", at(2, "train"))])
    assert section
    assert [figure.table.headers for figure in section.figures] == [("epoch", "a.json", "b.json")] * 2
    assert section.figures[1].title == "F1 of the best epochs: 0.8877 to 0.8877 over 2 runs"


def test_a_study_has_its_seeds_and_its_runs() -> None:
    scores = {"default": (0.84, 0.85, 0.50), "learning_rate=5e-05": (0.80, 0.81, 0.82)}
    section = training.training([("study.json", at(1, "study", study=make_study(scores)))])
    assert section
    first, *_ = section.figures
    assert first.title == "default: median accuracy 0.8400 over 3 seeds, 1 of them at or below the majority class"
    assert first.table.rows[0][:4] == ("default", "accuracy", "3", "0.8400")
    differences, runs = section.tables
    assert "learning_rate=5e-05 minus default" in {row[1] for row in differences.rows}
    assert runs.rows[0][0] == "default, seed 42"
    assert len(runs.rows) == 6


# --- SVG --------------------------------------------------------------------------------------------------------------

RAW = f"""<svg xmlns="{SVG}" class="marks" width="100" height="50" viewBox="0 0 100 50" version="1.1">
<rect width="100" height="50" fill="white"/><g fill="none" stroke-miterlimit="10" transform="translate(5,5)">
<g class="mark-group" role="graphics-object" aria-roledescription="group"><g transform="translate(0,0)">
<path class="background" d="M0,0h9v9h-9Z"/><g><clipPath id="clip0"><path d="M0,0h1v1h-1Z"/></clipPath></g>
<g><text fill="#000" font-family="serif" font-size="11px" transform="translate(1.23456,0)">a  b</text>
<text fill="#000" font-family="serif" font-size="11px" transform="translate(3,4.0001)">c</text></g>
<path class="foreground" display="none" d=""/><path d="M0.123,1e-7" fill="url(#hatch)" style="color:red" onclick="x"/>
</g></g></g></svg>"""


def test_an_svg_is_made_smaller_and_named() -> None:
    found = compact(RAW, "f1", "The <finding>", "What & why")
    assert len(found) < 1.1 * len(RAW)
    root = fromstring(found)
    assert root.attrib == {
        "viewBox": "0 0 100 50",
        "role": "img",
        "aria-labelledby": "f1-title",
        "aria-describedby": "f1-desc",
    }
    assert [(item.get("id"), item.text) for item in root][:2] == [
        ("f1-title", "The <finding>"),
        ("f1-desc", "What & why"),
    ]
    texts = root.findall(f".//{{{SVG}}}text")
    assert [(item.text, item.attrib) for item in texts] == [("a  b", {"x": "1.2"}), ("c", {"x": "3", "y": "4"})]
    assert root.find(f".//{{{SVG}}}g[@font-size='11']") is not None
    assert root.find(f".//{{{SVG}}}clipPath[@id='f1-clip0']") is not None
    assert root.find(f".//{{{SVG}}}pattern[@id='f1-hatch']") is not None
    assert 'fill="url(#f1-hatch)"' in found
    assert "style" not in found
    assert "background" not in found


def test_marks_of_a_logarithmic_axis_are_round_numbers() -> None:
    assert drawing.axis("x", "ms", (0.8, 900.0), log=True)["axis"]["values"] == [1.0, 3.0, 10.0, 30.0, 100.0, 300.0]
    assert drawing.axis("x", "ms", (1.2, 6.5), log=True)["axis"]["values"] == [1.5, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert drawing.is_wide([1.0, 21.0])
    assert not drawing.is_wide([0.0, 21.0])


def test_the_texts_of_a_layer_have_no_control_characters() -> None:
    (row,) = drawing.layer([{"label": "a\x1b\u202e<b>", "x": 1.5}], "text", {})["data"]["values"]
    assert row == {"label": "a\ufffd\ufffd<b>", "x": 1.5}


def test_a_text_too_long_for_its_slot_is_cut_with_an_ellipsis() -> None:
    assert drawing.shortened("onnx", 100) == "onnx"
    assert drawing.shortened("x" * 40, 64) == "x" * 9 + "…"
