"""The price of checkpoints in wall time: the same steps with durable saves and without any.

usage: peers_wall.py <raw.json>

N steps with K durable saves, the last one after the last step, until everything is written; against
the mean of the same steps without saves right before and after, in the same framework.
BENCH_QUICK=1 takes small sizes and two rounds.
"""

import sys

import harness
from peers import lockstep

CONTENDERS = [  # name, program, kind
    ("Millrace lazy", "Millrace", "lazy"),
    ("Millrace eager", "Millrace", "eager"),
    ("Millrace blocking", "Millrace", "blocking"),
    ("MMEngine", "MMEngine", "save"),
    ("Lightning", "Lightning", "save"),
    ("Lightning async", "Lightning async", "save"),
]
GOAL = 1.05
BATCH = 64
SAVES = 3
# MiB, threads, steps, rounds
CASES = (
    [(16, 1, 24, 2), (64, 2, 24, 2)]
    if harness.QUICK
    else [(64, 2, 120, 5), (256, 1, 42, 5), (1024, 2, 24, 3)]
)


def measure(folder, mib, threads, steps, rounds):
    workers = {}
    turns = {name: [] for name, *_ in CONTENDERS}
    at = [steps * (i + 1) // SAVES for i in range(SAVES)]
    try:
        for _, program, _ in CONTENDERS:
            if program not in workers:
                place = folder / program.replace(" ", "_")
                workers[program] = lockstep.Worker(program, place, mib, threads, BATCH)
        expected = {
            name: lockstep.check_content(workers[program], kind, True)
            for name, program, kind in CONTENDERS
        }
        for number in range(rounds + 1):
            for name, program, kind in CONTENDERS:
                worker = workers[program]
                found = lockstep.turn(worker, steps, kind, True, at, expected[name])
                turns[name].append(found | {"round": number})
    finally:
        for worker in workers.values():
            worker.close()
    return turns


def rows_of(turns, case):
    rows = []
    for name, program, _ in CONTENDERS:
        settled = turns[name][1:]
        noise = [t["second"]["total"] / t["first"]["total"] for t in settled]
        ratios = [t["saved"]["total"] / lockstep.around(t, "total") for t in settled]
        drains = [
            (t["saved"]["total"] - t["saved"]["train"]) / lockstep.around(t, "total")
            for t in settled
        ]
        own = f"{program} without checkpoints"
        goal = GOAL if name == "Millrace lazy" else None
        limits = [min(noise), max(noise)]
        rows.append(harness.row("10", "wall time", name, case, ratios, own, limits, goal))
        rows.append(harness.row("10", "of that, the last drain", name, case, drains, own))
    return rows


def measure_case(folder, mib, threads, steps, rounds):
    turns = measure(folder, mib, threads, steps, rounds)
    case = f"{mib} MiB, {lockstep.threads_text(threads)}, {SAVES} saves in {steps} steps"
    rows = rows_of(turns, case)
    harness.show(rows)
    return rows, turns


if __name__ == "__main__":
    lockstep.run(sys.argv[1], "peers_wall", CASES, len(CONTENDERS), measure_case)
