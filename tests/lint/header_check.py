"""Compiles every header that promises to be free of LibTorch, each alone and without LibTorch on
the include path, and looks at all files it reached: none may be LibTorch's, CUDA's or
runtime/torch's.

usage: header_check.py <root of the sources> <folder for objects> <compiler and its options...>

The objects are compiled, not only parsed, because ccache then makes a second run quick.
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

import source_tree

LIBRARIES = ("runtime", "events", "hooks", "io")
WITH_TORCH = ("runtime/torch/", "runtime/cli/", "runtime/millrace.h")
FOREIGN = re.compile(
    r"/(torch|ATen|c10|caffe2)/|(?<!/runtime/device)/(cuda|cublas|cudnn|nccl)\w*\.h$")


def headers(root):
    """Headers of the library layers that stay free of LibTorch, as paths below the root."""
    found = (str(path) for path in source_tree.files(root, {".h"}))
    return [p for p in found if p.split("/")[0] in LIBRARIES and not p.startswith(WITH_TORCH)]


def reached(depfile):
    """The files a compiler's dependency file names."""
    text = depfile.read_text(encoding="utf-8").replace("\\\n", " ")
    return text.split(":", 1)[1].split()


def check_header(header, folder, compiler):
    """Problems of one header."""
    unit = folder / (header.replace("/", "__") + ".cc")
    include = f'#include "millrace/{header}"\n'
    if not unit.exists() or unit.read_text(encoding="utf-8") != include * 2:
        unit.write_text(include * 2, encoding="utf-8")
    depfile = unit.with_suffix(".d")
    command = [*compiler, "-c", str(unit), "-o", str(unit.with_suffix(".o"))]
    done = subprocess.run(
        [*command, "-MD", "-MF", str(depfile)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return [f"{header}: does not compile alone\n{done.stderr.rstrip()}"]
    return [
        f"{header}: reaches {path}" for path in reached(depfile) if FOREIGN.search("/" + path)
    ]


def check(root, folder, compiler):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda h: check_header(h, folder, compiler), headers(root))
        return [problem for problems in results for problem in problems]


if __name__ == "__main__":
    sys.exit(source_tree.report(check(sys.argv[1], sys.argv[2], sys.argv[3:])))
