"""Learning and attention: optima known in closed form, gradients by finite differences, schedules."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, cosine, load, normal_energy
from jax.flatten_util import ravel_pytree
from learning_cases import (
    factor_model,
    labelled,
    labelled_model,
    linear_encoder,
    parameters,
    surprise,
    toy,
)

import vfe
from vfe.learning.store import batches, in_groups

pytestmark = pytest.mark.usefixtures("float64")

VAES = ("ppca_iris_k1_r0", "ppca_iris_k2_r1", "ppca_wine_k3_r2", "ppca_digits_k5_r3")
TIGHT = {"rtol": 1e-12, "atol": 1e-11, "perception_steps": 500}


def nonlinear(seed=3):
    mean = vfe.MLP(1, 2, 3, 1, key=jax.random.key(seed))
    return vfe.Model(
        z=vfe.gaussian(np.zeros(1)), x=vfe.gaussian(mean, scale=vfe.learnable(0.6), parents="z")
    )


# The linear VAE in closed form.


def check_vae(v, learned, data):
    wanted = float(v["nll_train_mean"])
    assert learned.kind == "exact"
    assert float(learned.history["total"][-1]) == pytest.approx(wanted, abs=0.01)
    assert surprise(learned.model, data) == pytest.approx(wanted, abs=0.01)
    weight = np.asarray(learned.model["x"].mean.weight)
    reference = v["W"] @ v["W"].T
    assert np.abs(weight @ weight.T - reference).max() < 0.01 * np.abs(reference).max()


@pytest.mark.parametrize("name", VAES)
def test_exact_em_reaches_the_linear_vae(name):
    """−ln p of the training data within .01 nats, W Wᵀ within 1 %, the noise learned."""
    v = load(f"vae/{name}")
    data = {"x": v["x_train"]}
    learned = vfe.learn(
        factor_model(v["x_train"], v["W"].shape[1]),
        data,
        epochs=400,
        solver=vfe.Exact(),
        optimiser=cosine(0.1, 400),
    )
    check_vae(v, learned, data)


@pytest.mark.parametrize("name", VAES)
def test_amortised_learning_reaches_the_linear_vae(name):
    """The same with a linear encoder of a full covariance, learned together with the model."""
    v = load(f"vae/{name}")
    x, k = v["x_train"], v["W"].shape[1]
    spread = x.std(0)
    encoder = linear_encoder(x.mean(0), np.maximum(spread, 0.1 * spread.mean()), k, k * (k + 1) // 2)
    learned = vfe.learn(
        factor_model(x, k),
        {"x": x},
        epochs=400,
        belief=vfe.Amortised(encoder, vfe.JointGaussian),
        optimiser=cosine(0.1, 400),
    )
    check_vae(v, learned, {"x": x})
    assert learned.belief is None
    assert_close(learned.family.encoder.scale.value, encoder.scale.value, 0.0, "Fixed in the encoder")
    again = vfe.free_energy(learned.model, learned.family, {"x": x}).mean().total
    assert float(again) == pytest.approx(float(v["nll_train_mean"]), abs=0.01)


def test_laplace_em_reaches_the_linear_vae():
    """Laplace beliefs are exact here, so EM with them has the same optimum."""
    v = load("vae/ppca_iris_k1_r0")
    learned = vfe.learn(
        factor_model(v["x_train"], 1),
        {"x": v["x_train"]},
        epochs=400,
        belief=vfe.Laplace,
        optimiser=cosine(0.1, 400),
    )
    check_vae(v, learned, {"x": v["x_train"]})


# Gradients.


def moved(model, data, gradient):
    """Minus the step that gradient descent with a rate of one takes."""
    learned = vfe.learn(
        model, data, epochs=1, optimiser=optax.sgd(1.0), gradient=gradient, belief=vfe.Laplace, **TIGHT
    )
    return parameters(model) - parameters(learned.model), learned


@pytest.mark.core
def test_em_gradient_is_the_partial_derivative_at_fixed_beliefs():
    model, data = nonlinear(), {"x": np.random.default_rng(0).normal(size=(5, 2))}
    belief = vfe.perceive(model, data, belief=vfe.Laplace).belief
    chosen, rest = eqx.partition(model, eqx.is_inexact_array)

    def at_fixed(chosen):
        return jnp.mean(vfe.free_energy(eqx.combine(chosen, rest), belief, data).total)

    wanted = np.array(ravel_pytree(jax.grad(at_fixed)(chosen))[0])
    held = np.asarray(ravel_pytree(marks(model))[0])
    step, learned = moved(model, data, vfe.ExpectationMaximisation())
    assert_close(step, wanted * held, 1e-7)
    assert_close(learned.free_energy.total, vfe.free_energy(model, belief, data).total, 1e-9)


def marks(model):
    """One for every number that learning changes, zero for the others."""
    return jax.tree.map(
        lambda a: jnp.zeros_like(a.value) if isinstance(a, vfe.Fixed) else jnp.ones_like(a),
        eqx.filter(model, eqx.is_inexact_array),
        is_leaf=lambda a: isinstance(a, vfe.Fixed),
    )


def test_total_derivative_is_that_of_new_perceptions():
    """Central differences of F through perception; the derivative at fixed beliefs differs."""
    model, data = nonlinear(), {"x": np.random.default_rng(0).normal(size=(5, 2))}
    chosen, rest = eqx.partition(model, eqx.is_inexact_array)
    start, unravel = ravel_pytree(chosen)

    def anew(vector):
        percept = vfe.perceive(eqx.combine(unravel(vector), rest), data, belief=vfe.Laplace)
        return float(jnp.mean(percept.free_energy.total))

    step, _ = moved(model, data, vfe.TotalDerivative())
    partial, _ = moved(model, data, vfe.ExpectationMaximisation())
    wanted = np.zeros(len(start))
    for i in np.flatnonzero(step):
        change = jnp.zeros_like(start).at[i].set(1e-4)
        wanted[i] = (anew(start + change) - anew(start - change)) / 2e-4
    assert np.count_nonzero(step) == 3 + 3 + 6 + 2 + 1
    assert np.abs(step - wanted).max() < 1e-5 * np.abs(wanted).max()
    assert np.abs(partial - wanted).max() > 1e-3 * np.abs(wanted).max()


@pytest.mark.parametrize("gradient", [vfe.ExpectationMaximisation(), vfe.TotalDerivative()])
def test_an_observation_without_an_answer_does_not_reach_the_gradient(gradient):
    """The step is the one that the other observations give; the failure is counted."""
    model = vfe.Model(
        z=vfe.gaussian(np.zeros(1)),
        x=vfe.gaussian(lambda z: jnp.exp(z), scale=vfe.learnable(0.5), parents="z"),
    )
    x = np.array([[1e200], [0.5], [1.5], [2.0]])
    step, learned = moved(model, {"x": x}, gradient)
    other, _ = moved(model, {"x": x[1:]}, gradient)
    assert learned.failed == 1
    assert_close(step, other, 1e-9)
    assert np.all(np.isfinite(learned.free_energy.total[1:]))


# Schedules.


@pytest.mark.core
def test_exact_em_never_raises_f():
    x, best = toy()
    learned = vfe.learn(
        factor_model(x, 1), {"x": x}, epochs=60, solver=vfe.Exact(), optimiser=optax.sgd(0.02)
    )
    assert np.all(np.diff(learned.history["total"]) < 0)
    assert learned.history["total"][-1] > best
    readings = learned.history
    assert_close(readings["energy"] - readings["entropy"], readings["total"], 1e-12)
    assert_close(readings["complexity"] - readings["accuracy"], readings["total"], 1e-12)
    assert_close(sum(readings["by_level"].values()), readings["total"], 1e-12)


def test_incremental_schedule_has_the_same_optimum():
    """One perception step at each visit: beliefs and parameters move together."""
    x, best = toy()
    learned = vfe.learn(
        factor_model(x, 1),
        {"x": x},
        epochs=500,
        perception_steps=1,
        belief=vfe.JointGaussian,
        solver=vfe.Descent(),
        optimiser=cosine(0.05, 500),
    )
    assert surprise(learned.model, {"x": x}) == pytest.approx(best, abs=1e-3)
    assert learned.history["total"][0] > best + 0.1


def test_more_parameter_steps_at_each_visit():
    x, best = toy()
    learned = vfe.learn(
        factor_model(x, 1),
        {"x": x},
        epochs=60,
        parameter_steps=5,
        solver=vfe.Exact(),
        optimiser=cosine(0.1, 60, 5),
    )
    assert surprise(learned.model, {"x": x}) == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize("size", [40, 13, 8])
def test_batch_sizes_share_the_optimum(size):
    """13 does not divide 40: the last batch is filled up from the start of the epoch's order."""
    x, best = toy()
    steps = -(-40 // size)
    learned = vfe.learn(
        factor_model(x, 1),
        {"x": x},
        epochs=150,
        batch_size=size,
        solver=vfe.Exact(),
        optimiser=cosine(0.05, 150, steps),
    )
    assert surprise(learned.model, {"x": x}) == pytest.approx(best, abs=2e-3)


@pytest.mark.core
def test_the_order_is_a_function_of_the_key():
    x, _ = toy()
    optimiser = optax.sgd(0.05)

    def learned(seed):
        return vfe.learn(
            factor_model(x, 1),
            {"x": x},
            epochs=2,
            batch_size=7,
            solver=vfe.Exact(),
            key=jax.random.key(seed),
            optimiser=optimiser,
        )

    one, same, other = learned(0), learned(0), learned(1)
    assert np.array_equal(parameters(one.model), parameters(same.model))
    assert np.array_equal(one.history["total"], same.history["total"])
    assert not np.array_equal(parameters(one.model), parameters(other.model))


@pytest.mark.parametrize("size", [40, 10, 7, 1])
def test_f_is_in_the_order_of_the_data(size):
    """With a rate of zero every batch sees the same model, so F is −ln p(x) of each observation."""
    x, _ = toy()
    model, told = factor_model(x, 1), []
    learned = vfe.learn(
        model,
        {"x": x},
        epochs=1,
        batch_size=size,
        solver=vfe.Exact(),
        optimiser=optax.sgd(0.0),
        callback=lambda epoch, numbers, model: told.append(numbers["observations"]),
    )
    wanted = -vfe.exact.log_evidence(model, {"x": x})
    assert_close(learned.free_energy.total, wanted, 1e-10)
    assert_close(told[0], wanted, 1e-10, "what the callback is told")
    means = vfe.exact.posterior(model, {"x": x})["z"].mean
    assert_close(learned.belief["z"].mean, means, 1e-10, "beliefs in the order of the data")


def test_beliefs_go_on_from_an_earlier_call():
    """The belief of a `Learned` is a start: nothing is left to perceive where it has converged."""
    x, _ = toy()
    model, still = factor_model(x, 1), optax.sgd(0.0)
    first = vfe.learn(model, {"x": x}, epochs=1, belief=vfe.Laplace, optimiser=still, **TIGHT)
    options = {"perception_steps": 1, "optimiser": still, "epochs": 1}
    data = {"x": x.reshape(4, 10, 3)}
    second = vfe.learn(model, data, belief=first.belief, **options)
    assert_close(second.free_energy.total, -vfe.exact.log_evidence(model, {"x": x}), 1e-9)


# Which leaves move.


@pytest.mark.core
def test_point_precisions_are_refused():
    """Hidden: refused. Observed: a warning. Fixed: nothing said."""
    x = np.random.default_rng(0).normal(size=(6, 2))

    def model(hidden=1.0, seen=1.0):
        mean = vfe.Affine(np.ones((2, 1)))
        return vfe.Model(
            z=vfe.gaussian(np.zeros(1), scale=hidden), x=vfe.gaussian(mean, scale=seen, parents="z")
        )

    with pytest.raises(ValueError, match="hidden node 'z' has no optimum"):
        vfe.learn(model(hidden=vfe.learnable(1.0)), {"x": x}, belief=vfe.Point)
    with pytest.raises(ValueError, match="hidden node 'z' has no optimum"):
        vfe.learn(model(), {"x": x}, belief=vfe.Point, where=lambda m: m["z"].noise)
    encoder = vfe.Amortised(linear_encoder(np.zeros(2), np.ones(2), 1, 0), vfe.Point)
    with pytest.raises(ValueError, match="hidden node 'z' has no optimum"):
        vfe.learn(model(hidden=vfe.learnable(1.0)), {"x": x}, belief=encoder)
    with pytest.warns(UserWarning, match="precision of the observed node 'x'"):
        vfe.learn(model(seen=vfe.learnable(1.0)), {"x": x}, belief=vfe.Point, epochs=1)
    with_entropy = vfe.learn(model(hidden=vfe.learnable(1.0)), {"x": x}, belief=vfe.Laplace, epochs=1)
    assert with_entropy.kind == "exact"
    found = vfe.learn(model(), {"x": x}, belief=vfe.Point, epochs=2)
    assert found.kind == "energy"
    assert "prior_energy" in found.history
    assert "entropy" not in found.history


def test_only_named_leaves_move():
    x, _ = toy()
    model = factor_model(x, 1)
    learned = vfe.learn(model, {"x": x}, epochs=2, where=lambda m: m["x"].mean.bias)
    assert not np.array_equal(learned.model["x"].mean.bias, model["x"].mean.bias)
    assert np.array_equal(learned.model["x"].mean.weight, model["x"].mean.weight)
    assert np.array_equal(learned.model["x"].noise.log_precision, model["x"].noise.log_precision)
    several = vfe.learn(model, {"x": x}, epochs=1, where=lambda m: (m["x"].noise, m["z"].mean)).model
    assert not np.array_equal(several["x"].noise.log_precision, model["x"].noise.log_precision)
    assert not np.array_equal(several["z"].mean.value.value, model["z"].mean.value.value)
    assert np.array_equal(several["x"].mean.weight, model["x"].mean.weight)


def test_fixed_leaves_never_move():
    x, _ = toy()
    weight = vfe.Fixed(jnp.ones((3, 1)))
    model = vfe.Model(
        z=vfe.gaussian(np.zeros(1)), x=vfe.gaussian(vfe.Affine(weight), scale=0.7, parents="z")
    )
    learned = vfe.learn(model, {"x": x}, epochs=3).model
    assert np.array_equal(learned["x"].mean.weight.value, np.ones((3, 1)))
    assert np.array_equal(learned["x"].noise.log_precision.value, model["x"].noise.log_precision.value)
    assert np.array_equal(learned["z"].mean.value.value, np.zeros(1))
    assert not np.array_equal(learned["x"].mean.bias, model["x"].mean.bias)


@pytest.mark.core
def test_attention_without_hidden_nodes_is_the_residual_variance():
    rng = np.random.default_rng(0)
    u = rng.normal(size=(30, 2))
    y = u @ np.array([[1.0, 0.5], [0.0, 2.0]]) + np.array([0.3, 1.2]) * rng.normal(size=(30, 2))
    model = vfe.Model(u=vfe.given(2), y=vfe.gaussian(vfe.Affine(np.eye(2)), scale=np.ones(2), parents="u"))
    learned = vfe.attend(model, {"u": u, "y": y}, epochs=200, optimiser=cosine(0.2, 200))
    variance = np.exp(-np.asarray(learned.model["y"].noise.log_precision.value))
    wanted = ((y - u) ** 2).mean(0)
    assert_close(variance, wanted, 1e-4)
    assert np.array_equal(learned.model["y"].mean.weight, np.eye(2))
    assert float(learned.history["total"][-1]) == pytest.approx(
        float(normal_energy(y, u, wanted).sum(1).mean()), abs=1e-6
    )


def test_attention_matches_the_expected_residual_variance():
    """At the optimum, variance = mean of ⟨(x − g(z))²⟩ under the posterior that goes with it."""
    x, _ = toy()
    weight = np.array([[1.0], [-0.8], [0.5]])
    model = vfe.Model(
        z=vfe.gaussian(np.zeros(1)),
        x=vfe.gaussian(vfe.Affine(weight, np.ones(3)), scale=2.0, parents="z"),
    )
    learned = vfe.attend(
        model, {"x": x}, nodes="x", epochs=400, solver=vfe.Exact(), optimiser=cosine(0.2, 400)
    ).model
    variance = float(np.exp(-learned["x"].noise.log_precision.value))
    spread = 1 / (1 + (weight**2).sum() / variance)
    mean = (x - 1.0) @ weight * spread / variance
    residual = ((x - 1.0 - mean @ weight.T) ** 2).mean() + spread * (weight**2).mean()
    assert variance == pytest.approx(residual, rel=1e-4)
    assert np.array_equal(learned["x"].mean.weight, weight)
    assert np.array_equal(learned["z"].noise.log_precision.value, 0.0)


# The geodesic.


@pytest.mark.core
def test_one_natural_gradient_step_reaches_the_posterior():
    """From anywhere, for a joint Gaussian belief in a conjugate model."""
    c = load("linear_gaussian/case_001")
    model = vfe.Model(
        z2=vfe.gaussian(c["top_mean"], covariance=c["top_cov"]),
        z1=vfe.gaussian(vfe.Affine(c["W1"], c["b1"]), covariance=c["R1"], parents="z2"),
        x=vfe.gaussian(vfe.Affine(c["W0"], c["b0"]), covariance=c["R0"], parents="z1"),
    )
    data = {"x": c["x"]}
    exact = vfe.exact.posterior(model, data)
    n = exact.location.size
    rng = np.random.default_rng(0)
    for _ in range(3):
        root = rng.normal(size=(n, n))
        start = vfe.JointGaussian.from_factor(
            exact.layout, 10 * rng.normal(size=n), np.linalg.cholesky(root @ root.T + np.eye(n))
        )
        percept = vfe.perceive(model, data, belief=start, solver=vfe.NaturalGradient())
        assert int(percept.steps) == 1
        assert_close(percept.belief.location, exact.location, 1e-9)
        assert_close(percept.belief.factor(), exact.factor(), 1e-9)


def test_learning_with_natural_gradient_perception():
    x, best = toy()
    learned = vfe.learn(
        factor_model(x, 1),
        {"x": x},
        epochs=150,
        perception_steps=1,
        belief=vfe.JointGaussian,
        solver=vfe.NaturalGradient(),
        optimiser=cosine(0.1, 150),
    )
    assert surprise(learned.model, {"x": x}) == pytest.approx(best, abs=1e-3)


# Held-out data, and discrete models.


@pytest.mark.core
def test_validation_is_measured_with_the_parameters_of_its_epoch():
    x, _ = toy()
    seen = []
    learned = vfe.learn(
        factor_model(x, 1),
        {"x": x[:30]},
        epochs=3,
        solver=vfe.Exact(),
        validation={"x": x[30:]},
        callback=lambda epoch, numbers, model: seen.append(surprise(model, {"x": x[30:]})),
    )
    assert_close(learned.history["validation"]["total"], seen, 1e-10)
    assert_close(learned.history["step"], [1, 2, 3], 0.0)


def test_tables_of_a_discrete_model():
    """With the cause observed, the learned table is the table of frequencies."""
    rng = np.random.default_rng(0)
    s, o = rng.integers(0, 2, 50), rng.integers(0, 3, 50)
    model = vfe.Model(
        s=vfe.categorical(np.array([0.5, 0.5])),
        o=vfe.categorical(vfe.learnable(np.full((3, 2), 1 / 3)), parents="s"),
    )
    learned = vfe.learn(model, {"s": s, "o": o}, epochs=300, optimiser=cosine(0.2, 300))
    counts = np.stack([np.bincount(o[s == k], minlength=3) / (s == k).sum() for k in range(2)], 1)
    assert_close(jax.nn.softmax(learned.model["o"].logits, axis=0), counts, 1e-4)


# Interruption.


@pytest.mark.parametrize("kind", ["laplace", "amortised"])
def test_resume_is_bit_for_bit(tmp_path, kind):
    x, _ = toy()
    model, optimiser = factor_model(x, 1), optax.adam(0.05)
    options = {"epochs": 5, "batch_size": 16, "optimiser": optimiser, "validation": {"x": x[:5]}}
    if kind == "amortised":
        options["belief"] = vfe.Amortised(
            linear_encoder(np.zeros(3), np.ones(3), 1, 1), vfe.DiagonalGaussian
        )

    def stop(epoch, numbers, model):
        if epoch == 3:
            raise KeyboardInterrupt

    whole = vfe.learn(model, {"x": x}, **options)
    with pytest.raises(KeyboardInterrupt):
        vfe.learn(model, {"x": x}, checkpoint=tmp_path, checkpoint_every=2, callback=stop, **options)
    epochs = []
    resumed = vfe.learn(
        model,
        {"x": x},
        checkpoint=tmp_path,
        resume=True,
        callback=lambda epoch, *_: epochs.append(epoch),
        **options,
    )
    assert epochs == [4, 5]
    assert np.array_equal(parameters(resumed.model), parameters(whole.model))
    for a, b in zip(jax.tree.leaves(resumed.belief), jax.tree.leaves(whole.belief), strict=True):
        assert np.array_equal(a, b)
    assert np.array_equal(resumed.history["total"], whole.history["total"])
    assert np.array_equal(resumed.history["validation"]["total"], whole.history["validation"]["total"])

    done = vfe.learn(model, {"x": x}, checkpoint=tmp_path, resume=True, **options)
    assert (done.epochs, done.status) == (5, "all epochs done")
    assert np.array_equal(parameters(done.model), parameters(whole.model))
    assert done.free_energy.total.shape == (40,)
    belief = done.family if kind == "amortised" else done.belief
    wanted = vfe.free_energy(done.model, belief, {"x": x})
    assert_close(done.free_energy.total, wanted.total, 1e-12)
    assert done.kind == "exact"
    assert "F " in repr(done)


def test_resume_with_another_model_says_what_differs(tmp_path):
    x, _ = toy()
    vfe.learn(factor_model(x, 1), {"x": x}, epochs=1, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="weight"):
        vfe.learn(factor_model(x, 2), {"x": x}, epochs=2, checkpoint=tmp_path, resume=True)
    with pytest.raises(ValueError, match="checkpoint"):
        vfe.learn(factor_model(x, 1), {"x": x}, resume=True)


@pytest.mark.core
def test_the_callback_stops_learning():
    x, _ = toy()
    learned = vfe.learn(factor_model(x, 1), {"x": x}, epochs=9, callback=lambda e, n, m: e == 2)
    assert learned.epochs == len(learned.history["total"]) == 2
    assert "stopped by the callback" in learned.status


# Bad input.


@pytest.mark.core
@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"epochs": 0}, ValueError, "epochs=0"),
        ({"perception_steps": 0}, ValueError, "perception_steps=0"),
        ({"parameter_steps": 0}, ValueError, "parameter_steps=0"),
        ({"batch_size": 41}, ValueError, "batch_size=41; wanted 1 … 40"),
        ({"batch_size": 0}, ValueError, "batch_size=0"),
        ({"where": lambda m: ()}, ValueError, "nothing to learn"),
        ({"where": lambda m: m["y"]}, ValueError, "no node 'y'"),
        ({"where": "x"}, TypeError, "where"),
        ({"belief": vfe.Particles}, ValueError, "Particles have no F"),
        ({"solver": vfe.Langevin()}, ValueError, "Particles have no F"),
        ({"gradient": "total"}, TypeError, "TotalDerivative"),
        ({"optimiser": 0.01}, TypeError, "optax"),
        ({"augment": lambda k, b: {"x": b["x"][:2]}}, ValueError, "augment changed the shape of 'x'"),
        ({"augment": lambda k, b: {"y": b["x"]}}, ValueError, "augment"),
        ({"contrast": vfe.Contrast("label")}, ValueError, "wants the node 'label' among the observed"),
    ],
)
def test_settings_that_do_not_fit(options, kind, words):
    x, _ = toy()
    with pytest.raises(kind, match=words):
        vfe.learn(factor_model(x, 1), {"x": x}, **{"epochs": 1, **options})


