"""Holds every #include against the arrows between the layers (CONTRIBUTING.md).

And none may begin a file with Asio: it picks its allocator by macros of the standard library, so
two files of one program would differ in it where one had included no header of that library yet.

usage: include_rules.py <root of the sources>
"""

import pathlib
import re
import sys

import source_tree

# What each layer may include beside itself.
ARROWS = {
    "runtime/async": set(),
    "runtime/device": {"runtime/async"},
    "events": {"runtime/async"},
    "io": {"runtime/async"},
    "runtime/staging": {"io", "runtime/device", "runtime/async"},
    "runtime/engine": {"events", "io", "runtime/staging", "runtime/device", "runtime/async"},
    "runtime/torch": {
        "runtime/engine", "events", "io", "runtime/staging", "runtime/device", "runtime/async"},
    "hooks": {
        "events", "io", "runtime/engine", "runtime/staging", "runtime/device", "runtime/async"},
}
EVERYTHING = ("runtime/cli", "runtime/millrace.h", "examples", "tests")
LAYERS = (*ARROWS, *EVERYTHING)
TORCH_PLACES = ("runtime/torch", "runtime/cli", "runtime/millrace.h", "examples", "tests/torch",
                "tests/embedding")

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.MULTILINE)
TORCH = re.compile(r"(torch|ATen|c10|caffe2)/")
CUDA = re.compile(r"(cuda|cub|thrust|nvtx3|cooperative_groups)/|(cuda|cublas|cudnn|nccl|nv)\w*\.h$")
# runtime/async stands on the standard library, the operating system and Asio.
ASYNC_OUTSIDE = re.compile(r"(asio|sys|linux|bits)/|[a-z_]+$|(?!zlib|libdeflate)\w+\.h$")


def layer_of(path):
    """The layer a path below `millrace/` or the root belongs to, or None."""
    matches = [layer for layer in LAYERS if path == layer or path.startswith(layer + "/")]
    return matches[0] if matches else None


def inside(path, places):
    return any(path == place or path.startswith(place + "/") for place in places)


def problem_with(path, quote, header):
    """Why the file at `path` may not include `header`, or None."""
    layer = layer_of(path)
    if header.startswith("millrace/"):
        target = layer_of(header.removeprefix("millrace/"))
        if header == "millrace/millrace.h":
            target = "runtime/millrace.h"
        if target is None:
            return "is in no layer"
        if layer in ARROWS and target != layer and target not in ARROWS[layer]:
            return f"goes against the arrows: {layer} may not use {target}"
        return None
    if TORCH.match(header) and not inside(path, TORCH_PLACES):
        return "is LibTorch, which only runtime/torch, examples and some tests may see"
    cuda_place = path.startswith("tests/support/fake_cuda/") or (
        path.startswith(("runtime/device/", "tests/")) and not path.endswith(".h"))
    if CUDA.match(header) and not inside(path, TORCH_PLACES) and not cuda_place:
        return "is CUDA, which only runtime/torch and sources of runtime/device and tests may see"
    if layer in ARROWS and quote == '"':
        return 'is not spelled from the root: write "millrace/<folder>/<file>.h"'
    if layer == "runtime/async" and not ASYNC_OUTSIDE.match(header):
        return "is neither standard library, operating system nor Asio"
    return None


def check(root):
    problems = []
    for path in source_tree.files(root, source_tree.CPP):
        text = (pathlib.Path(root) / path).read_text(encoding="utf-8")
        if layer_of(str(path)) is None:
            problems.append(f"{path}: is in no layer")
        first = INCLUDE.search(text)
        if first and first.group(2).startswith("asio/"):
            line = source_tree.line_of(text, first.start(2))
            problems.append(f"{path}:{line}: a header of the standard library comes before Asio")
        for match in INCLUDE.finditer(text):
            problem = problem_with(str(path), *match.groups())
            if problem:
                line = source_tree.line_of(text, match.start(2))
                problems.append(f"{path}:{line}: include of {match.group(2)} {problem}")
    return problems


if __name__ == "__main__":
    sys.exit(source_tree.report(check(sys.argv[1])))
