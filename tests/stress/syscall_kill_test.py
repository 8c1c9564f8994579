"""A trainer is killed at the n-th system call of each kind that its I/O makes, for every n over a
run that saves, rotates, replaces the best and publishes. strace sends the SIGKILL as the call is
entered, so the n-th has not happened and all before it have."""

import random
import re
import shutil
import subprocess
import sys
import unittest

import checkpoint_reading as reading
import stress
import trainer

CALLS = ("openat", "write", "pwrite64", "fallocate", "ftruncate", "fsync", "fdatasync", "link",
         "linkat", "rename", "renameat", "renameat2", "unlink", "unlinkat")
ITERS = 8
RUN = {"iters": ITERS, "save": "iter", "interval": 2, "keep": 1, "width": 320, "validate": 2,
       "resume": "auto"}


# A run that counts iterations goes on after the step it resumes, as the reference does: the
# validation of that step, if the kill came before it, is not made.
OF_VALIDATION = ("/record/hub/val/", "/record/hook/CheckpointHook",
                 "/message_hub/runtime_info/best_", "/message_hub/resumed_keys/best_")


class Strace:
    """Attached to the one I/O thread of a trainer that waits."""

    def __init__(self, thread, log, *more):
        self.log = log
        self.process = subprocess.Popen(
            ["strace", "-y", "-p", thread, "-o", str(log), "-e", "trace=" + ",".join(CALLS), *more],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.first_line = self.process.stderr.readline()

    def attached(self):
        return "attached" in self.first_line

    def calls(self):
        """[(call, the line)] of what the thread did, in order."""
        self.process.stderr.close()
        self.process.wait()
        return [(line.split("(")[0], line) for line in self.log.read_text().splitlines()
                if re.match(r"\w+\(", line)]


def regular(folder):
    return sorted(name for name in reading.read_all(folder) if name.startswith("iter_"))


class SystemCalls(trainer.TrainerTest):

    def traced(self, work, *more):
        run = self.start(work_dir=work, io="ask", **RUN)
        thread = run.line().split()[1]
        strace = Strace(thread, self.scratch / "trace", *more)
        if not strace.attached():
            raise unittest.SkipTest(f"strace cannot attach here: {strace.first_line.strip()}")
        run.process.stdin.write("\n")
        run.process.stdin.flush()
        code = run.finish()
        run.end()
        return run, code, strace.calls()

    def assert_is_a_whole_cycle(self, calls):
        text = "\n".join(line for _, line in calls)
        for what in (r'rename\(.*\.iter_8\.pth\..*\.tmp", ', r'rename\(.*/iter_2\.pth", .*\.trash"',
                     r'link\(.*/iter_\d\.pth", .*/\.best_accuracy_iter_\d\.pth\..*\.tmp"',
                     r'rename\(.*/best_accuracy_iter_\d\.pth", .*\.trash"',
                     r'rename\(.*\.iter_8\..*\.tmp", .*/iter_8-[0-9a-f]{8}\.pth"',
                     r"write\(.*checkpoints\.catalog", r"last_checkpoint\..*\.tmp"):
            self.assertRegex(text, what)

    def killed_at(self, call, n, clean):
        """Whether the run came that far."""
        work = self.scratch / "work"
        run, code, calls = self.traced(work, "-e", f"inject={call}:signal=KILL:when={n}")
        if code == 0:  # jobs of one thread may come in another order, and some calls with them
            return False
        self.assertEqual(code, -9, run.errors)
        self.assertEqual(calls[-1][0], call)
        self.assertEqual(sum(name == call for name, _ in calls), n)
        newest = self.assert_nothing_committed_is_lost(run, work)
        again = self.train(work_dir=work, **RUN)
        self.assertEqual(again.said("resumed"), [[str(newest.identity.iter if newest else 0)]])
        self.assertEqual(reading.hidden(work), [])
        last = f"iter_{ITERS}.pth"
        self.assertEqual(reading.differences(clean / last, work / last, OF_VALIDATION), [])
        if newest and newest.identity.iter == ITERS:
            # Nothing is left to train, save or publish. What should have gone goes with the next
            # file of a longer run.
            self.assertIn(last, regular(work))
        else:
            self.assertEqual(regular(work), regular(clean))
        return True

    def test_killed_at_every_one(self):
        clean = self.scratch / "clean"
        run, code, calls = self.traced(clean)
        self.assertEqual(code, 0, run.errors)
        self.assert_is_a_whole_cycle(calls)
        names = [name for name, _ in calls]
        points = [(name, names[:at + 1].count(name)) for at, name in enumerate(names)]
        chosen = random.Random(stress.SEED).sample(points, stress.count(10, len(points)))
        killed = 0
        for call, n in chosen:
            with self.subTest(call=call, n=n, seed=stress.SEED):
                killed += self.killed_at(call, n, clean)
            shutil.rmtree(self.scratch / "work", ignore_errors=True)
        self.assertGreater(killed, len(chosen) * 9 // 10)
        stress.report(f"killed at the n-th system call: {killed} of {len(points)} calls of one "
                      "cycle, each recovered and resumed bit-equal")


if __name__ == "__main__":
    if shutil.which("strace") is None:
        stress.skip("killed at the n-th system call", "there is no strace")
    result = unittest.main(verbosity=2, exit=False).result
    if not result.wasSuccessful():
        sys.exit(1)
    for _, reason in result.skipped:
        stress.skip("killed at the n-th system call", reason)
