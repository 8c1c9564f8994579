"""Code in README.md is code that compiles: a block below `<!-- from: <path> -->` must stand in that
file, line by line. Indentation that all lines of the block share may differ.

usage: readme_code.py <root of the sources>; exits 77 (skip) when there is no README.md
"""

import pathlib
import re
import sys
import textwrap

import source_tree

MARK = re.compile(r"^<!-- from: (?P<path>\S+) -->[ \t]*$", re.M)
BLOCK = re.compile(r"\s*^```[^\n]*\n(?P<code>.*?)^```[ \t]*$", re.M | re.S)


def stands_in(code, text):
    """Whether consecutive lines of `text`, with their common indentation removed, are `code`."""
    wanted = textwrap.dedent(code).strip("\n").split("\n")
    lines = text.split("\n")
    for start in range(len(lines) - len(wanted) + 1):
        part = "\n".join(lines[start : start + len(wanted)])
        if textwrap.dedent(part).split("\n") == wanted:
            return True
    return False


def check_text(readme, read):
    """`read(path)` returns the text of a file of the tree, or None."""
    problems = []
    for mark in MARK.finditer(readme):
        where = f"README.md:{source_tree.line_of(readme, mark.start())}"
        path = mark.group("path")
        block = BLOCK.match(readme, mark.end())
        text = read(path)
        if block is None:
            problems.append(f"{where}: no code block follows")
        elif text is None:
            problems.append(f"{where}: there is no {path}")
        elif not block.group("code").strip() or not stands_in(block.group("code"), text):
            problems.append(f"{where}: the block below does not stand in {path}")
    return problems


def check(root):
    root = pathlib.Path(root)

    def read(path):
        file = root / path
        return file.read_text(encoding="utf-8") if file.is_file() else None

    return check_text((root / "README.md").read_text(encoding="utf-8"), read)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if not pathlib.Path(sys.argv[1], "README.md").is_file():
        print("skipped: there is no README.md")
        sys.exit(77)
    sys.exit(source_tree.report(check(sys.argv[1])))
