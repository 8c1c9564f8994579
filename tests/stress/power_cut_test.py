"""Power cuts under a trainer that saves, rotates and replaces the best.

Its folder is on an ext4 image on a loop device, which is shut down without flushing its log
(EXT4_IOC_SHUTDOWN, as xfstests do it), so that every write, rename and unlink that no sync had made
durable is gone. Then fsck, mount, verify, resume, on the same image again and again. What the
trainer printed as committed must be there.

Needs root and loop devices. The device's own write cache is not part of the model.
"""

import fcntl
import os
import pathlib
import random
import shutil
import struct
import subprocess
import tempfile
import time
import unittest

import checkpoint_reading as reading
import stress
import trainer

SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
NO_LOG_FLUSH = 2
RUN = {"save": "iter", "interval": 3, "keep": 1, "width": 320, "validate": 6, "resume": "auto"}
EPOCH = 10  # iterations


def sh(*command, good=(0,)):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in good:
        raise RuntimeError(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")


class Disk:
    """An ext4 image and where it is mounted."""

    def __init__(self, folder):
        self.image, self.path = folder / "image", folder / "mounted"
        self.path.mkdir()
        with open(self.image, "wb") as file:
            file.truncate(64 << 20)
        sh("mkfs.ext4", "-q", "-F", str(self.image))

    def mount(self):
        sh("mount", "-o", "loop", str(self.image), str(self.path))

    def unmount(self):
        for _ in range(50):  # the killed process may still be on its way out
            if not os.path.ismount(self.path):
                return
            if subprocess.run(["umount", str(self.path)], capture_output=True).returncode != 0:
                time.sleep(0.1)
        sh("umount", "-l", str(self.path))

    def cut(self):
        folder = os.open(self.path, os.O_RDONLY)
        try:
            if os.fstat(folder).st_dev == os.stat(self.path.parent).st_dev:
                raise RuntimeError("not mounted: the cut would meet this machine's own disk")
            fcntl.ioctl(folder, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(folder)

    def repair(self):
        sh("e2fsck", "-p", str(self.image), good=(0, 1))  # replays the log
        sh("e2fsck", "-fn", str(self.image))


class PowerCuts(trainer.TrainerTest):

    def cut_once(self, disk, work, chance, before):
        """Returns what is there afterwards, and whether the cut found a save under way."""
        run = self.start(work_dir=work, epochs=100000, **RUN)
        while not run.said("resumed"):
            self.assertTrue(run.line(), f"ended by itself\n{run}")
        self.assertEqual(run.said("resumed"), [[str(before.iter if before else 0)]])
        for _ in range(chance.randint(1, 60)):
            self.assertTrue(run.line(), f"ended by itself\n{run}")
        time.sleep(chance.uniform(0, 0.02))
        disk.cut()
        run.kill()
        self.assertEqual(run.finish(), -9, run.errors)
        run.end()
        disk.unmount()
        disk.repair()
        disk.mount()
        newest = self.assert_nothing_committed_is_lost(run, work,
                                                       before.generation if before else 0)
        return newest and newest.identity, bool(reading.hidden(work))

    def test_nothing_committed_is_lost(self):
        chance = random.Random(stress.SEED)
        cuts = stress.count(3, 50)
        disk = Disk(self.scratch)
        work = disk.path / "work"
        self.addCleanup(disk.unmount)  # after the trainers, which are ended first
        disk.mount()
        newest, kept, inside = None, 0, 0
        for cut in range(cuts):
            with self.subTest(cut=cut, seed=stress.SEED):
                newest, in_save = self.cut_once(disk, work, chance, newest)
                kept += 1
                inside += in_save
        self.assertIsNotNone(newest)
        self.train(work_dir=work, epochs=newest.iter // EPOCH + 2, **RUN)
        self.assertEqual(reading.hidden(work), [])
        stress.report(f"power cuts on ext4: after {kept} of {cuts} all that was committed was "
                      f"there; {inside} left half-made files")


def obstacle():
    """Why this machine cannot do it, or nothing."""
    if os.geteuid() != 0:
        return "not root"
    for tool in ("mkfs.ext4", "e2fsck", "mount", "umount"):
        if shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None:
            return f"no {tool}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            disk = Disk(pathlib.Path(folder))
            disk.mount()
            disk.unmount()
        except (RuntimeError, OSError) as error:
            return f"no loop device can be mounted: {error}"
    return None


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    problem = obstacle()
    if problem:
        stress.skip("power cuts", problem)
    unittest.main(verbosity=2)
