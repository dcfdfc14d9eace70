"""Natural gradients of beliefs and of parameters: what one step solves, and what is invariant."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from scipy.special import gammaln
from scipy.stats import dirichlet, gamma

import vfe
from vfe.conditioning import condition
from vfe.densities import divergence
from vfe.learning.natural import metric
from vfe.learning.plan import Plan
from vfe.perception.perceive import Settings

pytestmark = pytest.mark.usefixtures("float64")


def test_one_unit_step_is_the_posterior_of_a_categorical_node():
    prior, table = np.array([0.2, 0.3, 0.5]), np.array([[0.7, 0.2, 0.1], [0.3, 0.8, 0.9]])
    model = vfe.Model(s=vfe.categorical(prior), o=vfe.categorical(table, parents="s"))
    for start in ([0.6, 0.3, 0.1], [0.01, 0.01, 0.98]):
        belief = vfe.Categorical.from_probabilities({"s": np.array([start, start])})
        data = {"o": np.array([0, 1])}
        percept = vfe.perceive(
            model, data, belief=belief, solver=vfe.NaturalGradient(), max_steps=1, throw=False
        )
        joint = prior * table
        wanted = joint / joint.sum(1, keepdims=True)
        np.testing.assert_allclose(percept.belief["s"].probabilities, wanted, atol=1e-12)
        np.testing.assert_allclose(percept.free_energy.total, -np.log(joint.sum(1)), atol=1e-12)


def test_factors_that_move_together_end_where_coordinate_ascent_ends():
    table = np.array([[[0.9, 0.3], [0.4, 0.1]], [[0.1, 0.7], [0.6, 0.9]]])
    pair = vfe.Model(
        a=vfe.categorical(np.array([0.2, 0.8])),
        b=vfe.categorical(np.array([0.4, 0.6])),
        o=vfe.categorical(table, parents=("a", "b")),
    )
    mixed = vfe.Model(
        k=vfe.categorical(np.array([0.4, 0.6])),
        z=vfe.gaussian(vfe.Table(np.array([[-1.0, 0.0], [1.0, 0.5]])), parents="k"),
        x=vfe.gaussian(vfe.Affine(np.array([[1.0, 2.0], [0.0, 1.0]])), scale=0.5, parents="z"),
    )
    for model, data, family in (
        (pair, {"o": 1}, vfe.Categorical),
        (mixed, {"x": np.array([0.3, 0.2])}, vfe.MeanField),
    ):
        found, wanted = (
            vfe.perceive(model, data, belief=family, solver=s, rtol=1e-10, atol=1e-10, throw=False)
            for s in (vfe.NaturalGradient(), vfe.CoordinateAscent())
        )
        np.testing.assert_allclose(found.free_energy.total, wanted.free_energy.total, atol=1e-10)
        assert np.all(np.diff(np.asarray(found.trace)) <= 1e-12)
    with pytest.raises(ValueError, match="want the whole curvature; got GaussNewton"):
        vfe.perceive(
            mixed, data, belief=vfe.MeanField, solver=vfe.NaturalGradient(curvature=vfe.GaussNewton())
        )


COUNTS = np.array([0, 0, 2, 1, 0, 2, 0])
EVENTS = np.array([3, 1, 4, 1, 5])
ERRORS = np.array([0.3, -1.2, 2.0, 0.1])


@pytest.mark.parametrize(
    ("model_of", "data", "natural", "surprise"),
    [
        (  # Dirichlet: counts are added; ln p(x) from ratios of gamma functions
            lambda: vfe.Model(
                t=vfe.dirichlet(np.array([1.0, 2.0, 0.5]), shared=True),
                x=vfe.categorical(lambda t: t, parents="t"),
            ),
            COUNTS,
            np.array([4.0, 2.0, 1.5]),
            -(
                gammaln([5.0, 3.0, 2.5]).sum()
                - gammaln(10.5)
                - gammaln([1.0, 2.0, 0.5]).sum()
                + gammaln(3.5)
            ),
        ),
        (  # gamma prior of a rate: a + Σx, b + n
            lambda: vfe.Model(
                t=vfe.gamma(2.0, 0.5, shared=True),
                x=vfe.conditional(lambda t: dist.Poisson(t), parents="t"),
            ),
            EVENTS,
            np.array([2.0 + 14 - 1, -(0.5 + 5)]),
            -(
                gammaln(16.0)
                - gammaln(2.0)
                + 2 * np.log(0.5)
                - 16 * np.log(5.5)
                - gammaln(EVENTS + 1.0).sum()
            ),
        ),
        (  # gamma prior of a precision: a + n/2, b + Σx²/2
            lambda: vfe.Model(
                t=vfe.gamma(2.0, 1.5, shared=True),
                x=vfe.gaussian(0.0, precision=lambda t: t, parents="t"),
            ),
            ERRORS,
            np.array([2.0 + 2 - 1, -(1.5 + 0.5 * (ERRORS**2).sum())]),
            -(
                gammaln(4.0)
                - gammaln(2.0)
                + 2 * np.log(1.5)
                - 4 * np.log(1.5 + 0.5 * (ERRORS**2).sum())
                - 2 * np.log(2 * np.pi)
            ),
        ),
    ],
    ids=["Dirichlet", "rate", "precision"],
)
def test_one_unit_step_is_the_posterior_in_exponential_families(model_of, data, natural, surprise):
    model = model_of()
    percept = vfe.perceive(
        model,
        {"x": data},
        belief=vfe.Conjugate(),
        solver=vfe.NaturalGradient(),
        expectation=vfe.MonteCarlo(16),
        max_steps=1,
        throw=False,
    )
    np.testing.assert_allclose(percept.belief.natural(), natural, atol=1e-9)
    # F over sixteen draws is exact, and says so.
    np.testing.assert_allclose(percept.free_energy.total, surprise, atol=1e-9)
    assert percept.free_energy.error < 1e-9
    half = vfe.perceive(
        model,
        {"x": data},
        belief=vfe.Conjugate(),
        solver=vfe.NaturalGradient(0.5),
        expectation=vfe.MonteCarlo(16),
        max_steps=1,
        throw=False,
    )
    # From gamma(1, 1), Dirichlet(1 … 1).
    start = np.array([0.0, -1.0]) if len(natural) == 2 else np.zeros(3)
    np.testing.assert_allclose(half.belief.natural(), 0.5 * (start + natural), atol=1e-9)


def test_marginals_of_conjugate_beliefs_are_in_closed_form():
    model = vfe.Model(
        m=vfe.gaussian(np.zeros(2)),
        t=vfe.gamma(2.0, 1.0),
        p=vfe.dirichlet(np.ones(3)),
        x=vfe.gaussian(lambda m, t, p: m.sum() * t * p[0], parents=("m", "t", "p")),
    )
    conditioned, _ = condition(model, {"x": np.zeros(4)})
    alpha = np.array([1.5, 0.5, 3.0])
    numbers = {
        "m": np.array([0.3, -2.0, *np.log([0.5, 1.5])]),
        "t": np.log([2.5, 0.7]),
        "p": np.log(alpha),
    }
    row = np.concatenate([numbers[s.name] for s in conditioned.layout.slots])
    belief = vfe.Conjugate().from_vector(conditioned.layout, jnp.asarray([row, row]))
    wanted = {
        "m": (np.array([0.3, -2.0]), np.array([0.25, 2.25])),
        "t": (gamma(2.5, scale=1 / 0.7).mean(), gamma(2.5, scale=1 / 0.7).var()),
        "p": (dirichlet(alpha).mean(), dirichlet(alpha).var()),
    }
    for name, (mean, variance) in wanted.items():
        found = belief[name]
        assert found.mean.shape == (2, *np.shape(mean))
        np.testing.assert_allclose(found.mean[1], mean, rtol=1e-12)
        np.testing.assert_allclose(found.variance[0], variance, rtol=1e-12)
        np.testing.assert_allclose(found.sd[0], np.sqrt(variance), rtol=1e-12)


def test_a_mean_and_a_precision_together():
    """Independent factors do not reach the posterior; they end where coordinate ascent by hand does."""
    model = vfe.Model(
        m=vfe.gaussian(0.0, scale=2.0, shared=True),
        t=vfe.gamma(3.0, 2.0, shared=True),
        x=vfe.conditional(lambda m, t: dist.Normal(m, t**-0.5), parents=("m", "t"), shared=False),
    )
    percept = vfe.perceive(
        model,
        {"x": ERRORS},
        belief=vfe.Conjugate(),
        expectation=vfe.MonteCarlo(600),
        max_steps=20,
        throw=False,
    )
    a, b, mean, variance = 3.0 + 2, 2.0, 0.0, 1.0
    for _ in range(200):
        b = 2.0 + 0.5 * ((ERRORS - mean) ** 2).sum() + 2 * variance
        variance = 1 / (0.25 + 4 * a / b)
        mean = variance * a / b * ERRORS.sum()
    eta = np.asarray(percept.belief.natural())
    found = [eta[2] + 1, -eta[3], eta[0] / (-2 * eta[1]), -0.5 / eta[1]]
    np.testing.assert_allclose(found, [a, b, mean, variance], rtol=0.1)


def test_what_conjugate_refuses():
    model = vfe.Model(t=vfe.dirichlet(np.ones(3), shared=True), x=vfe.categorical(lambda t: t, parents="t"))
    with pytest.raises(ValueError, match="3 sufficient statistics want at least 8 draws; got 4"):
        vfe.perceive(model, {"x": COUNTS}, belief=vfe.Conjugate(), expectation=vfe.MonteCarlo(4))
    bounded = vfe.Model(
        z=vfe.conditional(lambda: dist.Uniform(0.0, 2.0)), x=vfe.gaussian(lambda z: z, parents="z")
    )
    with pytest.raises(ValueError, match=r"node 'z' has a .* support; wanted real, positive or simplex"):
        vfe.perceive(bounded, {"x": 0.3}, belief=vfe.Conjugate())


def rows(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 3)) + 1.0
    x[::7, 1] = np.nan
    return x, rng.normal(size=(3, 2))


def test_one_unit_step_solves_for_weight_and_bias():
    """At the posterior under the old weight: least squares weighted by it, missing elements left out."""
    x, weight = rows()
    model = vfe.Model(
        z=vfe.gaussian(np.zeros(2)), x=vfe.gaussian(vfe.Affine(weight), scale=0.7, parents="z")
    )
    old = vfe.exact.posterior(model, {"x": x})["z"]
    learned = vfe.learn(
        model,
        {"x": x},
        epochs=1,
        belief=vfe.JointGaussian,
        solver=vfe.NaturalGradient(),
        rtol=1e-12,
        atol=1e-12,
        optimiser=vfe.natural_descent(tolerance=1e-14),
    )
    for j in range(3):
        there = ~np.isnan(x[:, j])
        z = np.c_[np.asarray(old.mean)[there], np.ones(there.sum())]
        moments = z.T @ z
        moments[:2, :2] += np.asarray(old.covariance)[there].sum(0)
        wanted = np.linalg.solve(moments, z.T @ x[there, j])
        affine = learned.model["x"].mean
        np.testing.assert_allclose(np.r_[affine.weight[j], affine.bias[j]], wanted, atol=1e-8)


class Bent(eqx.Module):
    """N(location, scale²) with other parameters: the location's sinh⁻¹, and the scale as it is."""

    bent: jax.Array
    scale: jax.Array

    def __call__(self, z):
        return dist.Normal(jnp.sinh(self.bent) + z, self.scale)


