"""Runs the quick start twice in a fresh folder: the first run trains until its hook stops it, the
second continues after the last checkpoint of the first. Run as: quickstart_test.py QUICKSTART.
"""

import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

QUICKSTART = None
EPOCHS = 20  # at most: a hook stops the run above an accuracy of 0.99
LEARNED = "Stop requested (it has learned enough)"


class QuickStart(unittest.TestCase):
    def run_in(self, folder):
        done = subprocess.run(
            [QUICKSTART], cwd=folder, capture_output=True, text=True, timeout=250
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout + done.stderr

    def trained_epochs(self, text):
        return sorted({int(n) for n in re.findall(r"Epoch\(train\) +\[ *(\d+)\]", text)})

    def check_run(self, text, first, work):
        """Trained and saved from epoch `first` on, each file announced; returns the last epoch."""
        epochs = self.trained_epochs(text)
        self.assertEqual(epochs, list(range(first, first + len(epochs))))
        accuracy = [float(a) for a in re.findall(r"accuracy: ([0-9.]+)", text)]
        self.assertEqual(len(accuracy), len(epochs))
        last = first + len(epochs) - 1
        self.assertTrue(last == EPOCHS or LEARNED in text, text)
        for epoch in epochs:
            self.assertIn(f"epoch_{epoch}.pth is durable", text)
        names = {file.name for file in work.glob("*.pth")}
        self.assertEqual(names, {f"epoch_{n}.pth" for n in range(1, last + 1)})
        return last

    def test_second_run_resumes(self):
        with tempfile.TemporaryDirectory() as folder:
            work = pathlib.Path(folder, "work", "quickstart")
            text = self.run_in(folder)
            self.assertIn("starting from scratch", text)
            last = self.check_run(text, 1, work)
            self.assertGreater(last, 0)
            contents = {file.name: file.read_bytes() for file in work.glob("*.pth")}

            text = self.run_in(folder)
            self.assertRegex(text, rf"Resumed from \S*epoch_{last}\.pth, epoch: {last}, iter")
            self.check_run(text, last + 1, work)
            for name, content in contents.items():
                self.assertEqual((work / name).read_bytes(), content, name)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: quickstart_test.py QUICKSTART")
    QUICKSTART = sys.argv.pop()
    unittest.main(verbosity=1)
