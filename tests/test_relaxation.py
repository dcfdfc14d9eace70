"""What a relaxation reports, against plain NumPy: equilibria, gradients and spectra of linear networks."""

import itertools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
from helpers import assert_close, normal_energy

import vfe
from vfe.lanczos import extreme_eigenvalues
from vfe.networks import Dense, FromLast, Repeated, dense, relaxation, supervised
from vfe.perception.loop import AbstractBeliefSolver, move

pytestmark = pytest.mark.usefixtures("float64")

S, OUT = 0.7, 0.5
SIZES = (3, 5, 4, 2)


class Linear:
    """x → z2 → z1 → y without nonlinearity: everything a relaxation says of it, in closed form."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.w = [rng.normal(size=(b, a)) for a, b in itertools.pairwise(SIZES)]
        self.x, self.y = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
        self.settle()

    def settle(self):
        w0, w1, w2 = self.w
        # E = ½ zᵀ H z − bᵀ z + …, z = (z2, z1).
        self.hessian = np.block(
            [
                [(np.eye(5) + w1.T @ w1) / S**2, -w1.T / S**2],
                [-w1 / S**2, np.eye(4) / S**2 + w2.T @ w2 / OUT**2],
            ]
        )
        right = np.concatenate([self.x @ w0.T / S**2, self.y @ w2 / OUT**2], -1)
        self.equilibrium = np.linalg.solve(self.hessian, right.T).T
        self.feed_forward = np.concatenate([self.x @ w0.T, self.x @ w0.T @ w1.T], -1)

    @property
    def model(self):
        layers = [Dense(jnp.asarray(w), jnp.zeros(len(w))) for w in self.w]
        return supervised(layers, inputs=3, output="gaussian", scale=S, output_scale=OUT)

    @property
    def data(self):
        return {"x": self.x, "y": self.y}

    def residuals(self, z):
        z2, z1 = z[:, :5], z[:, 5:]
        w0, w1, w2 = self.w
        return {"z2": z2 - self.x @ w0.T, "z1": z1 - z2 @ w1.T, "y": self.y - z1 @ w2.T}

    def energies(self, z):
        sizes = {"z2": S, "z1": S, "y": OUT}
        return {n: normal_energy(r, 0.0, sizes[n] ** 2).sum(-1) for n, r in self.residuals(z).items()}

    def slope(self, z):
        """∂E/∂z by central differences."""
        found = np.zeros_like(z)
        for i in range(z.shape[1]):
            step = np.zeros(z.shape[1])
            step[i] = 1e-5
            up, down = (sum(self.energies(z + sign * step).values()) for sign in (1, -1))
            found[:, i] = (up - down) / 2e-5
        return found

    def held(self, z):
        """∂ mean E / ∂(W, b) by node at fixed activities: −ε parentᵀ / s², −ε / s²."""
        parents = {"z2": self.x, "z1": z[:, :5], "y": z[:, 5:]}
        sizes = {"z2": S, "z1": S, "y": OUT}
        found = {}
        for name, r in self.residuals(z).items():
            weight = -(r.T @ parents[name]) / len(r) / sizes[name] ** 2
            found[name] = np.concatenate([weight.ravel(), -r.mean(0) / sizes[name] ** 2])
        return found

    def backpropagation(self):
        """The chain rule on ½ |y − W2 W1 W0 x|² / σ²."""
        _, w1, w2 = self.w
        z2, z1 = self.feed_forward[:, :5], self.feed_forward[:, 5:]
        back = -(self.y - z1 @ w2.T) / OUT**2
        deltas = {"y": back, "z1": back @ w2, "z2": back @ w2 @ w1}
        parents = {"z2": self.x, "z1": z2, "y": z1}
        return {
            n: np.concatenate([(d.T @ parents[n] / len(d)).ravel(), d.mean(0)]) for n, d in deltas.items()
        }


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.fixture(scope="module")
def linear():
    return Linear()


@pytest.fixture(scope="module")
def tight(linear, float64):
    options = {"perception_steps": 200, "rtol": 1e-12, "atol": 1e-12}
    return relaxation(linear.model, linear.data, solver=vfe.Anderson(), **options)


@pytest.fixture(scope="module")
def none(linear, float64):
    return relaxation(linear.model, linear.data, solver=vfe.Anderson(), perception_steps=0)


def test_a_tight_solve_relaxes_wholly(linear, tight):
    """Share 1, nothing left, cosine 1; the drop and F by level are those of the closed form."""
    before, after = (linear.energies(z) for z in (linear.feed_forward, linear.equilibrium))
    possible = sum(before.values()) - sum(after.values())
    assert_close(tight.possible, possible, 1e-9)
    assert_close(tight.share, np.ones(6), 1e-9)
    assert_close(tight.mean_share, 1.0, 1e-9)
    assert np.all(np.asarray(tight.converged))
    assert float(tight.residual.max()) < 1e-9
    assert float(tight.left.max()) < 1e-8
    for name in ("z2", "z1", "y"):
        assert_close(tight.feed_forward.by_level[name], before[name], 1e-10)
        assert_close(tight.equilibrium.by_level[name], after[name], 1e-8)
        assert_close(tight.mean_by_level(tight.reached)[name], after[name].mean(), 1e-8)
    assert list(tight.gradients) == ["z2", "z1", "y"]
    held, back = linear.held(linear.equilibrium), linear.backpropagation()
    for name, g in tight.gradients.items():
        assert_close(g.reached_equilibrium, 1.0, 1e-9)
        assert_close(g.equilibrium, np.linalg.norm(held[name]), 1e-8)
        assert_close(g.backpropagation, np.linalg.norm(back[name]), 1e-9)
        assert_close(g.equilibrium_backpropagation, cosine(held[name], back[name]), 1e-8)


def test_spectra_of_a_linear_network(linear, tight):
    """In activities the eigenvalues of H, in errors those of I + Jᵀ J, J = ∂y/∂e / σ; the same for all."""
    _, w1, w2 = linear.w
    jacobian = np.concatenate([w2 @ w1, w2], -1) * S / OUT
    for spectrum, matrix in (
        (tight.activities, linear.hessian),
        (tight.errors, np.eye(9) + jacobian.T @ jacobian),
    ):
        values = np.linalg.eigvalsh(matrix)
        assert_close(spectrum.smallest, np.full(6, values[0]), 1e-8)
        assert_close(spectrum.largest, np.full(6, values[-1]), 1e-8)
        assert_close(spectrum.condition, np.full(6, values[-1] / values[0]), 1e-7)


def test_no_steps_relax_nothing(linear, none):
    """At the feed-forward pass: share 0, the output's gradient backpropagation's, no gradient above it."""
    assert np.all(np.asarray(none.drop) == 0)
    assert float(none.mean_share) == 0
    assert_close(none.residual, np.ones(6), 1e-12)
    assert not np.any(np.asarray(none.converged))
    g = none.gradients
    assert_close(g["y"].reached_backpropagation, 1.0, 1e-12)
    assert_close(g["y"].reached, np.linalg.norm(linear.backpropagation()["y"]), 1e-10)
    for name in ("z1", "z2"):
        assert float(g[name].reached) < 1e-12
    assert "—" in none.table()


def test_gradient_steps_on_activities(linear):
    """Three plain steps from the feed-forward pass: drop, residual and gradients where NumPy arrives."""
    rate = 0.02
    z = linear.feed_forward
    for _ in range(3):
        z = z - rate * linear.slope(z)
    solver = vfe.Descent(optax.sgd(rate))
    found = relaxation(linear.model, linear.data, solver=solver, perception_steps=3, rtol=0.0, atol=0.0)
    top, here, best = (
        sum(linear.energies(p).values()) for p in (linear.feed_forward, z, linear.equilibrium)
    )
    assert_close(found.drop, top - here, 1e-7)
    assert_close(found.share, (top - here) / (top - best), 1e-7)
    assert_close(found.mean_share, (top - here).sum() / (top - best).sum(), 1e-7)
    norm = lambda p: np.linalg.norm(linear.slope(p), axis=-1)  # noqa: E731
    assert_close(found.residual, norm(z) / norm(linear.feed_forward), 1e-6)
    assert np.asarray(found.steps).tolist() == [3] * 6
    reached, rest, back = linear.held(z), linear.held(linear.equilibrium), linear.backpropagation()
    for name, g in found.gradients.items():
        assert_close(g.reached, np.linalg.norm(reached[name]), 1e-6)
        assert_close(g.reached_equilibrium, cosine(reached[name], rest[name]), 1e-6)
        assert_close(g.reached_backpropagation, cosine(reached[name], back[name]), 1e-6)


def test_the_whole_free_energy(linear):
    """Under GaussNewtonLaplace F is −ln p(y | x) at equilibrium, and so is its gradient."""
    options = {"perception_steps": 100, "rtol": 1e-12, "atol": 1e-12}
    found = relaxation(
        linear.model, linear.data, belief=vfe.GaussNewtonLaplace, solver=vfe.Anderson(), **options
    )

    def surprise(w):
        jacobian = np.concatenate([w[2] @ w[1], w[2]], -1) * S
        cov = jacobian @ jacobian.T + OUT**2 * np.eye(2)
        r = linear.y - linear.x @ (w[2] @ w[1] @ w[0]).T
        quadratic = np.einsum("ni,ij,nj->n", r, np.linalg.inv(cov), r)
        return 0.5 * (quadratic + np.linalg.slogdet(cov)[1] + 2 * np.log(2 * np.pi))

    assert_close(found.equilibrium.total, surprise(linear.w), 1e-8)
    # Moving W1 alone, by central differences; the biases' part is −⟨Jᵀ S⁻¹ r⟩ of the level.
    w = linear.w
    slope = np.zeros_like(w[1])
    for i in np.ndindex(*w[1].shape):
        step = np.zeros_like(w[1])
        step[i] = 1e-5
        up, down = (surprise([w[0], w[1] + sign * step, w[2]]).mean() for sign in (1, -1))
        slope[i] = (up - down) / 2e-5
    errors = linear.residuals(linear.equilibrium)["y"] / OUT**2
    bias = -(errors @ w[2]).mean(0)
    norm = np.linalg.norm(np.concatenate([slope.ravel(), bias]))
    assert_close(found.gradients["z1"].equilibrium, norm, 1e-6)
    assert_close(found.gradients["z1"].reached_equilibrium, 1.0, 1e-8)
    assert "F, mean nats" in found.table()


def test_spectra_by_products_alone():
    """More activities than products are taken: the ends of H all the same; a cascade by its levels.

    Turned from level to level, errors add up over thirty of them: the smallest eigenvalue is far below the
    others, which products with H alone would take long to find.
    """
    rng = np.random.default_rng(3)
    w = [np.linalg.qr(rng.normal(size=(8, 8)))[0] for _ in range(30)]
    out = rng.normal(size=(3, 8))
    levels = Repeated([Dense(jnp.asarray(a), jnp.zeros(8)) for a in w]).layers
    model = vfe.Model(
        x=vfe.given(8),
        z=vfe.cascade(levels, parents="x", scale=0.3),
        y=vfe.gaussian(FromLast(Dense(jnp.asarray(out), jnp.zeros(3))), scale=0.5, parents="z"),
    )
    data = {"x": rng.normal(size=(2, 8)), "y": rng.normal(size=(2, 3))}
    found = relaxation(model, data, solver=vfe.Anderson(), perception_steps=6)
    below = [*(a.T @ a / 0.3**2 for a in w[1:]), out.T @ out / 0.5**2]
    hessian = np.zeros((240, 240))
    for i, gram in enumerate(below):
        here = slice(8 * i, 8 * i + 8)
        hessian[here, here] = np.eye(8) / 0.3**2 + gram
        if i < 29:
            after = slice(8 * i + 8, 8 * i + 16)
            hessian[after, here] = -w[i + 1] / 0.3**2
            hessian[here, after] = -w[i + 1].T / 0.3**2
    values = np.linalg.eigvalsh(hessian)
    # In errors: how y moves with every level's noise.
    down, moves = out, []
    for a in reversed(w):
        moves.append(down)
        down = down @ a
    jacobian = np.concatenate(moves, -1) * 0.3 / 0.5
    assert_close(found.activities.smallest / values[0], np.ones(2), 1e-4)
    assert_close(found.activities.largest / values[-1], np.ones(2), 1e-4)
    assert_close(found.errors.smallest, np.ones(2), 1e-8)
    assert_close(found.errors.largest, np.full(2, np.linalg.eigvalsh(jacobian @ jacobian.T)[-1] + 1), 1e-8)
    assert found.gradients["z"].reached.shape == (30,)
    assert list(found.layers()) == [*(f"z[{i}]" for i in range(30)), "y"]
    assert 0 < float(found.mean_share) < 1 + 1e-9


def test_extreme_eigenvalues():
    """Exact with as many products as dimensions, where a start has no part in most of the space too."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(30, 30)))[0]
    values = np.concatenate([[-2.0, 50.0], np.linspace(1, 10, 28)])
    matrix = jnp.asarray((basis * values) @ basis.T)
    start = jnp.asarray(rng.normal(size=30))
    for steps in (30, 99):
        low, high = extreme_eigenvalues(lambda v: matrix @ v, start, steps)
        assert_close(low, -2.0, 1e-10)
        assert_close(high, 50.0, 1e-10)
    low, high = extreme_eigenvalues(lambda v: matrix @ v, start, 8)
    assert -2.0 <= float(low) < 1.0
    assert 10.0 < float(high) <= 50.0
    # The identity: one product already exhausts what a start can reach.
    assert_close(jnp.stack(extreme_eigenvalues(lambda v: 3.0 * v, start, 30)), np.full(2, 3.0), 1e-12)


