"""The processor's instructions, read from /proc/cpuinfo."""

from pathlib import Path

import pytest

from mrpcbench.environment.machine import BF16, has_instructions


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("model name\t: x86\nflags\t\t: fpu avx512_bf16 avx512_vnni\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("flags\t\t: fpu avx512f avx512_vnni\n", False),
        ("model name\t: named bf16\nflags\t\t: fpu\n", False),
        ("", False),
    ],
)
def test_bf16_instructions_are_found_by_their_names(cpuinfo: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert has_instructions(BF16, tmp_path / "cpuinfo") is expected


def test_without_cpuinfo_the_processor_has_none(tmp_path: Path) -> None:
    assert not has_instructions(BF16, tmp_path / "absent")
