"""Which machine this is, without naming it. Standard library only."""

import hashlib
import platform
import re
import uuid
from collections.abc import Collection
from pathlib import Path

from mrpcbench.schema.identity import MachineTraits

# Hexadecimal digits of the hashes. The ids are random and cannot be guessed from their hashes; a name or an address
# could be, so that of these only enough is kept to see a difference.
ID_DIGITS, ADDRESS_DIGITS, NAME_DIGITS = 16, 4, 2


def machine_sha256() -> str:
    """A hash over the ids, the name and the address of the machine, and its processor.

    Its definition must not change, because it identifies the machine of records since the first version.
    """
    parts = ("mrpcbench", _machine_id(), platform.node(), _address(), cpu_name())
    return hashlib.sha256("\0".join(parts).encode("utf-8", "backslashreplace")).hexdigest()


def traits() -> MachineTraits:
    """What tells this machine from others, as hashes."""
    return MachineTraits(
        boot=_hashed("boot", _read("/proc/sys/kernel/random/boot_id"), ID_DIGITS),
        machine_id=_hashed("machine-id", _machine_id(), ID_DIGITS),
        network_address=_hashed("address", _address(), ADDRESS_DIGITS),
        hostname=_hashed("hostname", platform.node(), NAME_DIGITS),
    )


def cpu_name() -> str:
    """The processor's model."""
    found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


# Instructions by the names in /proc/cpuinfo, of x86 and of Arm: products of bf16, and sums in 32 bits of products of
# 8-bit integers (VNNI).
BF16 = ("avx512_bf16", "amx_bf16", "bf16")
VNNI = ("avx512_vnni", "avx_vnni")


def has_instructions(names: Collection[str], cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has one of the instructions `names`; False if `cpuinfo` cannot be read."""
    found = re.findall(r"^(?:flags|Features)\s*:(.*)$", _read(str(cpuinfo)), re.MULTILINE)
    return any(not set(line.split()).isdisjoint(names) for line in found)


def exact_integers() -> dict[str, str]:
    """The session options with which ONNX Runtime's products of 8-bit integers are exact on this processor.

    Without VNNI, x64 processors add such products in 16 bits, which can overflow. The option selects an exact but
    slower kernel. With VNNI nothing overflows, and the option would double the time.
    """
    return {} if has_instructions(VNNI) else {"session.x64quantprecision": "1"}


def _hashed(kind: str, value: str, digits: int) -> str | None:
    text = f"mrpcbench\0{kind}\0{value}".encode("utf-8", "backslashreplace")
    return hashlib.sha256(text).hexdigest()[:digits] if value else None


def _machine_id() -> str:
    return _read("/etc/machine-id")


def _address() -> str:
    node = uuid.getnode()
    # Without a network card the number is random in each process; its multicast bit is then set (RFC 4122, 4.5).
    return "" if node >> 40 & 1 else str(node)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
