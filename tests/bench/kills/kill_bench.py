"""Kills save loops of Millrace and its peers at random moments and starts them again.

usage: kill_bench.py RAW.json     (environment: MILLRACE_TRAINER, MILLRACE_DLIB_LOOP, MILLRACE_SEED,
MILLRACE_KILLS, BENCH_QUICK=1)

Every loop trains a net with Adam, 48 to 64 MiB of state, on one thread, and saves after every
second step. SIGKILL comes after two to four finished saves and a random part of the time between
two of them. Then the loop is started again as a user of it would, with its own documented way of
finding the newest checkpoint. That counts as lost when the start fails, or goes on from an older
state than the newest one whose save had returned. Then all that is in the folder is tried: when
nothing of it loads, all is lost. After a loss the folder is emptied. SIGKILL leaves the page cache:
this is not about power cuts.
"""

import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
QUICK = os.environ.get("BENCH_QUICK") == "1"
KILLS = int(os.environ.get("MILLRACE_KILLS", "2" if QUICK else "40"))
SEED = int(os.environ.get("MILLRACE_SEED", "20260229"))


def python(script, *arguments):
    return [sys.executable, "-B", str(HERE / script), *arguments]


def torch_loadable(work):
    """Names of single files that torch.load opens."""
    import torch
    names = []
    for path in work.rglob("*"):
        if path.suffix not in (".pth", ".ckpt") or path.name.startswith("."):
            continue
        try:
            torch.load(path, weights_only=False, map_location="cpu")
            names.append(path.name)
        except Exception:  # any of many kinds
            pass
    return names


def dcp_loadable(work):
    done = subprocess.run(python("dcp_loop.py", str(work), "check"), capture_output=True, text=True)
    return re.findall(r"^loadable (.*)$", done.stdout, re.M)


def dlib_loadable(work):
    """Each of the two files alone, as if it were the only one."""
    names = []
    for path in work.glob("sync*"):
        with tempfile.TemporaryDirectory() as alone:
            shutil.copy(path, pathlib.Path(alone) / "sync")
            loop = Loop([os.environ["MILLRACE_DLIB_LOOP"], alone])
            if loop.resumed is not None:
                names.append(path.name)
            loop.kill()
    return names


class Contender:

    def __init__(self, name, newest, command, loadable):
        self.name, self.newest, self.command, self.loadable = name, newest, command, loadable


CONTENDERS = (
    Contender("Millrace, max_keep_ckpts=1", "Resume::automatic()",
              lambda work: [os.environ["MILLRACE_TRAINER"], f"work_dir={work}", "iters=1000000000",
                            "save=iter", "interval=2", "keep=1", "width=2048", "resume=auto"],
              torch_loadable),
    Contender("MMEngine, max_keep_ckpts=1", "Runner(resume=True)",
              lambda work: python("mmengine_loop.py", str(work), "1"), torch_loadable),
    Contender("MMEngine, max_keep_ckpts=3", "Runner(resume=True)",
              lambda work: python("mmengine_loop.py", str(work), "3"), torch_loadable),
    Contender("Lightning, save_last=True", 'fit(ckpt_path="last")',
              lambda work: python("lightning_loop.py", str(work)), torch_loadable),
    Contender("DCP, the same directory", "that directory",
              lambda work: python("dcp_loop.py", str(work), "same"), dcp_loadable),
    Contender("DCP, new directories, 2 kept", "highest step with .metadata",
              lambda work: python("dcp_loop.py", str(work), "new"), dcp_loadable),
    Contender("dlib, synchronization file", "set_synchronization_file()",
              lambda work: [os.environ["MILLRACE_DLIB_LOOP"], str(work)], dlib_loadable),
)


