"""What a worker is told, one line each, and what it answers, one line of JSON each.

    window <steps> <kind> <durable> <at> <digest>
        One step that is not timed, then `steps` steps; a save after each number of steps in `at`
        ("0,10", or "-" for none), then the drain. Answers
          train    seconds until the last step or save call was over
          total    ... and the drain
          calls    per save, seconds inside the call
          written  per save, seconds from its call until it was written
          files    per save, its path
          digests  if asked for, of the tensors at the first save
    clean        removes what was saved
    quit         ends the training

`kind` is for workers with several ways to save. The first answer, after the first step, is "ready".
"""

import json
import pathlib
import shutil
import sys
import time

from peers import files


class Windows:
    def __init__(self, contender, folder, answers):
        self.contender = contender
        self.folder = pathlib.Path(folder)
        self.answers = answers
        self.saves = []  # of this window: [path, started, returned, written]
        self.count = 0
        self.script = self.follow()

    def step_done(self):
        """After each step; False when the training shall end."""
        return next(self.script, False)

    def follow(self):
        """A generator: each yield is one more step."""
        self.answer({"ready": True})
        for line in sys.stdin:
            words = line.split()
            if words[0] == "quit":
                return
            if words[0] == "clean":
                self.clean()
            else:
                yield from self.window(*words[1:])

    def window(self, steps, _kind, durable, at, digest):
        steps = int(steps)
        at = [] if at == "-" else [int(place) for place in at.split(",")]
        found = None
        yield True
        started = time.perf_counter()
        for step in range(steps + 1):
            if step in at:
                if digest == "1" and found is None:
                    found = files.digests(self.contender.state())
                self.save(durable == "1")
            if step < steps:
                yield True
        trained = time.perf_counter()
        self.contender.drain()
        drained = time.perf_counter()
        saves = self.saves[len(self.saves) - len(at) :]
        answer = {
            "train": trained - started,
            "total": drained - started,
            "calls": [returned - called for _, called, returned, _ in saves],
            "written": [written - called for _, called, _, written in saves],
            "files": [str(path) for path, *_ in saves],
        }
        self.answer(answer if found is None else answer | {"digests": found})

    def save(self, durable):
        self.count += 1
        entry = [self.folder / f"{self.count}{self.contender.suffix}", time.perf_counter(), 0, 0]

        def done():
            entry[3] = time.perf_counter()

        self.contender.save(entry[0], durable, done)
        entry[2] = time.perf_counter()
        self.saves.append(entry)

    def clean(self):
        for path, *_ in self.saves:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.saves.clear()
        self.answer({"clean": True})

    def answer(self, what):
        self.answers.write(json.dumps(what) + "\n")
        self.answers.flush()
