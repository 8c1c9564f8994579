"""An independent reader of checkpoints, for what was left behind by a kill or a power cut.

It shares no code with Millrace: zipfile checks every CRC-32, a pickle reader that knows five names
builds the tree, the state record is read as io/state_record.h lays it out, and torch.load opens the
file too where this Python has torch.
"""

import collections
import hashlib
import pathlib
import pickle
import re
import struct
import zipfile

try:
    import torch
except ImportError:
    torch = None

PUBLISHED = re.compile(r".*-([0-9a-f]{8})\.pth")
TIMINGS = ("time", "data_time", "eta")  # last component of a scalar's name, or of an info key
Identity = collections.namedtuple("Identity", "save_id parent_id generation reason epoch iter")


class Unreadable(Exception):
    pass


class Storage:

    def __init__(self, dtype, data):
        self.dtype, self.data = dtype, data


def rebuild_tensor(storage, offset, size, stride, *_):
    return {"dtype": storage.dtype, "offset": offset, "size": size, "stride": stride,
            "bytes": storage.data}


class Tree(pickle.Unpickler):

    def __init__(self, archive, root):
        super().__init__(archive.open(f"{root}/data.pkl"))
        self.archive, self.root = archive, root

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return rebuild_tensor
        if module == "torch" and name.endswith("Storage"):
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is no name of a checkpoint")

    def persistent_load(self, pid):
        _, dtype, key, *_ = pid
        return Storage(dtype, self.archive.read(f"{self.root}/data/{key}"))


class Record:
    """Little-endian numbers, and text behind a length of 64 bits."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, code):
        [value] = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize(code)
        return value

    def raw(self):
        size = self.number("Q")
        self.at += size
        return self.data[self.at - size:self.at]

    def text(self):
        return self.raw().decode()

    def texts(self):
        return [self.text() for _ in range(self.number("Q"))]

    def numbers(self):
        size = 8 * self.number("Q")
        self.at += size
        return self.data[self.at - size:self.at]  # as bytes: compared, not read


def read_record(data):
    """Identity and sections; data is the zip entry."""
    record = Record(data[32:])
    record.number("B")  # the archive's own byte order mark
    identity = Identity(record.text(), record.text(), record.number("Q"), record.text(),
                        record.number("q"), record.number("q"))
    sections = {}
    for _ in range(record.number("Q")):
        name = record.text()
        sections[name] = record.raw()
    return identity, sections


def read_history(data):
    """{scalar: its values and counts}, without timings."""
    record = Record(data)
    record.number("B")
    scalars = {}
    for _ in range(record.number("Q")):
        name = record.text()
        scalars[name] = record.numbers() + record.numbers()
    return {name: log for name, log in scalars.items() if name.split("/")[-1] not in TIMINGS}


def read_best(data):
    """What CheckpointHook knows of best files: the newest of each metric, without its save id. The
    files before it, those not removed yet, and which are still on their way depend on how far the
    I/O had come."""
    record = Record(data)
    record.number("B")
    version = record.number("I")
    if version != 1:
        raise ValueError(f"a state of CheckpointHook of version {version}")
    record.texts(), record.texts(), record.numbers(), record.numbers()  # names, ids, steps, times
    record.raw()  # pins
    best = {}
    for _ in range(record.number("Q")):
        key, names, _, scores = (record.text(), record.texts(), record.texts(),
                                 record.numbers())
        known, pins, _ = record.raw(), record.raw(), record.raw()  # the last: on its way
        best[key] = (names[-1:], scores[-8:], known[-1:], pins[-1:])
    return best


READERS = {"hub": read_history, "hook/CheckpointHook": read_best}


class Checkpoint:

    def __init__(self, path):
        self.path = pathlib.Path(path)
        try:
            self.read()
        except Exception as error:
            raise Unreadable(f"{path}: {type(error).__name__}: {error}") from error

    def read(self):
        with zipfile.ZipFile(self.path) as archive:
            damaged = archive.testzip()
            if damaged:
                raise ValueError(f"{damaged} does not match its CRC-32")
            root = archive.namelist()[0].split("/")[0]
            self.tree = Tree(archive, root).load()
            self.identity, self.sections = None, {}
            if f"{root}/millrace/state" in archive.namelist():  # a published file has none
                self.identity, self.sections = read_record(archive.read(f"{root}/millrace/state"))
        if self.identity and self.identity.iter != self.tree["meta"]["iter"]:
            raise ValueError("the record and the tree name two iterations")
        digest = PUBLISHED.fullmatch(self.path.name)
        if digest and hashlib.sha256(self.path.read_bytes()).hexdigest()[:8] != digest.group(1):
            raise ValueError("its SHA-256 is not the one in its name")
        if torch is not None:
            torch.load(self.path)

    def state(self):
        """{path: value} of what an interrupted run must have equal to an uninterrupted one.

        All of the file but: when and where it was written (meta.time, experiment_name, the folder
        in last_ckpt and best_ckpt), how long things took (time, data_time, eta), who it is (save
        id, its parent's, generation, reason: a save made again is another save), and which older
        files were still there.
        """
        values = {}
        flatten("", self.tree, values)
        for key in ("/meta/time", "/meta/experiment_name", "/message_hub/runtime_info/eta",
                    "/message_hub/runtime_info/experiment_name"):
            values.pop(key, None)
        for key in ("/message_hub/runtime_info/last_ckpt", "/message_hub/runtime_info/best_ckpt"):
            if key in values:
                values[key] = pathlib.Path(values[key]).name
        for name, data in self.sections.items():
            flatten(f"/record/{name}", READERS.get(name, bytes)(data), values)
        return values


def flatten(path, value, into):
    if isinstance(value, dict):
        for key, inner in value.items():
            flatten(f"{path}/{key}", inner, into)
    elif isinstance(value, (list, tuple)) and any(isinstance(v, dict) for v in value):
        for index, inner in enumerate(value):
            flatten(f"{path}/{index}", inner, into)
    else:
        into[path] = value


def differences(left, right, but=()):
    """Paths whose values differ between two files, except those that begin with one of `but`."""
    left, right = Checkpoint(left).state(), Checkpoint(right).state()
    # repr: a NaN equals itself, 0.0 is not -0.0, and 1 is not 1.0 or True.
    return sorted(path for path in left.keys() | right.keys()
                  if not path.startswith(tuple(but))
                  and repr(left.get(path)) != repr(right.get(path)))


def hidden(folder):
    return sorted(path.name for path in pathlib.Path(folder).glob(".*"))


def read_all(folder):
    """{name: Checkpoint} of all that has a final name; raises Unreadable when one is not whole."""
    return {path.name: Checkpoint(path) for path in pathlib.Path(folder).glob("*.pth")
            if not path.name.startswith(".")}


def newest(folder):
    """The checkpoint that resume must take: the highest generation. None where there is none."""
    return max((c for c in read_all(folder).values() if c.identity),
               key=lambda c: c.identity.generation, default=None)
