"""Ranking by F and Bayesian model reduction, against refitting in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vfe
from vfe.compare import compare, reduce, reduce_model

pytestmark = pytest.mark.usefixtures("float64")


def linear(scale=1.0, covariance=None, mean=None):
    spread = {"scale": scale} if covariance is None else {"covariance": covariance}
    weight = jax.random.normal(jax.random.key(0), (5, 3))
    return vfe.Model(
        z=vfe.gaussian(jnp.zeros(3) if mean is None else mean, **spread),
        w=vfe.gaussian(vfe.Affine(jnp.asarray([[1.0, 0.5, -1.0]])), scale=0.7, parents="z"),
        x=vfe.gaussian(vfe.Affine((weight, jnp.ones((5, 1)))), scale=0.6, parents=("z", "w")),
    )


def data(count=4):
    return {"x": linear().sample(jax.random.key(1), shape=(count,))["x"]}


def test_ranks_models_by_their_evidence():
    """For exact posteriors F = −ln p(x): the probabilities are those of Bayes' rule."""
    models = {"narrow": linear(0.1), "right": linear(1.0), "wide": linear(30.0)}
    percepts = {n: vfe.perceive(m, data(), belief=vfe.JointGaussian) for n, m in models.items()}
    prior = {"narrow": 1.0, "right": 2.0, "wide": 1.0}
    found = compare(percepts, prior=prior)
    logs = {n: float(vfe.exact.log_evidence(m, data()).sum()) for n, m in models.items()}
    weights = {n: prior[n] * np.exp(logs[n] - logs["right"]) for n in models}
    assert found.best == "right"
    assert found.observations == 4
    for i, name in enumerate(found.names):
        assert found.free_energy[i] == pytest.approx(-logs[name], rel=1e-7)
        assert found.probabilities[i] == pytest.approx(weights[name] / sum(weights.values()), rel=1e-5)
        assert found.log_bayes_factors[0, i] == found.differences[i]
        assert logs["right"] - logs[name] == pytest.approx(found.differences[i], abs=1e-6)
    assert (found.difference_errors == 0).all()
    assert "right" in repr(found)
    table = found.to_xarray()
    assert list(table.model.values) == list(found.names)
    assert float(table.log_bayes_factors.sel(model="right", other_model="wide")) > 0


def free_energy_with(total, error, kind=vfe.Kind.monte_carlo):
    """An F made by hand: one observation with this total."""
    return vfe.FreeEnergy(
        {"x": jnp.asarray(total)},
        {"z": jnp.zeros(())},
        {"z": jnp.zeros(())},
        None if error is None else jnp.asarray(error),
        jnp.ones(()),
        kind,
        (),
        ("z", "x"),
    )


def test_monte_carlo_errors_reach_differences_and_probabilities():
    """The errors of the probabilities match their spread over draws of the F."""
    found = compare({"a": free_energy_with(10.0, 0.05), "b": free_energy_with(10.4, 0.12)})
    assert found.difference_errors[1] == pytest.approx(np.hypot(0.05, 0.12))
    assert found.difference_errors[0] == 0
    draws = np.random.default_rng(0).normal([10.0, 10.4], [0.05, 0.12], (100_000, 2))
    p = 1 / (1 + np.exp(draws[:, 0] - draws[:, 1]))
    np.testing.assert_allclose(found.probability_errors, p.std(), rtol=0.02)
    assert "±" in found.table()


