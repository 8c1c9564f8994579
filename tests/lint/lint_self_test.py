"""Shows that every lint fails on a small bad input and passes on its good twin.

usage: lint_self_test.py; the compiler is taken from $CXX
"""

import os
import pathlib
import tempfile
import unittest

import co_await_rule
import header_check
import include_rules
import readme_code
import source_tree
import style_rules


class IncludeRules(unittest.TestCase):
    def problem(self, path, header, quote='"'):
        return include_rules.problem_with(path, quote, header)

    def test_arrows(self):
        for path, header in (
            ("events/a.cc", "millrace/runtime/async/task.h"),
            ("runtime/engine/a.h", "millrace/io/storage.h"),
            ("runtime/torch/a.h", "millrace/runtime/engine/strategy.h"),
            ("hooks/a.cc", "millrace/runtime/engine/hook.h"),
            ("hooks/a.cc", "millrace/runtime/device/nvtx_ranges.h"),
            ("runtime/cli/a.cc", "millrace/hooks/default_hooks.h"),
            ("examples/a/main.cc", "millrace/millrace.h"),
            ("tests/io/a_test.cc", "tests/io/fault_ops.h"),
        ):
            self.assertIsNone(self.problem(path, header), (path, header))
        for path, header in (
            ("runtime/async/a.h", "millrace/events/event_bus.h"),
            ("runtime/device/a.h", "millrace/io/storage.h"),
            ("events/a.cc", "millrace/io/storage.h"),
            ("io/a.cc", "millrace/events/event_bus.h"),
            ("runtime/engine/a.cc", "millrace/hooks/default_hooks.h"),
            ("runtime/engine/a.cc", "millrace/runtime/torch/load.h"),
            ("hooks/a.cc", "millrace/runtime/torch/load.h"),
            ("hooks/a.cc", "millrace/runtime/cli/a.h"),
            ("io/a.cc", "millrace/millrace.h"),
            ("io/a.cc", "millrace/elsewhere/a.h"),
            ("io/a.cc", "storage.h"),
        ):
            self.assertIsNotNone(self.problem(path, header), (path, header))

    def test_foreign_headers(self):
        for path, header in (
            ("runtime/torch/a.cc", "ATen/core/Tensor.h"),
            ("tests/torch/a_test.cc", "torch/torch.h"),
            ("tests/embedding/project/a.cc", "torch/torch.h"),
            ("runtime/device/cuda_stream.cc", "cuda_runtime.h"),
            ("tests/support/cuda_machine_gpu.cc", "cuda_runtime_api.h"),
            ("runtime/async/a.h", "asio/awaitable.hpp"),
            ("runtime/async/a.cc", "sys/resource.h"),
            ("runtime/async/a.cc", "pthread.h"),
            ("runtime/async/a.cc", "stop_token"),
            ("io/a.cc", "zlib.h"),
        ):
            self.assertIsNone(self.problem(path, header, "<"), (path, header))
        for path, header in (
            ("io/a.cc", "ATen/core/Tensor.h"),
            ("hooks/a.h", "torch/torch.h"),
            ("tests/io/a_test.cc", "c10/core/Device.h"),
            ("runtime/device/stream.h", "cuda_runtime.h"),
            ("tests/support/cuda_machine.h", "cuda_runtime_api.h"),
            ("runtime/engine/a.cc", "cuda/std/atomic"),
            ("runtime/async/a.cc", "spdlog/spdlog.h"),
            ("runtime/async/a.cc", "zlib.h"),
        ):
            self.assertIsNotNone(self.problem(path, header, "<"), (path, header))

    def test_reads_files(self):
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder, "events", "a.cc")
            source.parent.mkdir()
            source.write_text('#include <vector>\n  #  include "millrace/io/storage.h"\n')
            self.assertEqual(len(include_rules.check(folder)), 1)
            self.assertIn("events/a.cc:2:", include_rules.check(folder)[0])
            source.write_text("#include <vector>\n#include <asio/awaitable.hpp>\n")
            self.assertEqual(include_rules.check(folder), [])
            source.write_text("#include <asio/awaitable.hpp>\n#include <vector>\n")
            self.assertEqual(len(include_rules.check(folder)), 1)


class StyleRules(unittest.TestCase):
    def problems(self, text, name="event_bus.h"):
        return style_rules.check_file(pathlib.PurePath("io", name), text)

    def test_good(self):
        self.assertEqual(self.problems("#pragma once\n#include <asio/awaitable.hpp>\n"), [])
        self.assertEqual(self.problems("// using namespace is for sources\n#pragma once\n"), [])
        self.assertEqual(self.problems("using namespace std;\n", "event_bus.cc"), [])

    def test_bad(self):
        for text in (
            "int a;\n",
            "// #pragma once\n",
            "#pragma once\n#include <asio.hpp>\n",
            "#pragma once\nusing namespace std;\n",
            "#pragma once\n\tint a;\n",
            "#pragma once\nint a; \n",
            "#pragma once\nint a;",
            "#pragma once\n#define ASIO_RECYCLING_ALLOCATOR_CACHE_SIZE 8\n",
            "#pragma once\n// " + "x" * 98 + "\n",
        ):
            self.assertEqual(len(self.problems(text)), 1, text)

    def test_names(self):
        for name in ("utils.cc", "string_util.cc", "io_helpers.cc", "common.cc", "EventBus.cc"):
            self.assertEqual(len(self.problems("\n", name)), 1, name)
        for name in ("utility_score.cc", "uncommon.cc", "event_bus.cc"):
            self.assertEqual(self.problems("\n", name), [], name)