@pytest.mark.core
def test_nothing_to_learn_and_data_that_do_not_fit():
    x, _ = toy()
    fixed = vfe.Model(z=vfe.gaussian(np.zeros(3)), x=vfe.gaussian(lambda z: z, parents="z"))
    with pytest.raises(ValueError, match="nothing to learn"):
        vfe.learn(fixed, {"x": x})
    with pytest.raises(ValueError, match="no observations"):
        vfe.learn(factor_model(x, 1), {"x": x[:0]})
    with pytest.raises(ValueError, match="where"):
        vfe.attend(factor_model(x, 1), {"x": x}, where=lambda m: m["x"])
    with pytest.raises(ValueError, match="has no precision"):
        vfe.attend(labelled_model(), {"x": labelled()[0]}, nodes="label")


def test_missing_data():
    """NaN are left out: F is −ln p of what is there, also where nothing is."""
    x, _ = toy()
    x = np.array(x)
    x[0] = np.nan
    x[1:20:3, 1] = np.nan
    x[5:9, 2] = np.nan
    learned = vfe.learn(
        factor_model(toy()[0], 1),
        {"x": x},
        epochs=60,
        batch_size=10,
        solver=vfe.Exact(),
        optimiser=cosine(0.05, 60, 4),
    )
    assert learned.failed == 0
    total = learned.history["total"]
    assert np.isfinite(total).all()
    assert total[-1] < total[0] - 0.1
    assert_close(learned.free_energy.total[0], 0.0, 1e-9, "nothing observed")
    assert total[-1] == pytest.approx(surprise(learned.model, {"x": x}), abs=2e-3)


