"""A work dir that fills up: training goes on, what is saved stays, and the exit code tells."""

import shutil
import subprocess
import unittest

import demo


class FullDisk(demo.DemoTest):

    def setUp(self):
        super().setUp()
        self.mount = self.scratch / "disk"
        self.mount.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", self.mount],
                              check=False, capture_output=True, text=True)
        if done.returncode != 0:
            self.skipTest("needs a small file system, and this user may not mount one: " +
                          done.stderr.strip())
        self.addCleanup(subprocess.run, ["umount", "-l", self.mount], check=True)
        self.work = self.mount / "work"

    def test_saves_fail_and_training_goes_on(self):
        done = demo.train(self.work, "--save-interval", 4, "--keep", -1)
        self.assertEqual(done.code, 1, done)
        self.assertIn("No space left on device", done.err, done)
        self.assertIn("earlier checkpoints are intact", done.err, done)
        *warnings, error = done.err.splitlines()
        self.assertTrue(error.startswith("error: checkpoint "), done)
        for warning in warnings:
            self.assertRegex(warning, "^warning: the log has gaps: .*No space left on device")
        self.assertRegex(done.out, r"Epoch\(val\) +\[2\]\[1/1\]", "trained to the end")
        saved = demo.checkpoints(self.work)
        self.assertGreaterEqual(len(saved), 2, "the disk holds some")
        failed = [line for line in done.out.splitlines() if " - ERROR - " in line]
        self.assertEqual(len(saved) + len(failed), 7, done)  # 4, 8, .. 24 and the last, 26
        for line in failed:
            self.assertRegex(line, r"Saving iter_\d+\.pth failed.*No space left on device")
        for name in saved:
            self.assertTrue(demo.is_whole(self.work / name), name)
        self.assertEqual(demo.leftovers(self.work), [])
        pointer = (self.work / "last_checkpoint").read_text()
        self.assertEqual(pointer, str(self.work / saved[-1]))

        # On a larger disk the run continues from there.
        larger = shutil.copytree(self.work, self.scratch / "larger")
        done = demo.train(larger, "--resume")
        self.assert_succeeded(done)
        self.assertIn(f"Resumed from {larger}/{saved[-1]},", done.out)

    def test_rotation_frees_what_the_next_save_needs(self):
        done = demo.train(self.work, "--save-interval", 4, "--keep", 1)
        self.assert_succeeded(done)
        self.assertEqual(demo.checkpoints(self.work), ["iter_26.pth"])


if __name__ == "__main__":
    demo.main()
