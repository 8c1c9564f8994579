"""Runs the demo (the mnist trainer) and opens every checkpoint it wrote with the real torch, by the
safe default and memory-mapped. Run as: demo_files.py MNIST. Exits 77 (skip) when this Python has no
torch or $MILLRACE_DATA no digits.
"""

import collections
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

try:
    import torch
except ImportError as error:
    print(f"skipped: {sys.executable} cannot import torch ({error})")
    sys.exit(77)

MNIST = None
WIDTH = 256


def digit_net():
    """examples/trainers/mnist/net.cc in Python."""
    nn = torch.nn
    modules = collections.OrderedDict(
        conv1=nn.Conv2d(1, 16, 3, padding=1),
        norm1=nn.BatchNorm2d(16),
        conv2=nn.Conv2d(16, 32, 3, padding=1),
        norm2=nn.BatchNorm2d(32),
        hidden=nn.Linear(32 * 7 * 7, WIDTH),
        dropout=nn.Dropout(0.5),
        scores=nn.Linear(WIDTH, 10),
    )
    return nn.Sequential(modules)


class DemoFiles(unittest.TestCase):
    def test_every_file_opens(self):
        with tempfile.TemporaryDirectory() as folder:
            command = [MNIST, "--work-dir", folder, "--width", str(WIDTH), "--epochs", "1"]
            command += ["--save-interval", "20", "--keep", "-1", "--threads", "1"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=500)
            self.assertEqual(done.returncode, 0, done.stderr)
            files = sorted(pathlib.Path(folder).rglob("*.pth"))
            names = [file.name for file in files]
            # 4,000 digits in batches of 64 are 63 iterations; the last one is saved too.
            self.assertEqual(names, ["iter_20.pth", "iter_40.pth", "iter_60.pth", "iter_63.pth"])
            pointer = pathlib.Path(folder, "last_checkpoint").read_text(encoding="utf-8")
            self.assertEqual(pathlib.Path(pointer).name, "iter_63.pth")
            for file in files:
                for options in ({}, {"mmap": True}):
                    with self.subTest(file=file.name, options=options):
                        self.check(torch.load(file, **options), int(file.stem[5:]))

    def check(self, loaded, iteration):
        self.assertEqual(
            set(loaded), {"meta", "state_dict", "message_hub", "optimizer", "param_schedulers"}
        )
        self.assertEqual(loaded["meta"]["iter"], iteration)
        net = digit_net()
        self.assertEqual(list(loaded["state_dict"]), list(net.state_dict()))
        net.load_state_dict(loaded["state_dict"], strict=True)
        optimizer = torch.optim.AdamW(net.parameters())
        optimizer.load_state_dict(loaded["optimizer"])
        steps = {float(state["step"]) for state in optimizer.state.values()}
        self.assertEqual(steps, {float(iteration)})
        for name, tensor in loaded["state_dict"].items():
            self.assertTrue(torch.isfinite(tensor).all(), name)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: demo_files.py MNIST")
    MNIST = sys.argv.pop()
    digits = os.path.join(os.environ.get("MILLRACE_DATA", "."), "mnist_5k.csv.gz")
    if not os.path.exists(digits):
        print(f"skipped: no {digits}; make setup fetches it")
        sys.exit(77)
    unittest.main(verbosity=1)