class Straight(eqx.Module):
    location: jax.Array
    log_precision: jax.Array

    def __call__(self, z):
        return dist.Normal(self.location + z, jnp.exp(-0.5 * self.log_precision))


def slope_and_direction(density, x):
    """∂F/∂θ and the natural gradient of the density's parameters, at beliefs held fixed."""
    model = vfe.Model(z=vfe.gaussian(np.zeros(())), x=vfe.conditional(density, parents="z"))
    c, _ = condition(model, {"x": x})
    belief = vfe.DiagonalGaussian(c.layout, 0.3 * jnp.asarray(x)[:, None], jnp.full((len(x), 1), -0.5))
    learned, fixed = eqx.partition(model, lambda leaf: any(leaf is a for a in jax.tree.leaves(density)))
    settings = Settings(1, 1e-3, 1e-4, vfe.Taylor())
    plan = Plan(vfe.DiagonalGaussian, None, settings, None, None, None, None, 1, None, len(x), True)
    keys = jax.random.split(jax.random.key(0), len(x))

    def model_of(parameters):
        return eqx.combine(parameters[0], fixed)

    def total(parameters):
        found = vfe.free_energy(model_of(parameters), belief, {"x": x}, expectation=vfe.Taylor())
        return found.total.mean()

    here, back = jax.flatten_util.ravel_pytree((learned,))

    @jax.jit
    def both(here):
        fisher = metric(plan, c, belief, (keys, keys), back(here), model_of, jnp.mean)
        found = jax.vmap(lambda e: jax.flatten_util.ravel_pytree(fisher(back(e)))[0])(jnp.eye(2))
        return found, jax.grad(lambda v: total(back(v)))(here)

    return tuple(np.asarray(a) for a in (here, *both(here)))


