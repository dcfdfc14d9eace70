"""What an encoder and its model descend, against NumPy: F, tempered, importance-weighted, refined."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax, logsumexp
from scipy.stats import norm

import vfe
from vfe.averages import draws_of
from vfe.conditioning import condition
from vfe.learning.plan import Plan, Strengths
from vfe.learning.ways import Minibatch
from vfe.learning.ways.importance_weighted import ImportanceWeightedObservations
from vfe.perception.perceive import Settings

pytestmark = pytest.mark.usefixtures("float64")

X = np.array([[1.0], [-0.5], [0.3]])
START = np.array([0.8, 0.2, 0.3, -0.2, 0.1, -0.4])
"""Weight and bias of the model; weights, then biases of mean and ln sd of the encoder."""


def linear(weight=0.8, bias=0.2):
    mean = vfe.Affine(jnp.array([[weight]]), jnp.array([bias]))
    return vfe.Model(z=vfe.gaussian(np.zeros(1)), x=vfe.gaussian(mean, scale=0.5, parents="z"))


def amortised(numbers=START[2:]):
    encoder = vfe.Affine(jnp.asarray(numbers[:2, None]), jnp.asarray(numbers[2:]))
    return vfe.Amortised(encoder, vfe.DiagonalGaussian)


def numbers_of(learned):
    mean, encoder = learned.model["x"].mean, learned.family.encoder
    parts = (mean.weight, mean.bias, encoder.weight, encoder.bias)
    return np.concatenate([np.ravel(p) for p in parts])


def guess(numbers, x=X):
    """Mean and ln sd of the encoder's beliefs, (2, observations)."""
    return numbers[2:4, None] * x.T + numbers[4:, None]


def kl(m, ln_s, mean=0.0, ln_sd=0.0):
    """KL(N(m, s²) ‖ N(mean, sd²))."""
    return ln_sd - ln_s + 0.5 * (np.exp(2 * ln_s) + (m - mean) ** 2) * np.exp(-2 * ln_sd) - 0.5


def energy(numbers, m, ln_s, x=X):
    """−⟨ln p(x | z)⟩."""
    w, b = numbers[:2]
    return 0.5 * np.log(0.5 * np.pi) + ((x[:, 0] - w * m - b) ** 2 + w**2 * np.exp(2 * ln_s)) / 0.5


def tempered(numbers, beta=1.0, x=X):
    m, ln_s = guess(numbers, x)
    return np.mean(beta * kl(m, ln_s) + energy(numbers, m, ln_s, x))


def gradient(function, numbers):
    steps = 1e-5 * np.eye(len(numbers))
    return np.array([(function(numbers + s) - function(numbers - s)) / 2e-5 for s in steps])


def descend(objective, epochs=1, **options):
    options = {"optimiser": optax.sgd(1.0), "epochs": epochs, "objective": objective, **options}
    return vfe.learn(linear(), {"x": X}, belief=amortised(), **options)


@pytest.mark.filterwarnings("ignore:Tempered")
def test_tempered_descends_beta_times_complexity_less_accuracy():
    """Three epochs of plain gradient descent, each with its β; F itself is reported."""
    numbers, reported = START, []
    for beta in (0.0, 0.4, 2.0):
        reported.append(tempered(numbers))
        numbers = numbers - 0.05 * gradient(lambda v, beta=beta: tempered(v, beta), numbers)
    objective = vfe.Tempered(lambda epoch: (0.0, 0.4, 2.0)[epoch])
    learned = descend(objective, 3, optimiser=optax.sgd(0.05))
    np.testing.assert_allclose(numbers_of(learned), numbers, atol=1e-8)
    np.testing.assert_allclose(learned.history["total"], reported, atol=1e-8)
    assert learned.free_energy.kind == vfe.Kind.exact


