"""What a run leaves to read: the table, the last lines, trace.json, and the terminal."""

import contextlib
import errno
import fcntl
import json
import os
import pty
import re
import shlex
import struct
import subprocess
import termios

import demo

ROW = re.compile(r"^(iter_\d+\.pth) +(\w+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)$", re.M)


class Report(demo.DemoTest):

    @classmethod
    def setUpClass(cls):
        cls.work = demo.shared("report")
        cls.done = demo.train(cls.work, "--save-interval", 4, "--keep", 2, "--mode", "eager")

    def test_table_has_a_row_for_each_checkpoint(self):
        self.assert_succeeded(self.done)
        header = r"^checkpoint +mode +MiB +durable ms +stall in call ms +stall at gate ms$"
        self.assertRegex(self.done.out, re.compile(header, re.M))
        rows = ROW.findall(self.done.out)
        self.assertEqual([row[0] for row in rows],
                         [f"iter_{n}.pth" for n in (4, 8, 12, 16, 20, 24, 26)])
        for name, mode, mib, durable, call, gate in rows:
            self.assertEqual(mode, "eager")
            self.assertGreater(float(durable), 0)
            self.assertGreaterEqual(float(call) + float(gate), 0)
            if (self.work / name).exists():
                self.assertAlmostEqual(float(mib), (self.work / name).stat().st_size / 2**20,
                                       delta=0.06)
        self.assertRegex(self.done.out, r"\n7 checkpoints in [\d.]+ s of training; saving took "
                         r"[\d.]+ % of the train thread's time\n")

    def test_last_lines(self):
        lines = self.done.out.splitlines()[-3:]
        metric = re.findall(r"Epoch\(val\) +\[2\].* accuracy: (\S+)", self.done.out)
        self.assertEqual(lines[0], f"Hold-out accuracy: {metric[0]}, after epoch 2")
        self.assertIn(f"Time line: {self.work}/timeline.html", lines[1])
        self.assertTrue(lines[2].startswith("To resume: "))

    def test_resume_command_works_when_copied(self):
        # From another folder, by a shell, without the environment of the first run; the work dir's
        # name needs quoting.
        work = self.scratch / "it's here"
        first = demo.train(work, "--batch-size", 100, "--keep", 5, "--mode", "lazy")
        self.assert_succeeded(first)
        command = re.search(r"^To resume: (.*)$", first.out, re.M).group(1)
        self.assertEqual(shlex.split(command)[0], demo.PROGRAM)
        environment = {key: value for key, value in os.environ.items() if key != "MILLRACE_DATA"}
        second = demo.finish(["sh", "-c", command], cwd="/", env=environment)
        self.assert_succeeded(second)
        self.assertIn(f"Resumed from {work}/iter_16.pth,", second.out)
        self.assertIn("iter_32.pth", demo.checkpoints(work))
        again = re.search(r"^To resume: (.*)$", second.out, re.M).group(1)
        self.assertEqual(again, command.replace("--epochs 4", "--epochs 8"))

    def test_lines_are_plain_and_levels_upper_case(self):
        self.assertNotRegex(self.done.out, r"[\r\x1b]")
        self.assertNotIn("[####", self.done.out)
        stamp = r"^\d\d/\d\d \d\d:\d\d:\d\d - millrace - INFO - "
        self.assertGreater(len(re.findall(stamp, self.done.out, re.M)), 10)
        log = next(self.work.glob("*/*.log")).read_text()
        self.assertEqual(re.findall(" - millrace - INFO - (.*)", log),
                         re.findall(" - millrace - INFO - (.*)", self.done.out))
        self.assertRegex(log, r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d - millrace - INFO - ")


class Trace(demo.DemoTest):

    @classmethod
    def setUpClass(cls):
        work = demo.shared("trace")
        cls.done = demo.train(work, "--save-interval", 4, "--keep", 1)
        cls.events = json.loads((work / "trace.json").read_text())["traceEvents"]
        cls.rows = {e["args"]["name"].split()[1]: e["tid"] for e in cls.events
                    if e["name"] == "thread_name"}
        cls.spans = [e for e in cls.events if e["ph"] == "X"]
        cls.saved = [f"iter_{n}.pth" for n in (4, 8, 12, 16, 20, 24, 26)]

    def span(self, row, name):
        found = [e for e in self.spans if e["name"] == name]
        self.assertEqual(len(found), 1, f"{name} in {[e['name'] for e in self.spans]}")
        self.assertEqual(found[0]["tid"], self.rows[row])
        return found[0]["ts"], found[0]["ts"] + found[0]["dur"]

    def test_rows(self):
        self.assert_succeeded(self.done)
        self.assertEqual(list(self.rows), ["train", "staging", "write", "commit", "rotation"])
        self.assertEqual(len(set(self.rows.values())), 5)
        self.assertEqual({e["pid"] for e in self.events}, {1})
        for row, tid in self.rows.items():
            self.assertTrue([e for e in self.spans if e["tid"] == tid], row)

    def test_steps_follow_each_other(self):
        end = 0
        for number in range(1, 27):
            first, last = self.span("train", f"step {number}")
            self.assertGreaterEqual(first, end)
            end = last
        for epoch in (1, 2):
            first, last = self.span("train", f"validation after epoch {epoch}")
            self.assertGreaterEqual(first, self.span("train", f"step {13 * epoch}")[1])
        self.assertGreaterEqual(self.span("train", "step 14")[0],
                                self.span("train", "validation after epoch 1")[1])

    def test_phases_of_a_save(self):
        earlier = 0
        slack = 0.002  # both ends are rounded to 0.001 us
        for name in self.saved:
            step = self.span("train", f"step {demo.iteration(name)}")
            save = self.span("train", f"save {name}")
            stage = self.span("staging", f"stage {name}")
            write = self.span("write", f"write {name}")
            sync = self.span("write", f"sync {name}")
            commit = self.span("commit", f"commit {name}")
            self.assertGreaterEqual(save[0], step[0])
            self.assertGreaterEqual(stage[0] + slack, save[0])
            self.assertGreaterEqual(write[0] + slack, stage[0])
            self.assertLessEqual(stage[1], write[1] + slack)
            self.assertGreaterEqual(sync[0] + slack, write[1])
            self.assertGreaterEqual(commit[0] + slack, sync[1])
            self.assertGreater(commit[1], commit[0])
            self.assertGreaterEqual(write[0] + slack, earlier, "one save at a time")
            earlier = commit[1]

    def test_files_are_removed_after_their_successor_is_durable(self):
        for name, successor in zip(self.saved, self.saved[1:]):
            removed = self.span("rotation", f"remove {name}")
            self.assertGreaterEqual(removed[0], self.span("commit", f"commit {successor}")[1])


class Terminal(demo.DemoTest):

    def run_on_terminal(self, columns, *more):
        terminal, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        work = self.scratch / f"work{columns}"
        process = subprocess.Popen(demo.arguments(work, *more, epochs=20), stdin=inside,
                                   stdout=inside, stderr=inside)
        os.close(inside)
        parts = []
        with contextlib.closing(os.fdopen(terminal, "rb", buffering=0)) as output:
            while True:
                try:
                    part = output.read(1 << 16)
                except OSError as error:  # Linux's way to say that the other end is closed
                    self.assertEqual(error.errno, errno.EIO)
                    break
                if not part:
                    break
                parts.append(part)
        self.assertEqual(process.wait(), 0)
        return work, b"".join(parts).decode().replace("\r\n", "\n")

    def test_bar_below_whole_lines(self):
        for columns in (100, 40):
            with self.subTest(columns=columns):
                work, text = self.run_on_terminal(columns)
                bars = re.findall(r"\r\x1b\[K(\[[#.]+[^\r\n]*)", text)
                self.assertTrue(bars, text[:2000])
                self.assertLess(max(map(len, bars)), columns)
                if columns == 100:
                    for bar in bars:
                        self.assertRegex(bar, r"^\[#*\.*\] \d+/260 iterations$")
                # What a terminal shows of each line is what follows the last erasure.
                shown = [line.rpartition("\r\x1b[K")[2] for line in text.split("\n")]
                log = next(work.glob("*/*.log")).read_text()
                logged = re.findall(r" - millrace - (.*)", log)
                self.assertEqual([line.partition(" - millrace - ")[2] for line in shown
                                  if " - millrace - " in line], logged)
                self.assertFalse([line for line in shown if "[#" in line or "\x1b" in line])
                self.assertTrue(shown[-2].startswith("To resume: "), shown[-3:])


if __name__ == "__main__":
    demo.main()
