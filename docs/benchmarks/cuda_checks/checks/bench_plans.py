"""`bench --backend torch` in bf16: does cuDNN build attention plans in the timed rounds?

python checks/bench_plans.py

torch takes cuDNN's attention on SM 90, which builds a plan at the first call of each shape. A plan that is built in a
timed round makes the Hugging Face baseline look slow.
"""

import sys

from product import fakecuda

ROUNDS = 2
SCENARIOS = ("single-stream", "offline")


def inside() -> None:
    """Run the benchmark with a mark before and after each round."""
    from mrpcbench.benchmark.row import SteadyRow
    from mrpcbench.commands.bench import bench
    from mrpcbench.progress import Silent
    from mrpcbench.schema.bench_requests import BenchPlan
    from mrpcbench.schema.cases import BenchRequest
    from mrpcbench.schema.requests import BackendSpec

    run_round = SteadyRow.run_round

    def marked(row: SteadyRow) -> None:
        fakecuda.mark("between")
        run_round(row)
        fakecuda.mark(f"{row.id.scenario}")

    SteadyRow.run_round = marked  # type: ignore[method-assign]
    spec = BackendSpec(model=fakecuda.model(), device="cuda", dtype="bf16", random_init=True)
    plan = BenchPlan(data=fakecuda.data(), scenario=SCENARIOS, batch_size=(32,), rounds=ROUNDS, max_s=0)
    record, _ = bench(BenchRequest(spec=spec, plan=plan), None, Silent())
    for row in record.rows:
        print(f"COLD {row.id.scenario} {'none' if row.cold_ms is None else 'shown'}")


if sys.argv[1:] == ["inside"]:
    inside()
    sys.exit()

done = fakecuda.run([__file__, "inside"], sm="90", quiet="1")
faults = [f"exit code {done.code}"] if done.code else []
summary = [f"{done.log.counts['PLAN']} attention plans in all"]
for scenario in SCENARIOS:
    rounds = [part.lines["PLAN"] for part in done.log.stretches if part.name == scenario]
    summary.append(f"{scenario}: {', '.join(map(str, rounds)) or 'no'} plans in the timed rounds")
    if any(rounds):
        faults.append(f"{scenario}: {sum(rounds)} plans in timed rounds")
    if len(rounds) != ROUNDS:
        faults.append(f"{scenario}: {len(rounds)} rounds instead of {ROUNDS}")
    if f"COLD {scenario} shown" not in done.output:
        faults.append(f"{scenario}: no cold time")
fakecuda.verdict("bench_plans", faults, "; ".join(summary), [done] if done.code else [])
