"""Checks pth_tool against the real torch: files of ours that Python opens, and files of Python's
that we read and write again. Run as: pth_interop.py PTH_TOOL. Exits 77 (skip) when this Python has
no torch.
"""

import collections
import hashlib
import io
import os
import pickle
import subprocess
import sys
import tempfile
import types
import unittest
import zipfile

try:
    import numpy as np
    import torch
except ImportError as error:
    print(f"skipped: {sys.executable} cannot import torch and numpy ({error})")
    sys.exit(77)

TOOL = None


class History:
    """Pickles as MMEngine's HistoryBuffer does: arrays, and its own methods through getattr."""

    def __init__(self, values=()):
        self.log = np.array(values, dtype=np.float64)
        self.counts = np.ones(len(values), dtype=np.int64)
        self.methods = {"min": History.min, "max": History.max}

    def min(self):
        return self.log.min()

    def max(self):
        return self.log.max()


class WithSlots:
    __slots__ = ("a", "b")


class Point(collections.namedtuple("Point", "x y")):
    pass


class ListWithName(list):
    pass


class Keyword:
    def __new__(cls, *, value):
        self = super().__new__(cls)
        self.value = value
        return self

    def __getnewargs_ex__(self):
        return (), {"value": self.value}


def same(a, b, seen=None):
    """Equality that also compares types, strides, storages' sizes, attributes and order."""
    seen = set() if seen is None else seen
    if (id(a), id(b)) in seen:
        return True
    seen.add((id(a), id(b)))
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return (
            a.dtype == b.dtype
            and a.shape == b.shape
            and a.stride() == b.stride()
            and a.storage_offset() == b.storage_offset()
            and a.requires_grad == b.requires_grad
            and a.untyped_storage().nbytes() == b.untyped_storage().nbytes()
            and bytes(a.untyped_storage()) == bytes(b.untyped_storage())
        )
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, np.generic):
        return a.tobytes() == b.tobytes()
    if isinstance(a, float):
        return a == b or (a != a and b != b)
    if isinstance(a, (set, frozenset)):
        return a == b
    if isinstance(a, dict):
        if len(a) != len(b) or getattr(a, "default_factory", 0) != getattr(b, "default_factory", 0):
            return False
        pairs = zip(a.items(), b.items())
        if not all(same(k, m, seen) and same(v, w, seen) for (k, v), (m, w) in pairs):
            return False
    elif isinstance(a, (list, tuple)):
        if len(a) != len(b) or not all(same(x, y, seen) for x, y in zip(a, b)):
            return False
    elif not hasattr(a, "__dict__") and not hasattr(a, "__slots__"):
        return a == b
    if hasattr(a, "__slots__") and not isinstance(a, tuple):
        return all(same(getattr(a, n, None), getattr(b, n, None), seen) for n in a.__slots__)
    if isinstance(a, (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType)):
        return a is b
    return same(getattr(a, "__dict__", None), getattr(b, "__dict__", None), seen)


def trained(make_optimizer):
    torch.manual_seed(3)
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
    optimizer = make_optimizer(net.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()
    return net, optimizer


def objects():
    net, adamw = trained(lambda p: torch.optim.AdamW(p, lr=1e-3))
    _, sgd = trained(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))
    base = torch.arange(24.0)
    shared = ["shared"]
    slots = WithSlots()
    slots.a, slots.b = 1, [2]
    named = ListWithName([1, 2])
    named.name = "n"
    counts = collections.defaultdict(list)
    counts["a"].append(1)
    dag = ["leaf"]
    for _ in range(60):
        dag = [dag, dag]
    return {
        "none": None,
        "bools": [True, False],
        "integers": [0, 1, 255, 256, 65535, 65536, -1, 2**31, -(2**31), 2**33, -(2**63), 2**63 - 1],
        "big integers": [2**63, 2**70, -(2**70), 2**3000],
        "floats": [0.0, -0.0, 1.5, 1e-310, float("inf"), float("nan")],
        "complex": 1 + 2j,
        "text": ["", "ascii", "naïve", "🚀", "a\nb\0c", "x" * 70000],
        "lone surrogate": "\ud800",
        "bytes": [b"", b"abc", bytes(range(256)), bytearray(b"xyz")],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "one item": [[1], {"a": 1}],
        "sets": [set(), {1, 2, 3}, frozenset({"a", "b"})],
        "nested": {"a": [{"b": ({"c": []},)}]},
        "integer keys": {0: "a", (1, 2): "b", None: "c"},
        "shared": [shared, shared, [shared]],
        "many paths": dag,
        "long list": list(range(5000)),
        "ordered dict": collections.OrderedDict([("b", 1), ("a", 2)]),
        "default dict": counts,
        "counter": collections.Counter("hello"),
        "named tuple": Point(1, 2),
        "list subclass": named,
        "slots": slots,
        "keyword new": Keyword(value=3),
        "slice and range": [slice(1, 2), range(3)],
        "classes": [dict, torch.nn.Linear, History, len],
        "state_dict": net.state_dict(),
        "AdamW": adamw.state_dict(),
        "SGD": sgd.state_dict(),
        "scheduler": torch.optim.lr_scheduler.StepLR(sgd, 2).state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2, 3)),
        "whole module": net,
        "views": [base, base.view(4, 6).t(), base[3:9:2], base[5], base.expand(3, 24)],
        "empty tensors": [torch.empty(0), torch.empty(0, 3), torch.empty(2, 0)],
        "dtypes": [
            torch.arange(5).to(t)
            for t in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8)
            + (torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool)
            + (torch.complex64, torch.complex128)
        ],
        "newer dtypes": [torch.arange(5).to(t) for t in (torch.uint16, torch.float8_e4m3fn)],
        "torch values": [torch.float32, torch.Size([1, 2]), torch.device("cpu"), torch.strided],
        "rng state": torch.get_rng_state(),
        "numpy scalars": [np.float32(1.5), np.int64(7), np.bool_(True)],
        "numpy arrays": [np.arange(6.0).reshape(2, 3), np.zeros(0), np.array(["a", "bc"])],
        "numpy rng": np.random.RandomState(1).get_state(),
        "history": {"loss": History([1.0, 2.0, 3.0]), "lr": History()},
        "mmengine": {
            "meta": {"epoch": 1, "iter": 20, "time": "now", "dataset_meta": {"classes": ("a",)}},
            "state_dict": net.state_dict(),
            "message_hub": {
                "log_scalars": collections.OrderedDict(loss=History([0.5])),
                "runtime_info": collections.OrderedDict(iter=20, best=None, lr=np.float64(0.1)),
                "resumed_keys": collections.OrderedDict(loss=True),
            },
            "optimizer": adamw.state_dict(),
            "param_schedulers": [{"last_step": 3, "_last_value": [0.1]}],
        },
    }