def test_refuses_what_cannot_be_compared():
    f = free_energy_with(1.0, 0.1)
    with pytest.raises(ValueError, match="different kinds"):
        compare({"a": f, "b": free_energy_with(1.0, None, vfe.Kind.exact)})
    energy = free_energy_with(1.0, None, vfe.Kind.energy)
    with pytest.raises(ValueError, match="without entropy"):
        compare({"a": energy, "b": energy})
    many = vfe.perceive(linear(), data(4)).free_energy
    with pytest.raises(ValueError, match="numbers of observations"):
        compare({"a": many, "b": many[:3]})
    other = vfe.Model(z=vfe.gaussian(jnp.zeros(1)), y=vfe.gaussian(vfe.Affine(jnp.eye(1)), parents="z"))
    with pytest.raises(ValueError, match="observed nodes differ"):
        compare({"a": many, "b": vfe.perceive(other, {"y": jnp.ones((4, 1))})})
    with pytest.raises(ValueError, match="at least 2"):
        compare({"a": f})
    with pytest.raises(ValueError, match="one probability per model"):
        compare({"a": f, "b": f}, prior={"a": 1.0})
    with pytest.raises(ValueError, match="positive"):
        compare({"a": f, "b": f}, prior={"a": 1.0, "b": 0.0})
    with pytest.raises(ValueError, match="not finite"):
        compare({"a": f, "b": free_energy_with(jnp.nan, 0.1)})
    with pytest.raises(TypeError, match="without a free energy"):
        compare({"a": f, "b": 3.0})  # type: ignore[dict-item]


def random_covariance(seed, n=3):
    root = np.random.default_rng(seed).normal(size=(n, n))
    return root @ root.T + 0.2 * np.eye(n)


def by_hand(a, x, noise, mean, covariance):
    """Posterior and ln p(x) of x = a z + noise, z ~ N(mean, covariance), which may be singular."""
    total = a @ covariance @ a.T + noise
    gain = covariance @ a.T @ np.linalg.inv(total)
    residual = x - a @ mean
    log = -0.5 * (residual @ np.linalg.solve(total, residual) + np.linalg.slogdet(2 * np.pi * total)[1])
    return mean + gain @ residual, covariance - gain @ a @ covariance, log


@pytest.mark.parametrize("off", [(), (1,), (0, 2), (0, 1, 2)])
def test_reduction_equals_refitting_with_parameters_switched_off(off):
    """Zero variances included: against the marginal covariance of the data, which shares no code."""
    rng = np.random.default_rng(3)
    a, x, noise = rng.normal(size=(6, 3)), rng.normal(size=6), 0.3 * random_covariance(5, 6)
    mean, covariance = rng.normal(size=3), random_covariance(1)
    new_mean, new_covariance = rng.normal(size=3), random_covariance(2)
    new_covariance[list(off), :] = 0
    new_covariance[:, list(off)] = 0
    full = by_hand(a, x, noise, mean, covariance)
    wanted = by_hand(a, x, noise, new_mean, new_covariance)
    found = reduce(mean, covariance, full[0], full[1], new_mean, new_covariance)
    assert float(found.log_evidence_change) == pytest.approx(wanted[2] - full[2], abs=1e-9)
    np.testing.assert_allclose(found.mean, wanted[0], atol=1e-9)
    np.testing.assert_allclose(found.covariance, wanted[1], atol=1e-9)


def test_the_published_formula_where_it_applies():
    """The form in precisions of Friston and Penny 2011, for regular covariances."""
    full = [np.linalg.inv(random_covariance(s)) for s in (1, 2)]
    prior, reduced = full
    posterior = prior + random_covariance(3)
    eta, eta_new, mu = np.random.default_rng(0).normal(size=(3, 3))
    new = posterior + reduced - prior
    mu_new = np.linalg.solve(new, posterior @ mu + reduced @ eta_new - prior @ eta)
    quadratic = (
        mu @ posterior @ mu + eta_new @ reduced @ eta_new - eta @ prior @ eta - mu_new @ new @ mu_new
    )
    signs = ((posterior, 1), (reduced, 1), (new, -1), (prior, -1))
    wanted = 0.5 * (sum(s * np.linalg.slogdet(m)[1] for m, s in signs) - quadratic)
    inverse = np.linalg.inv
    found = reduce(eta, inverse(prior), mu, inverse(posterior), eta_new, inverse(reduced))
    assert float(found.log_evidence_change) == pytest.approx(wanted, abs=1e-9)
    np.testing.assert_allclose(found.mean, mu_new, atol=1e-9)


def test_reduction_to_itself_changes_nothing():
    prior, posterior = random_covariance(1), np.linalg.inv(np.linalg.inv(random_covariance(1)) + np.eye(3))
    mean = np.ones(3)
    found = reduce(np.zeros(3), prior, mean, posterior, np.zeros(3), prior)
    assert abs(float(found.log_evidence_change)) < 1e-12
    np.testing.assert_allclose(found.mean, mean, atol=1e-12)
    np.testing.assert_allclose(found.covariance, posterior, atol=1e-12)


