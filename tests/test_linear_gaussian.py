"""Every closed-form number of the ten linear-Gaussian hierarchies, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, load

import vfe

pytestmark = pytest.mark.usefixtures("float64")

CASES = [pytest.param(n, marks=pytest.mark.core) if n == 8 else n for n in range(10)]
# Of every depth one case or two, those with levels of one element first; the others differ in width alone.
TOLD = [
    c if n in (2, 3, 5, 7, 8) else pytest.param(n, marks=pytest.mark.thorough) for n, c in enumerate(CASES)
]
# Solvers compile for minutes: four cases of every depth and shape always, the others on request.
SOLVED = [n if n in (1, 2, 4) else pytest.param(n, marks=pytest.mark.thorough) for n in range(10) if n != 8]
SOLVED.insert(0, pytest.param(8, marks=pytest.mark.core))
BELIEFS = ("post", "prior", "qfull", "qmflevel", "qmfdiag", "optmflevel", "optmfdiag")
TIGHT = {"rtol": 1e-12, "atol": 1e-10}


def case(number):
    return load(f"linear_gaussian/case_{number:03d}")


def build(c, weight=None, bias=None, precision=None):
    """The hierarchy of a case; the bottom likelihood may be replaced."""
    depth = len(c["dims"]) - 1
    nodes = {f"z{depth}": vfe.gaussian(c["top_mean"], covariance=c["top_cov"])}
    for i in range(depth - 1, 0, -1):
        mean = vfe.Affine(c[f"W{i}"], c[f"b{i}"])
        nodes[f"z{i}"] = vfe.gaussian(mean, covariance=c[f"R{i}"], parents=f"z{i + 1}")
    bottom = vfe.Affine(c["W0"] if weight is None else weight, c["b0"] if bias is None else bias)
    spread = {"covariance": c["R0"]} if precision is None else {"precision": precision}
    nodes["x"] = vfe.gaussian(bottom, **spread, parents="z1")
    return vfe.Model(**nodes)


def split(c, stacked):
    """A stacked vector (z_1, …, z_L), or many, as a dictionary of levels."""
    offsets = c["level_offsets"]
    return {f"z{i + 1}": stacked[..., offsets[i] : offsets[i + 1]] for i in range(len(offsets) - 1)}


def stack(c, values):
    return jnp.concatenate([values[f"z{i}"] for i in range(1, len(c["dims"]))], -1)


def means_of(c, belief):
    return stack(c, {f"z{i}": belief[f"z{i}"].mean for i in range(1, len(c["dims"]))})


def stacked_covariance(c, belief):
    """The covariance of a belief with its nodes in the order of the reference, (z_1, …, z_L)."""
    names = [f"z{i}" for i in range(1, len(c["dims"]))]
    rows = jnp.concatenate([belief[n].rows for n in names], -2)
    return rows @ jnp.swapaxes(rows, -1, -2)


@functools.cache
def free_energies(number):
    """F of all seven beliefs at once: they are a batch over one observation."""
    c = case(number)
    model = build(c)
    means = np.stack([c[f"{q}_mean"] for q in BELIEFS])
    covariances = np.stack([c[f"{q}_cov"] for q in BELIEFS])
    belief = vfe.JointGaussian.from_moments(model, split(c, means), covariances)
    return vfe.free_energy(model, belief, {"x": np.broadcast_to(c["x"], (len(BELIEFS), *c["x"].shape))})


@pytest.mark.parametrize("number", CASES)
def test_free_energy_and_its_readings(number):
    """F, energy, entropy, accuracy, complexity and divergence of every q, to 1e-9."""
    c = case(number)
    found = free_energies(number)
    assert found.kind is vfe.Kind.exact
    divergence = found.divergence(-c["neg_log_evidence"])
    assert np.all(np.asarray(divergence.standard_error) == 0)
    readings = {
        "F": found.total,
        "energy": found.energy,
        "entropy": found.entropy,
        "accuracy": found.accuracy,
        "complexity": found.complexity,
        "divergence": divergence.value,
    }
    for word, values in readings.items():
        for i, q in enumerate(BELIEFS):
            assert_close(values[i], c[f"{q}_{word}"], 1e-9, f"{q}_{word}")


@pytest.mark.parametrize("number", CASES)
def test_levels(number):
    """Energy of every level of every q, and complexity by level of the factorised ones, to 1e-9."""
    c = case(number)
    found = free_energies(number)
    depth = len(c["dims"]) - 1
    names = [f"z{i}" for i in range(1, depth + 1)]
    for i, q in enumerate(BELIEFS):
        energies = [found.observed["x"][i], *[found.hidden[n][i] for n in names]]
        assert_close(energies, c[f"{q}_energy_levels"], 1e-9, f"{q}_energy_levels")
        complexities = [found.hidden[n][i] - found.entropies[n][i] for n in names]
        assert_close(sum(complexities), c[f"{q}_complexity"], 1e-9, q)
        if f"{q}_complexity_levels" in c:
            assert_close(complexities, c[f"{q}_complexity_levels"], 1e-9, f"{q}_complexity_levels")
            for n, complexity in zip(names, complexities, strict=True):
                assert_close(found.by_level[n][i], complexity, 1e-12)


@pytest.mark.parametrize("number", CASES)
def test_gradients(number):
    """∂F in the moments of q and in the bottom likelihood, by autodiff, to 1e-9."""
    c = case(number)
    precision = np.linalg.inv(c["R0"])

    def total(mean, covariance, weight, bias, precision):
        model = build(c, weight, bias, precision)
        belief = vfe.JointGaussian.from_moments(model, split(c, mean), covariance)
        return vfe.free_energy(model, belief, {"x": c["x"]}).total

    gradients = jax.jit(jax.vmap(jax.grad(total, range(5)), in_axes=(0, 0, None, None, None)))
    means = jnp.stack([c[f"{q}_mean"] for q in BELIEFS])
    covariances = jnp.stack([c[f"{q}_cov"] for q in BELIEFS])
    found = gradients(means, covariances, c["W0"], c["b0"], 0.5 * (precision + precision.T))
    for i, q in enumerate(BELIEFS):
        for word, value in zip(("dmean", "dcov", "dW0", "db0", "dLambda0"), found, strict=True):
            if f"{q}_dF_{word}" in c:
                assert_close(value[i], c[f"{q}_dF_{word}"], 1e-9, f"{q}_dF_{word}")


@pytest.mark.parametrize("number", CASES)
def test_exact_posterior_and_evidence(number):
    """Mean, covariance and −ln p(x), for one observation and for a batch, to 1e-9."""
    c = case(number)
    model = build(c)
    everything = {"x": np.concatenate([c["x"][None], c["x_batch"]])}
    posterior = vfe.exact.posterior(model, everything)
    surprise = -vfe.exact.log_evidence(model, everything)
    assert_close(means_of(c, posterior)[0], c["post_mean"], 1e-9, "mean")
    assert_close(means_of(c, posterior)[1:], c["post_mean_batch"], 1e-9, "means of the batch")
    for covariance in stacked_covariance(c, posterior):
        assert_close(covariance, c["post_cov"], 1e-9, "covariance")
    assert_close(surprise[0], c["neg_log_evidence"], 1e-9, "evidence")
    assert_close(surprise[1:], c["neg_log_evidence_batch"], 1e-9, "evidence of the batch")


@pytest.mark.parametrize("number", TOLD)
def test_marginals(number):
    """Claim 16 (8): p(z_i) of every level by the recursion from the top, to 1e-9."""
    c = case(number)
    model = build(c)
    for i in range(len(c["dims"])):
        node = f"z{i}" if i else "x"
        marginal = vfe.exact.marginal(model, node)[node]
        assert_close(marginal.mean, c[f"marginal_mean_{i}"], 1e-9, node)
        assert_close(marginal.covariance, c[f"marginal_cov_{i}"], 1e-9, node)


@pytest.mark.parametrize("number", CASES)
def test_optimal_mean_field(number):
    """The best factorised beliefs in closed form, and their F, to 1e-8."""
    c = case(number)
    model = build(c)
    for q, family in (("optmflevel", vfe.NodeGaussian), ("optmfdiag", vfe.DiagonalGaussian)):
        belief = vfe.exact.mean_field(model, {"x": c["x"]}, family)
        assert isinstance(belief, family)
        assert_close(means_of(c, belief), c[f"{q}_mean"], 1e-8, q)
        assert_close(stacked_covariance(c, belief), c[f"{q}_cov"], 1e-8, q)
        assert_close(vfe.free_energy(model, belief, {"x": c["x"]}).total, c[f"{q}_F"], 1e-8, q)


@pytest.mark.parametrize("number", TOLD)
def test_error_coordinates_reach_the_posterior(number):
    """A Laplace belief found by Gauss–Newton: the posterior mean to 1e-6, F = −ln p(x) to 1e-8.

    The energy of a Point at the same place is `map_energy`, and the F of the Laplace belief
    `laplace_F` (claim 15).
    """
    c = case(number)
    model = build(c)
    percept = vfe.perceive(model, {"x": c["x"]}, solver=vfe.ErrorCoordinates(), **TIGHT, throw=False)
    assert isinstance(percept.belief, vfe.Laplace)
    assert_close(means_of(c, percept.belief), c["post_mean"], 1e-6, "mean")
    assert_close(stacked_covariance(c, percept.belief), c["post_cov"], 1e-8, "covariance")
    assert_close(percept.free_energy.total, c["laplace_F"], 1e-8, "F")
    assert_close(percept.free_energy.total, c["neg_log_evidence"], 1e-8, "F")
    point = vfe.Point.from_values(model, split(c, c["post_mean"]))
    energy = vfe.free_energy(model, point, {"x": c["x"]})
    assert energy.kind is vfe.Kind.energy
    assert_close(energy.total, c["map_energy"], 1e-9, "energy at the mode")
    assert_close(percept.trace[-1], c["map_energy"], 1e-8, "what was minimised")


@pytest.mark.parametrize("number", SOLVED)
def test_natural_gradient_reaches_the_posterior(number):
    """Claim 23, first part: one unit step in natural parameters solves a linear-Gaussian model."""
    c = case(number)
    percept = vfe.perceive(
        build(c), {"x": c["x"]}, belief=vfe.JointGaussian, solver=vfe.NaturalGradient(), throw=False
    )
    assert percept.status == vfe.Status.converged
    assert percept.steps == 1
    assert_close(means_of(c, percept.belief), c["post_mean"], 1e-6, "mean")
    assert_close(stacked_covariance(c, percept.belief), c["post_cov"], 1e-8, "covariance")
    assert_close(percept.free_energy.total, c["neg_log_evidence"], 1e-8, "F")


@pytest.mark.parametrize("number", CASES)
def test_exact_solver(number):
    """The closed form asked for as a solver."""
    c = case(number)
    percept = vfe.perceive(build(c), {"x": c["x_batch"]}, solver=vfe.Exact())
    assert bool(percept.converged.all())
    assert_close(means_of(c, percept.belief), c["post_mean_batch"], 1e-6, "mean")
    assert_close(percept.free_energy.total, c["neg_log_evidence_batch"], 1e-8, "F")


@pytest.mark.parametrize("number", SOLVED)
def test_coordinate_ascent_reaches_the_best_mean_field(number):
    """Means of the posterior to 1e-6 and the F of the best belief factorised over levels to 1e-8."""
    c = case(number)
    percept = vfe.perceive(
        build(c),
        {"x": c["x"]},
        belief=vfe.NodeGaussian,
        solver=vfe.CoordinateAscent(),
        max_steps=20_000,
        **TIGHT,
        throw=False,
    )
    assert_close(means_of(c, percept.belief), c["optmflevel_mean"], 1e-6, "mean")
    assert_close(percept.free_energy.total, c["optmflevel_F"], 1e-8, "F")
    assert np.all(np.diff(np.asarray(percept.trace)) <= 1e-11)


@pytest.mark.parametrize("number", SOLVED)
def test_coordinate_ascent_by_element(number):
    c = case(number)
    percept = vfe.perceive(
        build(c),
        {"x": c["x"]},
        belief=vfe.DiagonalGaussian,
        solver=vfe.CoordinateAscent(),
        max_steps=20_000,
        **TIGHT,
        throw=False,
    )
    assert_close(means_of(c, percept.belief), c["optmfdiag_mean"], 1e-6, "mean")
    assert_close(percept.free_energy.total, c["optmfdiag_F"], 1e-8, "F")


@pytest.mark.parametrize("number", SOLVED)
@pytest.mark.parametrize(
    ("solver", "belief"),
    [
        (vfe.Descent(), vfe.Laplace),
        (vfe.Descent(), vfe.JointGaussian),
        (vfe.GradientFlow(), vfe.Laplace),
        (vfe.Anderson(), vfe.Laplace),
    ],
    ids=["L-BFGS-Laplace", "L-BFGS-joint", "flow-Laplace", "Anderson-Laplace"],
)
def test_general_solvers_reach_the_posterior(number, solver, belief):
    """Solvers that know nothing of the model's form: the same answer as the closed form."""
    c = case(number)
    percept = vfe.perceive(
        build(c), {"x": c["x"]}, belief=belief, solver=solver, max_steps=2000, **TIGHT, throw=False
    )
    assert_close(means_of(c, percept.belief), c["post_mean"], 1e-6, "mean")
    assert_close(percept.free_energy.total, c["neg_log_evidence"], 1e-8, "F")


@pytest.mark.parametrize("number", SOLVED)
def test_langevin_samples_the_posterior(number):
    """Means within their own Monte Carlo error, R-hat below 1.05, variances within 4 errors."""
    c = case(number)
    percept = vfe.perceive(build(c), {"x": c["x"]}, solver=vfe.Langevin(draws=4000), key=jax.random.key(1))
    names = [f"z{i}" for i in range(1, len(c["dims"]))]
    belief = percept.belief
    assert percept.status == vfe.Status.sampled
    order = np.concatenate([np.arange(s.start, s.stop) for s in map(belief.layout.slot, names)])
    effective = np.asarray(belief.effective_sample_size)[order]
    assert float(belief.r_hat.max()) < 1.05
    assert effective.min() > 500
    variance = np.diag(c["post_cov"])
    draws = np.asarray(belief.pooled())[:, order]
    assert np.all(np.abs(draws.mean(0) - c["post_mean"]) < 4 * np.sqrt(variance / effective))
    # The relative error of a variance from n draws of a Gaussian is √(2/n).
    assert np.all(np.abs(draws.var(0) / variance - 1) < 4 * np.sqrt(2 / effective))
    with pytest.raises(ValueError, match="energy"):
        percept.free_energy.divergence(0.0)
