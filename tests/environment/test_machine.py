"""What the processor can do, from the system's list of its instructions."""

from pathlib import Path

import pytest

from mrpcbench.environment.machine import BF16, VNNI, has_instructions


@pytest.mark.parametrize(
    ("line", "has"),
    [
        ("flags\t\t: fpu avx2 avx512_vnni fma", {VNNI}),
        ("flags\t\t: fpu avx2 avx_vnni", {VNNI}),
        ("flags\t\t: fpu avx512_vnni avx512_bf16 sse", {VNNI, BF16}),
        ("flags\t\t: amx_bf16 amx_tile", {BF16}),
        ("Features\t: fp asimd i8mm bf16", {BF16}),
        ("flags\t\t: avx512_vnnix avx512f", set()),
        ("model name\t: bf16", set()),
    ],
)
def test_instructions_are_read_as_whole_words(line: str, has: set[tuple[str, ...]], tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n")
    assert {names for names in (VNNI, BF16) if has_instructions(names, tmp_path / "cpuinfo")} == has


def test_an_unknown_processor_has_none(tmp_path: Path) -> None:
    assert not has_instructions(VNNI, tmp_path / "absent")
