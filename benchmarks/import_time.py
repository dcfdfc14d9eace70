"""How long `import vfe` takes beside the three packages under it, and what it must not pull in.

    python benchmarks/import_time.py

Runs both imports in fresh processes, in turns, seven times each, and prints the ratio of the medians.
Ends with an error where the ratio is above 1.6 or a package for plots, agents or files was imported.
"""

import argparse
import statistics
import subprocess
import sys
import time

BASE = "import jax, numpyro, equinox"
OURS = "import vfe"
UNWANTED = ("matplotlib", "plotly", "sklearn", "diffrax", "orbax", "xarray", "gymnasium")
LARGEST_RATIO = 1.6


def seconds(statement: str) -> float:
    """How long one fresh process takes to run one statement."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def unwanted() -> list[str]:
    """Which of the unwanted packages `import vfe` loads."""
    code = f"import sys, vfe; print(*[n for n in {UNWANTED} if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return found.stdout.split()


def main() -> int:
    """Measure, print, and say by the exit code whether both promises hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="runs of each import (default: 7)")
    runs = parser.parse_args().runs
    for statement in (BASE, OURS):  # once each, to fill the file cache
        seconds(statement)
    times: dict[str, list[float]] = {BASE: [], OURS: []}
    for _ in range(runs):
        for statement in times:
            times[statement].append(seconds(statement))
    base, ours = (statistics.median(t) for t in times.values())
    ratio, loaded = ours / base, unwanted()
    print(f"{BASE}: {base:.2f} s")
    print(f"{OURS}: {ours:.2f} s")
    print(f"ratio: {ratio:.2f} (medians of {runs}; wanted at most {LARGEST_RATIO})")
    print(f"imported though not wanted: {', '.join(loaded) or 'none'}")
    return int(bool(loaded) or ratio > LARGEST_RATIO)


if __name__ == "__main__":
    sys.exit(main())