def test_the_sample_is_a_function_of_the_key(linear):
    """Six of twelve observations: whole rows, in order, without repetition, the same for one key."""
    twelve = Linear()
    rng = np.random.default_rng(5)
    twelve.x, twelve.y = rng.normal(size=(12, 3)), rng.normal(size=(12, 2))
    twelve.settle()
    before, after = (sum(twelve.energies(z).values()) for z in (twelve.feed_forward, twelve.equilibrium))
    rows = []
    for seed in (1, 1, 2):
        options = {"solver": vfe.Anderson(), "perception_steps": 0, "key": jax.random.key(seed)}
        some = relaxation(twelve.model, twelve.data, observations=6, **options)
        where = [int(np.argmin(np.abs(before - after - p))) for p in np.asarray(some.possible)]
        assert_close(some.possible, (before - after)[where], 1e-8)
        assert sorted(set(where)) == where
        rows.append(where)
    assert rows[0] == rows[1] != rows[2]


def test_steps_that_outrun_the_curvature(linear, tight):
    """Too long a step: a negative share and the stop not reached; further on no answer, which is said."""
    step = 1.2 * 2 / float(tight.activities.largest[0])
    options = {"solver": vfe.Descent(optax.sgd(step)), "rtol": 0.0, "atol": 0.0}
    risen = relaxation(linear.model, linear.data, perception_steps=20, **options)
    assert float(risen.mean_share) < 0
    assert_close(risen.possible, tight.possible, 1e-8)
    with pytest.raises(vfe.DivergenceError, match="none of 6 observations has an answer with Descent"):
        relaxation(linear.model, linear.data, perception_steps=2000, **options)