class CoAwaitRule(unittest.TestCase):
    BAD = (
        "co_await f(Options{.n = 1});",
        "co_await f({1, 2});",
        "co_await f(Options{});",
        "auto r = co_await run_on(pool, [text] { use(text); });",
        "co_await run_on(pool, [=]() -> int { return a; });",
        "co_await run_on(pool, [&a, b = std::move(c)]() mutable { use(b); });",
        "co_return Pair{co_await f(), 1};",
        "Pair p{co_await f(), 1};",
        "g(Options{.n = 1}, co_await f());",
        "if (co_await f({1, 2})) { g(); }",
        "for (auto& x : co_await f(Options{1})) { g(x); }",
        "co_await [c]() -> Task<void> { co_return; }();",
        "co_await (b ? f(c) : g());",
        "co_await f(b ? C(1) : C(2));",
        "b ? co_await f() : C();",
        "co_await bus.publish(BeforeRun{Options{1}});",
        "co_await publish(Options{1});",
    )
    GOOD = (
        "Options o{.n = 1}; co_await f(std::move(o));",
        "auto l = [text] { use(text); }; co_await run_on(pool, std::move(l));",
        "co_await run_on(pool, [&] { Options o{1}; use(o); });",
        "co_await run_on(pool, [this, &a] { use(a); });",
        "co_await run_on(pool, [](int n) { return n; });",
        "if (co_await f()) { Options o{1}; }",
        "while (x) { if (y) { co_await f(); } } Options o{1};",
        "Options o{1}; if (y) { g(); } co_await f(a[i], b[j]);",
        "co_await f(1); Options o{1}; g(o);",
        "if (y) { Options o{1}; } else { co_await f(); }",
        "switch (x) { case 1: co_await f(); break; } Options o{1};",
        "// co_await f(Options{1});",
        "co_await run_on(pool, [&] { return a ? b : c; });",
        "const int n = a ? b : c; co_await f(n);",
        'co_await f("Options{1}");',
        "co_await f(Trivial{1});  // NOLINT(co_await)",
        "co_await bus.publish(BeforeRun{at});",
        "co_await parts_.bus->publish(mr::BeforeRun{at, 1});",
    )

    def problems(self, statement):
        text = f"Task<void> run(Pool& pool) {{\n  int a = 1;\n  {statement}\n}}\n"
        return co_await_rule.check_text("a.cc", text)

    def test_bad(self):
        for statement in self.BAD:
            self.assertEqual(len(self.problems(statement)), 1, statement)
            self.assertIn("a.cc:3:", self.problems(statement)[0])

    def test_good(self):
        for statement in self.GOOD:
            self.assertEqual(self.problems(statement), [], statement)


class HeaderCheck(unittest.TestCase):
    def problems(self, text):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder, "root")
            for name, content in (
                ("root/io/storage.h", text),
                ("root/runtime/torch/load.h", "#pragma once\n"),
                ("outside/ATen/Tensor.h", "#pragma once\n"),
            ):
                path = pathlib.Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)
            include = pathlib.Path(folder, "include")
            include.mkdir()
            (include / "millrace").symlink_to(root)
            compiler = [os.environ.get("CXX", "g++"), "-std=c++20", f"-I{include}"]
            compiler.append(f"-I{folder}/outside")
            return header_check.check(root, pathlib.Path(folder, "objects"), compiler)

    def test_good(self):
        self.assertEqual(self.problems("#pragma once\n#include <string>\nstd::string s();\n"), [])

    def test_bad(self):
        for text in (
            "#pragma once\nstd::string s();\n",
            "int twice = 0;\n",
            "#pragma once\n#include <ATen/Tensor.h>\n",
            '#pragma once\n#include "millrace/runtime/torch/load.h"\n',
        ):
            self.assertEqual(len(self.problems(text)), 1, text)


class ReadmeCode(unittest.TestCase):
    FILES = {"a.cc": "int a;\n\nvoid f() {\n  g();\n\n  h();\n}\n"}

    def problems(self, block, path="a.cc"):
        text = f"# Title\n\n<!-- from: {path} -->\n\n```cpp\n{block}```\n"
        return readme_code.check_text(text, self.FILES.get)

    def test_good(self):
        for block in ("int a;\n", "g();\n\nh();\n", "  g();\n", self.FILES["a.cc"]):
            self.assertEqual(self.problems(block), [], block)
        self.assertEqual(readme_code.check_text("```cpp\nint b;\n```\n", self.FILES.get), [])

    def test_bad(self):
        for block in ("int b;\n", "int a;\nvoid f() {\n", "g();\n  h();\n", "int\n", "\n", ""):
            self.assertEqual(len(self.problems(block)), 1, block)
        self.assertEqual(len(self.problems("int a;\n", "b.cc")), 1)
        self.assertIn("README.md:3:", self.problems("int b;\n")[0])
        text = "<!-- from: a.cc -->\nint a;\n\n```cpp\nint a;\n```\n"
        self.assertEqual(len(readme_code.check_text(text, self.FILES.get)), 1)


class SourceTree(unittest.TestCase):
    def test_blank_literals(self):
        text = "int n = 1'000; char c = '\"'; auto s = R\"x({\n)x\"; /* {\n */ f(\"//\"); // }\n"
        code = source_tree.blank_literals(text)
        self.assertEqual(len(code), len(text))
        self.assertEqual(code.count("\n"), text.count("\n"))
        self.assertNotIn("{", code)
        self.assertNotIn("}", code)
        self.assertIn("1'000", code)
        self.assertIn("f(", code)


if __name__ == "__main__":
    unittest.main()
