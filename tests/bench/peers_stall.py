"""What one checkpoint costs under Millrace and its peers: stall, time, CPU and memory.

usage: peers_stall.py <raw.json>

Windows of a few steps, with a save at the start of every other one; the state and the disk are the
same. Each contender saves durably (fsync of file and folder) and plainly; Millrace has no plain
form and stays durable there. BENCH_QUICK=1 takes small sizes and two rounds.

stall    the window with the save minus the mean of the two without beside it; as a ratio, to the
         median of torch.save's, unless that is below the noise
written  from the call until the file is written, durably in the durable case
CPU      of the whole process in such a window, drain included, minus the same mean
memory   highest resident set in such a window minus that of a process which never saved
"""

import statistics
import sys

import harness
from peers import lockstep

BASE = "torch.save"
CONTENDERS = [  # name, program, kind
    (BASE, BASE, "save"),
    ("MMEngine", "MMEngine", "save"),
    ("DCP async_save", "DCP async_save", "save"),
    ("DCP async_save, kept stager", "DCP async_save, kept stager", "save"),
    ("DCP async_save, async stager", "DCP async_save, async stager", "save"),
    ("Lightning async", "Lightning async", "save"),
    ("C++ torch::save", "Millrace", "torch_save"),
    ("Millrace blocking", "Millrace", "blocking"),
    ("Millrace eager", "Millrace", "eager"),
    ("Millrace lazy", "Millrace", "lazy"),
]
GOALS = {"stall": 0.01, "CPU": 0.30, "peak extra memory": 1.05}  # of the lazy mode, durable
BATCH = 16
# MiB, threads, steps, rounds; the steps last about as long as the fastest asynchronous write
CASES = (
    [(16, 1, 10, 2), (64, 2, 4, 2)]
    if harness.QUICK
    else [(64, 2, 10, 5), (256, 2, 6, 5), (1024, 2, 4, 3)]
)


def memory_without_saves(folder, settings):
    """Of Millrace, which reserves its memory for saves at the start."""
    worker = lockstep.Worker("Millrace", folder, *settings, saves=False)
    try:
        return worker.window(4)["peak"]
    finally:
        worker.close()


def measure(folder, mib, threads, steps, rounds):
    settings = (mib, threads, BATCH)
    without = memory_without_saves(folder / "without", settings)
    workers, memory, measured = {}, {}, []
    try:
        for program in sorted({program for _, program, _ in CONTENDERS}):
            place = folder / program.replace(" ", "_")
            workers[program] = lockstep.Worker(program, place, *settings)
        for name, program, kind in CONTENDERS:
            memory[name] = workers[program].window(4)["peak"]
            if program == "Millrace" and kind != "torch_save":
                memory[name] = without
        sizes = {}
        for name, program, kind in CONTENDERS:
            for durable in (True, False):
                sizes[name] = lockstep.check_content(workers[program], kind, durable)
        for number in range(rounds + 1):
            for name, program, kind in CONTENDERS:
                for durable in (True, False):
                    found = lockstep.turn(
                        workers[program], steps, kind, durable, [0], sizes[name]
                    )
                    about = {"contender": name, "durable": durable, "round": number}
                    extra = found["saved"]["peak"] - memory[name]
                    measured.append(about | cost(found, extra, sizes[name]) | {"turn": found})
    finally:
        for worker in workers.values():
            worker.close()
    return measured


def cost(found, extra_memory, size):
    saved = found["saved"]
    return {
        "stall": saved["train"] - lockstep.around(found, "train"),
        "noise": found["second"]["train"] - found["first"]["train"],
        "call": saved["calls"][0],
        "written": saved["written"][0],
        "cpu": (saved["cpu"] - lockstep.around(found, "cpu")) / (size / lockstep.GIB),
        "memory": extra_memory / size,
    }


def rows_of(measured, case, durable):
    """The first round settles: its saves are the first ones."""
    chosen = [m for m in measured if m["durable"] == durable and m["round"] > 0]

    def of(name):
        return [m for m in chosen if m["contender"] == name]

    base = BASE + (" + fsync" if durable else "")
    rows = []

    def add(name, what, values, *rest, unit="ratio"):
        judged = name == "Millrace lazy" and durable and (what, unit) != ("stall", "ms")
        goal = GOALS.get(what) if judged else None
        shown = f"{name} (durable)" if "Millrace" in name and not durable else name
        noise = rest[0] if rest else None
        against = {"ratio": base, "s/GiB": "GiB saved", "x state": "state", "ms": ""}[unit]
        rows.append(harness.row("9", what, shown, case, values, against, noise, goal, unit=unit))

    theirs = of(BASE)
    stall = statistics.median(m["stall"] for m in theirs)
    hidden = stall <= statistics.median(abs(m["noise"]) for m in theirs)
    if hidden:  # a ratio to it would say nothing, and with either sign
        print(f"{case}: {base} stalls less than the noise; stalls are in ms, without a goal")
    for name, *_ in CONTENDERS:
        mine = of(name)
        unit, scale = ("ms", 1000) if hidden else ("ratio", 1 / stall)
        noise = [scale * m["noise"] for m in mine]
        add(name, "stall", [scale * m["stall"] for m in mine], [min(noise), max(noise)], unit=unit)
        add(name, "in the call", [1000 * m["call"] for m in mine], unit="ms")
        add(name, "written", [m["written"] / t["written"] for m, t in zip(mine, theirs)])
        add(name, "CPU", [m["cpu"] for m in mine], unit="s/GiB")
        add(name, "peak extra memory", [m["memory"] for m in mine], unit="x state")
    return rows


def measure_case(folder, mib, threads, steps, rounds):
    found = measure(folder, mib, threads, steps, rounds)
    rows = []
    for durable in (False, True):
        case = f"{mib} MiB, {lockstep.threads_text(threads)}"
        chosen = rows_of(found, case + (", durable" if durable else ", plain"), durable)
        harness.show(chosen)
        rows += chosen
    return rows, found


if __name__ == "__main__":
    lockstep.run(sys.argv[1], "peers_stall", CASES, len(CONTENDERS), measure_case)
