"""Are parameters and precisions of a dynamic model recovered, and do their intervals cover the truth?

    python benchmarks/recovery.py [--sets 100] [--length 64] [--smoothness 0.5] [--only dem|filter|marginal]

Simulates series of a linear convolution model with known input in plain NumPy, dx/dt = A x + h u + w,
y = G x + z, w and z white noise convolved with a Gaussian kernel on a fine grid of time. One entry of A,
one of G and the log-precisions of z and w are unknown. Prints for every estimator the mean error with its
standard error, the spread of the estimates over the posterior's own deviation, and how many 95 % intervals
cover the truth (88 to 99 of 100 are wanted). `marginal`: the yardstick, the most probable values under the
exact density of the data and the curvature there, by dense matrices over the whole series.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import vfe

A = np.array([[-0.25, 1.0], [-0.5, -0.25]])
G = np.array([[0.125, 0.1633], [0.125, 0.0676], [0.125, -0.0676], [0.125, -0.1633]])
LOG_PRECISIONS = np.array([8.0, 6.0])
TRUTH = np.array([A[1, 0], G[0, 0], *LOG_PRECISIONS])
NAMES = ("A[1, 0]", "G[0, 0]", "ln precision of z", "ln precision of w")
PRIOR_MEAN, PRIOR_VARIANCE = np.array([0.0, 0.0, 6.0, 6.0]), np.array([np.exp(8), np.exp(8), 16.0, 16.0])
FINE = 16  # steps of the simulation per sample


def bumps(t: np.ndarray) -> np.ndarray:
    """The input: a bump every 16 samples."""
    return sum(np.exp(-((t - c) ** 2) / 4) for c in range(12, int(t[-1]) + 16, 16))


def smooth(rng: np.random.Generator, count: int, length: int, smoothness: float) -> np.ndarray:
    """Noise of unit variance, autocorrelation exp(−τ²/4s²), (length, count), τ in samples."""
    reach = int(np.ceil(6 * smoothness * FINE))
    kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * (smoothness * FINE) ** 2))
    kernel /= np.linalg.norm(kernel)
    white = rng.normal(size=(length + 2 * reach, count))
    return np.stack([np.convolve(column, kernel, "valid") for column in white.T], 1)


def simulate(rng: np.random.Generator, length: int, smoothness: float) -> np.ndarray:
    """Data (length, 4), states starting at zero a sample before the first."""
    grid = length * FINE + 1
    w = smooth(rng, 2, grid, smoothness) * np.exp(-LOG_PRECISIONS[1] / 2)
    z = smooth(rng, 4, grid, smoothness) * np.exp(-LOG_PRECISIONS[0] / 2)
    drive = w + bumps(np.arange(grid) / FINE)[:, None] * [1.0, 0.0]
    x, step = np.zeros(2), 1 / FINE
    y = np.empty((length, 4))
    for k in range(1, grid):
        before, after = drive[k - 1], drive[k]
        slope = A @ x + before
        x = x + step / 2 * (slope + A @ (x + step * slope) + after)  # Heun
        if k % FINE == 0:
            y[k // FINE - 1] = G @ x + z[k]
    return y


def model(smoothness: float) -> vfe.DynamicModel:
    """The model as a hierarchy in continuous time."""
    level = vfe.Level(
        lambda x, v, p: jnp.asarray(G).at[0, 0].set(p[1]) @ x,
        lambda x, v, p: jnp.asarray(A).at[1, 0].set(p[0]) @ x + jnp.array([1.0, 0.0]) * v[0],
        states=2,
        causes=1,
        parameters=PRIOR_MEAN[:2],
        parameter_covariance=PRIOR_VARIANCE[:2],
        observation_precision=vfe.Precision(
            components=[1.0], mean=PRIOR_MEAN[2], variance=PRIOR_VARIANCE[2]
        ),
        state_precision=vfe.Precision(components=[1.0], mean=PRIOR_MEAN[3], variance=PRIOR_VARIANCE[3]),
        cause_precision=np.exp(17.0),
    )
    return vfe.DynamicModel(level, smoothness=smoothness, dt=1.0)


def by_scheme(verb, y: np.ndarray, smoothness: float, sweeps: int) -> tuple[np.ndarray, np.ndarray]:
    """Estimates and deviations (sets, 4) of `vfe.dem` or `vfe.generalised_filter`, all series at once."""
    eta = bumps(np.arange(1.0, y.shape[1] + 1))[:, None]
    scheme = vfe.dynamics.Reference(sweeps=sweeps)
    found = verb(model(smoothness), y, prior_causes=eta, scheme=scheme)
    print(f"sweeps: {np.asarray(found.sweeps).min()} to {np.asarray(found.sweeps).max()}")
    return estimates(found)


def estimates(found) -> tuple[np.ndarray, np.ndarray]:
    """Means and deviations, parameters first."""
    return (
        np.concatenate([found.parameters.mean[0], found.log_precisions.mean], 1),
        np.concatenate([found.parameters.sd, found.log_precisions.sd], 1),
    )


def by_collapsed(y: np.ndarray, smoothness: float) -> tuple[np.ndarray, np.ndarray]:
    """The same of `vfe.dem` with states integrated out."""
    eta = bumps(np.arange(1.0, y.shape[1] + 1))[:, None]
    return estimates(vfe.fit(model(smoothness), y, prior_causes=eta))


def by_marginal(y: np.ndarray, smoothness: float) -> tuple[np.ndarray, np.ndarray]:
    """The most probable values under p(y | θ) p(θ), and the curvature there."""
    length, per = y.shape[1], 8
    t = jnp.arange(length * per + 1) / per
    u = jnp.asarray(bumps(np.arange(length * per + 1) / per))
    rho = lambda a, b: jnp.exp(-((a[:, None] - b) ** 2) / (4 * smoothness**2))  # noqa: E731
    seen = jnp.arange(1, length + 1) * per
    K, R = rho(t, t), rho(t[seen], t[seen])

    def energy(theta, y):
        a, g = jnp.asarray(A).at[1, 0].set(theta[0]), jnp.asarray(G).at[0, 0].set(theta[1])
        moves = jax.scipy.linalg.expm(a / per)
        _, powers = jax.lax.scan(lambda m, _: (moves @ m, m), jnp.eye(2), None, length=len(t))
        lag = seen[:, None] - jnp.arange(len(t))
        weight = jnp.where(lag >= 0, 1.0, 0.0) * jnp.where((lag == 0) | (jnp.arange(len(t)) == 0), 0.5, 1.0)
        H = jnp.where(lag[..., None, None] >= 0, powers[jnp.maximum(lag, 0)], 0.0) * weight[..., None, None]
        H = jnp.einsum("ix,tsxw->tisw", g, H) / per
        mean = jnp.einsum("tis,s->ti", H[..., 0], u)
        covariance = jnp.einsum("tisw,sr,ujrw->tiuj", H, K, H, optimize=True) * jnp.exp(-theta[3])
        covariance = covariance + jnp.einsum("tu,ij->tiuj", R, jnp.eye(4)) * jnp.exp(-theta[2])
        n = 4 * length
        factor = jnp.linalg.cholesky(covariance.reshape(n, n) + 1e-9 * jnp.eye(n))
        white = jax.scipy.linalg.solve_triangular(factor, (y - mean).ravel(), lower=True)
        prior = ((theta - PRIOR_MEAN) ** 2 / PRIOR_VARIANCE).sum() / 2
        return white @ white / 2 + jnp.log(jnp.diagonal(factor)).sum() + prior

    slope, bend = jax.jit(jax.grad(energy)), jax.jit(jax.hessian(energy))
    means, sds = [], []
    for series in y:
        theta = TRUTH.copy()
        for _ in range(8):
            theta = theta - np.linalg.solve(bend(theta, series), slope(theta, series))
        means.append(theta)
        sds.append(np.sqrt(np.diag(np.linalg.inv(bend(theta, series)))))
    return np.array(means), np.array(sds)


def table(name: str, means: np.ndarray, sds: np.ndarray) -> None:
    """One row for every unknown."""
    errors = means - TRUTH
    for k, what in enumerate(NAMES):
        e = errors[:, k]
        standard = e.std(ddof=1) / np.sqrt(len(e))
        covered = 100 * (np.abs(e) < 1.96 * sds[:, k]).mean()
        print(
            f"| {name} | {what} | {e.mean():.4f} ± {standard:.4f} | {e.std(ddof=1) / sds[:, k].mean():.2f} "
            f"| {covered:.0f} % |",
            flush=True,
        )


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sets", type=int, default=100)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--smoothness", type=float, default=0.5, help="in samples")
    parser.add_argument("--sweeps", type=int, default=64)
    parser.add_argument("--only", choices=["dem", "filter", "collapsed", "marginal"])
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    y = np.stack([simulate(rng, arguments.length, arguments.smoothness) for _ in range(arguments.sets)])
    print("| estimator | unknown | mean error | spread / own deviation | 95 % intervals cover |")
    print("| --- | --- | --- | --- | --- |")
    if arguments.only in (None, "dem"):
        table("vfe.dem", *by_scheme(vfe.dem, y, arguments.smoothness, arguments.sweeps))
    if arguments.only in (None, "filter"):
        found = by_scheme(vfe.generalised_filter, y, arguments.smoothness, arguments.sweeps)
        table("vfe.generalised_filter", *found)
    if arguments.only in (None, "collapsed"):
        table("vfe.fit", *by_collapsed(y, arguments.smoothness))
    if arguments.only in (None, "marginal"):
        table("marginal", *by_marginal(y, arguments.smoothness))


if __name__ == "__main__":
    main()
