"""Checks whole checkpoints against the real torch, in both directions: a run of ours (the trainer
of tests/torch) writes files that Python opens and trains on with, and resumes a file that Python
wrote as MMEngine writes it. Run as: checkpoint_interop.py TORCH_TRAINER. Exits 77 (skip) when this
Python has no torch.
"""

import collections
import json
import os
import subprocess
import sys
import tempfile
import unittest

try:
    import numpy as np
    import torch
except ImportError as error:
    print(f"skipped: {sys.executable} cannot import torch and numpy ({error})")
    sys.exit(77)

TRAINER = None
WIDTH = 24
LOADS = ({}, {"mmap": True}, {"weights_only": False})


class Net(torch.nn.Module):
    """tests/torch/support/small_nets.cc, mixed_net(), in Python."""

    def __init__(self):
        super().__init__()
        linear = torch.nn.Linear
        self.scale = torch.nn.Parameter(torch.rand(WIDTH))
        self.hidden = linear(8, WIDTH)
        self.norm = torch.nn.BatchNorm1d(WIDTH)
        self.dropout = torch.nn.Dropout(0)
        self.mid = linear(WIDTH, WIDTH, bias=False)
        self.frozen = linear(WIDTH, WIDTH, bias=False)
        self.tied = linear(WIDTH, WIDTH, bias=False)
        self.scores = linear(WIDTH, 4)
        self.tied.weight = self.mid.weight
        self.frozen.weight.requires_grad = False

    def forward(self, inputs):
        x = self.dropout(self.norm(torch.relu(self.hidden(inputs)))) * self.scale
        x = torch.tanh(self.mid(x)) + x
        x = torch.tanh(self.frozen(x)) + x
        x = torch.tanh(self.tied(x)) + x
        return self.scores(x)


# As the trainer makes them by the same names.
OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=5e-3),
    "amsgrad": lambda p: torch.optim.AdamW(p, lr=5e-3, amsgrad=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=5e-2),
    "momentum": lambda p: torch.optim.SGD(p, lr=5e-2, momentum=0.9, weight_decay=1e-3),
}


class HistoryBuffer:
    """Pickles as MMEngine's does: arrays, and its own methods by name."""

    def __init__(self, values):
        self._log_history = np.array(values, dtype=np.float64)
        self._count_history = np.ones(len(values), dtype=np.int64)
        self._max_length = 1000000
        self._statistics_methods = {"mean": HistoryBuffer.mean}

    def mean(self):
        return self._log_history.mean()


