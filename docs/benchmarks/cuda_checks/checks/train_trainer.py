"""Hugging Face's Trainer in bf16, as `mrpcbench train` starts it: launches, waits and host time of a step.

python checks/train_trainer.py
"""

import sys

from product import fakecuda, median, train

COUNTED, TIMED = 12, 12
WARM = 3  # the first steps load kernels and fill the allocator

if sys.argv[1:] == ["inside"]:
    train("trainer", COUNTED, TIMED)
    sys.exit()

done = fakecuda.run([__file__, "inside"], sm="90")
faults = [f"exit code {done.code}"] if done.code else []
steps, fast = ([part for part in done.log.stretches if part.name == name] for name in ("counted", "timed"))
if not steps[WARM:] or not fast:
    fakecuda.verdict("train_trainer", [*faults, "no step was marked"], "nothing", [done])
launches = sorted(part.launches for part in steps[WARM:])
plans = sum(part.lines["PLAN"] for part in steps), sum(part.lines["PLAN"] > 0 for part in steps)
summary = (
    f"a step launches {launches[0]} to {launches[-1]} kernels, waits "
    f"{median([part.lines['SYNC'] for part in steps[WARM:]])} times, and takes "
    f"{median([part.cpu_ms for part in fast]):.1f} ms of host CPU time ({median([part.ms for part in fast]):.1f} ms of "
    f"wall clock here); cuDNN builds {plans[0]} attention plans in {plans[1]} of {len(steps)} steps"
)
fakecuda.verdict("train_trainer", faults, summary, [done])
