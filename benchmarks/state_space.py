"""The exact filter and smoother beside dynamax, in one process: ratios of time, and what compiling takes.

    python benchmarks/state_space.py [--blocks 30] [--parallel 1000]

Needs dynamax (`pip install dynamax`). A markdown table over sizes (samples, states, observed): the median
and the quartiles of the ratio of vfe's time to that of dynamax, after compilation, in interleaved blocks.
Both compute in float64; the calls of vfe are those a user writes, with their checks of the data, and the
free energy of the path is computed besides. `--parallel N`: how long the smoother of N samples that is
parallel in time takes to compile and to run, in vfe and, with `--dynamax-parallel`, in dynamax.
"""

import argparse
import time

import jax
import numpy as np
from timing import interleaved, ratio

import vfe

SIZES = [(120, 2, 1), (400, 6, 3), (400, 5, 4), (2000, 4, 2), (10000, 2, 1)]


def problem(samples: int, states: int, observed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A stable random system, and noise as its data."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(states, states)))[0]
    matrices = {
        "initial_mean": np.zeros(states),
        "initial_covariance": np.eye(states),
        "transition": 0.95 * rotation,
        "transition_covariance": 0.1 * np.eye(states),
        "observation": rng.normal(size=(observed, states)),
        "observation_covariance": 0.5 * np.eye(observed),
    }
    return matrices, rng.normal(size=(samples, observed))


def peer(matrices: dict[str, np.ndarray]):
    """The same model for dynamax."""
    from dynamax.linear_gaussian_ssm import LinearGaussianSSM

    observed, states = matrices["observation"].shape
    model = LinearGaussianSSM(states, observed)
    params, _ = model.initialize(
        jax.random.key(0),
        initial_mean=matrices["initial_mean"],
        initial_covariance=matrices["initial_covariance"],
        dynamics_weights=matrices["transition"],
        dynamics_covariance=matrices["transition_covariance"],
        emission_weights=matrices["observation"],
        emission_covariance=matrices["observation_covariance"],
    )
    return jax.tree.map(jax.numpy.asarray, params)


def sequential(blocks: int) -> None:
    """The table of ratios."""
    from dynamax.linear_gaussian_ssm import inference

    their_filter, their_smoother = jax.jit(inference.lgssm_filter), jax.jit(inference.lgssm_smoother)
    print("| samples, states, observed | filter | smoother | ms |\n| --- | --- | --- | --- |")
    for size in SIZES:
        matrices, y = problem(*size)
        model, params = vfe.StateSpace(**matrices), peer(matrices)
        y = jax.numpy.asarray(y)
        ours, theirs = vfe.smooth(model, y), their_smoother(params, y)
        np.testing.assert_allclose(ours.mean, theirs.smoothed_means, atol=1e-6)
        seconds = interleaved(
            {
                "filter": lambda m=model, y=y: vfe.filter(m, y),
                "smoother": lambda m=model, y=y: vfe.smooth(m, y),
                "their filter": lambda p=params, y=y: their_filter(p, y),
                "their smoother": lambda p=params, y=y: their_smoother(p, y),
            },
            blocks,
        )
        cells = []
        for name in ("filter", "smoother"):
            low, middle, high = ratio(seconds[name], seconds[f"their {name}"])
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
        times = ", ".join(f"{1e3 * np.median(s):.2f}" for s in seconds.values())
        print(f"| {', '.join(map(str, size))} | {cells[0]} | {cells[1]} | {times} |", flush=True)


def parallel(samples: int, dynamax: bool) -> None:
    """How long the smoothers that are parallel in time take to compile and to run."""
    matrices, y = problem(samples, 4, 2)
    model = vfe.StateSpace(**matrices)
    method = vfe.dynamics.ParallelInTime()
    runs = {"vfe": lambda: vfe.smooth(model, y, method=method)}
    if dynamax:
        from dynamax.linear_gaussian_ssm import parallel_inference

        params, theirs = peer(matrices), jax.jit(parallel_inference.lgssm_smoother)
        runs["dynamax"] = lambda: theirs(params, jax.numpy.asarray(y))
    for name, run in runs.items():
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            jax.block_until_ready(run())
            seconds.append(time.perf_counter() - start)
        first, _, then = seconds
        print(f"parallel in time, {name}, {samples} samples: first {first:.2f} s, then {then:.3f} s")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--parallel", type=int, default=1000)
    parser.add_argument("--dynamax-parallel", action="store_true")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    if arguments.blocks:
        sequential(arguments.blocks)
    parallel(arguments.parallel, arguments.dynamax_parallel)


if __name__ == "__main__":
    main()
