"""Beliefs known by their draws: mixtures and flows against SciPy, quadrature and closed forms."""

import dataclasses
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from scipy.special import gammaln, logsumexp
from scipy.stats import multivariate_normal, norm

import vfe
from vfe.beliefs.flow import FlowBelief
from vfe.beliefs.mixture import MixtureBelief
from vfe.conditioning import condition
from vfe.free_energy import free_energy_of
from vfe.learning.cross_entropy import cross_entropy

pytestmark = pytest.mark.usefixtures("float64")

SQUARE = vfe.Model(z=vfe.gaussian(np.zeros(1)), x=vfe.gaussian(jnp.square, scale=0.3, parents="z"))
RATE = vfe.Model(r=vfe.gamma(2.0, 1.0), x=vfe.conditional(lambda r: dist.Poisson(r), parents="r"))
PAIR = vfe.Model(
    a=vfe.gaussian(np.zeros(2)),
    b=vfe.gaussian(np.zeros(1)),
    x=vfe.gaussian(lambda a, b: a.sum(keepdims=True) + b, parents=("a", "b")),
)
FOUR = {"x": np.array([4.0])}

density_of = eqx.filter_jit(lambda belief, u: belief.coordinates_density(u))
log_of = eqx.filter_jit(lambda belief, values: belief.log_density(values))


def layout_of(model, observed):
    return condition(model, observed)[0].layout


def mixture(model, observed, components, seed=0, family=vfe.DiagonalGaussian, lead=()):
    layout = layout_of(model, observed)
    made = vfe.Mixture(components, family)
    vector = 0.5 * np.random.default_rng(seed).normal(size=(*lead, made.size(layout)))
    return made.from_vector(layout, jnp.asarray(vector))


def flow(model, observed, layers=2, seed=0, size=0.7, lead=()):
    layout = layout_of(model, observed)
    made = vfe.Flow(layers)
    vector = size * np.random.default_rng(seed).normal(size=(*lead, made.size(layout)))
    return made.from_vector(layout, jnp.asarray(vector))


def copies(tree, count):
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (count, *a.shape)), tree)


def square_energy(z, x=4.0):
    return -norm.logpdf(z) - norm.logpdf(x, z**2, 0.3)


GRID = np.linspace(-8.0, 8.0, 16_001)
SURPRISE = -(logsumexp(-square_energy(GRID)) + np.log(GRID[1] - GRID[0]))


def by_quadrature(belief):
    """F of a belief about z at x = 4."""
    log = np.asarray(density_of(belief, jnp.asarray(GRID[:, None])))
    return np.trapezoid(np.exp(log) * (square_energy(GRID) + log), GRID)


@pytest.mark.parametrize("family", [vfe.DiagonalGaussian, vfe.JointGaussian])
def test_a_mixture_against_scipy_node_by_node(family):
    belief = mixture(PAIR, {"x": np.zeros(1)}, 3, family=family)
    draws = belief.draws(jax.random.key(0), 60)
    assert draws.coordinates.shape == (3, 2, 10, 3)
    u, w = np.asarray(draws.coordinates), np.asarray(belief.probabilities)
    m, S = np.asarray(belief.parts.location), np.asarray(belief.parts.covariance())

    def log(u, k):
        return logsumexp(
            [
                np.log(w[i]) + multivariate_normal(m[i, :k], S[i, :k, :k]).logpdf(u[..., :k])
                for i in range(3)
            ],
            axis=0,
        )

    np.testing.assert_allclose(draws.log_densities["a"], log(u, 2), atol=1e-10)
    np.testing.assert_allclose(draws.log_densities["b"], log(u, 3) - log(u, 2), atol=1e-10)
    np.testing.assert_allclose(draws.log_density, log(u, 3), atol=1e-10)
    values = belief.layout.decode(draws.coordinates)
    np.testing.assert_allclose(belief.log_density(values), log(u, 3), atol=1e-10)
    # Pairs are mirrored about their component's mean, and spread as it says.
    np.testing.assert_allclose(u.mean(1), np.broadcast_to(m[:, None], u.mean(1).shape), atol=1e-12)
    many = np.asarray(belief.draws(jax.random.key(1), 60_000).coordinates).reshape(3, -1, 3)
    for i in range(3):
        np.testing.assert_allclose(np.cov(many[i].T), S[i], atol=0.05 * np.abs(S[i]).max())
    # S(b | a) of components alike is that of one of them, in closed form.
    alike = MixtureBelief(
        belief.layout, belief.logits, copies(jax.tree.map(lambda a: a[0], belief.parts), 3)
    )
    found, wanted = alike.entropies(), jax.tree.map(lambda a: a[0], belief.parts).entropies()
    for name in ("a", "b"):
        assert float(found[name]) == pytest.approx(float(wanted[name]), abs=4 * np.sqrt(0.5 * 2 / 4096))


