"""Graphs of every kind, each against a hand computation in plain NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from helpers import assert_close, gaussian_energy, normal_energy

import vfe

pytestmark = pytest.mark.usefixtures("float64")


def diagonal(model, means, sds):
    """A fully factorised Gaussian belief about scalar or vector nodes."""
    variances = np.concatenate([np.ravel(sds[n]) ** 2 for n in means])
    return vfe.DiagonalGaussian.from_moments(model, means, np.diag(variances))


def entropy(sd):
    return float(np.sum(0.5 * np.log(2 * np.pi * np.e) + np.log(sd)))


@pytest.mark.core
def test_supervised_graph_with_observed_ancestors():
    """u → c → h → y with c observed: complexity is KL(q ‖ p(h ∣ do(c))), not KL(q ‖ p(h)).

    c has its own density, so its energy is part of the accuracy; u is given and has none.
    """
    rng = np.random.default_rng(0)
    a, b, w = rng.normal(size=(2, 3)), rng.normal(size=(2, 2)), rng.normal(size=(4, 2))
    model = vfe.Model(
        u=vfe.given(3),
        c=vfe.gaussian(vfe.Affine(a), scale=0.7, parents="u"),
        h=vfe.gaussian(vfe.Affine(b, np.array([0.1, -0.2])), scale=[0.5, 2.0], parents="c"),
        y=vfe.gaussian(vfe.Affine(w), scale=0.3, parents="h"),
    )
    u, c, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 2)), rng.normal(size=(6, 4))
    m, s = rng.normal(size=(6, 2)), rng.uniform(0.2, 1.5, size=(6, 2))
    belief = vfe.DiagonalGaussian.from_moments(model, {"h": m}, np.einsum("ni,ij->nij", s**2, np.eye(2)))
    found = vfe.free_energy(model, belief, {"u": u, "c": c, "y": y})
    prior_mean, prior_sd = c @ b.T + [0.1, -0.2], np.array([0.5, 2.0])
    kl = (np.log(prior_sd / s) + (s**2 + (m - prior_mean) ** 2) / (2 * prior_sd**2) - 0.5).sum(1)
    energy_c = normal_energy(c, u @ a.T, 0.49).sum(1)
    energy_y = normal_energy(y, m @ w.T, 0.09).sum(1) + (s**2 @ (w**2).T).sum(1) / (2 * 0.09)
    assert_close(found.complexity, kl, 1e-12, "complexity")
    assert_close(found.accuracy, -energy_c - energy_y, 1e-12, "accuracy")
    assert_close(found.total, kl + energy_c + energy_y, 1e-12, "F")
    assert set(found.by_level) == {"c", "h", "y"}
    # F bounds −ln p(c, y ∣ u), in closed form.
    covariance = w @ np.diag(prior_sd**2) @ w.T + 0.09 * np.eye(4)
    surprise = energy_c + [gaussian_energy(y[i], w @ prior_mean[i], covariance) for i in range(6)]
    percept = vfe.perceive(model, {"u": u, "c": c, "y": y})
    assert_close(percept.free_energy.total, surprise, 1e-9, "−ln p")
    assert_close(-vfe.exact.log_evidence(model, {"u": u, "c": c, "y": y}), surprise, 1e-10)


def test_given_inputs_several_parents():
    """Two parents with a matrix each, one of them an input: the moments by hand."""
    rng = np.random.default_rng(1)
    w, v = rng.normal(size=(3, 2)), rng.normal(size=(3, 4))
    model = vfe.Model(
        u=vfe.given(4),
        z=vfe.gaussian(np.zeros(2)),
        x=vfe.gaussian(vfe.Affine((w, v)), covariance=0.5 * np.eye(3) + 0.1, parents=("z", "u")),
    )
    u, x = rng.normal(size=(3, 4)), rng.normal(size=(3, 3))
    noise = 0.5 * np.eye(3) + 0.1
    precision = np.eye(2) + w.T @ np.linalg.solve(noise, w)
    means = np.linalg.solve(precision, w.T @ np.linalg.solve(noise, (x - u @ v.T).T)).T
    posterior = vfe.exact.posterior(model, {"u": u, "x": x})
    assert_close(posterior["z"].mean, means, 1e-12)
    assert_close(posterior["z"].covariance[1], np.linalg.inv(precision), 1e-12)


@pytest.mark.core
def test_shared_latent():
    """One unknown mean shared by the data set: the conjugate posterior and the whole data's evidence."""
    rng = np.random.default_rng(2)
    x = 1.5 + rng.normal(size=20)
    model = vfe.Model(
        m=vfe.gaussian(np.zeros(1), scale=2.0, shared=True),
        x=vfe.gaussian(vfe.Affine(np.eye(1)), scale=0.8, parents="m"),
    )
    precision = 1 / 4 + 20 / 0.64
    mean = x.sum() / 0.64 / precision
    surprise = gaussian_energy(x, np.zeros(20), 4.0 + 0.64 * np.eye(20))
    percept = vfe.perceive(model, {"x": x[:, None]})
    assert_close(percept.belief["m"].mean, [mean], 1e-10)
    assert_close(percept.belief["m"].variance, [1 / precision], 1e-12)
    assert_close(percept.free_energy.total, surprise, 1e-10)
    assert_close(-vfe.exact.log_evidence(model, {"x": x[:, None]}), surprise, 1e-10)
    found = vfe.free_energy(model, percept.belief, {"x": x[:, None]})
    each = normal_energy(x, mean, 0.64) + 0.5 / precision / 0.64
    assert_close(found.per_observation, each, 1e-10)
    prior = normal_energy(mean, 0.0, 4.0) + 0.5 / precision / 4 - entropy(precision**-0.5)
    assert_close(found.shared_part, prior, 1e-10)


