"""The orchestrator: one process per contender, of which one at a time works.

A turn of a contender is none, save, none: what the save took is its window against the two beside
it, so that the drift of a shared machine cancels. The second empty window against the first is the
noise (A/A). Every file is read back before it is removed, and fails the benchmark when it does not
hold what it should.
"""

import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
import time

import torch

import harness
from peers import files

MILLRACE = harness.WORKERS / "peer_worker"
GIB = 1 << 30
PATIENCE = 600  # seconds for an answer: a worker that takes longer hangs


class Failed(Exception):
    pass


class Worker:
    def __init__(self, program, folder, mib, threads, batch, saves=True):
        """`program`: "Millrace", or a name that peers.worker knows."""
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        settings = [str(self.folder), str(mib), str(threads), str(batch)]
        if program == "Millrace":
            command = [str(MILLRACE), *settings, *([] if saves else ["without_saves"])]
        else:
            command = [sys.executable, "-B", "-m", "peers.worker", program, *settings]
        self.program = program
        self.log = open(self.folder.with_suffix(".log"), "w+")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            cwd=harness.ROOT / "tests/bench", env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )
        self.cpu_clock = (~self.process.pid << 3) | 2  # the kernel's id: time of another process
        self.expect("ready")

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self):
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            raise Failed(f"{self.program} has not answered for {PATIENCE} s")
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.process.wait()
        self.log.seek(0)
        raise Failed(f"{self.program} ended with {self.process.returncode}:\n{self.log.read()}")

    def expect(self, key):
        answer = self.answer()
        if key not in answer:
            raise Failed(f"{self.program} said {answer}, not {key}")

    def window(self, steps, kind="none", durable=True, at=(), digest=False):
        pathlib.Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")  # the peak starts anew
        before = time.clock_gettime(self.cpu_clock)
        places = ",".join(map(str, at)) or "-"
        answer = self.ask(f"window {steps} {kind} {durable:d} {places} {digest:d}")
        answer["cpu"] = time.clock_gettime(self.cpu_clock) - before
        answer["peak"] = self.memory("VmHWM")
        if len(answer["files"]) != len(at):
            raise Failed(f"{self.program}: {len(answer['files'])} of {len(at)} files")
        return answer

    def memory(self, what="VmRSS"):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(what + ":"):
                return int(line.split()[1]) * 1024
        raise Failed(f"no {what}")

    def clean(self):
        self.ask("clean")

    def close(self):
        """Ends it, if it can; then by force."""
        if self.process.poll() is None:
            try:
                self.process.stdin.write("quit\n")
                self.process.stdin.close()
                self.process.wait(30)
            except (OSError, subprocess.TimeoutExpired):
                self.process.kill()
                self.process.wait()
        self.log.close()


def check_size(worker, path, expected):
    found = files.size(files.load(path))
    if abs(found - expected) > 4096:  # step counters are stored in different ways
        raise Failed(f"{worker.program}: {path} holds {found} bytes of tensors, not {expected}")


def check_content(worker, kind, durable):
    """Two steps go on beside a save; its file must hold the state from before them. Its size."""
    answer = worker.window(2, kind, durable, at=[0], digest=True)
    loaded = files.load(answer["files"][0])
    if files.digests(loaded) != sorted(answer["digests"]):
        raise Failed(f"{worker.program} {kind}: the file does not hold the state that was saved")
    expected = files.size(loaded)
    del loaded
    worker.clean()
    return expected


def turn(worker, steps, kind, durable, at, expected):
    """One save window between two without saves."""
    first = worker.window(steps)
    saved = worker.window(steps, kind, durable, at)
    for path in map(pathlib.Path, saved["files"]):
        for file in path.iterdir() if path.is_dir() else [path]:
            files.make_durable(file)  # nothing is left to write in the next window
        check_size(worker, path, expected)
    worker.clean()
    os.sync()  # the trim that follows a removal belongs to nobody's window
    second = worker.window(steps)
    return {"first": first, "saved": saved, "second": second}


def around(found, key):
    """Of a turn: what the windows without saves took."""
    return (found["first"][key] + found["second"][key]) / 2


def versions():
    import mmengine
    import pytorch_lightning

    return {
        "torch": torch.__version__, "mmengine": mmengine.__version__,
        "pytorch_lightning": pytorch_lightning.__version__,
    }


def too_large(mib, contenders):
    """Why memory cannot hold all of them at once, or nothing."""
    needed = contenders * 2 * mib << 20
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:") and int(line.split()[1]) * 1024 < needed:
            return f"{mib} MiB, which needs {needed / GIB:.0f} GiB of memory"
    return ""


def threads_text(threads):
    return "1 thread" if threads == 1 else f"{threads} threads"


def run(raw, name, cases, contenders, measure):
    """Every case that memory can hold, on the disk of `raw`, where the result goes after each.

    `measure(folder, *case)` gives its rows and what they were made of.
    """
    raw = pathlib.Path(raw).resolve()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="peers-", dir=raw.parent))
    rows, measured, left_out = [], [], []
    try:
        for case in cases:
            if reason := too_large(case[0], contenders):
                print(f"left out: {reason}", flush=True)
                left_out += [reason] if reason not in left_out else []
                continue
            place = folder / "-".join(map(str, case))
            found, samples = measure(place, *case)
            shutil.rmtree(place)
            rows += found
            measured.append({"case": case, "turns": samples})
            harness.write(raw, rows, measured, versions=versions(), left_out=left_out)
    except Failed as failure:
        sys.exit(f"{name}: {failure}")
    finally:
        shutil.rmtree(folder)