def plain_flow(belief, noise):
    """The docstring's formula, of numbers laid out as they are."""
    n, u = 3, belief.location + jnp.exp(belief.log_scale) * noise
    for layer, raw in enumerate(belief.bends):
        order = [1, 0, 2] if layer % 2 else [0, 1, 2]
        q = jnp.exp(raw[n : 2 * n])
        r = (jnp.log1p(jnp.exp(raw[:n] + jnp.log(jnp.e - 1))) - 1) / q
        lower = jnp.zeros((2, n, n)).at[:, [1, 2, 2], [0, 0, 1]].set(raw[3 * n :].reshape(2, -1))
        v = u[jnp.asarray(order)]
        v = v + (lower[0] + jnp.diag(r)) @ jnp.tanh((lower[1] + jnp.diag(q)) @ v + raw[2 * n : 3 * n])
        u = u.at[jnp.asarray(order)].set(v)
    return u


def test_a_flow_against_its_formula_its_jacobian_and_its_inverse():
    belief = flow(PAIR, {"x": np.zeros(1)}, 3)
    draws = belief.draws(jax.random.key(3), 12)
    half = jax.random.normal(jax.random.key(3), (1, 1, 6, 3))
    noise = jnp.concatenate([half, -half], 1).reshape(-1, 3)
    u = draws.coordinates.reshape(-1, 3)
    np.testing.assert_allclose(jax.vmap(lambda e: plain_flow(belief, e))(noise), u, atol=1e-12)
    jacobian = jax.vmap(jax.jacfwd(lambda e: plain_flow(belief, e)))(noise)
    wanted = norm.logpdf(noise).sum(-1) - np.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(draws.log_density.ravel(), wanted, atol=1e-10)
    # The inverse finds the noise, so that densities at given points are the same.
    np.testing.assert_allclose(density_of(belief, u), wanted, atol=1e-9)
    # ln q(a) is the density with b integrated out.
    b = jnp.linspace(-12.0, 12.0, 4001)
    for point, log in zip(u[:3], draws.log_densities["a"].ravel()[:3], strict=True):
        line = jnp.concatenate([jnp.broadcast_to(point[:2], (len(b), 2)), b[:, None]], 1)
        assert np.log(np.trapezoid(np.exp(density_of(belief, line)), b)) == pytest.approx(
            float(log), abs=1e-6
        )
    # Without bends it is a Gaussian.
    plain = FlowBelief(belief.layout, belief.location, belief.log_scale, jnp.zeros_like(belief.bends))
    gaussian = vfe.DiagonalGaussian(belief.layout, belief.location, belief.log_scale)
    np.testing.assert_allclose(density_of(plain, u), gaussian.elementwise(u).sum(-1))


def test_extreme_flows_stay_invertible():
    for seed in range(3):
        belief = flow(SQUARE, FOUR, 2, seed, size=6.0)
        found = belief.draws(jax.random.key(0), 40)
        u, log = found.coordinates.ravel(), found.log_density.ravel()
        back = density_of(belief, u[:, None])
        # Rounding of u counts as much as ln q is steep there.
        step = 1e-6 * (1 + jnp.abs(u))
        steep = jnp.abs(density_of(belief, (u + step)[:, None]) - back) / step
        assert np.all(np.abs(back - log) < 1e-9 * (1 + steep * (1 + np.abs(u))))


