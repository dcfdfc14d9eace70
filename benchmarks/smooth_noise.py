"""Smoothing under smooth noise, against the best linear estimator and the path under the true covariance.

    python benchmarks/smooth_noise.py FOLDER [--only known|learned|lorenz|levels]

FOLDER holds series with known noise: `scalar_*.npz` (x' = −a x + w, y = x + v + e) and `lorenz_*.npz`, with
the error of the best linear estimator (`rmse_blue_smooth`) and of the most probable path under the true
noise covariance (`rmse_map_true_cov_best`). Prints for every case the error over that one, the mean squared
standardised error of x, and F in nats (−ln p(y); an approximation for Lorenz), then their means.
`learned`: smoothness and precisions by `vfe.fit`, from priors made alike for all.
`levels`: the same systems as a `vfe.DynamicModel` of two levels (white noise of the data below, smooth
noise above), by `vfe.filter` (beside `rmse_blue_filter`) and `vfe.smooth`.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import vfe
from vfe.dynamics import NonlinearSystem, smooth_noise_state_space

SPREAD = 0.5  # of the logarithm of every learned parameter, a priori


def report(name: str, mean, sd, truth, best: float, f: float, rows: list) -> None:
    """One line, and its numbers for the means."""
    ratio = float(np.sqrt(((mean - truth) ** 2).mean()) / best)
    rows.append((ratio, float((((mean - truth) / sd) ** 2).mean())))
    print(f"{name}: error {ratio:.3f}, standardised {rows[-1][1]:.2f}, F {f:.1f}", flush=True)


def scalar(path: Path, learned: bool, rows: list) -> None:
    """A linear system with one state."""
    d = np.load(path)
    dt, a, y = float(d["dt"]), float(d["a"]), d["y"][:, None]

    def build(p):
        return smooth_noise_state_space(
            [[-a]],
            [[1.0]],
            dt=dt,
            smoothness=p["smoothness"],
            state_sd=p["state"],
            observation_sd=p["observation"],
            white_sd=p["white"],
        )

    if learned:
        sd = y.std()
        # Half of the variance of y is noise, nearly all of it smooth.
        typical = {"smoothness": dt, "state": sd * a, "observation": sd / 2**0.5, "white": sd / 20}
        fitted = vfe.fit(build, y, prior={n: (v, SPREAD) for n, v in typical.items()})
        model = fitted.model
        print(
            {
                n: f"{float(v):.3g} ×/÷ {np.exp(float(fitted.log_sd[n])):.2f}"
                for n, v in fitted.value.items()
            }
        )
    else:
        model = build(
            {
                "smoothness": float(d["smoothness_samples"]) * dt,
                "state": float(d["sd_w"]),
                "observation": float(d["sd_v"]),
                "white": float(d["white_floor_sd"]),
            }
        )
    found = vfe.smooth(model, y)
    f = float(-found.log_evidence)
    report(path.stem, found.mean[:, 0], found.sd[:, 0], d["x_true"], d["rmse_blue_smooth"], f, rows)


def attractor(x):
    """Lorenz's flow."""
    return jnp.stack([10 * (x[1] - x[0]), x[0] * (28 - x[2]) - x[1], x[0] * x[1] - 8 / 3 * x[2]])


def lorenz(path: Path, white: bool, rows: list) -> None:
    """Lorenz's system, its first state seen."""
    d = np.load(path)
    dt = float(d["dt"])
    system = NonlinearSystem(
        flow=attractor,
        observe=lambda x: x[:1],
        dt=dt,
        smoothness=0.0 if white else float(d["smoothness_samples"]) * dt,
        state_sd=float(d["sd_w"]),
        observation_sd=float(d["sd_v"]),
        white_sd=float(d["white_floor_sd"]),
        initial_mean=d["initial_mean"],
        initial_covariance=d["initial_cov"],
    )
    found = vfe.smooth(system, d["y"][:, None])
    f = float(found.free_energy.total.sum())
    report(path.stem, found.mean, found.sd, d["x_true"], float(d["rmse_map_true_cov_best"]), f, rows)


def levels(path: Path, filtered: list, smoothed: list) -> None:
    """Either system as two levels: white noise of the data below smooth noise."""
    d = np.load(path)
    y, linear = d["y"][:, None], path.stem.startswith("scalar")
    floor = vfe.Level(
        lambda x, v, p: v, observation_precision=float(d["white_floor_sd"]) ** -2, smoothness=0.0
    )
    noise = {
        "observation_precision": float(d["sd_v"]) ** -2,
        "state_precision": float(d["sd_w"]) ** -2,
    }
    if linear:
        a = float(d["a"])
        above = vfe.Level(lambda x, v, p: x, lambda x, v, p: -a * x, states=1, **noise)
    else:
        start = {"states": d["initial_mean"], "initial_covariance": d["initial_cov"]}
        above = vfe.Level(lambda x, v, p: x[:1], lambda x, v, p: attractor(x), **start, **noise)
    dt = float(d["dt"])
    model = vfe.DynamicModel([floor, above], dt=dt, smoothness=float(d["smoothness_samples"]) * dt)
    # Scalar series are of a system at rest since long before: samples before the first are missing.
    before = 200 if linear else 0
    y = np.concatenate([np.full((before, 1), np.nan), y])
    for verb, rows in ((vfe.filter, filtered), (vfe.smooth, smoothed)):
        found = verb(model, y)
        best = f"rmse_blue_{verb.__name__}" if linear else "rmse_map_true_cov_best"
        mean, sd = found.states.mean[before:], found.states.sd[before:]
        truth = d["x_true"].reshape(mean.shape)
        f = float(-found.log_evidence)
        report(f"{path.stem}, {verb.__name__}", mean, sd, truth, float(d[best]), f, rows)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=["known", "learned", "lorenz", "levels"])
    arguments = parser.parse_args()
    for what in ("known", "learned"):
        if arguments.only in (None, what):
            rows: list = []
            for path in sorted(arguments.folder.glob("scalar_*.npz")):
                scalar(path, what == "learned", rows)
            print(what, "mean error and mean standardised:", np.mean(rows, 0).round(3))
    if arguments.only in (None, "lorenz"):
        for white in (False, True):
            rows = []
            for path in sorted(arguments.folder.glob("lorenz_*.npz")):
                lorenz(path, white, rows)
            errors, standardised = np.array(rows).T
            word = "white" if white else "smooth"
            mean = np.exp(np.log(errors).mean())
            print(f"{word} noise: geometric mean error {mean:.3f}, standardised {standardised.mean():.2f}")
    if arguments.only in (None, "levels"):
        for names in ("scalar", "lorenz"):
            both: tuple[list, list] = [], []
            for path in sorted(arguments.folder.glob(f"{names}_*.npz")):
                levels(path, *both)
            for word, rows in zip(("filter", "smooth"), both, strict=True):
                errors, standardised = np.array(rows).T
                mean = np.exp(np.log(errors).mean())
                print(
                    f"levels, {names}, {word}: geometric mean error {mean:.3f}, {standardised.mean():.2f}"
                )


if __name__ == "__main__":
    main()