def test_the_flow_is_invariant_and_finite_steps_are_not():
    x = np.array([0.3, 1.9, 2.2, -0.4])
    location, scale = 2.0, 0.6
    straight, G, g = slope_and_direction(
        Straight(jnp.asarray(location), jnp.asarray(-2 * np.log(scale))), x
    )
    bent, H, h = slope_and_direction(Bent(jnp.asarray(np.arcsinh(location)), jnp.asarray(scale)), x)
    # By hand: 1/σ² of a location, ½ of a log-precision; 2/σ² of a scale, cosh²/σ² of the bent one.
    np.testing.assert_allclose(G, np.diag([scale**-2, 0.5]), atol=1e-12)
    np.testing.assert_allclose(H, np.diag([(1 + location**2) / scale**2, 2 / scale**2]), atol=1e-12)

    def seen(theta):
        """(location, scale) of the bent parameters."""
        return np.array([np.sinh(theta[0]), theta[1]])

    def seen_straight(theta):
        return np.array([theta[0], np.exp(-0.5 * theta[1])])

    def gap(step, one, other):
        return np.abs(seen_straight(straight - step * one) - seen(bent - step * other)).max()

    natural = [gap(step, np.linalg.solve(G, g), np.linalg.solve(H, h)) / step for step in (1.0, 0.1, 0.01)]
    plain = [gap(step, g, h) / step for step in (0.01, 0.001)]
    assert natural[0] > 0.05  # finite steps differ
    assert natural[2] < 0.02 * natural[0]  # by a part that falls with the step,
    assert plain[1] > 0.5 * plain[0]  # which that of the plain gradient does not


