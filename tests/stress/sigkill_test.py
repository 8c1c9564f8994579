"""SIGKILL to the digit trainer at moments that nobody chose, start-up and the last save included.

It is resumed, killed again, and in the end has the very state of a run that was never interrupted:
model, optimizer, schedules, counters, log history but its timings, random generators and data
position, bit by bit (Checkpoint.state() says what is left out).
"""

import random
import re
import signal
import subprocess
import time

import digits
from digits import demo
import stress

KILLS = 5  # of one training


class Kills(demo.DemoTest):

    def kill_once(self, run, work, chance):
        """Returns whether it was training already, or nothing when the run ended before."""
        before = digits.newest_iteration(work)
        running = run.start(work)
        begun = time.monotonic()
        try:
            running.process.wait(timeout=chance.uniform(0, 0.8 * run.seconds))
            run.seconds = time.monotonic() - begun  # shorter than the first run was
        except subprocess.TimeoutExpired:
            running.send(signal.SIGKILL)
        done = running.finish()
        if done.code == 0:
            return None
        self.assertEqual(done.code, -signal.SIGKILL, done)
        resumed = re.search(r"Resumed from .*/iter_(\d+)\.pth", done.out)
        if resumed or "Saving checkpoint" in done.out:
            self.assertEqual(int(resumed.group(1)) if resumed else 0, before, done)
        newest = digits.newest_iteration(work)
        # A save is announced, then waits for the one before: the last but two is durable.
        announced = [int(n) for n in re.findall(r"Saving checkpoint at (\d+) ", done.out)]
        self.assertGreaterEqual(newest, announced[-3] if len(announced) > 2 else before, done)
        return "Checkpoints will be saved" in done.out

    def test_the_end_is_that_of_an_uninterrupted_run(self):
        chance = random.Random(stress.SEED)
        wanted = stress.count(15, 200)
        run = digits.Run(self, "kill", "--save-interval", 2, "--keep", 1, epochs=3)
        killed = trainings = tried = equal = in_training = 0
        while killed < wanted:
            work = self.scratch / f"work-{tried}"
            with self.subTest(seed=stress.SEED, training=tried):
                before = killed
                for _ in range(min(KILLS, wanted - killed)):
                    training = self.kill_once(run, work, chance)
                    if training is None:
                        break
                    killed += 1
                    in_training += training
                run.finish(work)
                equal += killed > before
            trainings += killed > before  # one that ended before its first kill says nothing
            tried += 1
            self.assertLess(tried, 2 * wanted)
        stress.report(f"SIGKILL: {killed}, {killed - in_training} of them during start-up; {equal} "
                      f"of {trainings} trainings ended bit-equal to the uninterrupted one")


if __name__ == "__main__":
    demo.main()
