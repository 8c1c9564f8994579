"""Drives torch_trainer (tests/torch/trainer.cc says what it takes and prints) from outside."""

import os
import pathlib
import signal
import subprocess
import tempfile
import unittest

import checkpoint_reading as reading

PROGRAM = os.environ["MILLRACE_TRAINER"]
TIMEOUT = 120


class Trainer:

    def __init__(self, **options):
        command = [PROGRAM, *(f"{key}={value}" for key, value in options.items())]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        self.lines = []

    def line(self):
        """The next line, without its end; nothing once the trainer ended."""
        line = self.process.stdout.readline().rstrip("\n")
        if line:
            self.lines.append(line)
        return line

    def kill(self):
        self.process.send_signal(signal.SIGKILL)

    def finish(self):
        """Reads to the end; the exit code."""
        out, self.errors = self.process.communicate(timeout=TIMEOUT)
        self.lines += out.splitlines()
        return self.process.returncode

    def end(self):
        if self.process.poll() is None:
            self.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()

    def said(self, word):
        """[[field, ...]] of the lines that begin with `word`."""
        return [line.split()[1:] for line in self.lines if line.split()[0] == word]

    def __str__(self):
        return "\n".join(self.lines)


class TrainerTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="millrace-kills-")
        self.addCleanup(folder.cleanup)
        self.scratch = pathlib.Path(folder.name)

    def start(self, **options):
        trainer = Trainer(**options)
        self.addCleanup(trainer.end)
        return trainer

    def train(self, **options):
        """To the end, which must be a good one."""
        trainer = self.start(**options)
        self.assertEqual(trainer.finish(), 0, f"{trainer}\n{trainer.errors}")
        trainer.end()
        return trainer

    def assert_nothing_committed_is_lost(self, trainer, work, before=0):
        """Of what this trainer announced, or of `before`, the generation that was there earlier.
        Returns the newest checkpoint, which resume must take."""
        files = reading.read_all(work)  # whatever has a final name is whole
        newest = reading.newest(work)
        announced = [(int(g), int(i)) for g, i, _ in trainer.said("committed") if g != "0"]
        if announced:
            before, at = announced[-1]
            self.assertIsNotNone(newest, f"{before} was committed\n{trainer}")
            self.assertGreaterEqual(newest.identity.iter, at, trainer)
        self.assertGreaterEqual(newest.identity.generation if newest else 0, before, trainer)
        best = [int(i) for g, i, _ in trainer.said("committed") if g == "0"]
        if best:  # it, or one that replaced it
            left = [c.identity.iter for name, c in files.items()
                    if name.startswith("best_") and c.identity]
            self.assertGreaterEqual(max(left, default=0), best[-1], trainer)
        return newest
