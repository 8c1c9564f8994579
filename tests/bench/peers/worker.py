"""One Python contender in a process of its own.

usage: python -m peers.worker <contender> <folder> <MiB of state> <threads> <batch size>
"""

import importlib
import os
import sys

import torch

from peers import windows

CONTENDERS = {
    "torch.save": ("plain_loop", "TorchSave"),
    "DCP async_save": ("plain_loop", "Distributed"),
    "DCP async_save, kept stager": ("plain_loop", "DistributedKept"),
    "DCP async_save, async stager": ("plain_loop", "DistributedAsync"),
    "MMEngine": ("mmengine_runner", "MmengineRunner"),
    "Lightning": ("lightning_trainer", "LightningTrainer"),
    "Lightning async": ("lightning_trainer", "LightningAsync"),
}


def main(name, folder, mib, threads, batch):
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what frameworks print is no answer
    torch.set_num_threads(int(threads))
    torch.manual_seed(1)
    module, kind = CONTENDERS[name]
    contender = getattr(importlib.import_module(f"peers.{module}"), kind)(
        folder, int(mib), int(batch)
    )
    contender.run(windows.Windows(contender, folder, answers).step_done)


if __name__ == "__main__":
    main(*sys.argv[1:])
