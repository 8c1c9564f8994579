"""The project's own source files, and C++ text with comments and literals blanked out."""

import pathlib
import re

FOLDERS = ("runtime", "events", "hooks", "io", "examples", "tests", "cmake")
CPP = {".h", ".cc", ".cu"}
LITERAL = re.compile(
    r'R"(?P<tag>[^()\s\\]{0,16})\((?:.|\n)*?\)(?P=tag)"'
    r'|"(?:\\.|[^"\\\n])*"'
    r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'"
    r"|//[^\n]*"
    r"|/\*(?:.|\n)*?\*/"
)


def files(root, suffixes):
    """Paths relative to `root`, sorted, of the files below FOLDERS with one of the suffixes."""
    root = pathlib.Path(root)
    return sorted(
        path.relative_to(root)
        for folder in FOLDERS
        for path in (root / folder).rglob("*")
        if path.is_file() and (path.suffix in suffixes or path.name in suffixes)
    )


def blank_literals(text):
    """The same text, same length and lines, without the contents of comments and literals."""

    def blank(match):
        found = match.group()
        hidden = re.sub(r"[^\n]", " ", found)
        return hidden if found.startswith("/") else '"' + hidden[1:-1] + '"'

    return LITERAL.sub(blank, text)


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def report(problems):
    """Prints the problems and returns the exit status."""
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problem(s)")
    return 1 if problems else 0