class Jump(AbstractBeliefSolver):
    """Goes to one place in one step, wherever it starts."""

    to: float

    @property
    def monotone(self):
        return False

    def check(self, conditioned, belief):
        return None

    def init(self, objective, vector):
        return jnp.zeros(())

    def step(self, objective, progress):
        return move(objective, progress, jnp.full_like(progress.vector, self.to), progress.memory)


@pytest.mark.parametrize("start", [0.0, -1.2], ids=["shallow first", "deep first"])
def test_the_lower_of_two_equilibria(start):
    """A deep basin near −1.2, a shallow one near 0.4: whichever perception is in, the deep one counts."""
    g = lambda z: 0.5 * z - z**3  # noqa: E731
    model = vfe.Model(z=vfe.gaussian(jnp.full(1, start)), y=vfe.gaussian(g, scale=0.3, parents="z"))
    energy = lambda z: 0.5 * (z - start) ** 2 + 0.5 * (1 - g(z)) ** 2 / 0.09  # noqa: E731
    grid = np.linspace(-2, 2, 400_001)
    shallow = grid[grid > 0][np.argmin(energy(grid[grid > 0]))]
    assert energy(shallow) > energy(grid).min() + 1
    to = -1.0 if start == 0.0 else float(shallow)
    found = relaxation(model, {"y": np.ones((1, 1))}, solver=Jump(to), perception_steps=1)
    assert_close(found.possible, [energy(start) - energy(grid).min()], 1e-8)
    assert_close(found.drop, [energy(start) - energy(to)], 1e-10)