def test_tempered_says_what_it_is():
    with pytest.warns(UserWarning, match="no longer bounds"):
        assert vfe.Tempered(0.5).at(7) == 0.5
    assert vfe.Tempered(1.0).at(0) == 1.0  # without a warning
    for beta in (-1.0, np.nan, np.inf, "much", lambda epoch: -1.0):
        with pytest.raises(ValueError, match="wanted a number of at least zero"):
            vfe.Tempered(beta)
    with pytest.raises(ValueError, match="got β = -1"):
        descend(vfe.Tempered(lambda epoch: (1.0, -1.0)[epoch]), 2)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_refined_moves_the_model_by_refined_beliefs_and_the_encoder_by_its_own(share):
    """One step of sgd with rate 1: the model's gradient is that of F where perception ended, the encoder's
    (1 − w) ∂F + w ∂KL(refined ‖ q), the model and the refined belief held."""
    options = {"solver": vfe.Descent(optax.sgd(0.05)), "rtol": 1e-12, "atol": 1e-12}
    begun = {"belief": started(), "max_steps": 2, "throw": False}
    held = vfe.perceive(linear(), {"x": X}, **begun, **options).belief
    m, ln_s = np.asarray(held.location)[:, 0], np.asarray(held.log_scale)[:, 0]
    at_start = guess(START)
    assert np.all(np.abs(m - at_start[0]) > 1e-3)
    learned = descend(vfe.Refined(share), perception_steps=2, **options)
    step = START - numbers_of(learned)
    wanted = gradient(lambda v: np.mean(energy(v, m, ln_s)), START)[:2]
    np.testing.assert_allclose(step[:2], wanted, atol=1e-7)

    def encoder(v):
        own = tempered(np.concatenate([START[:2], v[2:]]))
        return (1 - share) * own + share * np.mean(kl(m, ln_s, *guess(v)))

    np.testing.assert_allclose(step[2:], gradient(encoder, START)[2:], atol=1e-7)
    # What is reported is F of the refined beliefs.
    assert float(learned.history["total"][0]) == pytest.approx(
        np.mean(kl(m, ln_s) + energy(START, m, ln_s))
    )
    assert float(learned.history["total"][0]) < tempered(START)


def started():
    m, ln_s = guess(START)
    layout = condition(linear(), {"x": X})[0].layout
    return vfe.DiagonalGaussian(layout, jnp.asarray(m)[:, None], jnp.asarray(ln_s)[:, None])


def test_importance_weighted_bound_against_numpy():
    model, x, family = linear(), X, amortised()
    key = jax.random.key(5)
    conditioned = condition(model, {"x": x})[0]
    settings = Settings(1, 0.0, 0.0, None)
    bounds = {}
    for samples in (1, 30):
        plan = Plan(
            family, None, settings, None, vfe.ImportanceWeighted(samples), None, None, 1, None, 3, True
        )
        way = ImportanceWeightedObservations(samples)
        keys = (jax.random.key(1), jax.random.key(2), jax.random.key(3))
        batch = Minibatch(
            plan,
            conditioned,
            family,
            jnp.arange(3),
            None,
            Strengths(jnp.array(False), jnp.ones(())),
            None,
            *keys,
        )
        loss = jax.jit(jax.vmap(lambda k, w=way, b=batch: w.loss(b, w.visit(b), model, family, k)))
        fresh, (F, _) = loss(jnp.append(jax.random.split(jax.random.key(9), 400), key))
        each, energies = [], []
        for value, k in zip(x[:, 0], jax.random.split(key, 3), strict=True):
            m, s = 0.3 * value + 0.1, np.exp(-0.2 * value - 0.4)
            belief = vfe.DiagonalGaussian(conditioned.layout, jnp.array([m]), jnp.log(jnp.array([s])))
            z = np.asarray(draws_of(belief, k, samples).coordinates).ravel()
            assert len(z) == samples
            logs = norm.logpdf(z) + norm.logpdf(value, 0.8 * z + 0.2, 0.5) - norm.logpdf(z, m, s)
            each.append(np.log(samples) - logsumexp(logs))
            energies.append(-logs.mean())
        assert float(fresh[-1]) == pytest.approx(np.mean(each), rel=1e-10)
        np.testing.assert_allclose(F.total[-1], energies, rtol=1e-10)
        bounds[samples] = float(np.mean(fresh)), float(np.std(fresh)) / 20
    exact = np.mean(-norm.logpdf(x[:, 0], 0.2, np.sqrt(0.8**2 + 0.25)))
    assert abs(bounds[1][0] - tempered(START)) < 4 * bounds[1][1]
    assert bounds[1][0] > bounds[30][0] + 8 * bounds[30][1]
    assert exact - 4 * bounds[30][1] < bounds[30][0] < exact + 0.02