def train(net, optimizer, inputs, labels):
    net.train()
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(net(inputs), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


class Run:
    """One run of the trainer in a folder of its own."""

    def __init__(self, test, **options):
        self.folder = tempfile.TemporaryDirectory()
        test.addCleanup(self.folder.cleanup)
        self.dump = os.path.join(self.folder.name, "dump")
        os.mkdir(self.dump)
        options = {"work_dir": self.path("work"), "dump": self.dump, "width": WIDTH, **options}
        command = [TRAINER] + [f"{key}={value}" for key, value in options.items()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        test.assertEqual(done.returncode, 0, done.stderr)
        self.lines = done.stdout.splitlines()

    def path(self, *names):
        return os.path.join(self.folder.name, *names)

    def checkpoint(self, iteration):
        return self.path("work", f"iter_{iteration}.pth")

    def dumped(self, part, capture):
        """The tensors the process had in memory at its n-th capture, by name."""
        tensors = {}
        with open(os.path.join(self.dump, f"state_{capture}.json"), encoding="utf-8") as file:
            rows = json.load(file)
        for row in rows:
            if row["part"] != part:
                continue
            with open(os.path.join(self.dump, f"state_{capture}_{row['storage']}.bin"), "rb") as f:
                storage = torch.frombuffer(bytearray(f.read()), dtype=getattr(torch, row["dtype"]))
            tensors[row["name"]] = storage.as_strided(row["sizes"], row["strides"], row["offset"])
        return tensors

    def batch(self, iteration):
        with open(os.path.join(self.dump, f"batch_{iteration}_0.bin"), "rb") as file:
            inputs = torch.frombuffer(bytearray(file.read()), dtype=torch.float32).view(-1, 8)
        with open(os.path.join(self.dump, f"batch_{iteration}_1.bin"), "rb") as file:
            labels = torch.frombuffer(bytearray(file.read()), dtype=torch.int64)
        return inputs, labels

    def loss(self, iteration):
        for line in self.lines:
            words = line.split()
            if words[:2] == ["iter", str(iteration)]:
                return float.fromhex(words[2])
        raise KeyError(iteration)


class Interop(unittest.TestCase):
    def assert_close(self, ours, theirs, where):
        self.assertEqual(ours.dtype, theirs.dtype, where)
        self.assertEqual(ours.shape, theirs.shape, where)
        # The sums of a matrix product may be taken in another order: rounding, not more.
        self.assertTrue(torch.allclose(ours, theirs, rtol=1e-4, atol=2e-6), where)

    def test_values_are_those_in_memory(self):
        run = Run(self, iters=6, save="iter", interval=3, optimizer="amsgrad", mode="lazy")
        for capture, iteration in ((1, 3), (2, 6)):
            for options in LOADS:
                with self.subTest(iteration=iteration, options=options):
                    self.check_values(run, capture, iteration, options)

    def check_values(self, run, capture, iteration, options):
        loaded = torch.load(run.checkpoint(iteration), **options)
        self.assertEqual(loaded["meta"]["iter"], iteration)
        model = run.dumped("model", capture)
        self.assertEqual(list(loaded["state_dict"]), list(model))
        found = dict(loaded["state_dict"])
        optimizer = run.dumped("optimizer", capture)
        for index, tensors in loaded["optimizer"]["state"].items():
            for name, tensor in tensors.items():
                found[f"{index}.{name}"] = tensor
        self.assertEqual(set(found), set(model) | set(optimizer))
        self.assertGreater(len(optimizer), 25)
        for name, tensor in {**model, **optimizer}.items():
            self.assertEqual(found[name].dtype, tensor.dtype, name)
            self.assertEqual(found[name].shape, tensor.shape, name)
            self.assertTrue(torch.equal(found[name], tensor), name)

    def test_state_dict_is_pythons(self):
        run = Run(self, iters=3, save="iter", interval=3)
        net = Net()
        own = net.state_dict()
        for options in LOADS:
            state = torch.load(run.checkpoint(3), **options)["state_dict"]
            self.assertIs(type(state), collections.OrderedDict)
            self.assertEqual(list(state), list(own))
            self.assertEqual(state._metadata, own._metadata)
            self.assertEqual(list(state._metadata), list(own._metadata))
            for name, tensor in own.items():
                self.assertEqual(state[name].dtype, tensor.dtype, name)
                self.assertEqual(state[name].shape, tensor.shape, name)
            same = state["tied.weight"].untyped_storage().data_ptr()
            self.assertEqual(state["mid.weight"].untyped_storage().data_ptr(), same)
            outcome = net.load_state_dict(state, strict=True)
            self.assertEqual((outcome.missing_keys, outcome.unexpected_keys), ([], []))

    def test_python_goes_on_where_we_were(self):
        for name, make in OPTIMIZERS.items():
            with self.subTest(optimizer=name):
                run = Run(self, iters=9, save="iter", interval=8, optimizer=name)
                before = torch.load(run.checkpoint(8))
                after = torch.load(run.checkpoint(9))
                net = Net()
                net.load_state_dict(before["state_dict"])
                optimizer = make(net.parameters())
                optimizer.load_state_dict(before["optimizer"])
                loss = train(net, optimizer, *run.batch(9))
                self.assertAlmostEqual(loss, run.loss(9), places=5)
                self.check_same_training(net, optimizer, after, before)

    def check_same_training(self, net, optimizer, file, before=None):
        for key, tensor in net.state_dict().items():
            self.assert_close(file["state_dict"][key], tensor, key)
            if before is not None and key not in ("frozen.weight",):
                self.assertFalse(torch.equal(before["state_dict"][key], tensor), key)
        theirs = optimizer.state_dict()
        ours = file["optimizer"]
        self.assertEqual(list(ours["state"]), list(theirs["state"]))
        for index, tensors in theirs["state"].items():
            self.assertEqual(list(ours["state"][index]), list(tensors))
            for key, tensor in tensors.items():
                self.assert_close(ours["state"][index][key], tensor, f"{index}.{key}")
        group, own = theirs["param_groups"][0], ours["param_groups"][0]
        self.assertEqual(own["params"], group["params"])
        for key in set(group) - {"params"}:
            self.assertEqual(own[key], group[key], key)

    def written_by_python(self, folder, make, steps):
        """What MMEngine's Runner.save_checkpoint would write, and the state it holds."""
        torch.manual_seed(11)
        net = Net()
        optimizer = make(net.parameters())
        for _ in range(steps):
            train(net, optimizer, torch.randn(16, 8), torch.randint(4, (16,)))
        checkpoint = {
            "meta": {
                "epoch": 0,
                "iter": steps,
                "cfg": "",
                "seed": 3,
                "experiment_name": "python",
                "time": "20240101_000000",
                "mmengine_version": "0.10.7",
                "dataset_meta": {"classes": ("a", "b")},
            },
            "state_dict": net.state_dict(),
            "message_hub": {
                "log_scalars": collections.OrderedDict({"train/loss": HistoryBuffer([1.5, 1.25])}),
                "runtime_info": collections.OrderedDict(iter=steps - 1, epoch=0, max_iters=9),
                "resumed_keys": collections.OrderedDict({"train/loss": True, "iter": True}),
            },
            "optimizer": optimizer.state_dict(),
            "param_schedulers": [],
        }
        path = os.path.join(folder, f"iter_{steps}.pth")
        torch.save(checkpoint, path)
        return path, net, optimizer

    def test_we_go_on_where_python_was(self):
        for name, make in OPTIMIZERS.items():
            with self.subTest(optimizer=name), tempfile.TemporaryDirectory() as folder:
                path, net, optimizer = self.written_by_python(folder, make, 5)
                run = Run(
                    self, iters=6, save="iter", interval=1, optimizer=name, resume=path, seed=99
                )
                self.assertIn("resumed 5", run.lines)
                before = torch.load(path, weights_only=False)
                loss = train(net, optimizer, *run.batch(6))
                self.assertAlmostEqual(loss, run.loss(6), places=5)
                after = torch.load(run.checkpoint(6))
                self.check_same_training(net, optimizer, after, before)
                self.assertEqual(after["meta"]["seed"], 3)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: checkpoint_interop.py TORCH_TRAINER")
    TRAINER = sys.argv.pop()
    torch.set_num_threads(1)
    unittest.main(verbosity=1)
