"""ln p(x): importance sampling and annealing against closed forms and quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vfe
from vfe.evidence import AnnealedImportanceSampling, ImportanceSampling, log_evidence

pytestmark = pytest.mark.usefixtures("float64")


def hierarchy_of_two():
    weight = jax.random.normal(jax.random.key(1), (3, 2))
    return vfe.Model(
        z2=vfe.gaussian(jnp.zeros(2)),
        z1=vfe.gaussian(vfe.Affine(weight), scale=0.5, parents="z2"),
        x=vfe.gaussian(vfe.Affine(jax.random.normal(jax.random.key(0), (5, 3))), scale=0.6, parents="z1"),
    )


def mixture():
    centres = jnp.asarray([[0.0, 0.0], [3.0, 1.0], [-2.0, 2.0]])
    return vfe.Model(
        k=vfe.categorical(jnp.asarray([0.5, 0.3, 0.2])),
        z=vfe.gaussian(vfe.Table(centres), scale=0.7, parents="k"),
        x=vfe.gaussian(vfe.Affine(jax.random.normal(jax.random.key(5), (4, 2))), scale=0.4, parents="z"),
    )


def square():
    return vfe.Model(z=vfe.gaussian(jnp.zeros(1)), x=vfe.gaussian(lambda z: z**2, scale=0.3, parents="z"))


def square_by_quadrature(x):
    z = np.linspace(-9, 9, 400_001)
    p = np.exp(-0.5 * z**2 - 0.5 * ((x - z**2) / 0.3) ** 2) / (2 * np.pi * 0.3)
    return float(np.log(np.trapezoid(p, z)))


def assert_close_and_calibrated(estimate, exact, largest):
    """Within 4 standard errors each, small errors, and z-scores of a spread near one."""
    z = np.asarray((estimate.value - exact) / estimate.standard_error)
    assert np.abs(z).max() < 4
    assert 0.7 < z.std() < 1.35
    assert np.asarray(estimate.standard_error).max() < largest


@pytest.mark.parametrize(
    ("method", "largest"),
    [(ImportanceSampling(), 0.05), (AnnealedImportanceSampling(temperatures=150, chains=32), 0.25)],
)
def test_linear_gaussian_with_missing_data(method, largest):
    """Every observation has its own key, so the z-scores over a batch test the standard error."""
    model = hierarchy_of_two()
    x = model.sample(jax.random.key(2), shape=(60,))["x"].at[::3, 1].set(jnp.nan)
    exact = vfe.exact.log_evidence(model, {"x": x})
    sampling = isinstance(method, ImportanceSampling)
    belief = vfe.exact.posterior(model, {"x": x}) if sampling else None
    key = jax.random.key(7)
    estimate = log_evidence(model, {"x": x}, method=method, belief=belief, key=key)
    assert estimate.value.shape == (60,)
    assert_close_and_calibrated(estimate, exact, largest)


@pytest.mark.parametrize(
    ("method", "largest"),
    [(ImportanceSampling(), 0.05), (AnnealedImportanceSampling(temperatures=100, chains=32), 0.25)],
)
def test_discrete_node_above_is_summed_out(method, largest):
    """Σ_k is exact: each state has draws of its own, and their errors add with their shares."""
    model = mixture()
    x = model.sample(jax.random.key(2), shape=(60,))["x"].at[1::4, 0].set(jnp.nan)
    exact = vfe.exact.log_evidence(model, {"x": x})
    assert_close_and_calibrated(log_evidence(model, {"x": x}, method=method), exact, largest)


def test_mean_field_belief_is_a_proposal_too():
    model = mixture()
    x = model.sample(jax.random.key(3), shape=(20,))["x"]
    exact = vfe.exact.log_evidence(model, {"x": x})
    found = log_evidence(model, {"x": x}, method=ImportanceSampling(2000), belief=vfe.MeanField)
    assert np.abs(found.value - exact).max() < 0.05


def test_annealing_finds_the_mode_that_importance_sampling_misses():
    """x = z² + 0.3 ε has modes at ±2: a belief around one of them lacks ln 2 nats."""
    x = jnp.full((40, 1), 4.0)
    exact = square_by_quadrature(4.0)
    assert abs(exact + 3.593) < 1e-3
    percept = vfe.perceive(square(), {"x": x[0]})
    one_mode = log_evidence(square(), {"x": x[0]}, belief=percept)
    assert abs(float(one_mode.value) - (exact - np.log(2))) < 0.03
    assert float(one_mode.standard_error) < 0.02
    annealed = log_evidence(
        square(), {"x": x}, method=AnnealedImportanceSampling(temperatures=100, chains=64)
    )
    assert_close_and_calibrated(annealed, exact, 0.25)


def test_the_estimate_is_low_in_expectation():
    """Jensen: ⟨ln ŵ⟩ < ln ⟨ŵ⟩, by about half the squared standard error."""
    method = AnnealedImportanceSampling(temperatures=4, chains=8)
    x = jnp.full((400, 1), 4.0)
    with pytest.warns(UserWarning, match="standard error above"):
        found = log_evidence(square(), {"x": x}, method=method)
    bias = np.asarray(found.value - square_by_quadrature(4.0))
    assert bias.mean() < -3 * bias.std() / np.sqrt(bias.size)
    # ... while the average weight itself is right.
    weights = np.exp(bias)
    assert abs(weights.mean() - 1) < 4 * weights.std() / np.sqrt(weights.size)


def test_closed_form_by_default_with_no_error():
    model = hierarchy_of_two()
    x = model.sample(jax.random.key(2), shape=(2, 3))["x"]
    found = log_evidence(model, {"x": x})
    np.testing.assert_array_equal(found.value, vfe.exact.log_evidence(model, {"x": x}))
    np.testing.assert_array_equal(found.standard_error, np.zeros((2, 3)))


def test_annealing_from_the_exact_posterior_has_no_error():
    """From p(z | x) to p(x, z) every weight is p(x)."""
    model = hierarchy_of_two()
    x = model.sample(jax.random.key(2), shape=(3,))["x"]
    posterior = vfe.exact.posterior(model, {"x": x})
    method = AnnealedImportanceSampling(temperatures=3, chains=4)
    found = log_evidence(model, {"x": x}, method=method, belief=posterior)
    np.testing.assert_allclose(found.value, vfe.exact.log_evidence(model, {"x": x}), rtol=1e-10)
    assert found.standard_error.max() < 1e-10
    gaussian = ImportanceSampling(10, degrees_of_freedom=None)
    found = log_evidence(model, {"x": x}, method=gaussian, belief=posterior)
    np.testing.assert_allclose(found.value, vfe.exact.log_evidence(model, {"x": x}), rtol=1e-10)


def test_constrained_support_counts_the_jacobian():
    """A Poisson count with a gamma rate: negative binomial, C(n + 1, n) / 2^(n + 2)."""
    model = vfe.Model(
        rate=vfe.gamma(2.0, 1.0), x=vfe.conditional(lambda r: dist.Poisson(r), parents="rate")
    )
    x = jnp.asarray([0, 1, 4])
    exact = np.log((np.asarray(x) + 1.0) * 0.5 ** (np.asarray(x) + 2.0))
    found = log_evidence(model, {"x": x}, method=ImportanceSampling(4000))
    assert np.abs(found.value - exact).max() < 0.03


@pytest.mark.parametrize("method", [ImportanceSampling(2000), AnnealedImportanceSampling(300, 16)])
def test_shared_latents_have_one_evidence(method):
    model = vfe.Model(
        w=vfe.gaussian(jnp.zeros(2), shared=True),
        z=vfe.gaussian(jnp.zeros(1)),
        x=vfe.gaussian(vfe.Affine((jnp.ones((3, 2)), jnp.ones((3, 1)))), scale=0.8, parents=("w", "z")),
    )
    x = 0.3 * jnp.arange(15.0).reshape(5, 3)
    exact = vfe.exact.log_evidence(model, {"x": x})
    found = log_evidence(model, {"x": x}, method=method)
    assert found.value.shape == ()
    assert abs(float(found.value - exact)) < 4 * float(found.standard_error) < 0.6


def test_discrete_graph_by_importance_sampling():
    model = vfe.Model(
        a=vfe.categorical(jnp.asarray([0.5, 0.5])),
        b=vfe.categorical(jnp.asarray([[0.9, 0.2], [0.1, 0.8]]), parents="a"),
        x=vfe.gaussian(vfe.Table(jnp.asarray([0.0, 1.0])), parents="b"),
    )
    x = jnp.asarray([0.0, 1.0, 2.0])
    exact = vfe.exact.log_evidence(model, {"x": x})
    found = log_evidence(model, {"x": x}, method=ImportanceSampling(2000), belief=vfe.Categorical)
    assert np.abs((found.value - exact) / found.standard_error).max() < 4
    exactly = log_evidence(model, {"x": x}, method=AnnealedImportanceSampling())
    np.testing.assert_allclose(exactly.value, exact, rtol=1e-12)


def test_bad_settings_and_beliefs_are_refused():
    with pytest.raises(ValueError, match="samples=1"):
        ImportanceSampling(1)
    with pytest.raises(ValueError, match="inflate"):
        ImportanceSampling(inflate=0.0)
    with pytest.raises(ValueError, match="temperatures=1"):
        AnnealedImportanceSampling(temperatures=1)
    x = {"x": jnp.ones(1)}
    point = vfe.Point.from_values(square(), {"z": jnp.ones(1)})
    with pytest.raises(TypeError, match="Point"):
        log_evidence(square(), x, belief=point)
    with pytest.raises(TypeError, match="AnnealedImportanceSampling"):
        log_evidence(square(), x, method="ais")  # type: ignore[arg-type]
    wide = vfe.JointGaussian.from_moments(square(), {"z": jnp.zeros((2, 1))}, jnp.ones((2, 1, 1)))
    with pytest.raises(ValueError, match="leading axes"):
        log_evidence(square(), {"x": jnp.ones((3, 1))}, belief=wide)
    many = vfe.Model(
        k=vfe.categorical(jnp.full(300, 1 / 300)),
        z=vfe.gaussian(vfe.Table(jnp.zeros((300, 1))), parents="k"),
        x=vfe.gaussian(lambda z: z**2, parents="z"),
    )
    with pytest.raises(ValueError, match="300 joint states"):
        log_evidence(many, {"x": jnp.ones(1)}, method=AnnealedImportanceSampling())
