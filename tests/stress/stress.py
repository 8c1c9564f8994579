"""How much of a stress test is run: a seeded share in `make test`, the whole in `make stress`."""

import os
import sys

WHOLE = os.environ.get("MILLRACE_STRESS") == "1"
SEED = int(os.environ.get("MILLRACE_SEED", "20260229"))  # set it to repeat a failure


def count(share, whole):
    return whole if WHOLE else share


def skip(what, reason):
    """Ends the program: ctest calls the test skipped, and the counts say why."""
    print(f"\nstress: {what}: skipped, {reason}", flush=True)
    sys.exit(77)


def report(text):
    """Shown above ctest's summary. `text` begins with what was done, then counts."""
    # unittest leaves the line of the test's name open.
    print(f"\nstress: {text}; seed {SEED}", flush=True)
