"""`mrpcbench train --engine packed` in bf16: nodes and replays of a step, and the cost of a capture.

python checks/train_packed.py
"""

import sys
from collections import Counter

from product import fakecuda, median, train

COUNTED, TIMED = 12, 16

if sys.argv[1:] == ["inside"]:
    train("packed", COUNTED, TIMED)
    sys.exit()

done = fakecuda.run([__file__, "inside"], sm="90")
faults = [f"exit code {done.code}"] if done.code else []
parts = done.log.stretches
capturing = [part for part in parts if part.name == "counted" and part.lines["BEGIN"]]
steady, fast = (
    [part for part in parts if part.name == name and not part.lines["BEGIN"]] for name in ("counted", "timed")
)
if not capturing or not steady or not fast:
    fault = "nothing was captured, or every step captured"
    fakecuda.verdict("train_packed", [*faults, fault], "nothing", [done])
nodes = ", ".join(f"{count} ({times} graphs)" for count, times in sorted(Counter(done.log.nodes).items()))
waits = median([part.lines["SYNC"] for part in steady])
if waits:
    faults.append(f"a step waits {waits} times for the device")
if done.log.aside:
    faults.append(f"{done.log.counts['ASIDE']} launches beside a capture")
summary = (
    f"nodes {nodes}; a step is {median([part.replays for part in steady])} replays and "
    f"{median([part.launches for part in steady])} launches, {waits} waits, "
    f"{median([part.cpu_ms for part in fast]):.2f} ms of CPU ({median([part.ms for part in fast]):.2f} ms of wall "
    f"clock here); a step with a capture: {median([part.launches for part in capturing])} launches, "
    + ", ".join(
        f"{median([part.lines[line] for part in capturing])} {what}"
        for line, what in (("MALLOC", "cudaMalloc"), ("FREE", "cudaFree"), ("SYNC", "waits"))
    )
)
fakecuda.verdict("train_packed", faults, summary, [done])
