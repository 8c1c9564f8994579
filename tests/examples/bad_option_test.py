"""Wrong options, folders and data: one message that says what to do, and nothing is touched."""

import gzip
import os
import shutil
import signal
import subprocess
import unittest

import demo

USAGE = range(100, 128)  # CLI11's exit codes
CONFIG = (2,)
OTHER = (1,)


class Refusal(demo.DemoTest):

    def refuse(self, codes, parts, *more, command=None, **options):
        work = self.scratch / "work"
        before = demo.tree(self.scratch)
        done = demo.finish(command or demo.arguments(work, *more, **options))
        self.assertIn(done.code, codes, done)
        for part in parts:
            self.assertIn(part, done.err, done)
        self.assertEqual(done.out, "", "errors belong on standard error")
        self.assertLessEqual(len(done.err.splitlines()), 3, done)
        self.assertLess(max(map(len, done.err.splitlines())), 300, done)
        self.assertEqual(demo.tree(self.scratch), before)
        return done


class BadOption(Refusal):

    def test_unknown_option_names_the_nearest(self):
        done = self.refuse(USAGE, ["--save-intervall", "did you mean '--save-interval'?", "--help"],
                           "--save-intervall", "3")
        self.assertNotIn("unknown option 3", done.err)
        self.refuse(USAGE, ["--kep=3", "did you mean '--keep'?"], "--kep=3")
        done = self.refuse(USAGE, ["--entirely-different"], "--entirely-different")
        self.assertNotIn("did you mean", done.err)
        self.refuse(USAGE, ["train"], "train")

    def test_unknown_value(self):
        self.refuse(USAGE, ["--mode", "'lzy'", "did you mean 'lazy'?", "blocking"], "--mode", "lzy")
        self.refuse(USAGE, ["--mode", "'x'", "auto, lazy, eager, blocking"], "--mode", "x")
        self.refuse(CONFIG, ["device", "'cpuu'", "did you mean 'cpu'?"], "--device", "cpuu")
        self.refuse(CONFIG, ["device", "'cuda:x'", "cuda:<number>"], "--device", "cuda:x")

    @unittest.skipIf(os.path.exists("/dev/nvidiactl"), "there is a GPU here")
    def test_no_gpu(self):
        for device in ("cuda", "cuda:1"):
            done = self.refuse(CONFIG, ["device", "the device cpu"], "--device", device)
            self.assertRegex(done.err, "no CUDA support|no NVIDIA driver|driver serves|no GPU is")

    def test_numbers(self):
        for option, value in [("--save-interval", "0"), ("--save-interval", "-5"),
                              ("--batch-size", "1e3"), ("--keep", "0"), ("--keep", "-2"),
                              ("--keep", "many"), ("--lr", "-0.1"), ("--lr", "nan"),
                              ("--lr", "inf"), ("--seed", "-1"),
                              ("--seed", "99999999999999999999")]:
            with self.subTest(option=option, value=value):
                self.refuse(USAGE, [option, f"'{value}'"], option, value)
        for option, value in [("width", "0"), ("width", "-64"), ("width", "wide"),
                              ("width", "100000000000"), ("epochs", "0"), ("epochs", "-1"),
                              ("epochs", "4611686018427387904"), ("epochs", "2.5"),
                              ("threads", "-1"), ("threads", "99999")]:
            with self.subTest(option=option, value=value):
                self.refuse(USAGE, ["--" + option, f"'{value}'"], **{option: value})

    def test_missing_value_and_contradiction(self):
        self.refuse(USAGE, ["--lr"], "--lr")
        self.refuse(USAGE, ["--resume", "--resume-from"], "--resume", "--resume-from", "x.pth")
        self.refuse(USAGE, ["--work-dir"], command=[demo.PROGRAM, "--work-dir", ""])