def rezipped(path, method):
    """The same entries as another program would zip them."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", method) as new:
        for name in reversed(old.namelist()):
            new.writestr(name, old.read(name))
    with open(path, "wb") as file:
        file.write(out.getvalue())


class Interop(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def tool(self, *args):
        done = subprocess.run([TOOL, *args], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def reemit(self, source):
        target = self.path("again.pth")
        self.tool("reemit", source, target)
        with zipfile.ZipFile(target) as archive:
            self.assertIsNone(archive.testzip())
        return target

    def test_python_opens_our_file(self):
        path = self.path("ours.pth")
        self.tool("write", path)
        with zipfile.ZipFile(path) as archive:
            self.assertIsNone(archive.testzip())
        for options in ({}, {"mmap": True}, {"weights_only": False}):
            with self.subTest(options=options):
                self.check_ours(torch.load(path, **options))

    def check_ours(self, loaded):
        tensors, plain = loaded["tensors"], loaded["plain"]
        self.assertIs(type(tensors), collections.OrderedDict)
        self.assertEqual(tensors._metadata, collections.OrderedDict({"": {"version": 1}}))
        names = "float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()
        for name in names + ["complex64", "complex128"]:
            dtype = getattr(torch, name)
            numbers = torch.arange(12) % 2 if name == "bool" else torch.arange(12)
            self.assertEqual(tensors[name].dtype, dtype)
            self.assertTrue(torch.equal(tensors[name], numbers.to(dtype).view(3, 4)), name)
        base = tensors["float32"]
        self.assertTrue(torch.equal(tensors["transposed"], base.t()))
        self.assertEqual(tensors["transposed"].stride(), (1, 4))
        self.assertTrue(torch.equal(tensors["tail"], torch.arange(8.0, 12.0)))
        self.assertEqual(tensors["scalar"].shape, ())
        self.assertEqual(tensors["scalar"].item(), 5.0)
        self.assertTrue(tensors["grad"].requires_grad)
        self.assertEqual(tensors["empty"].shape, (0, 3))
        owner = base.untyped_storage().data_ptr()
        for name in ("transposed", "tail", "scalar", "grad"):
            self.assertEqual(tensors[name].untyped_storage().data_ptr(), owner, name)
        self.assertEqual(
            plain["ints"],
            [0, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -1, -(2**31), -(2**31) - 1]
            + [2**63 - 1, -(2**63)],
        )
        self.assertEqual(plain["big"], 2**64)
        self.assertEqual(repr(plain["floats"]), "[0.5, -0.0, 1e+300]")
        self.assertEqual(plain["text"], "naïve 🚀 \n")
        self.assertEqual(plain["bytes"], b"\x00\x7f\x80\xff")
        self.assertEqual(plain["set"], {1, 2})
        self.assertIs(plain["shared"][0], plain["shared"][1])
        self.assertEqual(plain["tuples"], [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)])
        self.assertEqual((plain["none"], plain["bools"]), (None, (True, False)))
        self.assertEqual(plain[7], "integer key")

    def test_python_files_survive(self):
        for name, value in objects().items():
            for form in ("zip", "legacy", "deflated", "protocol 4", "no checksums"):
                if (name, form) == ("newer dtypes", "legacy"):
                    continue  # torch writes such a file and cannot read it
                with self.subTest(object=name, form=form):
                    self.check_survives(value, form)

    def check_survives(self, value, form):
        path = self.path("python.pth")
        torch.serialization.set_crc32_options(form != "no checksums")
        torch.save(
            value,
            path,
            _use_new_zipfile_serialization=form != "legacy",
            pickle_protocol=4 if form == "protocol 4" else 2,
        )
        torch.serialization.set_crc32_options(True)
        if form == "deflated":
            rezipped(path, zipfile.ZIP_DEFLATED)
        original = torch.load(path, weights_only=False)
        target = self.reemit(path)
        for mmap in (False, True):
            again = torch.load(target, weights_only=False, mmap=mmap)
            self.assertTrue(same(original, again), f"mmap={mmap}")

    def test_safe_loading_survives(self):
        net, adamw = trained(lambda p: torch.optim.AdamW(p))
        value = {"state_dict": net.state_dict(), "optimizer": adamw.state_dict(), "bytes": b"\xff"}
        for legacy in (False, True):
            path = self.path("python.pth")
            torch.save(value, path, _use_new_zipfile_serialization=not legacy)
            self.assertTrue(same(torch.load(path), torch.load(self.reemit(path))))

    def test_identity_survives(self):
        shared = ["x"]
        base = torch.zeros(4)
        path = self.path("python.pth")
        torch.save([shared, shared, base, base[1:], base], path)
        again = torch.load(self.reemit(path))
        self.assertIs(again[0], again[1])
        self.assertIs(again[2], again[4])
        again[2].fill_(7)
        self.assertEqual(again[3].tolist(), [7.0, 7.0, 7.0])

    def test_module_trains_on(self):
        path = self.path("python.pth")
        net, _ = trained(lambda p: torch.optim.SGD(p, lr=0.1))
        torch.save(net.state_dict(), path)
        other = torch.nn.Sequential(
            torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2)
        )
        other.load_state_dict(torch.load(self.reemit(path)))
        self.assertTrue(same(net.state_dict(), other.state_dict()))

    def publish(self, path, *keys):
        name = self.tool("publish", path, *keys).strip()
        published = os.path.join(os.path.dirname(path), name)
        with open(published, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        self.assertEqual(name, f"epoch_3-{digest[:8]}.pth")
        return published

    def test_published_file_is_the_source_minus_the_keys(self):
        net, adamw = trained(lambda p: torch.optim.AdamW(p))
        state = net.state_dict()
        state["tied"] = state["0.weight"]
        state["window"] = state["0.weight"][1:]
        kept = {"meta": {"epoch": 3}, "state_dict": state}
        dropped = {"optimizer": adamw.state_dict(), "message_hub": {"h": History([1.0, 2.0])}}
        dropped["large"] = torch.randn(100_000)
        for form in ("zip", "legacy", "deflated"):
            with self.subTest(form=form):
                path = self.path("epoch_3.pth")
                torch.save(
                    {**dropped, **kept}, path, _use_new_zipfile_serialization=form != "legacy"
                )
                if form == "deflated":
                    rezipped(path, zipfile.ZIP_DEFLATED)
                published = self.publish(path, "state_dict", "meta")
                self.assertLess(os.path.getsize(published), 100_000)
                with zipfile.ZipFile(published) as archive:
                    self.assertIsNone(archive.testzip())
                for mmap in (False, True):
                    loaded = torch.load(published, mmap=mmap)
                    self.assertTrue(same(loaded, kept), f"mmap={mmap}")
                    tensors = loaded["state_dict"]
                    owner = tensors["0.weight"].untyped_storage().data_ptr()
                    for name in ("tied", "window"):
                        self.assertEqual(tensors[name].untyped_storage().data_ptr(), owner)

    def test_published_file_keeps_objects_of_other_programs(self):
        path = self.path("epoch_3.pth")
        torch.save({"message_hub": {"h": History([1.0, 2.0])}, "x": torch.zeros(3)}, path)
        published = self.publish(path, "message_hub")
        loaded = torch.load(published, weights_only=False)
        self.assertEqual(list(loaded), ["message_hub"])
        self.assertEqual(loaded["message_hub"]["h"].max(), 2.0)

    def refusal(self, path):
        done = subprocess.run([TOOL, "dump", path], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 1)
        return done.stderr

    def test_other_formats_are_refused_by_name(self):
        path = self.path("other")
        np.savez(path + ".npz", a=np.zeros(3))
        self.assertIn("NumPy .npz", self.refusal(path + ".npz"))
        with open(path, "wb") as file:
            pickle.dump({"a": 1}, file)
        self.assertIn("plain Python pickle", self.refusal(path))
        torch.save(torch.zeros(2), path)
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, b"big" if name.endswith("byteorder") else content)
        self.assertIn("big-endian", self.refusal(path))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: pth_interop.py PTH_TOOL")
    TOOL = sys.argv.pop()
    unittest.main(verbosity=1)
