"""The table and the picture of the benchmarks, made from results of which everything is known.

usage: bench_report.py
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as xml

BENCH = pathlib.Path(__file__).resolve().parents[1] / "bench"


def row(item, what, contender, ratio, goal=None, at_least=False, unit="ratio", case="256 MiB | x"):
    return {
        "item": item, "what": what, "contender": contender, "case": case, "ratio": ratio,
        "low": ratio - 0.1, "high": ratio * 2, "base": "the <base>", "noise": [0.9, 1.1],
        "goal": goal, "at_least": at_least, "unit": unit,
    }


ROWS = [
    row("11", "durable bytes/s", "Millrace", 0.93, 0.90, at_least=True),
    row("11", "durable bytes/s", "Millrace, slow", 0.85, 0.90, at_least=True),
    row("11", "lag", "Millrace", 0.25, 1, unit="ms"),
    row("10", "wall time", "Millrace lazy", 1.07, 1.05),
    row("10", "wall time", "Lightning & co", 1.41),
    row("9", "stall", "MMEngine", 1.4),
]


def report(results, folder):
    for name, result in results.items():
        (folder / f"{name}.json").write_text(json.dumps(result))
    return subprocess.run(
        [sys.executable, "-B", BENCH / "report.py", folder], capture_output=True, text=True
    )


class Report(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.folder = pathlib.Path(self.temporary.name)

    def table(self):
        disk = {"write_mib_s": 1234, "read_mib_s": 2345}
        done = report({"a_bench": {"rows": ROWS[:3], "disk": disk}, "b_bench": {"rows": ROWS[3:]}},
                      self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        return (self.folder / "table.md").read_text()

    def line(self, contender):
        lines = [text for text in self.table().splitlines() if f"| {contender} |" in text]
        self.assertEqual(len(lines), 1)
        return lines[0]

    def test_goals_are_judged_in_their_direction(self):
        text = self.table()
        self.assertIn("Goals: 2 met, 2 lost.", text)
        met = [line for line in text.splitlines() if line.endswith("| met |")]
        lost = [line for line in text.splitlines() if line.endswith("| **LOST** |")]
        self.assertEqual(["lag" in met_line for met_line in met], [False, True])
        self.assertTrue("0.93" in met[0] and ">= 0.9" in met[0])
        self.assertTrue("1.07" in lost[0] and "<= 1.05" in lost[0])
        self.assertIn("Millrace, slow", lost[1])

    def test_rows_without_a_goal_stay_in_and_are_not_judged(self):
        self.assertTrue(self.line("MMEngine").endswith("|  |  |"))

    def test_a_row_shows_its_spread_noise_and_unit(self):
        line = next(text for text in self.table().splitlines() if text.startswith("| lag "))
        self.assertIn("0.25 ms (0.15 to 0.5)", line)
        self.assertIn("0.9 to 1.1", line)
        self.assertIn(r"256 MiB \| x", line)

    def test_machine_and_commands(self):
        text = self.table()
        self.assertIn("1234 MiB/s written, 2345 MiB/s read", text)
        self.assertLess(text.index("- CPU: "), text.index("## "))
        self.assertTrue(text.rstrip().endswith("make bench ONLY=b_bench"))

    def test_the_picture_is_xml_with_a_bar_for_every_row_of_9_and_10(self):
        self.table()
        svg = xml.fromstring((self.folder / "overview.svg").read_text())
        bars = [e for e in svg.iter("{http://www.w3.org/2000/svg}rect")]
        self.assertEqual([e.get("class") for e in bars], ["ours", "theirs", "theirs"])
        widths = [float(e.get("width")) for e in bars]
        self.assertAlmostEqual(widths[0] / widths[1], 1.07 / 1.41, places=2)

    def test_quick_runs_are_named(self):
        self.assertNotIn("Quick", self.table())
        report({"a_bench": {"rows": ROWS[:1], "quick": True}}, self.folder)
        text = (self.folder / "table.md").read_text()
        self.assertIn("- Quick: too small to judge by: a_bench\n", text)

    def test_sizes_that_were_left_out_are_named(self):
        self.assertNotIn("Left out", self.table())
        left_out = ["1024 MiB, which needs 20 GiB of memory"]
        report({"a_bench": {"rows": ROWS[:1], "left_out": left_out}}, self.folder)
        text = (self.folder / "table.md").read_text()
        self.assertIn(f"- Left out: a_bench at {left_out[0]}\n", text)

    def test_results_without_rows_are_refused(self):
        for result in ([], {"samples": []}):
            done = report({"old": result}, self.folder)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("no rows", done.stderr)


if __name__ == "__main__":
    unittest.main()
