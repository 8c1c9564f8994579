"""Drives the digit trainer as a person would: starts it, reads its lines, sends it signals.

Every test gets a scratch folder and a data file of 1,000 digits (every fifth), so that an epoch is
13 iterations of a few milliseconds. Environment: MILLRACE_DEMO is the program, MILLRACE_DATA the
folder of mnist_5k.csv.gz.
"""

import gzip
import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import unittest
import unittest
import zipfile

PROGRAM = os.environ["MILLRACE_DEMO"]
FULL_DATA = pathlib.Path(os.environ["MILLRACE_DATA"]) / "mnist_5k.csv.gz"
EPOCH = 13  # iterations: 800 digits in batches of 64
TIMEOUT = 120
RUN_LOG = re.compile(r"^(.*/)?\d{8}_\d{6}(/.*\.log)?$")

_shared = tempfile.TemporaryDirectory(prefix="millrace-demo-")


def shared(name):
    """A path that lives as long as this process."""
    return pathlib.Path(_shared.name) / name


def small_data(every=5):
    """Every fifth digit, or fewer."""
    path = shared(f"digits-{every}.csv.gz")
    if not path.exists():
        with gzip.open(FULL_DATA, "rb") as full, gzip.open(path, "wb", compresslevel=1) as out:
            out.writelines(line for number, line in enumerate(full) if number % every == 0)
    return path


def arguments(work_dir, *more, data=None, width=16, epochs=2, threads=1):
    return [
        PROGRAM, "--work-dir", str(work_dir), "--data", str(data or small_data()), "--width",
        str(width), "--epochs", str(epochs), "--threads", str(threads), *map(str, more)
    ]


class Finished:

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def __str__(self):
        return f"exit code {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"


def finish(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, errors="replace",
                          timeout=TIMEOUT, stdin=subprocess.DEVNULL, check=False, **options)
    return Finished(done.returncode, done.stdout, done.stderr)


def train(work_dir, *more, **options):
    return finish(arguments(work_dir, *more, **options))


class Running:
    """A demo under way, whose lines are read as they come."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        stdin=subprocess.DEVNULL, text=True, errors="replace")
        self.lines = []

    def wait_for(self, pattern):
        """The first line from here on that matches."""
        for line in self.process.stdout:
            self.lines.append(line)
            match = re.search(pattern, line)
            if match:
                return match
        raise AssertionError(f"ended without a line like {pattern}:\n{self.finish()}")

    def wait_for_handlers(self):
        """Until the program catches SIGINT and SIGTERM, which is the first thing it does."""
        wanted = (1 << signal.SIGINT - 1) | (1 << signal.SIGTERM - 1)
        status = pathlib.Path(f"/proc/{self.process.pid}/status")
        while self.process.poll() is None:
            caught = re.search(r"SigCgt:\s*(\w+)", status.read_text()).group(1)
            if int(caught, 16) & wanted == wanted:
                return
        raise AssertionError(f"ended before it caught signals:\n{self.finish()}")

    def wait_until_stopped(self):
        """Until a SIGSTOP has taken effect."""
        stat = pathlib.Path(f"/proc/{self.process.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            pass

    def send(self, number):
        self.process.send_signal(number)

    def finish(self):
        out, err = self.process.communicate(timeout=TIMEOUT)
        return Finished(self.process.returncode, "".join(self.lines) + out, err)


def tree(folder):
    """{relative path: digest} of everything below, folders too."""
    folder = pathlib.Path(folder)
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found


def without_run_logs(files):
    return {name: digest for name, digest in files.items() if not RUN_LOG.match(name)}


def iteration(path):
    return int(re.fullmatch(r"iter_(\d+)\.pth", pathlib.Path(path).name).group(1))


def checkpoints(work_dir):
    """Names in the work dir, oldest first."""
    return sorted((path.name for path in pathlib.Path(work_dir).glob("*.pth")), key=iteration)


def is_whole(path):
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError):
        return False


def leftovers(work_dir):
    return [path.name for path in pathlib.Path(work_dir).iterdir() if path.name.startswith(".")]


def losses(text):
    """{(epoch, batch): (lr, loss)} of the log lines."""
    line = r"Epoch\(train\)\s+\[(\d+)\]\[\s*(\d+)/\d+\]\s+lr: (\S+) .* loss: (\S+)"
    return {(int(e), int(b)): (lr, loss) for e, b, lr, loss in re.findall(line, text)}


class DemoTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="millrace-demo-")
        self.addCleanup(folder.cleanup)
        self.scratch = pathlib.Path(folder.name)

    def start(self, work_dir, *more, **options):
        running = Running(arguments(work_dir, *more, **options))

        def end():
            if running.process.poll() is None:
                running.process.kill()
            running.process.wait()
            running.process.stdout.close()
            running.process.stderr.close()

        self.addCleanup(end)
        return running

    def copy_of(self, folder, name="copy"):
        return pathlib.Path(shutil.copytree(folder, self.scratch / name))

    def assert_resumed(self, done, file, epoch_length=EPOCH):
        """From exactly this checkpoint. The epoch that it ends may not be counted in it yet."""
        at = iteration(file)
        match = re.search(rf"Resumed from {re.escape(str(file))}, epoch: (\d+), iter: {at}$",
                          done.out, re.M)
        self.assertTrue(match, done)
        self.assertIn(int(match.group(1)), (at // epoch_length, (at - 1) // epoch_length))

    def assert_succeeded(self, done):
        self.assertEqual(done.code, 0, done)
        self.assertEqual(done.err, "", done)


def finished_run():
    """The work dir of a complete run of two epochs: iter_10, iter_20, iter_26. Copy it."""
    work = shared("finished")
    if not work.exists():
        done = train(work, "--save-interval", 10)
        assert done.code == 0, str(done)
    return work


def main():
    unittest.main(verbosity=2)