def square_beliefs():
    layout = layout_of(SQUARE, FOUR)
    parts = vfe.DiagonalGaussian(layout, jnp.array([[-1.9], [2.1]]), jnp.log(jnp.array([[0.1], [0.07]])))
    bent = vfe.Flow(1).size(layout)
    return {
        "mixture": MixtureBelief(layout, jnp.array([0.3, -0.2]), parts),
        "flow": vfe.Flow(1).from_vector(
            layout, jnp.zeros(bent).at[jnp.arange(5)].set(jnp.array([0.1, -1.5, 0.3, 1.0, 0.2]))
        ),
    }


@pytest.mark.parametrize("name", ["mixture", "flow"])
def test_free_energy_and_its_error_against_quadrature(name):
    belief = square_beliefs()[name]
    count = 400
    data = {"x": np.full((count, 1), 4.0)}
    F = vfe.free_energy(SQUARE, copies(belief, count), data, expectation=vfe.MonteCarlo(64))
    wanted, found, errors = by_quadrature(belief), np.asarray(F.total), np.asarray(F.standard_error)
    assert F.kind == vfe.Kind.monte_carlo
    assert wanted > SURPRISE
    spread = found.std(ddof=1)
    assert abs(found.mean() - wanted) < 4 * spread / np.sqrt(count)
    # The standard error is calibrated: root mean square against the spread over fresh draws.
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(spread, rel=4 / np.sqrt(2 * count) + 0.05)
    with pytest.raises(ValueError, match="no closed-form averages"):
        vfe.free_energy(SQUARE, belief, FOUR, expectation=vfe.Taylor())


def test_gradients_of_draws_against_quadrature():
    """∂F/∂ every number of a mixture, its weights too, and of a flow."""
    one = condition(SQUARE, FOUR)[0]
    one = dataclasses.replace(one, observed={"x": jnp.array([4.0])})
    for belief in square_beliefs().values():
        flat, back = ravel_pytree(belief)

        def total(v, key, back=back):
            return free_energy_of(one, back(v), vfe.MonteCarlo(512), key).total

        keys = jax.random.split(jax.random.key(1), 64)
        slopes = np.asarray(jax.jit(jax.vmap(jax.grad(total), (None, 0)))(flat, keys))
        mean, error = slopes.mean(0), slopes.std(0, ddof=1) / 8
        for i in range(len(flat)):
            step = jnp.zeros_like(flat).at[i].set(1e-4)
            wanted = (by_quadrature(back(flat + step)) - by_quadrature(back(flat - step))) / 2e-4
            assert abs(mean[i] - wanted) < 4.5 * error[i] + 1e-6 * (1 + abs(wanted)), (belief, i)


def test_perceived_ensembles_on_the_square():
    """A mixture of two finds both causes: −ln p(x) to a hundredth of a nat; a flow is a bound."""
    assert abs(SURPRISE - 3.593) < 5e-4
    expectation = vfe.MonteCarlo(512)
    found = vfe.perceive(SQUARE, FOUR, belief=vfe.Mixture(2), expectation=expectation)
    assert SURPRISE - 1e-6 < by_quadrature(found.belief) < SURPRISE + 0.01
    assert abs(float(found.free_energy.total) - SURPRISE) < 0.01
    # From between the causes a flow may stay there, as a Gaussian does: it starts beside one.
    made = vfe.Flow(1)
    aside = made.from_vector(layout_of(SQUARE, FOUR), jnp.array([1.9, -2.0, 0.1, 0.0, 0.0]))
    flowing = vfe.perceive(SQUARE, FOUR, belief=aside, expectation=expectation, throw=False)
    assert SURPRISE - 1e-6 < by_quadrature(flowing.belief) < SURPRISE + 0.75


