"""Exact smoothing of long discrete chains: all times at once against one after the other.

    python benchmarks/discrete_chains.py [--steps 10000] [--states 2 4 8 16 32 64] [--repeats 5]

Prints medians of the wall time in milliseconds, compilation left out, for filter and smoother with F, and
how many times faster the parallel one is; and how joint states cost with 4096 of them.
"""

import argparse
import statistics
import time

import numpy as np

import vfe


def timed(function, repeats):
    """Median seconds of a call after the first."""
    function()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def random_chain(states, steps, seed=0):
    """A hidden Markov model with random tables, and outcomes."""
    rng = np.random.default_rng(seed)
    A = rng.dirichlet(np.full(4, 0.5), states).T
    B = rng.dirichlet(np.full(states, 0.5), states).T
    return vfe.discrete.HiddenMarkov(A, np.full(states, 1 / states), B), rng.integers(0, 4, steps)


def main():
    """The whole table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--states", type=int, nargs="+", default=[2, 4, 8, 16, 32, 64])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    one, all_at_once = vfe.dynamics.Sequential(), vfe.dynamics.ParallelInTime()
    print(f"{options.steps} steps; ms, medians of {options.repeats}; ratio: sequential / parallel")
    print(f"{'states':>7}{'':>9}{'sequential':>12}{'parallel':>12}{'ratio':>8}{'largest gap':>14}")
    for states in options.states:
        model, y = random_chain(states, options.steps)
        for name, verb in (("filter", vfe.filter), ("smooth", vfe.smooth)):
            gap = np.abs(verb(model, y, method=one).joint - verb(model, y, method=all_at_once).joint).max()
            times = [
                timed(lambda m=m, verb=verb, model=model, y=y: verb(model, y, method=m), options.repeats)
                for m in (one, all_at_once)
            ]
            first, second = (1e3 * t for t in times)
            print(f"{states:7d} {name:8}{first:12.1f}{second:12.1f}{first / second:8.2f}{gap:14.1e}")
    rng = np.random.default_rng(0)
    A = rng.dirichlet(np.ones(4), (3, 16)).swapaxes(1, 2)
    B = rng.dirichlet(np.ones(16), (3, 16)).swapaxes(1, 2)
    model = vfe.discrete.POMDP(list(A), list(B[..., None]), A_dependencies=[[f] for f in range(3)])
    y = rng.integers(0, 4, (100, 3))
    seconds = timed(lambda: vfe.smooth(model, y), options.repeats)
    print(f"4096 joint states (three factors of 16), 100 steps, smoothed with F: {1e3 * seconds:.1f} ms")


if __name__ == "__main__":
    main()
