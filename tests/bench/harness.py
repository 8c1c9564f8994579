"""For the benchmarks in Python that Millrace's own workers take part in: workers, rows, results.

The rows are those of tests/bench/results.h.
"""

import json
import os
import pathlib
import statistics
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORKERS = pathlib.Path(os.environ.get("MILLRACE_WORKERS", ROOT / "build/bench/workers"))
QUICK = os.environ.get("BENCH_QUICK") == "1"


class Worker:
    """A program that answers every line with one line of JSON. It works only while it is asked."""

    def __init__(self, name, *arguments):
        self.name = name
        self.process = subprocess.Popen(
            [str(WORKERS / name), *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def ask(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended at: {' '.join(map(str, words))}")
        return json.loads(line)

    def seconds(self, *words):
        return self.ask(*words)["seconds"]


def ratios(times, bases):
    return [time / base for time, base in zip(times, bases, strict=True)]


def row(item, what, contender, case, values, base, noise=None, goal=None, at_least=False,
        unit="ratio"):
    return {
        "item": item, "what": what, "contender": contender, "case": case,
        "ratio": statistics.median(values), "low": min(values), "high": max(values), "base": base,
        "noise": [min(noise), max(noise)] if noise else None, "goal": goal, "at_least": at_least,
        "unit": unit,
    }


def show(rows):
    print("| what | contender | case | median (min to max) | of | noise | goal |")
    print("|---" * 7 + "|")
    for r in rows:
        noise = "{:.3f} to {:.3f}".format(*r["noise"]) if r["noise"] else ""
        goal = "" if r["goal"] is None else str(r["goal"])
        if r["goal"] is not None:
            met = r["ratio"] >= r["goal"] if r["at_least"] else r["ratio"] <= r["goal"]
            goal += "" if met else " LOST"
        unit = "" if r["unit"] == "ratio" else f" {r['unit']}"
        number = f"{r['ratio']:.4f} ({r['low']:.4f} to {r['high']:.4f}){unit}"
        cells = [r["what"], r["contender"], r["case"], number, r["base"], noise, goal]
        print("| " + " | ".join(cells) + " |", flush=True)


def write(path, rows, samples, **more):
    about = {"quick": QUICK, "revision": os.environ.get("MILLRACE_REVISION", "")}
    result = {**about, **more, "rows": rows, "samples": samples}
    pathlib.Path(path).write_text(json.dumps(result, indent=1))