def test_augmented_data():
    """Noise on the data adds to the variance learned."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    model = vfe.Model(x=vfe.gaussian(vfe.learnable(np.zeros(2)), scale=vfe.learnable(1.0)))
    learned = vfe.learn(
        model,
        {"x": x},
        epochs=150,
        augment=lambda key, batch: {"x": batch["x"] + jax.random.normal(key, (2,))},
        optimiser=cosine(0.1, 150),
    )
    variance = float(np.exp(-learned.model["x"].noise.log_precision))
    assert variance == pytest.approx(((x - x.mean(0)) ** 2).mean() + 1.0, rel=0.05)


# Speed.

calls = 0


class Counted(eqx.Module):
    """A linear map that counts how often Python runs it: that is, how often it is traced."""

    weight: jax.Array

    def __call__(self, z):
        global calls
        calls += 1
        return self.weight @ z


@pytest.mark.core
def test_a_second_call_does_not_trace_again():
    x, _ = toy()

    def learned(scale, data):
        mean = Counted(scale * jnp.ones((3, 1)))
        model = vfe.Model(
            z=vfe.gaussian(np.zeros(1)), x=vfe.gaussian(mean, scale=vfe.learnable(1.0), parents="z")
        )
        before = calls
        vfe.learn(model, {"x": data}, epochs=2, batch_size=20)
        return calls - before

    def construction():
        before = calls
        mean = Counted(jnp.ones((3, 1)))
        model = vfe.Model(z=vfe.gaussian(np.zeros(1)), x=vfe.gaussian(mean, parents="z"))
        assert model.order == ("z", "x")
        return calls - before

    construction()
    first = learned(1.0, x)
    second = learned(0.5, x + 1.0)
    assert first > 5
    assert second <= 3, f"traced {second} times"


@pytest.mark.core
@pytest.mark.parametrize(
    ("count", "largest", "sizes"),
    [
        (1, 32, [1]),
        (31, 32, [31]),
        (94, 47, [47, 47]),
        (47, 32, [24, 23]),  # a prime number of minibatches
        (53, 32, [27, 26]),
        (94, 32, [32, 32, 30]),
        (96, 32, [32, 32, 32]),
        (60, 32, [30, 30]),
        (7, 3, [3, 3, 1]),
        (7, 1, [1] * 7),
    ],
)
def test_batches_in_groups(count, largest, sizes):
    """Every batch once, in order, in groups of which only the last may have another shape."""
    order = np.random.default_rng(0).permutation(5 * count)
    groups = in_groups(batches(order, 5), largest)
    assert [g.shape for g in groups] == [(n, 5) for n in sizes]
    assert np.array_equal(np.concatenate(groups).ravel(), order)
