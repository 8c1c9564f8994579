"""Files that cannot be resumed are refused by name and reason; automatic resume steps past them."""

import shutil
import struct
import unittest
import zipfile

import demo


def flip(path, entry):
    """Flips one bit in the middle of the zip entry that ends in `entry`."""
    with zipfile.ZipFile(path) as archive:
        info = next(i for i in archive.infolist() if i.filename.endswith(entry))
    data = bytearray(path.read_bytes())
    name, extra = struct.unpack_from("<HH", data, info.header_offset + 26)
    data[info.header_offset + 30 + name + extra + info.file_size // 2] ^= 16
    path.write_bytes(data)


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


class BadCheckpoint(demo.DemoTest):

    def setUp(self):
        super().setUp()
        self.work = self.copy_of(demo.finished_run())
        self.file = self.scratch / "given.pth"
        shutil.copy(self.work / "iter_26.pth", self.file)

    def refuse(self, *parts, file=None, **options):
        file = file or self.file
        before = demo.without_run_logs(demo.tree(self.scratch))
        done = demo.train(self.work, "--resume-from", file, epochs=3, **options)
        self.assertEqual(done.code, 1, done)
        for part in (str(file), *parts):
            self.assertIn(part, done.err, done)
        self.assertEqual(len(done.err.splitlines()), 1, done)
        self.assertNotIn("Epoch(train)", done.out)
        self.assertEqual(demo.without_run_logs(demo.tree(self.scratch)), before)

    def test_the_good_file_is_taken(self):
        done = demo.train(self.work, "--resume-from", self.file, epochs=3)
        self.assert_succeeded(done)
        self.assertIn(f"Resumed from {self.file}, epoch: 1, iter: 26", done.out)

    def test_missing_and_folder(self):
        self.refuse("can not be found", file=self.scratch / "missing.pth")
        self.refuse("directory", ".pth file in it", file=self.work)

    def test_truncated(self):
        size = self.file.stat().st_size
        for left in (size - 1, size // 2, 100):
            with self.subTest(left=left):
                cut(self.file, left)
                self.refuse("cut short" if left > 100 else "")

    def test_flipped_bit(self):
        whole = self.file.read_bytes()
        for entry in ("data/25", "data/0", "data.pkl", "millrace/state"):
            with self.subTest(entry=entry):
                self.file.write_bytes(whole)
                flip(self.file, entry)
                self.refuse(entry, "CRC-32", "damaged")

    def test_other_programs_files(self):
        def archive(*names):
            with zipfile.ZipFile(self.file, "w") as out:
                for name in names:
                    out.writestr(name, "<xml/>")

        def content(data):
            self.file.write_bytes(data)

        archive("[Content_Types].xml", "word/document.xml")
        self.refuse("an Office document")
        archive("notes.txt")
        self.refuse("a zip archive")
        content(b"\x89PNG\r\n\x1a\n" + bytes(5000))
        self.refuse("a PNG image")
        content(b"Remember the milk.\n" * 20)
        self.refuse("a text file")
        content(b"")
        self.refuse("an empty file")
        content(bytes(100000))
        self.refuse("a file of zeros")

    def test_another_model(self):
        self.refuse("another model", "hidden.weight: file [16, 1568], model [24, 1568]", width=24)

    def test_weights_only(self):
        import torch
        whole = torch.load(self.file, weights_only=True)
        torch.save(whole["state_dict"], self.file)
        self.refuse("cannot be resumed", "load_from")
        torch.save({key: whole[key] for key in ("state_dict", "meta")}, self.file)
        self.refuse("no optimizer state", "load_from")


class AutomaticResume(demo.DemoTest):

    def setUp(self):
        super().setUp()
        self.work = self.copy_of(demo.finished_run())
        self.newest = self.work / "iter_26.pth"

    def resume(self, taken, *skipped):
        """The next run starts from `taken` and says why it passed over the others."""
        done = demo.train(self.work, "--resume", "--keep", -1, "--save-interval", 10, epochs=2)
        self.assert_succeeded(done)
        self.assert_resumed(done, self.work / taken)
        for name, reason in skipped:
            self.assertRegex(done.out, rf"WARNING - Skipped {self.work}/{name}: .*{reason}.*\.\n")
        self.assertEqual(done.out.count("Skipped "), len(skipped), done)
        return done

    def test_whole(self):
        before = {path.name: path.read_bytes() for path in self.work.glob("*.pth")}
        self.resume("iter_26.pth")
        self.assertEqual({path.name: path.read_bytes() for path in self.work.glob("*.pth")}, before)

    def test_truncated(self):
        cut(self.newest, self.newest.stat().st_size // 2)
        self.resume("iter_20.pth", ("iter_26.pth", "truncated"))
        self.assertTrue(demo.is_whole(self.newest), "it was saved again")

    def test_flipped_bit(self):
        whole = self.newest.read_bytes()
        for entry in ("data/25", "data.pkl", "millrace/state"):
            with self.subTest(entry=entry):
                self.newest.write_bytes(whole)
                flip(self.newest, entry)
                self.resume("iter_20.pth", ("iter_26.pth", entry + ".*damaged"))

    def test_two_damaged(self):
        cut(self.newest, 0)
        flip(self.work / "iter_20.pth", "data/25")
        self.resume("iter_10.pth", ("iter_26.pth", "empty file"), ("iter_20.pth", "damaged"))

    def test_all_damaged_or_none(self):
        for name in demo.checkpoints(self.work):
            cut(self.work / name, 10)
        (self.work / "last_checkpoint").write_text(str(self.newest))
        for work in (self.work, self.scratch / "new"):
            with self.subTest(work=work.name):
                done = demo.train(work, "--resume", epochs=1)
                self.assert_succeeded(done)
                self.assertIn(f"Did not find a checkpoint to resume from in {work}: "
                              "starting from scratch", done.out)
                self.assertIn("iter_13.pth", demo.checkpoints(work))

    def test_all_damaged_in_a_copy(self):
        """The copied last_checkpoint still names the file in the directory it was copied from."""
        for name in demo.checkpoints(self.work):
            cut(self.work / name, 10)
        done = demo.train(self.work, "--resume", epochs=2)
        self.assert_succeeded(done)
        self.assert_resumed(done, demo.finished_run() / "iter_26.pth")


if __name__ == "__main__":
    demo.main()
