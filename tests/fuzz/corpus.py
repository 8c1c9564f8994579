"""Writes the part of the fuzz corpus that Python makes: files of torch.save, pickles of every
protocol, and pickles made by hand to be too deep, too large or wrong. make_corpus.cc writes the
rest; both are run by hand.

usage: corpus.py tests/fuzz/corpus
"""

import collections
import pathlib
import pickle
import struct
import sys

import torch


def plain():
    shared = ["a", "a"]
    return {
        "numbers": (1, 255, 65535, -1, 2**31, 2**63, -(2**63), 2**100, 2.5, float("inf")),
        "text": ("", "x", "\u00e9\u4e16", "\ud800", b"", b"\x80\x00", bytearray(b"b")),
        "sets": ({1, 2}, frozenset([3])),
        "ordered": collections.OrderedDict([("k", None), (True, False)]),
        "shared": [shared, shared],
        "complex": 1j,
        "default": collections.defaultdict(list, {1: [2]}),
    }


def state():
    weight = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    return {
        "state_dict": collections.OrderedDict(
            weight=torch.nn.Parameter(weight), column=weight[:, 1], half=weight.to(torch.bfloat16)),
        "empty": torch.empty(0),
        "number": torch.tensor(3),
        "meta": {"epoch": 1, "name": "run"},
    }


def hostile():
    proto, stop = b"\x80\x02", b"."
    fill = b"]q\x00" + b"".join(b"]q" + bytes([i]) + (b"h" + bytes([i - 1])) * 2 + b"\x86a"
                                for i in range(1, 40))
    return {
        "deep": proto + b"]" * 1500 + b"a" * 1499 + stop,
        "itself": proto + b"]q\x00h\x00a" + stop,
        "sharing": proto + fill + stop,
        "huge_text": proto + b"X" + struct.pack("<I", 0xFFFFFFF0) + b"x" + stop,
        "huge_text8": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x" + stop,
        "huge_long": proto + b"\x8b" + struct.pack("<i", 2**31 - 1) + b"x" + stop,
        "negative_long": proto + b"\x8b" + struct.pack("<i", -1) + b"x" + stop,
        "huge_memo": proto + b"Nr" + struct.pack("<I", 0xFFFFFFFF) + stop,
        "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"N" + stop,
        "copies": proto + b"X" + struct.pack("<I", 200) + b"y" * 200 + b"q\x00(" + b"h\x00" * 90
        + b"t" + stop,
        "system": b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.",
        "text_protocol": pickle.dumps({"a": [1, 2.5, None]}, 0),
        "no_stop": proto + b"]",
        "odd_pairs": proto + b"}(NNN" + b"u" + stop,
        "reduce_reduce": proto + b"cm\nf\n)R)R}b" + stop,
        "persistent": proto + b"(X\x07\x00\x00\x00storagecm\nc\nX\x01\x00\x00\x000tQ" + stop,
    }


def main(folder):
    zips, pickles = folder / "zip", folder / "pickle"
    for path in (zips, pickles):
        path.mkdir(parents=True, exist_ok=True)
    torch.save(state(), zips / "torch")
    torch.save(state(), zips / "torch_legacy", _use_new_zipfile_serialization=False)
    torch.save([1, "x"], zips / "torch_list")
    for protocol in range(2, 6):
        (pickles / f"protocol_{protocol}").write_bytes(pickle.dumps(plain(), protocol))
    for name, content in hostile().items():
        (pickles / name).write_bytes(content)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
