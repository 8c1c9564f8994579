"""What the kill and signal tests of the digit trainer share: runs that are interrupted again and
again, and must end as one that never was. tests/examples/demo.py drives the program."""

import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "examples"))

import checkpoint_reading as reading
import demo  # noqa: E402  found through the line above


class Run:
    """Arguments of one training, what it ends with uninterrupted, and how long that takes."""

    def __init__(self, test, name, *more, **options):
        self.test, self.more, self.options = test, more, options
        self.clean = test.scratch / f"{name}-clean"
        begun = time.monotonic()
        test.assert_succeeded(demo.train(self.clean, *more, **options))
        self.seconds = time.monotonic() - begun
        self.last = demo.checkpoints(self.clean)[-1]

    def start(self, work):
        return self.test.start(work, "--resume", *self.more, **self.options)

    def finish(self, work, but=()):
        """Resumes to the end, which must be that of the run that was never interrupted."""
        done = demo.train(work, "--resume", *self.more, **self.options)
        self.test.assert_succeeded(done)
        self.test.assertEqual(demo.leftovers(work), [])
        self.test.assertEqual(
            reading.differences(self.clean / self.last, work / self.last, but), [])
        self.test.assertEqual(demo.checkpoints(work)[-1], self.last)


def newest_iteration(work):
    """Of the checkpoint that resume must take; whatever has a final name must be whole."""
    newest = reading.newest(work) if os.path.isdir(work) else None
    return newest.identity.iter if newest else 0