def test_table_figure_and_dataset(none, tight):
    for found in (none, tight):
        lines = repr(found).splitlines()
        assert lines[0].startswith("relaxation of 6 observations (Anderson")
        assert {"z2", "z1", "y"} <= {line.split()[0] for line in lines}
        axes = found.plot()
        assert len(axes) == 4
        axes[0].figure.canvas.draw()
        plt.close(axes[0].figure)
    figure, axes = plt.subplots(1, 3)
    with pytest.raises(ValueError, match="got 3 axes; wanted 4"):
        none.plot(axes=axes)
    plt.close(figure)
    d = tight.to_xarray()
    assert_close(d["share"].values, np.ones(6), 1e-9)
    assert_close(d["free_energy_by_level"].sel(stage="reached").sum("level"), tight.reached.total, 1e-12)
    assert_close(d["cosine_reached_equilibrium"].sel(layer="z1"), 1.0, 1e-9)
    assert_close(d["activities_largest"] / d["activities_smallest"], tight.activities.condition, 1e-9)


def broken(model):
    weight = model["z1"].mean.weight.at[0, 0].set(jnp.nan)
    return jax.tree.map(lambda a: weight if a is model["z1"].mean.weight else a, model)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"belief": vfe.Laplace}, "got belief=Laplace; wanted vfe.Point or vfe.GaussNewtonLaplace"),
        ({"solver": "anderson"}, "got str for a solver"),
        ({"solver": vfe.Langevin()}, "got Langevin for a solver"),
        ({"perception_steps": -1}, "perception_steps=-1"),
        ({"observations": 0}, "observations=0"),
        ({"observed": {"x": np.zeros((2, 4)), "y": np.zeros((2, 2))}}, "'x'"),
        ({"observed": {"x": np.zeros((2, 3))}}, "no node is hidden"),
        ({"model": broken}, "energy of node 'z1' is not finite at the feed-forward pass"),
    ],
    ids=["belief", "text", "sampler", "steps", "none", "shape", "nothing hidden", "nan"],
)
def test_bad_input(linear, change, words):
    model = change.pop("model", lambda m: m)(linear.model)
    observed = change.pop("observed", linear.data)
    with pytest.raises((ValueError, TypeError), match=words):
        relaxation(model, observed, **change)