def test_one_weighted_draw_has_the_gradient_of_free_energy():
    """K = 1: over many copies of the data, ∂F in closed form within its standard error."""
    count = 300
    steps = []
    for seed in range(8):
        learned = vfe.learn(
            linear(),
            {"x": np.repeat(X, count, 0)},
            belief=amortised(),
            optimiser=optax.sgd(1.0),
            epochs=1,
            objective=vfe.ImportanceWeighted(1),
            key=jax.random.key(seed),
        )
        steps.append(START - numbers_of(learned))
    wanted = gradient(tempered, START)
    error = np.std(steps, 0, ddof=1) / np.sqrt(8)
    assert np.all(np.abs(np.mean(steps, 0) - wanted) < 6 * error + 1e-6)
    assert np.all(error < 0.06)


@pytest.mark.parametrize(
    ("family", "objective"),
    [
        (vfe.Mixture(2), vfe.Refined(0.5)),
        (vfe.Flow(1), vfe.Refined(1.0)),
        (vfe.Conjugate(), vfe.ImportanceWeighted(8)),
    ],
    ids=["mixture", "flow", "conjugate"],
)
def test_drawn_families_learn(family, objective):
    """The encoder alone moves, every number of its last layer, and F stays above −ln p(x)."""
    model = linear()
    belief = vfe.recognition(model, family=family, width=4, depth=1, key=jax.random.key(0))
    exact = -np.mean(vfe.exact.log_evidence(model, {"x": X}))
    learned = vfe.learn(
        model,
        {"x": X},
        belief=belief,
        objective=objective,
        epochs=1,
        where=lambda m: (),
        perception_steps=1,
        **(
            {"solver": vfe.Descent(optax.sgd(0.05)), "expectation": vfe.MonteCarlo(32)}
            if isinstance(objective, vfe.Refined)
            else {}
        ),
    )
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b), learned.model, model))
    moved = np.abs(learned.family.encoder.weights[-1] - belief.encoder.weights[-1])
    assert np.all((moved > 0) & np.isfinite(moved))
    F = vfe.free_energy(model, learned.family, {"x": X}, expectation=vfe.MonteCarlo(2048)).mean()
    assert float(F.total) > exact - 4 * float(F.standard_error)


def test_encoders_of_labels_and_of_labels_with_numbers():
    """F of Categorical and MeanField beliefs that a table or a function gives, against NumPy."""
    prior, rows = np.array([0.3, 0.7]), np.array([[0.8, 0.4], [0.2, 0.6]])
    model = vfe.Model(k=vfe.categorical(prior), x=vfe.categorical(rows, parents="k"))
    logits = np.array([[0.2, -0.3], [1.0, 0.5]])
    belief = vfe.Amortised(vfe.Table(jnp.asarray(logits)), vfe.Categorical)
    x = np.array([0, 1, 1])
    log = log_softmax(logits[x], -1)
    wanted = np.sum(np.exp(log) * (log - np.log(prior) - np.log(rows[x])), -1)
    np.testing.assert_allclose(vfe.free_energy(model, belief, {"x": x}).total, wanted, atol=1e-12)

    means = np.array([-1.0, 2.0])
    model = vfe.Model(
        k=vfe.categorical(prior),
        z=vfe.gaussian(vfe.Table(vfe.Fixed(jnp.asarray(means[:, None]))), parents="k"),
        x=vfe.gaussian(lambda z: z, scale=0.5, parents="z"),
    )

    def encoder(x):
        return jnp.concatenate([x / 2, jnp.array([-0.7]), jnp.stack([-x[0], x[0]])])

    belief = vfe.Amortised(encoder, vfe.MeanField)
    m, ln_s, x = X[:, 0] / 2, -0.7, X[:, 0]
    log = log_softmax(np.stack([-x, x], -1), -1)
    wanted = np.sum(np.exp(log) * (log - np.log(prior) + kl(m[:, None], ln_s, means)), -1)
    wanted += energy(np.array([1.0, 0.0]), m, ln_s)
    F = vfe.free_energy(model, belief, {"x": X}, expectation=vfe.Taylor())
    np.testing.assert_allclose(F.total, wanted, atol=1e-10)
    for family in (vfe.Categorical, vfe.DiagonalGaussian, vfe.Mixture(2)):
        with pytest.raises(ValueError, match="does not hold the hidden nodes"):
            vfe.free_energy(model, vfe.Amortised(encoder, family), {"x": X})
    with pytest.raises(ValueError, match=r"returned shape \(3,\); MeanField over .* wants \(4,\)"):
        vfe.free_energy(model, vfe.Amortised(lambda x: encoder(x)[:3], vfe.MeanField), {"x": X})