def test_reduce_refuses_what_is_no_covariance():
    one, eye = np.zeros(2), np.eye(2)
    with pytest.raises(ValueError, match="negative eigenvalue"):
        reduce(one, eye, one, 0.5 * eye, one, -eye)
    with pytest.raises(ValueError, match="prior is not positive definite"):
        reduce(one, 0 * eye, one, 0.5 * eye, one, eye)
    with pytest.raises(ValueError, match="shape"):
        reduce(one, eye, one, 0.5 * eye, np.zeros(3), eye)
    with pytest.raises(ValueError, match="so wide"):
        reduce(one, eye, one, 1.5 * eye, one, 1e6 * eye)


@pytest.mark.parametrize("family", [vfe.JointGaussian, vfe.Laplace])
def test_reduced_model_equals_the_refitted_one(family):
    """Linear-Gaussian: belief about every node and the change in ln p(x), per observation."""
    full = linear(covariance=random_covariance(4))
    posterior = vfe.exact.posterior(full, data())
    assert isinstance(posterior, vfe.JointGaussian)
    belief = family.from_factor(posterior.layout, posterior.location, posterior.factor())
    mean = jnp.asarray([0.3, 0.0, -0.2])
    prior = vfe.gaussian(mean, covariance=0.1 * random_covariance(8))
    found = reduce_model(full, belief, "z", prior)
    change = vfe.exact.log_evidence(found.model, data()) - vfe.exact.log_evidence(full, data())
    np.testing.assert_allclose(found.log_evidence_change, change, atol=1e-9)
    refitted = vfe.exact.posterior(found.model, data())
    assert isinstance(refitted, vfe.JointGaussian)
    assert isinstance(found.belief, family)
    np.testing.assert_allclose(found.belief.location, refitted.location, atol=1e-9)
    np.testing.assert_allclose(found.belief.covariance(), refitted.covariance(), atol=1e-9)


def test_reduced_model_with_a_shared_node():
    """A weight shared by all observations, switched down without going back to the data."""

    def build(scale):
        return vfe.Model(
            w=vfe.gaussian(jnp.zeros(2), scale=scale, shared=True),
            z=vfe.gaussian(jnp.zeros(1)),
            x=vfe.gaussian(vfe.Affine((jnp.ones((3, 2)), jnp.ones((3, 1)))), parents=("w", "z")),
        )

    x = {"x": 0.2 * jnp.arange(12.0).reshape(4, 3)}
    for node, prior in (
        ("w", vfe.gaussian(jnp.zeros(2), scale=0.05, shared=True)),
        ("z", vfe.gaussian(jnp.zeros(1), scale=0.3)),
    ):
        found = reduce_model(build(1.0), vfe.exact.posterior(build(1.0), x), node, prior)
        change = vfe.exact.log_evidence(found.model, x) - vfe.exact.log_evidence(build(1.0), x)
        np.testing.assert_allclose(found.log_evidence_change, change, atol=1e-9)


def test_reduce_model_refuses_what_does_not_fit():
    percept = vfe.perceive(linear(), data())
    with pytest.raises(ValueError, match="parents"):
        reduce_model(linear(), percept, "w", vfe.gaussian(jnp.zeros(1)))
    with pytest.raises(ValueError, match="shape"):
        reduce_model(linear(), percept, "z", vfe.gaussian(jnp.zeros(2)))
    with pytest.raises(ValueError, match="shared"):
        reduce_model(linear(), percept, "z", vfe.gaussian(jnp.zeros(3), shared=True))
    with pytest.raises(TypeError, match=r"vfe\.gaussian"):
        reduce_model(linear(), percept, "z", vfe.gamma(1.0, 1.0))  # type: ignore[arg-type]
    point = vfe.perceive(linear(), data(), belief=vfe.Point)
    with pytest.raises(TypeError, match="Point"):
        reduce_model(linear(), point, "z", vfe.gaussian(jnp.zeros(3)))
