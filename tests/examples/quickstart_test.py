"""Runs the quick start twice in a fresh folder: the first run trains and saves, the second resumes
from its last checkpoint and ends at once. Run as: quickstart_test.py QUICKSTART.
"""

import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

QUICKSTART = None
EPOCHS = 5


class QuickStart(unittest.TestCase):
    def run_in(self, folder):
        done = subprocess.run(
            [QUICKSTART], cwd=folder, capture_output=True, text=True, timeout=250
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout + done.stderr

    def test_second_run_resumes(self):
        with tempfile.TemporaryDirectory() as folder:
            work = pathlib.Path(folder, "work", "quickstart")
            names = [f"epoch_{n}.pth" for n in range(1, EPOCHS + 1)]

            first = self.run_in(folder)
            self.assertIn("starting from scratch", first)
            self.assertEqual(sorted(file.name for file in work.glob("*.pth")), names)
            self.assertIn(f"Epoch(train) [{EPOCHS}]", re.sub(r"\) +\[", ") [", first))
            accuracy = re.findall(r"accuracy: ([0-9.]+)", first)
            self.assertEqual(len(accuracy), EPOCHS)
            self.assertGreater(float(accuracy[-1]), 0.9)
            contents = [(work / name).read_bytes() for name in names]

            second = self.run_in(folder)
            self.assertRegex(second, rf"Resumed from \S*epoch_{EPOCHS}\.pth, epoch: {EPOCHS}")
            self.assertNotIn("Epoch(train)", second)
            self.assertEqual([(work / name).read_bytes() for name in names], contents)
            self.assertEqual(sorted(file.name for file in work.glob("*.pth")), names)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: quickstart_test.py QUICKSTART")
    QUICKSTART = sys.argv.pop()
    unittest.main(verbosity=1)