class Loop:
    """A started save loop; `resumed` is where it went on, or None when it did not."""

    # Millrace's trainer says it in its own words.
    LINE = re.compile(r"(resumed|saving|saved) (\d+)$|(captured|committed) \d+ (\d+) \S+$")
    WORDS = {"captured": "saving", "committed": "saved"}

    def __init__(self, command):
        environment = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}  # MMEngine needs it
        self.errors = tempfile.TemporaryFile("w+", errors="replace")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.errors,
                                        text=True, errors="replace", env=environment)
        self.under_way, self.last_saved, self.gap, self.saved_at = 0, None, 0.1, None
        self.resumed = None
        while self.resumed is None:
            event = self.read()
            if event is None:
                break
            if event[0] == "resumed":
                self.resumed = event[1]

    def read(self):
        """The next (word, number); None at the end."""
        for line in self.process.stdout:
            match = self.LINE.match(line.rstrip("\n"))
            if not match:
                continue
            word, number = match.group(1) or self.WORDS[match.group(3)], match.group(2)
            number = int(number or match.group(4))
            self.note(word, number)
            return word, number
        return None

    def note(self, word, number):
        if word == "saving":
            self.under_way += 1
        elif word == "saved":
            now = time.monotonic()
            if self.saved_at:
                self.gap = now - self.saved_at
            self.under_way -= 1
            self.last_saved, self.saved_at = number, now

    def live(self, saves, chance):
        while saves > 0:
            event = self.read()
            if event is None:
                raise RuntimeError(f"ended by itself:\n{self.error()}")
            saves -= event[0] == "saved"
        time.sleep(chance.uniform(0, self.gap))

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        while self.read() is not None:
            pass
        self.process.stdout.close()
        self.process.wait()

    def error(self):
        self.errors.seek(0)
        lines = self.errors.read().strip().splitlines()
        return lines[-1][:200] if lines else f"exit code {self.process.wait()}"


def measure(contender, chance, folder):
    """Counts of one contender. The start after a kill is the judgement of the kill before."""
    row = {"name": contender.name, "newest": contender.newest, "kills": 0, "in_save": 0,
           "newest_lost": 0, "nothing_left": 0, "losses": []}
    work = folder / "work"
    promised = None  # the newest save that had returned; None: an empty folder
    while True:
        work.mkdir(exist_ok=True)
        loop = Loop(contender.command(work))
        lost = promised is not None and (loop.resumed is None or loop.resumed < promised)
        if promised is None and loop.resumed is None:
            raise RuntimeError(f"{contender.name} cannot start: {loop.error()}")
        if lost:
            how = loop.error() if loop.resumed is None else f"went on from {loop.resumed}"
            loop.kill()
            left = contender.loadable(work)
            row["newest_lost"] += 1
            row["nothing_left"] += not left
            row["losses"].append({"promised": promised, "how": how, "loadable": left})
            shutil.rmtree(work)
            promised = None
            if row["kills"] == KILLS:
                return row
            continue
        if row["kills"] == KILLS:
            loop.kill()
            return row
        loop.live(chance.randint(2, 4), chance)
        loop.kill()
        row["kills"] += 1
        row["in_save"] += loop.under_way > 0
        promised = loop.last_saved


def table(rows):
    lines = ["| save loop | newest is found by | kills | inside a save | newest lost | none left |",
             "|---|---|---|---|---|---|"]
    for row in rows:
        share = [f"{row[key]} ({100 * row[key] / row['kills']:.0f} %)"
                 for key in ("in_save", "newest_lost", "nothing_left")]
        lines.append(f"| {row['name']} | {row['newest']} | {row['kills']} | {' | '.join(share)} |")
    return "\n".join(lines)


def shares(rows):
    """The rows of the one table (tests/bench/results.h). Millrace's goal is none."""
    return [
        {"item": "8", "what": what, "contender": row["name"], "case": f"{row['kills']} kills",
         "ratio": row[key] / row["kills"], "low": row[key] / row["kills"],
         "high": row[key] / row["kills"], "base": "kills", "noise": None,
         "goal": 0 if row is rows[0] else None, "unit": "ratio"}
        for key, what in (("newest_lost", "newest state lost"), ("nothing_left", "nothing left"))
        for row in rows
    ]


def main(raw):
    rows = []
    for index, contender in enumerate(CONTENDERS):
        chance = random.Random(SEED + index)
        with tempfile.TemporaryDirectory(prefix="millrace-kills-") as folder:
            rows.append(measure(contender, chance, pathlib.Path(folder)))
        print(f"{contender.name}: {rows[-1]['newest_lost']} of {KILLS}", file=sys.stderr)
    print(table(rows))
    print(f"\nSIGKILL at random moments, seed {SEED}; 48 to 64 MiB, a save every second step.")
    revision = os.environ.get("MILLRACE_REVISION", "")
    result = {"quick": QUICK, "revision": revision, "seed": SEED, "kills": KILLS,
              "rows": shares(rows), "loops": rows}
    pathlib.Path(raw).write_text(json.dumps(result, indent=1))
    # Millrace's is a promise, not a figure.
    return 1 if rows[0]["newest_lost"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