def test_shared_latent_above_local_ones():
    """m → z_n → x_n: shared and local posteriors from the joint Gaussian of everything at once."""
    rng = np.random.default_rng(3)
    n = 5
    x = rng.normal(size=n) + 1
    model = vfe.Model(
        m=vfe.gaussian(np.zeros(1), shared=True),
        z=vfe.gaussian(vfe.Affine(np.array([[2.0]])), scale=0.5, parents="m"),
        x=vfe.gaussian(vfe.Affine(np.eye(1)), scale=0.3, parents="z"),
    )
    # Rows: m, z_1 … z_n, x_1 … x_n as linear functions of independent noise.
    mixing = np.zeros((2 * n + 1, 2 * n + 1))
    mixing[0, 0] = 1
    for i in range(n):
        mixing[1 + i, [0, 1 + i]] = 2.0, 0.5
        mixing[1 + n + i] = mixing[1 + i]
        mixing[1 + n + i, 1 + n + i] = 0.3
    joint = mixing @ mixing.T
    h, o = slice(0, n + 1), slice(n + 1, None)
    gain = joint[h, o] @ np.linalg.inv(joint[o, o])
    mean, covariance = gain @ x, joint[h, h] - gain @ joint[o, h]
    posterior = vfe.exact.posterior(model, {"x": x[:, None]})
    assert_close(np.ravel(posterior["m"].mean), mean[:1], 1e-11)
    assert_close(np.ravel(posterior["z"].mean), mean[1:], 1e-11)
    assert_close(posterior.covariance(), covariance, 1e-11)
    surprise = gaussian_energy(x, np.zeros(n), joint[o, o])
    assert_close(vfe.free_energy(model, posterior, {"x": x[:, None]}).total, surprise, 1e-10)


def test_plate():
    """A plate of three groups: each group's conjugate posterior from its own observations only."""
    rng = np.random.default_rng(4)
    group = np.array([0, 2, 2, 0, 0, 2])
    x = rng.normal(size=6) + 2.0 * group
    subjects = vfe.plate("subject", 3)
    model = vfe.Model(
        m=vfe.gaussian(np.zeros(1), scale=3.0, plate=subjects),
        x=vfe.gaussian(vfe.Affine(np.eye(1)), scale=0.5, parents="m"),
    )
    data = {"x": x[:, None], "subject": group}
    posterior = vfe.exact.posterior(model, data)
    surprise = 0.0
    for k in range(3):
        own = x[group == k]
        precision = 1 / 9 + own.size / 0.25
        assert_close(np.ravel(posterior["m"].mean)[k], own.sum() / 0.25 / precision, 1e-11)
        assert_close(np.ravel(posterior["m"].variance)[k], 1 / precision, 1e-12)
        if own.size:
            covariance = 9.0 + 0.25 * np.eye(own.size)
            surprise += gaussian_energy(own, np.zeros(own.size), covariance)
    assert_close(vfe.free_energy(model, posterior, data).total, surprise, 1e-10)
    order = np.array([5, 0, 3, 1, 4, 2])
    again = vfe.exact.posterior(model, {"x": x[order, None], "subject": group[order]})
    assert_close(again["m"].mean, posterior["m"].mean, 1e-12)


