"""Predictive-coding schemes by name: steps on activities and on errors, incremental learning, nudging."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close

import vfe
from vfe.conditioning import condition
from vfe.networks import Dense, dense, predict, supervised
from vfe.perception.together import relax

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)


def small(scale=0.7, **options):
    layers = dense([5, 7, 6, 3], key=KEY, activation=jnp.tanh)
    return supervised(layers, inputs=5, scale=scale, **options)


def data(count):
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(count, 5)), "y": rng.integers(0, 3, count)}


def pairs(seen):
    return list(zip(seen["x"], seen["y"], strict=True))


class Slow:
    """A network of three layers in plain NumPy: g(z) = W φ(z) + b, φ = tanh but the identity at the input.

    E = ½ |z2 − W0 x − b0|² / s² + ½ |z1 − W1 φ(z2) − b1|² / s² + C, up to constants; C is the surprise of
    the label, or ½ |y − W2 φ(z1) − b2|² / σ².
    """

    def __init__(self, model, scale, output_scale=None):
        self.s, self.sigma = scale, output_scale
        last = model["y"]
        last = last.mean if output_scale is not None else last.density.parameters["logits"]
        maps = (model["z2"].mean, model["z1"].mean, last)
        self.w, self.b = [
            [np.array(a, float) for a in p] for p in zip(*[(m.weight, m.bias) for m in maps], strict=True)
        ]
        self.linear = maps[1].activation is not jnp.tanh

    def act(self, z):
        return z if self.linear else np.tanh(z)

    def slope(self, z):
        return np.ones_like(z) if self.linear else 1 - np.tanh(z) ** 2

    def start(self, x):
        z2 = self.w[0] @ x + self.b[0]
        return [z2, self.w[1] @ self.act(z2) + self.b[1]]

    def down(self, e, x):
        """The activities that standardised errors stand for."""
        z2 = self.w[0] @ x + self.b[0] + self.s * e[0]
        return [z2, self.w[1] @ self.act(z2) + self.b[1] + self.s * e[1]]

    def errors(self, z, x):
        return [
            (z[0] - self.w[0] @ x - self.b[0]) / self.s,
            (z[1] - self.w[1] @ self.act(z[0]) - self.b[1]) / self.s,
        ]

    def output(self, z, y):
        """∂C/∂(the last layer's output)."""
        o = self.w[2] @ self.act(z[1]) + self.b[2]
        if self.sigma is not None:
            return (o - y) / self.sigma**2
        p = np.exp(o - o.max())
        return p / p.sum() - np.eye(o.size)[y]

    def by_activity(self, z, x, y):
        """∂E/∂z: errors from above less those that are passed up from below."""
        e2, e1 = self.errors(z, x)
        return [
            e2 / self.s - self.slope(z[0]) * (self.w[1].T @ e1) / self.s,
            e1 / self.s + self.slope(z[1]) * (self.w[2].T @ self.output(z, y)),
        ]

    def by_error(self, e, x, y):
        """∂E/∂e = e + ∂C/∂e, C's derivative passed up through the whole network."""
        z = self.down(e, x)
        d1 = self.slope(z[1]) * (self.w[2].T @ self.output(z, y))
        d2 = self.slope(z[0]) * (self.w[1].T @ d1)
        return [e[0] + self.s * d2, e[1] + self.s * d1]

    def by_weight(self, z, x, y, strength=1.0):
        """∂E/∂W and ∂E/∂b of the three layers, C multiplied by `strength`."""
        e2, e1 = self.errors(z, x)
        outer = [-e2 / self.s, -e1 / self.s, strength * self.output(z, y)]
        return [
            np.outer(d, a) for d, a in zip(outer, (x, self.act(z[0]), self.act(z[1])), strict=True)
        ], outer


@pytest.mark.parametrize("name", ["activities", "errors"])
def test_fixed_steps_are_those_of_numpy(name):
    """Three steps of a fixed length: z − α ∂E/∂z, or e − α ∂E/∂e, written out by hand."""
    model, seen = small(), data(3)
    slow = Slow(model, 0.7)
    solver = vfe.ActivityDescent(0.1) if name == "activities" else vfe.ErrorDescent(0.1)
    found = vfe.perceive(model, seen, belief=vfe.Point, solver=solver, max_steps=3, throw=False)
    for i, (x, y) in enumerate(pairs(seen)):
        v = slow.start(x) if name == "activities" else [np.zeros(7), np.zeros(6)]
        for _ in range(3):
            slope = slow.by_activity(v, x, y) if name == "activities" else slow.by_error(v, x, y)
            v = [a - 0.1 * g for a, g in zip(v, slope, strict=True)]
        z = v if name == "activities" else slow.down(v, x)
        assert_close(found.belief.location[i], np.concatenate(z), 1e-10)


def linear(scale=0.7, output_scale=0.5):
    rng = np.random.default_rng(1)
    w = [rng.normal(size=s) / np.sqrt(s[1]) for s in ((7, 5), (6, 7), (2, 6))]
    layers = [Dense(jnp.asarray(m), jnp.asarray(rng.normal(size=len(m)))) for m in w]
    model = supervised(layers, inputs=5, output="gaussian", scale=scale, output_scale=output_scale)
    return model, {"x": rng.normal(size=(3, 5)), "y": rng.normal(size=(3, 2))}


@pytest.mark.parametrize("name", ["activities", "errors"])
def test_default_lengths_follow_the_curvature(name):
    """α₀ = |g| / |H g|, then min(√(1 + α_k/α_{k−1}) α_k, ½ |Δ| / |Δg|), or shorter where E would rise."""
    model, seen = linear()
    slow = Slow(model, 0.7, 0.5)
    x, y = seen["x"][0], seen["y"][0]
    cut = lambda v: [v[:7], v[7:]]  # noqa: E731
    by = slow.by_activity if name == "activities" else slow.by_error
    gradient = lambda v: np.concatenate(by(cut(v), x, y))  # noqa: E731

    def energy(v):
        z = cut(v) if name == "activities" else slow.down(cut(v), x)
        o = slow.w[2] @ z[1] + slow.b[2]
        return 0.5 * sum((e**2).sum() for e in slow.errors(z, x)) + 0.5 * ((y - o) ** 2).sum() / 0.25

    v = np.concatenate(slow.start(x)) if name == "activities" else np.zeros(13)
    g, norm = gradient(v), np.linalg.norm
    length, growth = norm(g) / norm(gradient(v + g) - g), 1.0  # E is quadratic: H g is a difference
    trace = [energy(v)]
    for _ in range(12):
        new = v - length * g
        flat = 0.5 * norm(new - v) / norm(gradient(new) - g)
        if energy(new) <= energy(v):
            v, g, longer = new, gradient(new), min(flat, np.sqrt(1 + growth) * length)
        else:
            longer = min(max(flat, 0.1 * length), 0.5 * length)
        length, growth = longer, longer / length
        trace.append(energy(v))
    solver = vfe.ActivityDescent() if name == "activities" else vfe.ErrorDescent()
    never = {"max_steps": 12, "rtol": 0.0, "atol": 0.0, "throw": False}
    found = vfe.perceive(model, {"x": x, "y": y}, belief=vfe.Point, solver=solver, **never)
    assert_close(found.trace - found.trace[0], np.array(trace) - trace[0], 1e-9)
    z = v if name == "activities" else np.concatenate(slow.down(cut(v), x))
    assert_close(found.belief.location, z, 1e-9)


@pytest.mark.parametrize(
    "solver", [vfe.ActivityDescent(), vfe.ActivityDescent(10.0), vfe.ErrorDescent(), vfe.ErrorDescent(10.0)]
)
def test_energy_never_rises(solver):
    """Large weights, and lengths far too long: E falls or stays at every step, in float32."""
    with jax.enable_x64(False):
        model, seen = small(scale=0.5), data(6)
        model = eqx.tree_at(lambda m: m["z1"].mean.weight, model, 4 * model["z1"].mean.weight)
        found = vfe.perceive(model, seen, belief=vfe.Point, solver=solver, max_steps=200, throw=False)
        trace = np.asarray(found.trace, np.float64)
    assert np.all(np.isfinite(trace))
    # As in the library's own guard, 16 units of rounding of E.
    rounding = 16 * np.finfo(np.float32).eps * np.maximum(1, np.abs(trace[:, 1:]))
    assert np.all(np.diff(trace, axis=1) <= rounding)
    assert np.all(trace[:, -1] < trace[:, 0] - 0.03)
    if isinstance(solver, vfe.ActivityDescent):
        return  # Far from the equilibrium still: with such weights the activities are badly conditioned.
    slow = Slow(model, 0.5)
    for z, (x, y) in zip(np.asarray(found.belief.location, float), pairs(seen), strict=True):
        slope = slow.by_error(slow.errors([z[:7], z[7:]], x), x, y)
        assert np.abs(np.concatenate(slope)).max() < 1e-3


@pytest.mark.parametrize("solver", [vfe.ActivityDescent(), vfe.ErrorDescent()])
def test_an_observation_does_not_depend_on_its_batch(solver):
    """The activities of an observation alone and among 512, stopped after few steps, to rounding."""
    model, seen = small(), data(512)
    limits = {"max_steps": 6, "rtol": 1e-2, "atol": 0.0}
    conditioned, _ = condition(model, seen)
    settle = eqx.filter_jit(lambda c: relax(c, solver, KEY, **limits))
    together, good = settle(conditioned)
    assert np.all(np.asarray(good))
    for i in (0, 511):
        one, _ = condition(model, {n: v[i : i + 1] for n, v in seen.items()})
        alone, _ = settle(one)
        assert_close(alone.location[0], together.location[i], 1e-10)


def test_incremental_predictive_coding_is_that_of_numpy():
    """One activity step, one weight step, activities kept: three rounds over four observations."""
    model, seen = small(), data(4)
    learned = vfe.learn(
        model,
        seen,
        belief=vfe.Point,
        solver=vfe.ActivityDescent(0.1),
        perception_steps=1,
        keep_beliefs=True,
        optimiser=optax.sgd(0.2),
        epochs=3,
        key=KEY,
    )
    slow, each = Slow(model, 0.7), pairs(seen)
    z = [slow.start(x) for x in seen["x"]]
    for _ in range(3):
        z = [
            [a - 0.1 * g for a, g in zip(v, slow.by_activity(v, x, y), strict=True)]
            for v, (x, y) in zip(z, each, strict=True)
        ]
        slopes = [slow.by_weight(v, x, y) for v, (x, y) in zip(z, each, strict=True)]
        slow.w = [w - 0.2 * np.mean([s[0][k] for s in slopes], 0) for k, w in enumerate(slow.w)]
        slow.b = [b - 0.2 * np.mean([s[1][k] for s in slopes], 0) for k, b in enumerate(slow.b)]
    assert_close(learned.belief.location, np.array([np.concatenate(v) for v in z]), 1e-10)
    after = Slow(learned.model, 0.7)
    for got, want in zip((*after.w, *after.b), (*slow.w, *slow.b), strict=True):
        assert_close(got, want, 1e-10)


TIGHT = {"perception_steps": 300, "rtol": 1e-13, "atol": 1e-12, "optimiser": optax.sgd(1.0), "epochs": 1}


def nudged(model, seen, strength, solver=None, **options):
    gradient = vfe.CentredNudging(strength)
    return vfe.learn(
        model,
        seen,
        belief=vfe.Point,
        keep_beliefs=False,
        solver=solver,
        gradient=gradient,
        **TIGHT,
        **options,
    )


def moved(before, after):
    """By how much each weight and bias went down: the gradient, as the rate is 1."""
    return [a - b for a, b in zip((*before.w, *before.b), (*after.w, *after.b), strict=True)]


def test_nudging_tends_to_backpropagation():
    """Half the strength, a quarter of the error; F reported is the loss of the feed-forward pass."""
    model, seen = small(), data(4)
    slow = Slow(model, 0.7)
    want = [0.0] * 6
    losses = []
    for x, y in pairs(seen):
        z = slow.start(x)
        d0 = slow.output(z, y)
        d1 = slow.slope(z[1]) * (slow.w[2].T @ d0)
        d2 = slow.slope(z[0]) * (slow.w[1].T @ d1)
        inner = (x, slow.act(z[0]), slow.act(z[1]))
        one = [*map(np.outer, (d2, d1, d0), inner), d2, d1, d0]
        want = [a + g / 4 for a, g in zip(want, one, strict=True)]
        losses.append(-np.log(d0[y] + 1))
    off = []
    for strength, solver in ((0.2, vfe.Anderson()), (0.1, None)):
        learned = nudged(model, seen, strength, solver)
        assert learned.failed == 0
        assert_close(learned.free_energy.by_level["y"], losses, 1e-10)
        found = moved(slow, Slow(learned.model, 0.7))
        off.append(max(np.abs(a - b).max() for a, b in zip(found, want, strict=True)))
        largest = max(np.abs(a).max() for a in want)
    assert off[1] < 0.01 * largest
    assert 3.7 < off[0] / off[1] < 4.3


def test_nudging_at_finite_strength_is_that_of_numpy():
    """Linear layers, Gaussian output: both phases solve a linear system; the weights' step from them."""
    model, seen = linear()
    strength, s, sigma = 0.15, 0.7, 0.5
    slow = Slow(model, s, sigma)
    want = [0.0] * 6
    for x, y in pairs(seen):
        found = []
        for b in (strength, -strength):
            system = np.block(
                [
                    [(np.eye(7) + slow.w[1].T @ slow.w[1]) / s**2, -slow.w[1].T / s**2],
                    [-slow.w[1] / s**2, np.eye(6) / s**2 + b * slow.w[2].T @ slow.w[2] / sigma**2],
                ]
            )
            assert np.linalg.eigvalsh(system).min() > 0
            above = (slow.w[0] @ x + slow.b[0] - slow.w[1].T @ slow.b[1]) / s**2
            below = slow.b[1] / s**2 + b * slow.w[2].T @ (y - slow.b[2]) / sigma**2
            z = np.linalg.solve(system, np.concatenate([above, below]))
            weights, biases = slow.by_weight([z[:7], z[7:]], x, y, b)
            found.append([*weights, *biases])
        want = [a + (u - d) / (2 * strength) / 3 for a, u, d in zip(want, *found, strict=True)]
    learned = nudged(model, seen, strength, vfe.ErrorDescent(), validation=seen)
    after = Slow(learned.model, s, sigma)
    for got, wanted in zip(moved(slow, after), want, strict=True):
        assert_close(got, wanted, 1e-8)
    # Validation shows the loss after the step, at the feed-forward pass too.
    outputs = [after.w[2] @ after.start(x)[1] + after.b[2] for x in seen["x"]]
    losses = 0.5 * ((seen["y"] - outputs) ** 2 / sigma**2 + np.log(2 * np.pi * sigma**2)).sum(1)
    assert_close(learned.history["validation"]["by_level"]["y"][0], losses.mean(), 1e-9)


def test_a_phase_without_equilibrium_teaches_nothing():
    """β Jᵀ J above 1: the phase −β falls without bound; every visit is counted as failed, nothing moves."""
    model, seen = linear()
    learned = nudged(model, seen, 5.0, vfe.ErrorDescent())
    assert learned.failed == 3
    for a, b in zip(jax.tree.leaves(learned.model), jax.tree.leaves(model), strict=True):
        assert np.array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({"solver": vfe.ActivityDescent(), "perception_steps": 10}, 0.85),
        ({"solver": vfe.ErrorDescent()}, 0.85),
        ({"solver": vfe.ActivityDescent(), "perception_steps": 1, "keep_beliefs": True}, 0.7),
        ({"solver": vfe.Anderson(), "gradient": vfe.CentredNudging()}, 0.85),
    ],
    ids=["activities", "errors", "incremental", "nudging"],
)
def test_no_scheme_collapses(options, least):
    """Digits: accuracy on held-out images ends high and within 3 points of its best."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = (images / 16.0).astype(np.float32)
    found = []

    def watch(epoch, numbers, model):
        found.append(float((predict(model, {"x": x[800:]}).argmax(-1) == labels[800:]).mean()))

    with jax.enable_x64(False):
        vfe.learn(
            supervised(dense([64, 32, 32, 10], key=KEY, activation=jnp.tanh), inputs=64),
            {"x": x[:800], "y": labels[:800]},
            epochs=6,
            batch_size=16,
            optimiser=optax.adam(3e-3),
            callback=watch,
            key=KEY,
            **{"belief": vfe.Point, "keep_beliefs": False, **options},
        )
    assert found[-1] > least
    assert found[-1] > max(found) - 0.03


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: vfe.ActivityDescent(0.0), "step_size=0.0; wanted a positive number"),
        (lambda: vfe.ErrorDescent(float("nan")), "step_size=nan"),
        (lambda: vfe.CentredNudging(-0.1), "strength=-0.1; wanted a positive number"),
        (
            lambda: vfe.perceive(
                small(), data(2), belief=vfe.DiagonalGaussian, solver=vfe.ActivityDescent()
            ),
            "ActivityDescent finds modes: got a DiagonalGaussian",
        ),
        (lambda: vfe.learn(small(), data(2), gradient=vfe.CentredNudging()), "belief=vfe.Point"),
        (
            lambda: vfe.learn(small(), data(2), belief=vfe.Point, gradient=vfe.CentredNudging()),
            "keep_beliefs=False",
        ),
        (
            lambda: vfe.learn(
                vfe.Model(
                    z=vfe.gamma(2 * jnp.ones(1), 1.0),
                    x=vfe.gaussian(vfe.Affine(jnp.ones((2, 1))), parents="z"),
                ),
                {"x": np.ones((3, 2))},
                belief=vfe.Point,
                keep_beliefs=False,
                gradient=vfe.CentredNudging(),
            ),
            "node 'z' is hidden and not a vfe.gaussian of constant scale",
        ),
    ],
)
def test_what_does_not_fit_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