class BadData(Refusal):

    def setUp(self):
        super().setUp()
        self.file = self.scratch / "digits.csv.gz"

    def write(self, lines):
        with gzip.open(self.file, "wt") as out:
            out.writelines(line + "\n" for line in lines)

    def refuse_data(self, *parts):
        self.refuse(CONFIG, [str(self.file), *parts], data=self.file)

    def test_missing(self):
        self.refuse_data("cannot be opened", "make setup", "--data")

    def test_folder(self):
        self.file.mkdir()
        self.refuse_data("directory")

    def test_truncated(self):
        whole = demo.small_data().read_bytes()
        for size in (5, 1000, len(whole) // 2, len(whole) - 1):
            with self.subTest(size=size):
                self.file.write_bytes(whole[:size])
                self.refuse_data("truncated", "unexpected end of file")
        self.file.write_bytes(b"")
        self.refuse_data("no digit")

    def test_flipped_bit(self):
        data = bytearray(demo.small_data().read_bytes())
        data[len(data) // 2] ^= 4
        self.file.write_bytes(data)
        self.refuse_data("gzip")

    def test_gzip_of_something_else(self):
        self.write(["<html>not found</html>"])
        self.refuse_data("line 1", "784 pixels")

    def test_no_gzip(self):
        self.file.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))
        self.refuse_data("line 1", "784 pixels")

    def test_empty_table(self):
        self.write([])
        self.refuse_data("no digit")

    def test_wrong_columns_name_the_line(self):
        good = ",".join(["0"] * 784 + ["3"])
        for bad in (",".join(["0"] * 783 + ["3"]), good + ",1", good.replace("3", "11"),
                    "256" + good[1:], "-1" + good[1:], "x" + good[1:]):
            with self.subTest(bad=bad[:5] + ".." + bad[-5:]):
                self.write([good, good, bad, good])
                self.refuse_data("line 3", "784 pixels", "label 0..9")

    def test_too_few_digits(self):
        self.write([",".join(["0"] * 784 + ["3"])])
        self.refuse_data("too few digits")


class BadWorkDir(Refusal):

    def test_below_a_file(self):
        (self.scratch / "file").write_text("mine")
        for work in (self.scratch / "file", self.scratch / "file" / "work"):
            with self.subTest(work=work.name):
                self.refuse(OTHER, [str(work), "Not a directory"], command=demo.arguments(work))

    def test_below_proc(self):
        self.refuse(OTHER, ["/proc/millrace"], command=demo.arguments("/proc/millrace"))

    def test_without_permission(self):
        work = self.scratch / "theirs"
        work.mkdir()
        work.chmod(0o555)
        command = demo.arguments(work)
        if os.geteuid() == 0:
            if not shutil.which("setpriv"):
                self.skipTest("root may write everywhere, and there is no setpriv")
            rights = "-dac_override,-dac_read_search"
            command = ["setpriv", "--bounding-set", rights, "--inh-caps", rights, *command]
        self.refuse(OTHER, [str(work), "Permission denied", "work_dir"], command=command)

    def test_a_work_dir_that_another_process_writes_to(self):
        work = self.scratch / "work"
        first = self.start(work, epochs=100000)
        first.wait_for(r"Saving checkpoint|is durable|Epoch\(train\)")
        done = demo.finish(demo.arguments(work))
        self.assertIn(done.code, OTHER, done)
        for part in (str(work), "another run"):
            self.assertIn(part, done.err, done)
        self.assertLessEqual(len(done.err.splitlines()), 3, done)
        first.send(signal.SIGINT)
        self.assert_succeeded(first.finish())
        self.assert_succeeded(demo.train(work, "--resume", epochs=1))

    def test_read_only_file_system(self):
        work = self.scratch / "read-only"
        work.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", work], check=False,
                                 capture_output=True)
        if mounted.returncode != 0:
            self.skipTest("this user may not mount: " + mounted.stderr.decode().strip())
        self.addCleanup(subprocess.run, ["umount", "-l", work], check=True)
        self.refuse(OTHER, [str(work), "Read-only file system", "work_dir"],
                    command=demo.arguments(work))


if __name__ == "__main__":
    demo.main()