@pytest.mark.core
def test_discrete_above_continuous():
    """l → z → x, a mixture: F = −ln Σ_l exp(−F_l), q(l) ∝ exp(−F_l), all by hand."""
    rng = np.random.default_rng(5)
    p = np.array([0.2, 0.5, 0.3])
    centres, scales, w = rng.normal(size=(3, 2)) * 2, np.array([0.5, 1.0, 0.2]), rng.normal(size=(4, 2))
    model = vfe.Model(
        l=vfe.categorical(p),
        z=vfe.gaussian(vfe.Table(centres), scale=vfe.Table(scales), parents="l"),
        x=vfe.gaussian(vfe.Affine(w), scale=0.6, parents="z"),
    )
    x = rng.normal(size=(5, 4))
    logs = np.empty((5, 3))
    means = np.empty((5, 3, 2))
    for i, k in itertools.product(range(5), range(3)):
        covariance = scales[k] ** 2 * w @ w.T + 0.36 * np.eye(4)
        logs[i, k] = np.log(p[k]) - gaussian_energy(x[i], w @ centres[k], covariance)
        precision = np.eye(2) / scales[k] ** 2 + w.T @ w / 0.36
        means[i, k] = np.linalg.solve(precision, centres[k] / scales[k] ** 2 + w.T @ x[i] / 0.36)
    evidence = scipy.special.logsumexp(logs, axis=1)
    q = np.exp(logs - evidence[:, None])
    for percept in (
        vfe.perceive(model, {"x": x}),
        vfe.perceive(
            model, {"x": x}, belief=vfe.Enumerated("l", vfe.Laplace), solver=vfe.ErrorCoordinates()
        ),
    ):
        assert_close(percept.free_energy.total, -evidence, 1e-9, "F")
        assert_close(percept.belief["l"].probabilities, q, 1e-9, "q(l)")
        assert_close(percept.belief["z"].mean, np.einsum("nk,nki->ni", q, means), 1e-8, "⟨z⟩")
    assert_close(vfe.exact.log_evidence(model, {"x": x}), evidence, 1e-11)
    posterior = vfe.exact.posterior(model, {"x": x})
    found = vfe.free_energy(model, posterior, {"x": x})
    assert found.kind is vfe.Kind.exact
    assert_close(found.total, -evidence, 1e-10, "F of the exact posterior")
    label = -(q * np.log(q)).sum(1)
    assert_close(found.entropies["l"], label, 1e-9, "entropy of the label")
    assert_close(found.hidden["l"], -(q * np.log(p)).sum(1), 1e-9, "energy of the label")
    # With the label known, what is left is one Gaussian.
    known = vfe.exact.log_evidence(model, {"x": x, "l": np.array([0, 1, 2, 1, 1])})
    assert_close(known, logs[np.arange(5), [0, 1, 2, 1, 1]], 1e-11)


def test_masked_labels():
    """Labels known for some rows only: known rows have the joint evidence, the others the marginal one."""
    p, centres = np.array([0.3, 0.7]), np.array([[-1.0], [2.0]])
    model = vfe.Model(l=vfe.categorical(p), x=vfe.gaussian(vfe.Table(centres), scale=0.9, parents="l"))
    x = np.array([[0.1], [0.4], [-2.0], [1.0]])
    labels, known = np.array([1, 0, 0, 1]), np.array([True, False, True, False])
    logs = np.log(p) - normal_energy(x, centres.T, 0.81)
    want = np.where(known, logs[np.arange(4), labels], scipy.special.logsumexp(logs, axis=1))
    data = {"x": x, "l": vfe.masked(labels, known)}
    percept = vfe.perceive(model, data)
    assert_close(percept.free_energy.total, -want, 1e-12)
    assert_close(vfe.exact.log_evidence(model, data), want, 1e-12)
    posterior = np.exp(logs - scipy.special.logsumexp(logs, axis=1, keepdims=True))
    posterior[known] = np.eye(2)[labels[known]]
    assert_close(percept.belief["l"].probabilities, posterior, 1e-12)
    # What is known of the label counts as observed, what is not as hidden.
    assert_close(percept.free_energy.observed["l"], np.where(known, -np.log(p)[labels], 0.0), 1e-12)