def test_marginals_and_leading_axes():
    lead = (3,)
    for made in (
        mixture(PAIR, {"x": np.zeros(1)}, 2, lead=lead),
        flow(PAIR, {"x": np.zeros(1)}, lead=lead),
    ):
        assert made.leading_axes() == lead
        values = eqx.filter_jit(lambda b: b.sample(jax.random.key(0), (1000,)))(made)
        assert values["a"].shape == (1000, 3, 2)
        log = log_of(made, values)
        assert log.shape == (1000, 3)
        entropies = eqx.filter_jit(lambda b: b.entropies())(made)
        assert entropies["a"].shape == lead
        one = jax.tree.map(lambda a: a[1], made)
        np.testing.assert_allclose(
            log_of(one, {n: v[:, 1] for n, v in values.items()}), log[:, 1], atol=1e-9
        )
        for name in ("a", "b"):
            drawn, marginal = np.asarray(values[name]), made[name]
            error = drawn.std(0) * np.sqrt(1 / 1000 + 1 / 4096)
            assert marginal.mean.shape == drawn.shape[1:]
            assert np.all(np.abs(marginal.mean - drawn.mean(0)) < 4.5 * error)
            np.testing.assert_allclose(marginal.sd, drawn.std(0), rtol=0.2)
            np.testing.assert_allclose(marginal.variance, marginal.sd**2)
        # Entropies are −⟨ln q⟩ over draws.
        total = sum(np.asarray(s) for s in entropies.values())
        assert np.all(np.abs(total + log.mean(0)) < 5 * np.std(log, 0) * np.sqrt(1 / 1000 + 1 / 2048))
        with pytest.raises(ValueError, match="the hidden continuous nodes are"):
            made.aligned(layout_of(SQUARE, FOUR))


def poisson_evidence(x):
    """Γ(x + 2) / (x! 2^(x + 2)), of a gamma(2, 1) rate."""
    return gammaln(x + 2) - gammaln(x + 1) - (x + 2) * np.log(2)


@pytest.mark.parametrize("name", ["mixture", "flow", "conjugate"])
def test_constrained_supports_and_unbiased_weights(name):
    x, count = 3, 500
    data = {"x": np.full(count, x)}
    layout = layout_of(RATE, {"x": x})
    rough = {
        "mixture": vfe.Mixture(2).from_vector(layout, jnp.array([0.5, -0.5, 0.4, -0.8, 1.2, -0.4])),
        "flow": vfe.Flow(1).from_vector(layout, jnp.array([0.6, -0.5, 0.6, 0.1, 0.3])),
        "conjugate": vfe.Conjugate().from_vector(layout, jnp.log(jnp.array([4.0, 1.7]))),
    }[name]
    r = np.linspace(1e-6, 80.0, 200_001)
    log = np.asarray(log_of(rough, {"r": jnp.asarray(r)}))
    assert np.trapezoid(np.exp(log), r) == pytest.approx(1, abs=1e-4)
    energy = r - np.log(r) + r - x * np.log(r) + gammaln(x + 1)
    mean = np.trapezoid(np.exp(log) * r, r)
    sd = np.sqrt(np.trapezoid(np.exp(log) * (r - mean) ** 2, r))
    assert abs(float(rough["r"].mean) - mean) < 5 * sd / np.sqrt(4096)
    F = vfe.free_energy(RATE, rough, {"x": x}, expectation=vfe.MonteCarlo(20_000))
    wanted = np.trapezoid(np.exp(log) * (energy + log), r)
    assert abs(float(F.total) - wanted) < max(5 * float(F.standard_error), 1e-5)
    # The average weight is unbiased for p(x), and its error is the spread over fresh draws.
    found = vfe.log_evidence(RATE, data, belief=copies(rough, count), method=vfe.ImportanceSampling(100))
    weights = np.exp(np.asarray(found.value) - poisson_evidence(x))
    spread = weights.std(ddof=1)
    assert 0.005 < spread < 0.3
    assert abs(weights.mean() - 1) < 4 * spread / np.sqrt(count)
    assert np.sqrt(np.mean(found.standard_error**2)) == pytest.approx(spread, rel=0.25)
    with pytest.raises(ValueError, match=r"inflate=.* and a"):
        vfe.log_evidence(RATE, data, belief=rough, method=vfe.ImportanceSampling(100, inflate=2.0))
    if name != "conjugate":
        with pytest.raises(ValueError, match="two pairs of each"):
            vfe.log_evidence(RATE, data, belief=rough, method=vfe.ImportanceSampling(3))


