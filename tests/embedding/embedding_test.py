"""Builds and runs a project around Millrace, as its user would: `project`, by add_subdirectory.

usage: embedding_test.py MILLRACE_SOURCE BUILD_DIRECTORY CMAKE NINJA COMPILER [LAUNCHER...]

LibTorch is not named here: Millrace finds it by itself. Nothing is optimized, and of the part with
LibTorch only one file is compiled. The directory is used again by the next run.
"""

import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

PROJECT = pathlib.Path(__file__).resolve().parent / "project"
# What only we need: tests, examples, benchmarks, and what they are made with.
OURS = re.compile(r"gtest|gmock|cli11|tests?\b|bench|fuzz|examples|mnist|quickstart", re.IGNORECASE)

source, build, cmake, ninja, compiler, launcher = None, None, None, None, None, None


def output_of(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", check=False)
    if done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def configure():
    """Anew each time: a default that changed counts."""
    return output_of(cmake, "--fresh", "-S", PROJECT, "-B", build, "-G", "Ninja",
                     f"-DCMAKE_MAKE_PROGRAM={ninja}", f"-DCMAKE_CXX_COMPILER={compiler}",
                     f"-DCMAKE_CXX_COMPILER_LAUNCHER={';'.join(launcher)}",
                     "-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O0",
                     f"-DMILLRACE_SOURCE={source}")


def build_target(target):
    output_of(cmake, "--build", build, "-j1", "--target", target)


def commands(target):
    return output_of(ninja, "-C", build, "-t", "commands", target).splitlines()


class Embedding(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.configured = configure()

    def test_only_the_libraries_are_there(self):
        targets = output_of(ninja, "-C", build, "-t", "targets", "all").splitlines()
        names = [line.rpartition(": ")[0] for line in targets]
        self.assertIn("millrace/hooks/libmillrace_hooks.a", names)
        # Libraries of the system are named by their path.
        self.assertEqual([n for n in names if not n.startswith("/") and OURS.search(n)], [])

    def test_the_projects_settings_hold(self):
        compiling = {c.rpartition(" ")[2]: c.split() for c in commands("all") if " -c " in c}
        self.assertGreater(len(compiling), 100)
        for path, words in compiling.items():
            self.assertFalse({"-Werror", "-O2"} & set(words), path)
            self.assertTrue("-O0" in words or not path.endswith(".cc"), path)
            if path.startswith(str(PROJECT)):
                self.assertEqual([word for word in words if word.startswith("-W")], [], path)

    def test_a_service_trains_and_resumes(self):
        build_target("service")
        with tempfile.TemporaryDirectory() as folder:
            work = pathlib.Path(folder, "work")
            service = pathlib.Path(build, "service")
            self.assertEqual(
                output_of(service, work, "2"),
                "newest epoch_2.pth, of iteration 4, after 4 steps: weight 2.42578, served\n")
            self.assertEqual(
                output_of(service, work, "3"),
                "newest epoch_3.pth, of iteration 6, after 2 steps: weight 2.74878, served\n")
            self.assertEqual(sorted(file.name for file in work.glob("*.pth")),
                             ["epoch_1.pth", "epoch_2.pth", "epoch_3.pth"])

    def test_a_file_with_a_model_compiles(self):
        self.assertRegex(self.configured, r"LibTorch: \d")
        build_target("torch_part")


if __name__ == "__main__":
    if len(sys.argv) < 6:
        sys.exit(__doc__)
    source, build, cmake, ninja, compiler, *launcher = sys.argv[1:]
    unittest.main(argv=sys.argv[:1], verbosity=2)
