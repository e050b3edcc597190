"""Whether two records come from one machine, and what differs if they do not. Standard library only."""

from collections.abc import Iterator
from dataclasses import fields

from mrpcbench.schema.identity import Environment, MachineTraits


def machine_differences(was: Environment, now: Environment) -> Iterator[str]:
    """A line with what differs, unless both records come from one machine.

    That is so if the hashes are equal, or if the records share a boot of the kernel, as containers of a machine do, or
    both the machine id and the network address. The hostname alone never decides.
    """
    if was.machine_sha256 == now.machine_sha256:
        return
    named = []
    if was.machine and now.machine:
        if _share(was.machine, now.machine, "boot") or _share(
            was.machine, now.machine, "machine_id", "network_address"
        ):
            return
        named = [item.name for item in fields(MachineTraits) if not _share(was.machine, now.machine, item.name)]
    words = ", ".join(_in_words(name, was, now) for name in named)
    line = f"machine_sha256: {was.machine_sha256[:12]}, now {now.machine_sha256[:12]}"
    yield f"{line} ({words})" if words else line


def _share(was: MachineTraits, now: MachineTraits, *names: str) -> bool:
    """Whether each of the traits `names` is known and equal."""
    return all(getattr(was, name) is not None and getattr(was, name) == getattr(now, name) for name in names)


def _in_words(name: str, was: Environment, now: Environment) -> str:
    known = [getattr(item.machine, name) is not None for item in (was, now)]
    return f"{name.replace('_', ' ')} {'differs' if all(known) else 'unknown'}"