def test_an_encoder_sees_what_is_missing():
    model = vfe.Model(z=vfe.gaussian(np.zeros(1)), x=vfe.gaussian(lambda z: jnp.repeat(z, 3), parents="z"))

    def encoder(x, there):
        return jnp.stack([x @ jnp.array([1.0, 10.0, 100.0]), there @ jnp.array([1.0, 2.0, 4.0])])

    belief = vfe.Amortised(encoder, vfe.DiagonalGaussian, ("x", vfe.Present("x")))
    x = np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan], [4.0, 5.0, 6.0]])
    found = vfe.perceive(model, {"x": x}, belief=belief, solver=vfe.FeedForward()).belief
    np.testing.assert_allclose(found.location[:, 0], [301.0, 0.0, 654.0])
    np.testing.assert_allclose(found.log_scale[:, 0], [5.0, 0.0, 7.0])
    whole = vfe.perceive(model, {"x": x[2:]}, belief=belief, solver=vfe.FeedForward()).belief
    np.testing.assert_allclose(whole.log_scale, [[7.0]])


def test_networks_of_the_right_size():
    key = jax.random.key(0)
    model = vfe.Model(
        k=vfe.categorical(np.full(3, 1 / 3)),
        a=vfe.gaussian(vfe.Table(np.zeros((3, 2))), parents="k"),
        b=vfe.gaussian(np.zeros(1)),
        x=vfe.gaussian(lambda a, b: jnp.concatenate([a, b, b]), parents=("a", "b")),
    )

    def sizes(**options):
        encoder = vfe.recognition(model, key=key, width=5, depth=1, **options).encoder
        return encoder.weights[0].shape[1], encoder.weights[-1].shape[0]

    # Five layer numbers for every one of n = 3: n (n + 2); a full covariance has n (n − 1) / 2 more.
    for family, size in (
        (vfe.DiagonalGaussian, 6),
        (vfe.JointGaussian, 9),
        (vfe.Mixture(4), 4 * 7),
        (vfe.Flow(2), 6 + 2 * 15),
    ):
        assert sizes(family=family, inputs=("x", "k")) == (5, size)
    assert sizes(family=vfe.MeanField) == (4, 7 + 3)
    assert sizes(family=vfe.MeanField, inputs=("x", vfe.Present("x"))) == (8, 7 + 3)
    assert sizes(family=vfe.Categorical, inputs=("x", "a", "b")) == (7, 3)
    with pytest.raises(ValueError, match="nothing is hidden"):
        sizes(inputs=("x", "a", "b", "k"))
    with pytest.raises(ValueError, match="does not hold the hidden nodes"):
        sizes()
    with pytest.raises(ValueError, match="y"):
        sizes(inputs=("y",))
    shared = vfe.Model(w=vfe.gaussian(np.zeros(1), shared=True), x=vfe.gaussian(lambda w: w, parents="w"))
    with pytest.raises(ValueError, match="latents are shared"):
        vfe.recognition(shared, key=key)


def grey_model():
    return vfe.Model(
        label=vfe.categorical(np.full(2, 0.5)),
        z=vfe.gaussian(vfe.Table(np.array([[-1.0], [1.0]])), parents="label"),
        x=vfe.bernoulli(lambda z: jnp.repeat(z, 2), parents="z"),
    )


def binary(key, observed):
    return {"x": jax.random.uniform(key, observed["x"].shape) < observed["x"]}


