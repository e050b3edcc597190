"""`torch-packed` for one pair and for 32 pairs: what is captured, and what a replay takes.

python checks/infer_packed.py
"""

import sys

from product import fakecuda, median

SIZES = (1, 32)
COUNTED, TIMED = 10, 40


def inside() -> None:
    """Run each size once, when it is captured, and then repeatedly; mark each call."""
    from mrpcbench.backends.reading import resolve
    from mrpcbench.backends.registry import open_session
    from mrpcbench.data import loading
    from mrpcbench.schema.requests import BackendSpec

    spec = BackendSpec(backend="torch-packed", model=fakecuda.model(), device="cuda", random_init=True)
    source = resolve(spec)
    session = open_session(spec, source)
    print(session.placement)
    pairs = loading.load(fakecuda.data())["validation"]
    tokens = source.reader.encode({name: list(pairs[name]) for name in ("sentence1", "sentence2")})
    batches = [tokens.batches(size, order="given")[0] for size in SIZES]
    for size, batch in zip(SIZES, batches, strict=True):
        fakecuda.mark(f"before {size}")
        session.infer(batch)
        fakecuda.mark(f"first {size}")
        for _ in range(COUNTED):
            session.infer(batch)
            fakecuda.mark(f"counted {size}")
    fakecuda.quiet()
    for size, batch in zip(SIZES, batches, strict=True):
        session.infer(batch)
        fakecuda.mark(f"before {size}")
        for _ in range(TIMED):
            session.infer(batch)
            fakecuda.mark(f"timed {size}")


if sys.argv[1:] == ["inside"]:
    inside()
    sys.exit()

done = fakecuda.run([__file__, "inside"], sm="90")
faults = [f"exit code {done.code}"] if done.code else []
summary = []
for size, nodes in zip(SIZES, done.log.nodes, strict=False):
    first, again, fast = (
        [part for part in done.log.stretches if part.name == f"{name} {size}"] for name in ("first", "counted", "timed")
    )
    if not again or not fast:
        continue  # the program ended before
    if any(part.replays != 1 or part.lines["MALLOC"] or part.lines["BEGIN"] for part in again):
        faults.append(f"batch {size}: a later call is not one replay without cudaMalloc")
    summary.append(
        f"batch {size}: {nodes} nodes, captured with {first[0].lines['MALLOC']} cudaMalloc and "
        f"{first[0].lines['SYNC']} waits; a call is 1 replay, {median([part.launches for part in again])} launches, "
        f"{median([part.lines['COPY'] for part in again])} copies, {median([part.lines['SYNC'] for part in again])} "
        f"waits, {median([part.cpu_ms for part in fast]):.2f} ms of CPU"
    )
if len(done.log.nodes) != len(SIZES):
    faults.append(f"{len(done.log.nodes)} graphs instead of {len(SIZES)}")
fakecuda.verdict("infer_packed", faults, "; ".join(summary), [done])
