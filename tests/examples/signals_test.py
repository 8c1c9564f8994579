"""SIGINT and SIGTERM: the step is finished, the state is durable, the next run goes on exactly
there. A second signal ends the program at once and leaves nothing that resume would take."""

import json
import re
import signal
import unittest

import demo

STOPPED = re.compile(r"^Stopped by (SIGINT|SIGTERM) (after iteration (\d+)|before the first "
                     r"iteration); (.*)\.$", re.M)
FOREVER = 100000  # epochs: the signal ends the run


class Signals(demo.DemoTest):

    def assert_stopped(self, done, number, work):
        """Ended in order; returns the iteration whose checkpoint is durable."""
        self.assert_succeeded(done)
        match = STOPPED.search(done.out)
        self.assertTrue(match, done)
        self.assertEqual(match.group(1), number.name)
        at = int(match.group(3))
        self.assertEqual(match.group(4), f"iter_{at}.pth is durable", done)
        self.assertEqual(demo.checkpoints(work)[-1], f"iter_{at}.pth")
        self.assertTrue(demo.is_whole(work / f"iter_{at}.pth"))
        self.assertEqual(demo.leftovers(work), [])
        return at

    def test_right_after_exec(self):
        # Before main() the system's default action holds: the program may also die of the signal.
        work = self.copy_of(demo.finished_run())
        before = demo.without_run_logs(demo.tree(work))
        for number in (signal.SIGINT, signal.SIGTERM):
            running = self.start(work, "--resume", epochs=FOREVER)
            running.send(number)
            done = running.finish()
            self.assertIn(done.code, (0, -number), done)
            self.assertEqual(demo.without_run_logs(demo.tree(work)), before)

    def stopped_at_start_up(self, number, *more):
        """A run that got the signal between main() and training, and its work dir."""
        for attempt in range(20):
            name = "-".join((number.name, *more, str(attempt)))
            work = self.copy_of(demo.finished_run(), name)
            running = self.start(work, *more, epochs=FOREVER)
            running.wait_for_handlers()
            running.send(number)
            done = running.finish()
            if "is durable" not in done.out:  # else this test was held up, and training had begun
                return done, work
        self.fail(f"no signal met the start-up\n{done}")

    def test_at_start_up(self):
        before = demo.without_run_logs(demo.tree(demo.finished_run()))
        for number in (signal.SIGINT, signal.SIGTERM):
            for more, says in ((["--resume"], "after iteration 26; nothing had to be saved"),
                               ([], "before the first iteration; nothing had to be saved")):
                done, work = self.stopped_at_start_up(number, *more)
                self.assert_succeeded(done)
                self.assertIn(f"Stopped by {number.name} {says}.\n", done.out, done)
                self.assertEqual(demo.without_run_logs(demo.tree(work)), before)
        done = demo.train(work, "--resume", epochs=3)
        self.assert_resumed(done, work / "iter_26.pth")

    def test_while_training_and_the_next_run_goes_on_exactly_there(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            work = self.scratch / number.name
            running = self.start(work, epochs=FOREVER)
            running.wait_for(r"\[2\]\[10/13\]")
            running.send(number)
            first = running.finish()
            at = self.assert_stopped(first, number, work)
            self.assertIn(f"Stop requested ({number.name}): finishing after iteration {at}\n",
                          first.out)
            epochs = at // demo.EPOCH + 2
            second = demo.train(work, "--resume", epochs=epochs)
            self.assert_succeeded(second)
            self.assert_resumed(second, work / f"iter_{at}.pth")
            unbroken = demo.train(self.scratch / f"unbroken-{number.name}", epochs=epochs)
            joined = {**demo.losses(first.out), **demo.losses(second.out)}
            self.assertEqual(joined, demo.losses(unbroken.out))
            self.assertFalse(demo.losses(first.out).keys() & demo.losses(second.out).keys(),
                             "no iteration is trained twice")
            accuracy = r"Hold-out accuracy: .*"
            self.assertEqual(re.findall(accuracy, second.out), re.findall(accuracy, unbroken.out))

    def test_while_validating(self):
        # One iteration an epoch, four batches of validation. Whether the signal met validation is
        # seen afterwards: it left a span in the trace, but no metrics in the log.
        met = False
        for attempt in range(50):
            number = (signal.SIGINT, signal.SIGTERM)[attempt % 2]
            work = self.scratch / str(attempt)
            running = self.start(work, "--batch-size", 4000, data=demo.FULL_DATA, epochs=FOREVER)
            running.wait_for("Exp name:")
            running.send(number)
            done = running.finish()
            at = self.assert_stopped(done, number, work)
            spans = json.loads((work / "trace.json").read_text())["traceEvents"]
            begun = any(s["name"] == f"validation after epoch {at}" for s in spans)
            met = begun and not re.search(rf"Epoch\(val\) +\[{at}\]", done.out)
            if met:
                break
        self.assertTrue(met, "no signal met a validation")
        again = demo.train(work, "--batch-size", 4000, "--resume", data=demo.FULL_DATA,
                           epochs=at + 1)
        self.assert_succeeded(again)
        self.assert_resumed(again, work / f"iter_{at}.pth", 1)
        self.assertIn("Hold-out accuracy: ", again.out)

    def test_second_signal_ends_at_once(self):
        # Both signals are there when the stopped program goes on: whichever it reads second ends
        # it, long before a step of the wide net and its save are through.
        for more, line in (([], r"\[1\]\[10/13\]"), (["--save-interval", 3], "Saving checkpoint")):
            folder = self.scratch / ("save" if more else "step")
            running = self.start(folder, *more, width=4096, epochs=FOREVER)
            running.wait_for(line)
            running.send(signal.SIGSTOP)
            running.wait_until_stopped()
            running.send(signal.SIGINT)
            running.send(signal.SIGTERM)
            running.send(signal.SIGCONT)
            done = running.finish()
            self.assertIn(done.code, (128 + signal.SIGINT, 128 + signal.SIGTERM), done)
            self.assertNotIn("To resume", done.out)
            for name in demo.checkpoints(folder):
                self.assertTrue(demo.is_whole(folder / name), name)
        # What the save left half-written is swept by the next run, not read.
        half = demo.leftovers(folder)
        done = demo.train(folder, "--resume", "--save-interval", 100, width=4096, epochs=1)
        self.assert_succeeded(done)
        for name in half:
            self.assertIn(f"Removed {name}, left behind by an interrupted save", done.out)
        self.assertEqual(demo.leftovers(folder), [])


if __name__ == "__main__":
    demo.main()