@pytest.mark.core
def test_masked_full_covariance_leaf():
    """Missing elements of a correlated leaf: the sub-block of the covariance, not of the precision."""
    rng = np.random.default_rng(6)
    w, root = rng.normal(size=(4, 2)), rng.normal(size=(4, 4))
    noise = root @ root.T + 0.3 * np.eye(4)
    model = vfe.Model(
        z=vfe.gaussian(np.zeros(2)), x=vfe.gaussian(vfe.Affine(w), covariance=noise, parents="z")
    )
    x = rng.normal(size=(4, 4))
    present = np.array([[1, 0, 1, 1], [1, 1, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0]], bool)
    data = {"x": np.where(present, x, np.nan)}
    percept = vfe.perceive(model, data)
    evidence = vfe.exact.log_evidence(model, data)
    for i, keep in enumerate(present):
        block = np.ix_(keep, keep)
        marginal = (w @ w.T + noise)[block]
        surprise = gaussian_energy(x[i, keep], np.zeros(keep.sum()), marginal) if keep.any() else 0.0
        assert_close(-evidence[i], surprise, 1e-11, "evidence")
        assert_close(percept.free_energy.total[i], surprise, 1e-10, "F")
        inner = np.linalg.inv(noise[block]) if keep.any() else np.zeros((0, 0))
        precision = np.eye(2) + w[keep].T @ inner @ w[keep]
        assert_close(
            percept.belief["z"].mean[i], np.linalg.solve(precision, w[keep].T @ inner @ x[i, keep]), 1e-10
        )
        assert_close(percept.belief["z"].covariance[i], np.linalg.inv(precision), 1e-10)
    # Given q, the accuracy by hand: ⟨ln N(x_present; W z, block)⟩.
    m, s = np.array([0.3, -0.4]), np.array([0.5, 0.8])
    found = vfe.free_energy(model, diagonal(model, {"z": m}, {"z": s}), data)
    for i, keep in enumerate(present):
        inner = np.linalg.inv(noise[np.ix_(keep, keep)])
        spread = 0.5 * np.trace(inner @ w[keep] @ np.diag(s**2) @ w[keep].T)
        want = (
            gaussian_energy(x[i, keep], w[keep] @ m, noise[np.ix_(keep, keep)]) + spread
            if keep.any()
            else 0.0
        )
        assert_close(-found.accuracy[i], want, 1e-11)


def test_missing_elements_in_a_node_with_children():
    """z → y → x with y partly observed: its missing elements become hidden, the rest stays evidence."""
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(3, 2)), rng.normal(size=(2, 3))
    model = vfe.Model(
        z=vfe.gaussian(np.zeros(2)),
        y=vfe.gaussian(vfe.Affine(a), scale=0.5, parents="z"),
        x=vfe.gaussian(vfe.Affine(b), scale=0.4, parents="y"),
    )
    # The joint Gaussian of (z, y, x) from its linear map of independent noise.
    mixing = np.zeros((7, 7))
    mixing[:2, :2] = np.eye(2)
    mixing[2:5] = np.hstack([a, 0.5 * np.eye(3), np.zeros((3, 2))])
    mixing[5:] = np.hstack([b @ mixing[2:5, :5], 0.4 * np.eye(2)])
    joint = mixing @ mixing.T
    values = mixing @ rng.normal(size=(7, 3))
    y, x = values[2:5].T.copy(), values[5:].T
    present = np.array([[1, 0, 1], [1, 1, 1], [0, 0, 0]], bool)
    data = {"y": np.where(present, y, np.nan), "x": x}
    percept = vfe.perceive(model, data, rtol=1e-12, atol=1e-10, throw=False)
    evidence = vfe.exact.log_evidence(model, data)
    for i, keep in enumerate(present):
        seen = np.concatenate([2 + np.flatnonzero(keep), [5, 6]])
        observed = np.concatenate([y[i, keep], x[i]])
        inner = np.linalg.inv(joint[np.ix_(seen, seen)])
        surprise = gaussian_energy(observed, np.zeros(seen.size), joint[np.ix_(seen, seen)])
        assert_close(-evidence[i], surprise, 1e-10, "evidence")
        assert_close(percept.free_energy.total[i], surprise, 1e-9, "F")
        mean = joint[:, seen] @ inner @ observed
        assert_close(percept.belief["z"].mean[i], mean[:2], 1e-8, "z")
        assert_close(percept.belief["y"].mean[i][~keep], mean[2:5][~keep], 1e-8, "missing elements")
    # Draws keep what was observed.
    import jax

    drawn = percept.sample(jax.random.key(0), (3,))["y"]
    assert_close(np.asarray(drawn)[:, present], np.broadcast_to(y[present], (3, present.sum())), 1e-12)