def test_the_metric_is_the_covariance_of_scores():
    """Of logits and Bernoulli outputs below a hidden discrete node, against sums over all outcomes."""
    rng = np.random.default_rng(3)
    k, table = rng.normal(size=3), rng.normal(size=(3, 2))
    model = vfe.Model(
        s=vfe.categorical(logits=vfe.learnable(k)), x=vfe.bernoulli(vfe.Table(table), parents="s")
    )
    x = np.array([[0, 1], [1, 1], [0, 0], [1, 1]])
    damping = 0.1
    learned = vfe.learn(
        model, {"x": x}, epochs=1, optimiser=vfe.natural_descent(0.3, damping=damping, tolerance=1e-14)
    )
    q = np.asarray(vfe.exact.posterior(model, {"x": x})["s"].probabilities)
    prior, on = np.exp(k) / np.exp(k).sum(), 1 / (1 + np.exp(-table))
    # Fisher information = ⟨(∂ ln p)(∂ ln p)ᵀ⟩ under the model's own outcomes, parents as believed.
    scores = np.eye(3) - prior
    fisher_k = (scores * prior[:, None]).T @ scores
    slope_k = prior - q.mean(0)
    np.testing.assert_allclose(
        learned.model["s"].logits,
        k - 0.3 * np.linalg.solve(fisher_k + damping * np.eye(3), slope_k),
        atol=1e-10,
    )
    fisher_table = q.mean(0)[:, None] * sum(p * (v - on) ** 2 for v, p in ((1, on), (0, 1 - on)))
    slope_table = np.einsum("ns,nsj->sj", q, on - x[:, None, :]) / len(x)
    np.testing.assert_allclose(
        learned.model["x"].density.parameters["logits"].values,
        table - 0.3 * slope_table / (fisher_table + damping),
        atol=1e-10,
    )


