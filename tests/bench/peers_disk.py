"""Checkpoints on the disk against what the disk gives, and against torch.load and MMEngine.

usage: peers_disk.py <raw.json>

Writing: a durable checkpoint against O_DIRECT writes of as many bytes, without any sync. Loading: a
cold file, every checksum checked, against reads of its bytes in blocks (the faster way in each
round: O_DIRECT, or through the page cache), and against torch.load.
Publishing: against MMEngine's, which neither syncs nor names the file by its bytes. All actions
take turns in rounds, each ratio is of one round; the raw write and the raw read are measured twice,
which is the noise floor.
"""

import contextlib
import hashlib
import io
import logging
import os
import pathlib
import sys
import tempfile
import time

import torch
from mmengine.hooks import CheckpointHook
from mmengine.logging import MMLogger

import harness

KEYS = ["meta", "state_dict"]
WRITE_MIB = [16, 64] if harness.QUICK else [16, 64, 256, 1024]
READ_MIB = [8] if harness.QUICK else [22, 86, 342]  # of weights; the file has three times that
ROUNDS = 3 if harness.QUICK else 9
WRITE_GOALS = {256: 0.90, 1024: 0.95}


def rounds(actions):
    """Calls every action once a round, in an order that rotates; seconds by action."""
    times = {name: [] for name in actions}
    names = list(actions)
    for number in range(-1, ROUNDS):  # round -1 settles
        for turn in range(len(names)):
            name = names[(turn + number) % len(names)]
            seconds = actions[name]()
            if number >= 0:
                times[name].append(seconds)
    return times


def measure_writing(worker, mib):
    def written(command):
        def action():
            worker.ask("remove", "new.pth")
            os.sync()  # the trim that follows a removal belongs to nobody's turn
            seconds = worker.seconds(command, "new.pth")
            if not command.startswith("raw"):
                worker.ask("verify", "new.pth")
            return seconds
        return action

    worker.ask("state", mib)
    times = rounds({
        "raw": written("raw_write"), "raw again": written("raw_write"),
        "file": written("commit"), "store": written("store"),
    })
    worker.ask("remove", "new.pth")
    noise = harness.ratios(times["raw"], times["raw again"])
    raw = [(a + b) / 2 for a, b in zip(times["raw"], times["raw again"])]
    base, case = "raw O_DIRECT writes", f"{mib} MiB"
    rows = [
        harness.row("11", "durable bytes/s", name, case, harness.ratios(raw, times[key]), base,
                    noise, WRITE_GOALS.get(mib), at_least=True)
        for key, name in (("file", "Millrace"), ("store", "Millrace, with catalog and pointer"))
    ]
    return rows, {"what": "write", "mib": mib, "seconds": times}


def torch_load(path):
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start = time.perf_counter()
    torch.load(path, weights_only=True)
    return time.perf_counter() - start


def measure_loading(worker, folder, mib):
    worker.ask("source", "epoch_1.pth", mib)
    path = folder / "epoch_1.pth"
    times = rounds({
        "raw": lambda: worker.seconds("raw_read", path.name),
        "raw again": lambda: worker.seconds("raw_read", path.name),
        "buffered": lambda: worker.seconds("buffered_read", path.name),
        "load": lambda: worker.seconds("load", path.name),
        "resume": lambda: worker.seconds("resume"),
        "torch": lambda: torch_load(path),
    })
    noise = harness.ratios(times["raw again"], times["raw"])
    direct = [(a + b) / 2 for a, b in zip(times["raw"], times["raw again"])]
    raw = [min(pair) for pair in zip(direct, times["buffered"])]
    case = f"{path.stat().st_size >> 20} MiB"
    what, base = "cold verified load", "raw reads, O_DIRECT or buffered"

    def row(contender, key, base, of, goal=None):
        return harness.row("11", what, contender, case, harness.ratios(times[key], of), base, noise,
                           goal)

    rows = [
        row("Millrace", "load", base, raw, 1.10),
        row("Millrace, newest valid found first", "resume", base, raw, 1.10),
        row("torch.load, nothing verified", "torch", base, raw),
        row("Millrace", "load", "torch.load, nothing verified", times["torch"]),
    ]
    return rows, {"what": "load", "mib": mib, "seconds": times}


def publish(worker, path):
    answer = worker.ask("publish", path.name)
    published = path.with_name(answer["name"])
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    if digest != answer["sha256"] or not published.stem.endswith(digest[:8]):
        raise SystemExit(f"{published.name} is not named by its bytes")
    worker.ask("verify", published.name)
    worker.ask("remove", published.name)
    return answer["seconds"]


def mmengine_publish(path):
    before = set(path.parent.iterdir())
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    hook = CheckpointHook(published_keys=KEYS)
    with contextlib.redirect_stdout(io.StringIO()):  # it says what it loads
        start = time.perf_counter()
        hook._publish_model(None, str(path))
        seconds = time.perf_counter() - start
    made = set(path.parent.iterdir()) - before
    if not made:
        raise SystemExit("MMEngine published nothing")
    for published in made:
        torch.load(published, weights_only=True, mmap=True)
        published.unlink()
    os.sync()  # its dirty pages are nobody else's turn
    return seconds


def measure_publishing(worker, folder, mib):
    path = folder / "epoch_1.pth"  # of measure_loading
    times = rounds({
        "Millrace": lambda: publish(worker, path),
        "MMEngine": lambda: mmengine_publish(path),
        "MMEngine again": lambda: mmengine_publish(path),
    })
    noise = harness.ratios(times["MMEngine again"], times["MMEngine"])
    values = harness.ratios(times["Millrace"], times["MMEngine"])
    rows = [harness.row("11", "publish", "Millrace, durable", f"{mib} MiB published", values,
                        "MMEngine, not durable", noise, 0.25)]
    return rows, {"what": "publish", "mib": mib, "seconds": times}


def disk_speed(samples):
    """MiB/s of the largest raw transfers, for the description of the machine."""
    def speed(kind, factor):
        sample = [s for s in samples if s["what"] == kind][-1]
        seconds = sorted(sample["seconds"]["raw"])
        return round(sample["mib"] * factor / seconds[len(seconds) // 2])
    return {"write_mib_s": speed("write", 1), "read_mib_s": speed("load", 3)}


def main(raw):
    MMLogger.get_instance("peers_disk", log_level=logging.ERROR)
    rows, samples = [], []
    with tempfile.TemporaryDirectory(prefix="millrace-disk-") as folder:
        folder = pathlib.Path(folder)
        with harness.Worker("disk_worker", folder) as worker:
            for measure, sizes in (
                (lambda mib: measure_writing(worker, mib), WRITE_MIB),
                (lambda mib: measure_loading(worker, folder, mib), READ_MIB),
                (lambda mib: measure_publishing(worker, folder, mib), READ_MIB[-1:]),
            ):
                for mib in sizes:
                    found, sample = measure(mib)
                    harness.show(found)
                    rows += found
                    samples.append(sample)
    harness.write(raw, rows, samples, disk=disk_speed(samples))


if __name__ == "__main__":
    main(sys.argv[1])
