"""GCC 12 destroys some temporaries twice when their full expression contains `co_await`: objects
built by aggregate initialisation, closures with captures, and what a conditional operator makes.
This finds, in every expression that awaits,

  - a braced initialiser:          co_await f(Options{.n = 1});   co_return Pair{co_await g(), 1};
  - a lambda that captures values: co_await f([text] { ... });
  - a conditional operator:        co_await f(known ? Options(1) : Options(2));

and asks for a named local that is moved in. Types are unknown to this script, so constructors
called with braces are reported too. Captures by reference and of `this` have nothing to destroy,
and so have events: `publish(BeforeRun{at})` is fine, because the bus refuses, at compile time, an
event that is not trivially destructible. A line with `NOLINT(co_await)` is left alone.

usage: co_await_rule.py <root of the sources>
"""

import pathlib
import re
import sys

import source_tree

PAIRS = {"(": ")", "[": "]", "{": "}"}
STATEMENT_WORDS = {"if", "while", "for", "switch"}
BLOCK_BEFORE = re.compile(r"(\)|\b(else|do|try|const|noexcept|mutable|override|final))\s*$")
EVENT_BEFORE = re.compile(r"(\.|->)\s*publish\(\s*[A-Za-z_][\w:]*\s*$")
# After `return` or an operator a bracket opens a lambda, after a name or a bracket a subscript.
LAMBDA_BEFORE = re.compile(r"([^\w\s)\]]|\b(return|co_return|co_await|co_yield))\s*$|^\s*$")


def match_brackets(code):
    """Position of the partner of every bracket; unbalanced ones are left out."""
    partner, stack = {}, []
    for position, char in enumerate(code):
        if char in PAIRS:
            stack.append(position)
        elif char in PAIRS.values():
            if stack and PAIRS[code[stack[-1]]] == char:
                partner[position] = stack[-1]
                partner[stack.pop()] = position
    return partner


class Expressions:
    def __init__(self, code):
        self.code = code
        self.partner = match_brackets(code)

    def before(self, position):
        return self.code[max(0, position - 200) : position]

    def is_block(self, opening):
        """Whether a brace opens statements or a declaration, not an initialiser."""
        before = self.before(opening)
        if BLOCK_BEFORE.search(before):
            return True
        inner = self.code[opening + 1 : self.partner[opening]]
        return ";" in inner and not re.search(r"[(,=]\s*$", before)

    def bounds(self, position):
        """The full expression around `position`, as far as brackets and semicolons tell."""
        start, end = position, position
        while True:
            start = self.scan_left(start)
            opening = start - 1
            if opening < 0 or self.code[opening] not in PAIRS or opening not in self.partner:
                break
            if self.code[opening] == "{" and self.is_block(opening):
                break
            if self.code[opening] == "(":
                word = re.search(r"(\w+)\s*(constexpr\s*)?$", self.before(opening))
                if word and word.group(1) in STATEMENT_WORDS:
                    break
            start = opening
            end = self.partner[opening] + 1
        end = self.scan_right(max(end, position))
        return start, end

    def scan_left(self, position):
        """The place after the `;`, block or opening bracket that ends the way to the left."""
        at = position - 1
        while at >= 0:
            char = self.code[at]
            if char == ";" or char in PAIRS:
                return at + 1
            if char in PAIRS.values():
                opening = self.partner.get(at)
                if opening is None:
                    return at + 1
                if char == "}" and self.is_block(opening) and not self.closes_lambda(opening):
                    return at + 1
                at = opening
            at -= 1
        return 0

    def scan_right(self, position):
        at = position
        while at < len(self.code):
            char = self.code[at]
            if char == ";" or char in PAIRS.values():
                return at
            if char == "{" and at in self.partner and self.is_block(at):
                if not self.closes_lambda(at):
                    return at
            if char in PAIRS and at in self.partner:
                at = self.partner[at]
            at += 1
        return at

    def closes_lambda(self, opening):
        """Whether the block at `opening` is the body of a lambda."""
        at = len(self.code[:opening].rstrip())
        arrow = re.search(r"->[\w\s:<>,&*]*$|\b(mutable|noexcept)\s*$", self.code[:at][-200:])
        if arrow:
            at = len(self.code[: at - len(arrow.group())].rstrip())
        if at and self.code[at - 1] == ")" and at - 1 in self.partner:
            at = len(self.code[: self.partner[at - 1]].rstrip())
        return bool(at) and self.code[at - 1] == "]"

    def lambda_at(self, opening):
        return self.code[opening] == "[" and LAMBDA_BEFORE.search(self.before(opening))

    def offences(self, start, end):
        """What is not to be in an awaiting expression, in [start, end), outside lambda bodies."""
        at = start
        while at < end:
            char = self.code[at]
            if char == "{" and at in self.partner:
                if self.closes_lambda(at) or self.is_block(at):
                    at = self.partner[at]
                elif not EVENT_BEFORE.search(self.before(at)):
                    yield at, "braced initialiser"
            elif char == "[" and at in self.partner and self.lambda_at(at):
                captures = self.code[at + 1 : self.partner[at]]
                if any(by_value(item) for item in captures.split(",")):
                    yield at, "lambda with captured values"
                at = self.partner[at]
            elif char == "?":
                yield at, "conditional operator"
            at += 1


def by_value(capture):
    capture = capture.strip()
    return bool(capture) and capture != "this" and not capture.startswith("&")


def check_text(path, text):
    code = source_tree.blank_literals(text)
    expressions = Expressions(code)
    lines = text.split("\n")
    problems = {}
    for match in re.finditer(r"\bco_await\b", code):
        for position, what in expressions.offences(*expressions.bounds(match.start())):
            line = source_tree.line_of(text, position)
            if "NOLINT(co_await)" not in lines[line - 1]:
                problems[position] = f"{path}:{line}: {what} in an expression with co_await"
    return [problems[position] for position in sorted(problems)]


def check(root):
    root = pathlib.Path(root)
    problems = []
    for path in source_tree.files(root, source_tree.CPP):
        problems += check_text(path, (root / path).read_text(encoding="utf-8"))
    return problems


if __name__ == "__main__":
    sys.exit(source_tree.report(check(sys.argv[1])))