def test_bernoulli_and_masked_pixels():
    """Binary pixels: accuracy of a Point by hand, missing pixels left out."""
    rng = np.random.default_rng(8)
    w = rng.normal(size=(6, 2))
    model = vfe.Model(z=vfe.gaussian(np.zeros(2)), x=vfe.bernoulli(vfe.Affine(w), parents="z"))
    x = rng.integers(0, 2, (3, 6))
    present = rng.uniform(size=(3, 6)) < 0.7
    z = rng.normal(size=(3, 2))
    logits = z @ w.T
    each = np.where(x == 1, np.log1p(np.exp(-logits)), np.log1p(np.exp(logits)))
    point = vfe.Point.from_values(model, {"z": z})
    found = vfe.free_energy(model, point, {"x": vfe.masked(x, present)})
    assert_close(-found.accuracy, (each * present).sum(1), 1e-12)
    assert_close(found.prior_energy, normal_energy(z, 0.0, 1.0).sum(1), 1e-12)
    floats = np.where(present, x, np.nan)
    assert_close(vfe.free_energy(model, point, {"x": floats}).total, found.total, 1e-14)


def test_gamma_support():
    """A positive latent: F of a log-normal q with its log-Jacobian, against a numerical integral.

    F = ∫ q(τ) [ln q(τ) − ln p(τ) − ln p(x ∣ τ)] dτ does not depend on the coordinates.
    """
    model = vfe.Model(
        t=vfe.gamma(3.0, 2.0),
        x=vfe.gaussian(0.0 * np.ones(1), scale=1.0, parents=()),
        y=vfe.gaussian(lambda t: jnp.zeros(()), precision=lambda t: t, parents="t"),
    )
    x, y = np.array([0.2]), 1.3
    m, s = 0.1, 0.4
    layout = vfe.perceive(model, {"x": x, "y": y}, belief=vfe.Point).belief.layout
    belief = vfe.DiagonalGaussian(layout, jnp.array([m]), jnp.log(jnp.array([s])))
    q, p = scipy.stats.lognorm(s, scale=np.exp(m)), scipy.stats.gamma(3.0, scale=0.5)

    def integrate(f):
        return scipy.integrate.quad(lambda t: q.pdf(t) * f(t), 0, 40, limit=400, epsabs=1e-12)[0]

    kl = integrate(lambda t: q.logpdf(t) - p.logpdf(t))
    inaccuracy = integrate(lambda t: normal_energy(y, 0.0, 1 / t)) + normal_energy(0.2, 0.0, 1.0)
    found = vfe.free_energy(model, belief, {"x": x, "y": y}, expectation=vfe.MonteCarlo(200_000))
    assert found.kind is vfe.Kind.monte_carlo
    error = float(found.standard_error)
    assert 0 < error < 5e-3
    assert abs(float(found.total) - float(kl + inaccuracy)) < 4 * error
    assert abs(float(found.complexity) - kl) < 4 * error
    assert_close(belief.log_density({"t": np.array(1.7)}), q.logpdf(1.7), 1e-12)
    # The mode in unconstrained coordinates u = ln τ counts the Jacobian: of E(u) = E(τ) − u.
    point = vfe.perceive(model, {"x": x, "y": y}, belief=vfe.Point, rtol=1e-12, atol=1e-11, throw=False)
    # E = −(2 + ½) ln τ + (2 + y²/2) τ − ln τ + …, so τ = 3.5 / (2 + y²/2).
    assert_close(point.belief["t"].mean, 3.5 / (2 + y**2 / 2), 1e-8)
    want = -p.logpdf(point.belief["t"].mean) - np.log(point.belief["t"].mean)
    assert_close(point.free_energy.prior_energy, want, 1e-10)


