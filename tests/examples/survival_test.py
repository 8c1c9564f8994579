"""Which files remain under --keep, and the same training in every mode."""

import re
import zipfile

import demo


class Keep(demo.DemoTest):

    def test_exactly_the_newest_remain(self):
        for keep, names in ((3, ["iter_20.pth", "iter_24.pth", "iter_26.pth"]),
                            (1, ["iter_26.pth"]),
                            (-1, [f"iter_{n}.pth" for n in (4, 8, 12, 16, 20, 24, 26)])):
            with self.subTest(keep=keep):
                work = self.scratch / str(keep)
                self.assert_succeeded(demo.train(work, "--save-interval", 4, "--keep", keep))
                self.assertEqual(demo.checkpoints(work), names)
                self.assertEqual((work / "last_checkpoint").read_text(), f"{work}/iter_26.pth")
                self.assertEqual(demo.leftovers(work), [])

    def test_across_a_resume(self):
        work = self.scratch / "work"
        for epochs in (1, 2):
            self.assert_succeeded(demo.train(work, "--save-interval", 4, "--keep", 3, "--resume",
                                             epochs=epochs))
        self.assertEqual(demo.checkpoints(work), ["iter_20.pth", "iter_24.pth", "iter_26.pth"])


class Modes(demo.DemoTest):

    def weights(self, path):
        with zipfile.ZipFile(path) as archive:
            return [entry.CRC for entry in archive.infolist() if "/data/" in entry.filename]

    def test_every_mode_trains_the_same(self):
        # A wide net and small batches: a step comes to its writes long before a copy of the state
        # is through, so a gate that does not hold shows in the files.
        runs = {}
        for mode in ("blocking", "lazy", "eager", "auto"):
            work = self.scratch / mode
            done = demo.train(work, "--mode", mode, "--save-interval", 2, "--keep", 6,
                              "--batch-size", 4, data=demo.small_data(50), width=2048, epochs=1)
            self.assert_succeeded(done)
            shown = set(re.findall(r"^iter_\d+\.pth +(\w+)", done.out, re.M))
            self.assertTrue(shown == {mode} or mode == "auto" and len(shown) == 1, shown)
            runs[mode] = (demo.losses(done.out), re.findall("accuracy: .*?(?= )", done.out),
                          [self.weights(work / name) for name in demo.checkpoints(work)])
        self.assertEqual(len(runs["blocking"][0]), 2)
        self.assertGreater(len(runs["blocking"][2][0]), 30)
        for mode, run in runs.items():
            self.assertEqual(run, runs["blocking"], mode)


if __name__ == "__main__":
    demo.main()