def test_even_weights_count_as_pairs():
    """Where p / q is even, the two of a pair are one draw, and the standard error says so."""
    belief = vfe.Flow(1).from_vector(layout_of(SQUARE, FOUR), jnp.zeros(5).at[1].set(0.7))
    count = 400
    data = {"x": np.full((count, 1), 4.0)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        method = vfe.ImportanceSampling(400)
        found = vfe.log_evidence(SQUARE, data, belief=copies(belief, count), method=method)
    weights = np.exp(np.asarray(found.value) + SURPRISE)
    assert abs(weights.mean() - 1) < 4 * weights.std() / np.sqrt(count)
    absolute = np.asarray(found.standard_error) * weights
    assert np.sqrt(np.mean(absolute**2)) == pytest.approx(weights.std(ddof=1), rel=0.25)


def test_cross_entropies():
    """Closed form for Gaussians and tables; against quadrature for mixtures and flows."""
    key, layout = jax.random.key(0), layout_of(PAIR, {"x": np.zeros(1)})
    rng = np.random.default_rng(0)
    for family in (vfe.DiagonalGaussian, vfe.NodeGaussian, vfe.JointGaussian):
        p, q = (
            family.from_vector(layout, jnp.asarray(rng.normal(size=family.size(layout)))) for _ in range(2)
        )
        S, T = np.asarray(p.covariance()), np.asarray(q.covariance())
        apart = np.asarray(p.location - q.location)
        inverse = np.linalg.inv(T)
        wanted = 0.5 * (
            np.linalg.slogdet(2 * np.pi * T)[1] + np.trace(inverse @ S) + apart @ inverse @ apart
        )
        assert float(cross_entropy(p, q, 64, key)) == pytest.approx(wanted, rel=1e-9)
        assert float(cross_entropy(p, p, 64, key)) == pytest.approx(sum(map(float, p.entropies().values())))
    tables = [vfe.Categorical({"k": jnp.asarray(rng.normal(size=3))}) for _ in range(2)]
    one, two = (np.asarray(t.probabilities()["k"]) for t in tables)
    assert float(cross_entropy(*tables, 64, key)) == pytest.approx(-np.sum(one * np.log(two)))
    mean_fields = [vfe.MeanField(g, t) for g, t in zip((p, q), tables, strict=True)]
    wanted -= np.sum(one * np.log(two))
    assert float(cross_entropy(*mean_fields, 64, key)) == pytest.approx(wanted)
    for p, q in (
        (mixture(SQUARE, FOUR, 2, 1), mixture(SQUARE, FOUR, 2, 2)),
        (flow(SQUARE, FOUR, 1, 1), flow(SQUARE, FOUR, 1, 2)),
    ):
        log = [np.asarray(density_of(b, jnp.asarray(GRID[:, None]))) for b in (p, q)]
        wanted = -np.trapezoid(np.exp(log[0]) * log[1], GRID)
        values = -log[1]
        sd = np.sqrt(np.trapezoid(np.exp(log[0]) * (values - wanted) ** 2, GRID))
        assert abs(float(cross_entropy(p, q, 20_000, key)) - wanted) < 5 * sd / np.sqrt(10_000)
    with pytest.raises(TypeError, match="no density to follow"):
        cross_entropy(vfe.Point(layout, jnp.zeros(3)), None, 64, key)


def test_an_encoder_of_what_the_data_leave_hidden():
    """The data hold a node that the encoder does not see, and gaps in a node with children."""
    model = vfe.Model(
        z=vfe.gaussian(np.zeros(2)),
        y=vfe.gaussian(vfe.Affine(jnp.eye(2)), parents="z"),
        x=vfe.gaussian(vfe.Affine(jnp.eye(2)), parents="y"),
    )
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 20, 2))
    gaps = np.where(rng.random(y.shape) < 0.3, np.nan, y)
    for data, inputs in (({"x": x, "y": y}, ("x",)), ({"x": x, "y": gaps}, ("x", "y", vfe.Present("y")))):
        belief = vfe.recognition(
            model, inputs=inputs, observed=data, width=8, depth=1, key=jax.random.key(0)
        )
        learned = vfe.learn(model, data, belief=belief, where=lambda m: (), epochs=1)
        percept = vfe.perceive(model, data, belief=learned.family, solver=vfe.FeedForward())
        exact = -np.asarray(vfe.exact.log_evidence(model, data))
        assert np.all(np.asarray(percept.free_energy.total) > exact - 1e-6)
    wrong = vfe.recognition(model, inputs=("x",), key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"wants \(4,\)\. vfe\.recognition\(model, observed=data"):
        vfe.perceive(model, {"x": x, "y": y}, belief=wrong)
    with pytest.raises(ValueError, match="wanted all it sees, and what else is observed"):
        vfe.recognition(model, inputs=("x",), observed={"y": y}, key=jax.random.key(0))
    with pytest.raises(ValueError, match="wanted all it sees"):
        vfe.recognition(model, inputs=("x",), observed={}, key=jax.random.key(0))
    with pytest.raises(ValueError, match="wanted whole numbers"):
        vfe.recognition(model, width=3.5, key=jax.random.key(0))
    with pytest.raises(TypeError, match="wanted a function such as"):
        vfe.recognition(model, activation="tanh", key=jax.random.key(0))