def test_dirichlet_support():
    """A probability vector above counts: −ln p(x) by importance weights of the library's own energies.

    ∫ exp(−E(u)) du over the unconstrained coordinates, Jacobian included, is B(α + n) / B(α).
    """
    from vfe.conditioning import condition

    alpha = np.array([1.5, 2.0, 3.0])
    model = vfe.Model(
        p=vfe.dirichlet(alpha, shared=True),
        k=vfe.categorical(logits=lambda p: jnp.log(p), parents="p"),
    )
    k = np.array([0, 2, 2, 1, 2])
    counts = np.bincount(k, minlength=3)

    def log_beta(a):
        return scipy.special.gammaln(a).sum() - scipy.special.gammaln(a.sum())

    want = log_beta(alpha + counts) - log_beta(alpha)
    conditioned, _ = condition(model, {"k": k})
    grid = np.linspace(-9, 9, 181)
    u = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    import jax

    energies = np.asarray(jax.jit(jax.vmap(conditioned.energy))(u))
    total = np.exp(-energies).sum() * (grid[1] - grid[0]) ** 2
    assert np.log(total) == pytest.approx(want, abs=1e-6)
    percept = vfe.perceive(model, {"k": k}, belief=vfe.JointGaussian, solver=vfe.Descent())
    error = float(percept.free_energy.standard_error)
    assert float(percept.free_energy.total) > -want - 4 * error
    assert float(percept.free_energy.total) < -want + 0.2
    posterior = scipy.stats.dirichlet(alpha + counts)
    assert_close(percept.belief["p"].mean, posterior.mean(), 0.02)
    assert_close(np.sum(percept.belief["p"].mean), 1.0, 1e-12)


def test_pruned_nodes():
    """A hidden node without observed descendants integrates out: it changes nothing, and has no level."""
    nodes = {
        "z": vfe.gaussian(np.zeros(1)),
        "x": vfe.gaussian(vfe.Affine(np.eye(1)), scale=0.5, parents="z"),
    }
    extra = {
        "w": vfe.gaussian(vfe.Affine(np.ones((2, 1))), scale=0.1, parents="z"),
        "v": vfe.gaussian(vfe.Affine(np.ones((1, 2))), parents="w"),
    }
    x = np.array([[0.3], [1.1]])
    small, large = (
        vfe.perceive(vfe.Model(**nodes), {"x": x}),
        vfe.perceive(vfe.Model(**nodes, **extra), {"x": x}),
    )
    assert_close(large.free_energy.total, small.free_energy.total, 1e-12)
    assert_close(large.free_energy.total, normal_energy(x[:, 0], 0.0, 1.25), 1e-10)
    assert set(large.free_energy.by_level) == {"z", "x"}
    # Draws of pruned nodes follow the model: v = 2 z + noise of variance 2 · .01 + 1.
    import jax

    drawn = large.sample(jax.random.key(0), (4000,))
    mean, variance = 0.8 * x[:, 0], 0.2
    assert_close(np.asarray(drawn["v"]).mean(0)[:, 0], 2 * mean, 0.1)
    assert_close(np.asarray(drawn["v"]).var(0)[:, 0], np.full(2, 4 * variance + 1.02), 0.1)