def test_grey_images_become_data():
    """Only what `augment` makes may be no data yet; labels beside it are checked to the last."""
    rng = np.random.default_rng(0)
    grey, label = rng.random((100, 2)), rng.integers(0, 2, 100)
    family = vfe.recognition(grey_model(), key=jax.random.key(0), width=4, depth=1, inputs=("x", "label"))

    def learn(data, augment=binary, **options):
        return vfe.learn(grey_model(), data, belief=family, augment=augment, epochs=1, **options)

    found = [learn({"x": grey, "label": label}, batch_size=50)]
    found.append(learn(vfe.Rows({"x": grey, "label": label}), batch_size=50))
    np.testing.assert_allclose(found[0].history["total"], found[1].history["total"], rtol=1e-12)
    one = {"batch_size": 50}
    for rows in (dict, vfe.Rows):
        with pytest.raises(ValueError, match="fractional values") as caught:
            learn(rows({"x": grey, "label": label}), lambda k, o: {"x": 0.9 * o["x"]}, **one)
        assert "augment" in caught.value.__notes__[0]
        with pytest.raises(ValueError, match="fractional values"):
            learn(rows({"x": grey, "label": label}), None, **one)
        for wrong in (2, 0.5):
            labels = np.append(label[:-1], wrong)
            with pytest.raises(ValueError, match="node 'label'"):
                learn(rows({"x": grey, "label": labels}), **one)
    data = {"x": grey, "label": label}
    with pytest.raises(ValueError, match="were not among the observed"):
        learn(data, lambda k, o: {"y": o["x"]})
    with pytest.raises(ValueError, match="changed the shape of 'x'"):
        learn(data, lambda k, o: {"x": o["x"][:1]})


def test_what_ends_badly_warns():
    """β other than 1 in the last epoch; refinement over a pair of draws."""
    with pytest.warns(UserWarning, match="learning ended at β = 0.5"):
        descend(vfe.Tempered(lambda epoch: 0.5), 1)
    options = {"solver": vfe.Descent(optax.adam(0.01)), "perception_steps": 1}
    with pytest.warns(UserWarning, match="over 2 draws"):
        descend(vfe.Refined(), 1, expectation=vfe.MonteCarlo(2), **options)


@pytest.mark.filterwarnings("ignore:Tempered")
def test_learning_goes_on_where_it_stopped(tmp_path):
    def schedule(epoch):
        return min(1.0, 0.25 * epoch)

    options = {"batch_size": 2, "optimiser": optax.adam(0.05)}
    whole = descend(vfe.Tempered(schedule), 4, **options)
    descend(vfe.Tempered(schedule), 2, checkpoint=tmp_path, **options)
    rest = descend(vfe.Tempered(schedule), 4, checkpoint=tmp_path, resume=True, **options)
    np.testing.assert_array_equal(numbers_of(rest), numbers_of(whole))
    np.testing.assert_array_equal(rest.history["total"], whole.history["total"])
    for other in (None, vfe.ImportanceWeighted(5), vfe.Refined()):
        with pytest.raises(ValueError, match=r"got objective=.*, wanted objective=Tempered"):
            descend(other, 4, checkpoint=tmp_path, resume=True, **options)


def test_objectives_that_do_not_go_with_the_rest():
    data = {"x": X}

    def learn(objective, belief=None, model=None, **options):
        belief = amortised() if belief is None else belief
        vfe.learn(linear() if model is None else model, data, belief=belief, objective=objective, **options)

    with pytest.raises(TypeError, match="for objective; wanted"):
        learn(0.5)
    with pytest.raises(ValueError, match="for beliefs with an encoder"):
        learn(vfe.Refined(), vfe.DiagonalGaussian)
    with pytest.raises(ValueError, match="beliefs are taken as they are"):
        learn(None, solver=vfe.Descent())
    with pytest.raises(ValueError, match="beliefs are taken as they are"):
        learn(vfe.ImportanceWeighted(2), solver=vfe.Descent())
    with pytest.raises(ValueError, match=r"MonteCarlo\(...\) would not be used"):
        learn(vfe.ImportanceWeighted(2), expectation=vfe.MonteCarlo(4))
    with pytest.raises(ValueError, match=r"TotalDerivative\(\) would not be used"):
        learn(None, gradient=vfe.TotalDerivative())
    with pytest.raises(ValueError, match="a solver that takes steps"):
        learn(vfe.Refined(), solver=vfe.FeedForward())
    with pytest.raises(ValueError, match="wants a belief with a density"):
        learn(vfe.Refined(), vfe.Amortised(lambda x: x, vfe.Point))
    labels = vfe.Model(
        k=vfe.categorical(np.full(2, 0.5)),
        z=vfe.gaussian(vfe.Table(np.zeros((2, 1))), parents="k"),
        x=vfe.gaussian(lambda z: z, parents="z"),
    )
    mixed = vfe.recognition(labels, family=vfe.MeanField, key=jax.random.key(0))
    with pytest.raises(ValueError, match="none may be discrete"):
        learn(vfe.ImportanceWeighted(2), mixed, labels)
    inside = vfe.Enumerated("k", vfe.recognition(labels, inputs=("x", "k"), key=jax.random.key(0)))
    with pytest.raises(ValueError, match="itself, not inside"):
        learn(vfe.Refined(), inside, labels)
    for wrong in (lambda: vfe.ImportanceWeighted(0), lambda: vfe.Refined(1.5), lambda: vfe.Mixture(1)):
        with pytest.raises(ValueError, match="wanted"):
            wrong()
    for wrong in (vfe.Laplace, vfe.Point, 3):
        with pytest.raises(TypeError, match=r"wanted vfe\.DiagonalGaussian"):
            vfe.Mixture(2, wrong)
    with pytest.raises(ValueError, match="wanted 1, 2"):
        vfe.Flow(0)