def test_the_density_of_a_flow_is_compiled_once(caplog):
    belief = vfe.perceive(SQUARE, {"x": np.full((1, 1), 4.0)}, belief=vfe.Flow(1), throw=False).belief
    values = {"z": np.full((1, 1), 0.3)}
    one = belief.log_density(values)
    with caplog.at_level("WARNING"), jax.log_compiles():
        other = belief.log_density({"z": np.full((1, 1), 0.4)})
    assert not [r for r in caplog.records if "Compiling" in r.getMessage()]
    assert one != other


@pytest.mark.parametrize("family", [vfe.DiagonalGaussian, vfe.NodeGaussian, vfe.JointGaussian])
def test_first_answers_of_a_chosen_width(family):
    """Near the prior's mean with this spread, whatever is seen."""
    model = vfe.Model(
        a=vfe.gaussian(np.array([2.0, -1.0])),
        b=vfe.gaussian(np.zeros(1)),
        x=vfe.gaussian(lambda a, b: a * b, parents=("a", "b")),
    )
    belief = vfe.recognition(model, family=family, initial_sd=0.1, width=32, key=jax.random.key(0))
    x = np.random.default_rng(0).normal(size=(9, 2))
    found = vfe.perceive(model, {"x": x}, belief=belief, solver=vfe.FeedForward()).belief
    for name, mean in (("a", [2.0, -1.0]), ("b", [0.0])):
        np.testing.assert_allclose(found[name].mean, np.tile(mean, (9, 1)), atol=0.5)
        np.testing.assert_allclose(np.log10(found[name].sd), -1.0, atol=0.2)
    with pytest.raises(ValueError, match="wanted a Gaussian family"):
        vfe.recognition(model, family=vfe.Flow(2), initial_sd=0.1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="wanted a positive number"):
        vfe.recognition(model, initial_sd=0.0, key=jax.random.key(0))