def test_ancestral_samples():
    """`Model.sample`: moments of the joint, held nodes, shapes."""
    import jax

    w = np.array([[1.0, -2.0]])
    model = vfe.Model(
        z=vfe.gaussian(np.array([1.0, 0.5]), scale=[1.0, 0.5]),
        u=vfe.given(1),
        x=vfe.gaussian(vfe.Affine((w, np.eye(1))), scale=0.3, parents=("z", "u")),
    )
    drawn = model.sample(jax.random.key(0), given={"u": np.array([[0.0], [10.0]])}, shape=(4000,))
    assert drawn["x"].shape == (4000, 2, 1)
    assert_close(np.asarray(drawn["x"]).mean(0)[:, 0], [0.0, 10.0], 0.01)
    assert_close(np.asarray(drawn["x"]).var(0)[:, 0], [1 + 1 + 0.09] * 2, 0.05)
    held = model.sample(jax.random.key(0), given={"u": np.zeros(1), "z": np.zeros(2)}, shape=(4000,))
    assert np.all(np.asarray(held["z"]) == 0)
    assert_close(np.asarray(held["x"]).std(), 0.3, 0.02)
    with pytest.raises(ValueError, match=r"inputs \['u'\]"):
        model.sample(jax.random.key(0))


@pytest.mark.core
def test_a_hierarchy_of_tables():
    """p(x) of three discrete levels made in one line, by matrix products."""
    top = np.array([0.3, 0.7])
    middle = np.array([[0.9, 0.2], [0.05, 0.3], [0.05, 0.5]])
    bottom = np.array([[0.6, 0.1, 0.5], [0.4, 0.9, 0.5]])
    model = vfe.hierarchy(
        [
            vfe.categorical(top),
            vfe.categorical(middle, parents="above"),
            vfe.categorical(bottom, parents="above"),
        ]
    )
    percept = vfe.perceive(model, {"x": np.array([0, 1])})
    assert_close(-percept.free_energy.total, np.log(bottom @ middle @ top), 1e-12)
    with pytest.raises(ValueError, match="they follow from its place"):
        vfe.hierarchy([vfe.categorical(middle, parents="above"), vfe.categorical(bottom, parents="above")])
    for levels, words in (
        ([4, vfe.gaussian(lambda z: z, parents="z1")], "they follow from its place"),
        ([vfe.categorical(top), 3], "no quantities"),
        ([4, vfe.given((3,)), 5], "nothing above it could reach"),
        ([np.int64(4), 0], "at least 1"),
    ):
        with pytest.raises(ValueError, match=words):
            vfe.hierarchy(levels, key=jax.random.key(0))


@pytest.mark.parametrize("solver", [None, vfe.Descent()], ids=["errors", "values"])
def test_the_energy_of_a_point_beside_gaps(solver):
    """−ln p of what is there and of the values found for the rest: what is present is counted once."""
    rng = np.random.default_rng(5)
    w, c = rng.normal(size=(3, 2)), rng.normal(size=(4, 3))
    model = vfe.Model(
        z=vfe.gaussian(np.zeros(2)),
        y=vfe.gaussian(vfe.Affine(w), scale=0.7, parents="z"),
        x=vfe.gaussian(vfe.Affine(c), scale=0.5, parents="y"),
    )
    x, y = rng.normal(size=(3, 4)), rng.normal(size=(3, 3))
    y[0, 1] = y[1, 0] = y[1, 2] = np.nan  # the third is complete
    percept = vfe.perceive(model, {"x": x, "y": y}, belief=vfe.Point, solver=solver)
    for i in range(3):
        gaps = np.isnan(y[i])
        free = np.eye(3)[:, gaps]
        known = np.where(gaps, 0.0, y[i])
        # Residuals, linear in what is hidden: (z, the gaps of y).
        slopes = np.block(
            [
                [np.eye(2), np.zeros((2, gaps.sum()))],
                [-w / 0.7, free / 0.7],
                [np.zeros((4, 2)), c @ free / 0.5],
            ]
        )
        offsets = np.concatenate([np.zeros(2), known / 0.7, (c @ known - x[i]) / 0.5])
        hidden = np.linalg.lstsq(slopes, -offsets, rcond=None)[0]
        squares = 0.5 * (slopes @ hidden + offsets) ** 2 + 0.5 * np.log(2 * np.pi)
        squares += np.log([1.0] * 2 + [0.7] * 3 + [0.5] * 4)
        found = percept.free_energy[i]
        assert_close(found.total, squares.sum(), 1e-8)
        assert_close(found.hidden["y"], squares[2:5][gaps].sum(), 1e-7)
        assert_close(found.observed["y"], squares[2:5][~gaps].sum(), 1e-7)
        assert_close(percept.trace[i, -1], squares.sum(), 1e-8)
