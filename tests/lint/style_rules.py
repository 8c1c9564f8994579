"""Style that no compiler checks: names, line length, tabs, and what headers may hold.

usage: style_rules.py <root of the sources>
"""

import pathlib
import re
import sys

import source_tree

TEXT = source_tree.CPP | {".py", ".sh", ".cmake", "CMakeLists.txt"}
WIDTH = 100
CMAKE_WIDTH = 120  # clang-format does not lay these out
VAGUE = re.compile(r"(^|_)(utils?|helpers?|managers?|common)(_|$)", re.IGNORECASE)
SNAKE_CASE = re.compile(r"[a-z0-9_]+$")
FORBIDDEN = (
    (re.compile(r"^#pragma\s+omp\b", re.M), "an OpenMP team of our own fights LibTorch's"),
    (re.compile(r"^#\s*define\s+(ASIO|BOOST_ASIO)_", re.M), "hosts share Asio's configuration"),
)


def check_file(path, text):
    problems = []
    width = CMAKE_WIDTH if path.suffix in (".cmake", ".txt") else WIDTH
    if VAGUE.search(path.stem):
        problems.append(f"{path}: the name says nothing; use the word of what the file holds")
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > width:
            problems.append(f"{path}:{number}: line has {len(line)} columns, {width} are allowed")
        if "\t" in line:
            problems.append(f"{path}:{number}: tab")
        if line != line.rstrip():
            problems.append(f"{path}:{number}: blanks at the end")
    if text and not text.endswith("\n"):
        problems.append(f"{path}: no newline at the end")
    if path.suffix in source_tree.CPP:
        problems += check_cpp(path, text)
    return problems


def check_cpp(path, text):
    problems = []
    if not SNAKE_CASE.match(path.stem):
        problems.append(f"{path}: file names are snake_case")
    code = source_tree.blank_literals(text)
    if path.suffix == ".h":
        if not re.search(r"^#pragma once$", code, re.M):
            problems.append(f"{path}: no #pragma once")
        for match in re.finditer(r"^\s*#\s*include\s*<asio\.hpp>", text, re.M):
            line = source_tree.line_of(text, match.end())
            problems.append(f"{path}:{line}: include the parts of Asio, not asio.hpp")
        for match in re.finditer(r"^\s*using\s+namespace\b", code, re.M):
            line = source_tree.line_of(text, match.end())
            problems.append(f"{path}:{line}: using namespace in a header")
    for pattern, reason in FORBIDDEN:
        for match in pattern.finditer(code):
            problems.append(f"{path}:{source_tree.line_of(text, match.start())}: {reason}")
    return problems


def check(root):
    root = pathlib.Path(root)
    problems = []
    for path in source_tree.files(root, TEXT):
        problems += check_file(path, (root / path).read_text(encoding="utf-8"))
    return problems


if __name__ == "__main__":
    sys.exit(source_tree.report(check(sys.argv[1])))
