"""A loop of one's own with torch.distributed.checkpoint, which has no way to find the last one.

usage: dcp_loop.py WORK_DIR same    into one directory, again and again
       dcp_loop.py WORK_DIR new     into step_<N>, of which the two newest are kept; the newest is
                                    the highest N that has a .metadata, as torchtitan finds it
       dcp_loop.py WORK_DIR check   prints `loadable <name>` for every directory that loads
"""

import pathlib
import shutil
import sys

import torch
import torch.distributed.checkpoint as dcp

WIDTH = 2048


def say(word, text):
    print(word, text, flush=True)


class Training:

    def __init__(self):
        torch.set_num_threads(1)
        self.net = torch.nn.Linear(WIDTH, WIDTH)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-3)
        self.at = 0
        self.step()  # so that the optimizer's state is there to be loaded into

    def step(self):
        self.optimizer.zero_grad()
        (self.net(torch.randn(8, WIDTH))**2).mean().backward()
        self.optimizer.step()
        self.at += 1

    def state(self):
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict(),
                "at": torch.tensor(self.at)}

    def load(self, folder):
        state = self.state()
        dcp.load(state, checkpoint_id=folder)
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.at = int(state["at"])


def number(folder):
    return int(folder.name.removeprefix("step_"))


def complete(work):
    return sorted((f for f in work.glob("step_*") if (f / ".metadata").exists()), key=number)


def check(training, work):
    for folder in work.iterdir():
        try:
            training.load(folder)
            say("loadable", folder.name)
        except Exception as error:
            print(f"{folder}: {error}", file=sys.stderr)


def main(work_dir, variant):
    work = pathlib.Path(work_dir)
    training = Training()
    if variant == "check":
        check(training, work)
        return
    same = work / "checkpoint"
    there = [same] if variant == "same" and same.exists() else complete(work)
    if there:
        training.load(there[-1])
    else:
        training.at = 0
    say("resumed", training.at)
    while True:
        training.step()
        training.step()
        say("saving", training.at)
        dcp.save(training.state(),
                 checkpoint_id=same if variant == "same" else work / f"step_{training.at}")
        say("saved", training.at)
        for old in complete(work)[:-2]:
            shutil.rmtree(old)


if __name__ == "__main__":
    main(*sys.argv[1:])