def test_hidden_nodes_of_other_kinds():
    """Discrete and constrained hidden nodes, and shared ones, are named."""
    label = vfe.Model(
        k=vfe.categorical(probabilities=jnp.ones(2) / 2),
        x=vfe.gaussian(vfe.Table(jnp.zeros((2, 3))), parents="k"),
    )
    rate = vfe.Model(r=vfe.gamma(2.0, 1.0), x=vfe.gaussian(lambda r: r * jnp.ones(3), parents="r"))
    mean = vfe.Model(m=vfe.gaussian(jnp.zeros(3), shared=True), x=vfe.gaussian(lambda m: m, parents="m"))
    for model, words in (
        (label, "'k' is hidden and discrete"),
        (rate, "'r' is hidden and not a vfe.gaussian"),
        (mean, "shared by all observations"),
    ):
        with pytest.raises(ValueError, match=words):
            relaxation(model, {"x": np.zeros((2, 3))})


def test_generative_models_too():
    """A latent above an image, no input given: the default solver, any Gaussian hidden nodes."""
    layers = dense([2, 6, 4], key=jax.random.key(0), activation=jnp.tanh)
    model = vfe.Model(
        z2=vfe.gaussian(jnp.zeros(2)),
        z1=vfe.gaussian(layers[0], scale=0.5, parents="z2"),
        x=vfe.bernoulli(Dense(layers[1].weight, jnp.full(4, 0.3), jnp.tanh), parents="z1"),
    )
    found = relaxation(model, {"x": np.array([[1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 1, 1]])})
    assert_close(found.mean_share, 1.0, 1e-5)
    assert list(found.gradients) == ["z1", "x"]
    assert found.settings.startswith("ErrorCoordinates")