def test_divergences_against_sums_and_integrals():
    """KL by quadrature; with elements missing, that of what is left."""
    grid = np.linspace(1e-4, 60, 200_001)
    one, other = dist.Gamma(2.5, 1.2), dist.Gamma(1.5, 0.7)
    p, q = (np.exp(np.asarray(d.log_prob(grid))) for d in (one, other))
    np.testing.assert_allclose(divergence(one, other), np.trapezoid(p * np.log(p / q), grid), rtol=1e-5)
    sigma = np.array([[2.0, 0.5], [0.5, 1.0]])
    one = dist.MultivariateNormal(jnp.array([0.0, 1.0]), jnp.array(sigma))
    other = dist.MultivariateNormal(jnp.array([1.0, 0.0]), jnp.eye(2))
    # Of N(0, 2) and N(1, 1).
    wanted = 0.5 * (2 + 1 - 1 - np.log(2))
    np.testing.assert_allclose(divergence(one, other, jnp.array([True, False])), wanted, atol=1e-12)
    p = np.array([[0.3, 0.0, 0.7], [0.1, 0.0, 0.9]])
    wanted = 0.3 * np.log(3) + 0.7 * np.log(7 / 9)
    pair = [dist.CategoricalProbs(row) for row in jnp.asarray(p)]
    np.testing.assert_allclose(divergence(*pair), wanted, atol=1e-12)
    with pytest.raises(ValueError, match="a Poisson has no Fisher information here"):
        divergence(dist.Poisson(1.0), dist.Poisson(2.0))


def test_what_natural_descent_refuses():
    with pytest.raises(ValueError, match=r"got rate=0.0.*wanted a positive rate"):
        vfe.natural_descent(0.0)
    optimiser = vfe.natural_descent()
    with pytest.raises(ValueError, match=r"an optimiser of vfe\.learn"):
        optimiser.update(jnp.ones(2), optax.EmptyState())
    x, weight = rows()
    model = vfe.Model(z=vfe.gaussian(np.zeros(2)), x=vfe.gaussian(vfe.Affine(weight), parents="z"))
    family = vfe.Amortised(vfe.Affine(np.zeros((4, 3))), vfe.DiagonalGaussian)
    for belief, said in ((family, "encoders"), (vfe.GaussNewtonLaplace, "not for vfe.GaussNewtonLaplace")):
        with pytest.raises(ValueError, match=said):
            vfe.learn(model, {"x": np.nan_to_num(x)}, belief=belief, optimiser=optimiser, epochs=1)
    counts = vfe.Model(z=vfe.gaussian(0.0), x=vfe.conditional(Rate(jnp.zeros(())), parents="z"))
    with pytest.raises(ValueError, match="node 'x': a Poisson has no Fisher information"):
        vfe.learn(
            counts, {"x": np.array([1, 2])}, belief=vfe.DiagonalGaussian, optimiser=optimiser, epochs=1
        )


class Rate(eqx.Module):
    log: jax.Array

    def __call__(self, z):
        return dist.Poisson(jnp.exp(self.log + z))