@pytest.mark.parametrize("belief", [vfe.Point, "encoder"])
def test_what_augment_leaves_out_is_missing(belief):
    """NaN from `augment` teaches what NaN in the data teaches."""
    model = vfe.Model(
        z=vfe.gaussian(np.zeros(1)),
        x=vfe.gaussian(vfe.Affine(jnp.array([[0.8], [0.3]])), scale=0.5, parents="z"),
    )
    if belief == "encoder":
        inputs = ("x", vfe.Present("x"))
        belief = vfe.recognition(model, width=4, depth=1, key=jax.random.key(0), inputs=inputs)
    x = np.random.default_rng(0).normal(size=(6, 2))
    gaps = np.where(np.arange(2) == 1, np.nan, x)

    def learn(data, augment=None):
        options = {"epochs": 3, "keep_beliefs": False, "optimiser": optax.sgd(0.1)}
        return vfe.learn(model, {"x": data}, belief=belief, augment=augment, **options)

    found = learn(x, lambda key, data: {"x": jnp.where(jnp.arange(2) == 1, jnp.nan, data["x"])})
    wanted = learn(gaps)
    np.testing.assert_allclose(found.history["total"], wanted.history["total"], rtol=1e-10)
    np.testing.assert_allclose(found.model["x"].mean.weight, wanted.model["x"].mean.weight, rtol=1e-10)
    assert abs(float(found.history["total"][-1] - learn(x).history["total"][-1])) > 0.01
    with pytest.raises(TypeError, match="augment returned NoneType"):
        learn(x, lambda key, data: None)


def test_augment_leaves_no_parents_out():
    model = vfe.Model(
        z=vfe.gaussian(np.zeros(1)),
        y=vfe.gaussian(vfe.Affine(jnp.eye(1)), parents="z"),
        x=vfe.gaussian(lambda y: y, parents="y"),
    )
    with pytest.raises(ValueError, match=r"'y' \(NaN\), which has children"):
        vfe.learn(model, {"x": X, "y": X}, augment=lambda k, data: {"y": data["y"] + jnp.nan})


def test_no_integer_is_made_of_nan():
    """NaN that the first observations do not show is missing in discrete nodes too, or refused."""
    model = vfe.Model(
        z=vfe.gaussian(np.zeros(1)),
        x=vfe.bernoulli(vfe.Affine(jnp.array([[0.8], [0.3]])), parents="z"),
    )
    x = np.repeat([[0.0, 0.0], [1.0, 0.0]], 80, 0)
    family = vfe.recognition(model, width=4, depth=1, key=jax.random.key(0), inputs=(vfe.Present("x"),))
    options = {"epochs": 1, "belief": family}

    def late(key, data):
        return {"x": jnp.where(data["x"] > 0.5, jnp.nan, 1.0 * data["x"])}

    found = vfe.learn(model, {"x": x}, augment=late, **options)
    wanted = vfe.learn(model, {"x": np.where(x > 0.5, np.nan, x)}, **options)
    np.testing.assert_allclose(found.history["total"], wanted.history["total"], rtol=1e-10)
    above = vfe.Model(
        k=vfe.categorical(np.full(2, 0.5)),
        x=vfe.gaussian(vfe.Table(jnp.zeros((2, 1))), parents="k"),
    )
    with pytest.raises(ValueError, match="wanted integers"):
        vfe.learn(
            above,
            {"x": X, "k": np.array([0, 1, 0])},
            where=lambda m: m["x"].mean,
            augment=lambda key, data: {"k": 1.0 * data["k"]},
        )
