"""What the runners of Millrace and MMEngine add to an iteration, with their default hooks.

usage: peers_runner.py <raw.json>

Each runner is held against a bare loop of PyTorch or LibTorch over the same model in its own
language; what it adds is the difference of the two in one round. MMEngine's bare loop has the
DataLoader that MMEngine uses, ours has slices of a tensor, so our loader counts as added. The
second bare loop is the noise floor.
"""

import contextlib
import logging
import os
import pathlib
import sys
import tempfile
import time

import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch.utils.data import DataLoader, TensorDataset

import harness

INPUTS, CLASSES, BATCH = 16, 4, 32  # as in tiny_worker.cc
ROUNDS = 3 if harness.QUICK else 11
ITERATIONS = 300 if harness.QUICK else 2000  # of MMEngine
OURS = 1000 if harness.QUICK else 10000
GOAL = 0.05  # at most a twentieth


class Tiny(BaseModel):
    """Takes the time between two of its own calls, far from start and end."""

    def __init__(self, last):
        super().__init__()
        self.layer = torch.nn.Linear(INPUTS, CLASSES)
        self.last, self.calls, self.seconds = last, 0, 0.0

    def forward(self, inputs, labels, mode="loss"):
        if self.calls == self.last // 10:
            self.started = time.perf_counter()
        self.calls += 1
        if self.calls == self.last:
            spent = time.perf_counter() - self.started
            self.seconds = spent / (self.last - 1 - self.last // 10)
        return {"loss": torch.nn.functional.cross_entropy(self.layer(inputs), labels)}


def batches():
    count = BATCH * ITERATIONS
    data = TensorDataset(torch.randn(count, INPUTS), torch.randint(CLASSES, (count,)))
    return DataLoader(data, batch_size=BATCH, shuffle=True)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def bare():
    model = Tiny(ITERATIONS)
    optimizer = sgd(model)
    for inputs, labels in batches():
        loss = model(inputs, labels)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.seconds


def mmengine():
    model = Tiny(ITERATIONS)
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            runner = Runner(
                model, folder, train_dataloader=batches(),
                train_cfg={"by_epoch": True, "max_epochs": 1},
                optim_wrapper=OptimWrapper(sgd(model)), experiment_name=f"tiny{time.time_ns()}",
            )
            runner.train()
            if not (pathlib.Path(folder) / "epoch_1.pth").exists():
                raise SystemExit("MMEngine saved no checkpoint")
            logging.shutdown()
    if model.calls != ITERATIONS:
        raise SystemExit(f"MMEngine made {model.calls} of {ITERATIONS} iterations")
    return model.seconds


def main(raw):
    torch.set_num_threads(1)
    with harness.Worker("tiny_worker") as worker:
        actions = {
            "bare": bare, "MMEngine": mmengine, "bare again": bare,
            "LibTorch": lambda: worker.seconds("libtorch", OURS),
            "Millrace": lambda: worker.seconds("engine", OURS),
            "LibTorch again": lambda: worker.seconds("libtorch", OURS),
            "parts": lambda: worker.seconds("parts", OURS),
        }
        times = {name: [] for name in actions}
        names = list(actions)
        for number in range(ROUNDS):
            for turn in range(len(names)):
                name = names[(turn + number) % len(names)]
                times[name].append(1e6 * actions[name]())

    def added(key, base):
        return [a - b for a, b in zip(times[key], times[base], strict=True)]

    def row(contender, key, base, what_base):
        noise = added(base + " again", base) if base != "parts" else None
        return harness.row("12", "time added to an iteration", contender, "tiny model",
                           added(key, base), what_base, noise, unit="us")

    ours = row("Millrace", "Millrace", "LibTorch", "a bare LibTorch loop")
    engine = row("Millrace, engine and hooks", "Millrace", "parts", "its strategy and loader alone")
    theirs = row("MMEngine", "MMEngine", "bare", "a bare PyTorch loop")
    # Of the medians: ours may be below the noise, and below zero, as our step is a fused one.
    noise = [n / theirs["ratio"] for n in ours["noise"]]
    against = harness.row("12", "time added to an iteration", "Millrace", "tiny model",
                          [ours[k] / theirs["ratio"] for k in ("low", "ratio", "high")],
                          "what MMEngine adds", noise, GOAL)
    rows = [ours, engine, theirs, against]
    harness.show(rows)
    harness.write(raw, rows, [{"us": times}])


if __name__ == "__main__":
    main(sys.argv[1])
