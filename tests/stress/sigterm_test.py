"""SIGTERM to the digit trainer at seeded moments: in training, during a save, inside validation and
during start-up. Each time the program ends with 0, the newest checkpoint is valid and that of the
step it stopped at (of a start-up: the one that was there), and the trainings resumed from there end
as one that was never stopped, bit by bit (OF_STOPS and Checkpoint.state() say what may differ)."""

import collections
import itertools
import json
import random
import re
import signal
import time

import digits
from digits import demo
import stress

STOPS = 5  # of one training
# A stop's file takes its place in the rotation, and a validation that was stopped is not repeated.
OF_STOPS = ("/message_hub/runtime_info/keep_ckpt_ids", "/record/hub/val/accuracy")
STOPPED = re.compile(r"^Stopped by SIGTERM (?:after iteration (\d+)|before the first iteration); "
                     r"(?:(iter_\d+\.pth) is durable|nothing had to be saved)\.$", re.M)


class Terminations(demo.DemoTest):

    def in_start_up(self, running, chance):
        running.wait_for_handlers()
        time.sleep(chance.uniform(0, 0.1))

    def in_training(self, running, chance):
        running.wait_for("Checkpoints will be saved")
        time.sleep(chance.uniform(0, 0.5))

    def in_save(self, running, chance):
        running.wait_for("Saving checkpoint at")
        time.sleep(chance.uniform(0, 0.03))

    def in_validation(self, running, chance):
        running.wait_for("Exp name:")
        time.sleep(chance.uniform(0, 0.02))

    def met(self, moment, done, work):
        """Whether a signal meant for validation met one: it left a span, but no metrics."""
        if moment != "validation":
            return moment
        spans = [s["name"] for s in json.loads((work / "trace.json").read_text())["traceEvents"]]
        epochs = re.findall(r"validation after epoch (\d+)", "\n".join(spans))
        met = any(not re.search(rf"Epoch\(val\) +\[{epoch}\]", done.out) for epoch in epochs)
        return "validation" if met else "training"

    def stop_once(self, run, work, moment, chance):
        """Returns where it met the program, or nothing when the run ended before."""
        before = digits.newest_iteration(work)
        running = run.start(work)
        getattr(self, "in_" + moment.replace("-", "_"))(running, chance)
        running.send(signal.SIGTERM)
        done = running.finish()
        self.assert_succeeded(done)
        stopped = STOPPED.search(done.out)
        if not stopped:
            self.assertIn("Hold-out accuracy", done.out, done)  # it had ended
            return None
        at = int(stopped.group(1) or 0)
        if stopped.group(2):
            self.assertEqual(stopped.group(2), f"iter_{at}.pth")
        self.assertEqual(digits.newest_iteration(work), at, done)
        self.assertGreaterEqual(at, before)
        if moment == "start-up" and "Saving checkpoint" not in done.out:
            self.assertEqual(at, before)
        self.assertEqual(demo.leftovers(work), [])
        return self.met(moment, done, work)

    def test_stopped_and_resumed(self):
        chance = random.Random(stress.SEED)
        wanted = stress.count(10, 100)
        often = digits.Run(self, "often", "--save-interval", 2, epochs=6)
        # Validation after every second step.
        valid = digits.Run(self, "valid", "--batch-size", 400, epochs=8)
        met = collections.Counter()
        trainings = equal = 0
        while met.total() < wanted:
            run = (often, valid)[trainings % 2]
            moments = itertools.cycle((("start-up", "training", "save"), ("validation",))
                                      [trainings % 2])
            work = self.scratch / f"work-{trainings}"
            with self.subTest(seed=stress.SEED, training=trainings):
                for _ in range(min(STOPS, wanted - met.total())):
                    where = self.stop_once(run, work, next(moments), chance)
                    if where is None:
                        break
                    met[where] += 1
                run.finish(work, OF_STOPS)
                equal += 1
            trainings += 1
            self.assertLess(trainings, wanted)
        where = ", ".join(f"{count} in {name}" for name, count in sorted(met.items()))
        stress.report(f"SIGTERM: {met.total()} of {wanted} ended with 0 and a valid checkpoint of "
                      f"their step ({where}); {equal} of {trainings} trainings ended bit-equal to "
                      "the unstopped one")


if __name__ == "__main__":
    demo.main()
