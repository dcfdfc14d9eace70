"""Bad input gets an error that names the node, what was got and what was wanted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close

import vfe

pytestmark = [pytest.mark.core, pytest.mark.usefixtures("float64")]


@pytest.fixture
def model():
    return vfe.Model(
        z=vfe.gaussian(np.zeros(2)),
        x=vfe.gaussian(vfe.Affine(np.ones((3, 2))), parents="z"),
    )


@pytest.fixture
def labelled():
    return vfe.Model(
        l=vfe.categorical(np.full(3, 1 / 3)),
        x=vfe.gaussian(vfe.Table(np.arange(3.0)[:, None]), parents="l"),
    )


def belief_for(model):
    return vfe.DiagonalGaussian.from_moments(model, {"z": np.zeros(2)}, np.eye(2))


# Building a model


def test_unknown_parent():
    with pytest.raises(ValueError, match=r"'x'.*'w'"):
        vfe.Model(z=vfe.gaussian(0.0), x=vfe.gaussian(lambda w: w, parents="w"))


def test_cycle():
    with pytest.raises(ValueError, match=r"\['a', 'b'\] form a cycle"):
        vfe.Model(
            a=vfe.gaussian(lambda b: b, parents="b"),
            b=vfe.gaussian(lambda a: a, parents="a"),
            c=vfe.gaussian(0.0),
        )
    with pytest.raises(ValueError, match=r"cycle|itself"):
        vfe.Model(a=vfe.gaussian(lambda a: a, parents="a"))


def test_shapes_that_do_not_fit_name_the_node_and_its_parents():
    with pytest.raises(ValueError, match=r"node 'x' does not fit its parents \(z: \(2,\)\)"):
        vfe.Model(z=vfe.gaussian(np.zeros(2)), x=vfe.gaussian(vfe.Affine(np.ones((3, 4))), parents="z"))


def test_not_a_node():
    with pytest.raises(TypeError, match=r"node 'x' is a ndarray.*vfe.gaussian"):
        vfe.Model(x=np.zeros(3))
    with pytest.raises(ValueError, match="no nodes"):
        vfe.Model()
    with pytest.raises(ValueError, match="name a node twice"):
        vfe.gaussian(lambda a, b: a, parents=("a", "a"))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"scale": -1.0}, "scale must be finite and positive; got -1"),
        ({"scale": 0.0}, "scale must be finite and positive"),
        ({"scale": np.nan}, "scale must be finite and positive"),
        ({"precision": [1.0, -2.0]}, "precision must be finite and positive; got -2"),
        ({"precision": np.inf}, "precision must be finite and positive"),
        ({"covariance": [[1.0, 2.0], [2.0, 1.0]]}, "not positive definite .its least eigenvalue is -1"),
        ({"covariance": [[-1.0, 0.0], [0.0, 1.0]]}, "not positive definite"),
        ({"covariance": [[1.0, 0.5], [0.0, 1.0]]}, "not symmetric"),
        ({"covariance": [1.0, 2.0]}, r"shape \(2,\); wanted \(n, n\)"),
        ({"covariance": [[1.0, np.inf], [np.inf, 1.0]]}, "not finite"),
        ({"precision": [[1.0, 2.0], [2.0, 1.0]]}, "precision is not positive definite"),
        ({"scale": 1.0, "covariance": np.eye(2)}, "got scale and covariance; give only one"),
    ],
)
def test_spreads(options, match):
    with pytest.raises(ValueError, match=match):
        vfe.gaussian(np.zeros(2), **options)


def test_spread_of_the_wrong_size_names_the_node():
    with pytest.raises(ValueError, match=r"node 'z'.*covariance has shape"):
        vfe.Model(z=vfe.gaussian(np.zeros(2), covariance=np.eye(3)))
    with pytest.raises(ValueError, match=r"node 'z'.*scale has shape \(3,\)"):
        vfe.Model(z=vfe.gaussian(np.zeros(2), scale=np.ones(3)))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: vfe.categorical(np.array([0.5, 0.6])), "sum to one"),
        (lambda: vfe.categorical(np.array([1.5, -0.5])), "not negative"),
        (lambda: vfe.categorical(np.ones((2, 2)) / 2), "wants 1 axes"),
        (lambda: vfe.categorical(), "either probabilities or logits"),
        (lambda: vfe.gamma(-1.0, 1.0), "concentration must be finite and positive"),
        (lambda: vfe.dirichlet(np.array([1.0, 0.0])), "concentration must be finite and positive"),
        (lambda: vfe.plate("p", 0), "positive integer"),
        (lambda: vfe.Affine(np.zeros(3)), "wanted a matrix"),
        (lambda: vfe.Affine(np.zeros((3, 2)), np.zeros(2)), r"bias has shape \(2,\); wanted \(3,\)"),
        (lambda: vfe.masked(np.zeros(3, int), np.ones(2, bool)), "one boolean per value"),
        (lambda: vfe.MonteCarlo(3), "even number"),
        (lambda: vfe.Langevin(chains=1), "at least 2 chains"),
        (lambda: vfe.hierarchy([3]), "at least 2"),
        (lambda: vfe.hierarchy([3, 4]), "key="),
    ],
)
def test_makers(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize(
    "node",
    [
        lambda: vfe.categorical(np.full((2, 4), 0.5), parents="s"),
        lambda: vfe.categorical(np.full((2, 2), 0.5), parents="s"),
        lambda: vfe.gaussian(vfe.Table(np.zeros((2, 5))), parents="s"),
        lambda: vfe.gaussian(np.zeros(5), scale=vfe.Table(np.ones((4, 5))), parents="s"),
        lambda: vfe.bernoulli(vfe.Table(np.zeros((2, 5))), parents="s"),
    ],
)
def test_tables_that_do_not_match_their_parent(node):
    """A table too small for its parent's states would silently read its last entry."""
    with pytest.raises(ValueError, match=r"node 'o' has a table for parents with .*\['s'\] have \[3\]"):
        vfe.Model(s=vfe.categorical(np.full(3, 1 / 3)), o=node())


# Data


@pytest.mark.parametrize("call", ["perceive", "log_evidence", "posterior", "free_energy"])
def test_unknown_node_everywhere(model, call):
    functions = {
        "perceive": lambda data: vfe.perceive(model, data),
        "log_evidence": lambda data: vfe.exact.log_evidence(model, data),
        "posterior": lambda data: vfe.exact.posterior(model, data),
        "free_energy": lambda data: vfe.free_energy(model, belief_for(model), data),
    }
    with pytest.raises(ValueError, match=r"no node 'y' in this model; its nodes are \['z', 'x'\]"):
        functions[call]({"y": np.zeros(3)})


def test_wrong_shape(model):
    """The message has the node, its parents, the shape got and the shape wanted."""
    with pytest.raises(
        ValueError, match=r"node 'x' \(parents: \['z'\]\): got .*\(5, 4\).*wanted \('...', 3\)"
    ):
        vfe.perceive(model, {"x": np.zeros((5, 4))})
    with pytest.raises(ValueError, match=r"got an array of shape \(\)"):
        vfe.perceive(model, {"x": 1.0})
    with pytest.raises(ValueError, match="leading axes of the nodes differ"):
        model.energies({"x": np.zeros((5, 3)), "z": np.zeros((4, 2))})
    with pytest.raises(ValueError, match=r"no value for \['z'\]"):
        model.energies({"x": np.zeros(3)})


@pytest.mark.parametrize(
    "bad",
    [np.array(["a", "b", "c"]), np.zeros(3, complex), np.array([None] * 3), {"a": 1}, [[1.0], [1.0, 2.0]]],
)
def test_wrong_type(model, bad):
    with pytest.raises(ValueError, match=r"node 'x'.*wanted an array of numbers"):
        vfe.perceive(model, {"x": bad})


def test_wrong_arguments(model):
    with pytest.raises(TypeError, match=r"wanted a vfe.Model"):
        vfe.perceive({"x": 1}, {"x": np.zeros(3)})
    with pytest.raises(TypeError, match="observed is a ndarray"):
        vfe.perceive(model, np.zeros(3))
    with pytest.raises(TypeError, match="for a belief"):
        vfe.perceive(model, {"x": np.zeros(3)}, belief="Laplace")
    with pytest.raises(TypeError, match="for a solver"):
        vfe.perceive(model, {"x": np.zeros(3)}, solver="Descent")
    with pytest.raises(ValueError, match="max_steps must be at least 1"):
        vfe.perceive(model, {"x": np.zeros(3)}, max_steps=0)


def test_empty_data(model):
    with pytest.raises(ValueError, match="no observations"):
        vfe.perceive(model, {"x": np.zeros((0, 3))})


def test_infinite_data(model):
    with pytest.raises(ValueError, match=r"node 'x'.*1 elements are infinite.*NaN"):
        vfe.perceive(model, {"x": np.array([0.0, np.inf, 1.0])})


def test_all_missing_is_allowed(model):
    """Nothing was seen: F is complexity only, accuracy 0, and the best belief is the prior (claim 2l)."""
    data = {"x": np.full((2, 3), np.nan)}
    percept = vfe.perceive(model, data)
    assert np.all(np.asarray(percept.free_energy.accuracy) == 0)
    assert_close(percept.free_energy.total, np.zeros(2), 1e-12)
    assert_close(percept.free_energy.total, percept.free_energy.complexity, 1e-15)
    assert_close(percept.belief["z"].mean, np.zeros((2, 2)), 1e-12)
    assert_close(percept.belief["z"].variance, np.ones((2, 2)), 1e-12)
    m, s = np.array([0.3, -0.4]), np.array([0.5, 2.0])
    belief = vfe.DiagonalGaussian.from_moments(model, {"z": m}, np.diag(s**2))
    found = vfe.free_energy(model, belief, data)
    kl = (-np.log(s) + 0.5 * (s**2 + m**2 - 1)).sum()
    assert_close(found.total, [kl, kl], 1e-13)
    assert np.all(np.asarray(found.accuracy) == 0)


def test_labels_out_of_range(labelled):
    x = np.zeros((2, 1))
    with pytest.raises(ValueError, match=r"node 'l'.*from 0 to 3; wanted 0 … 2"):
        vfe.exact.log_evidence(labelled, {"l": np.array([0, 3]), "x": x})
    with pytest.raises(ValueError, match=r"node 'l'.*from -1 to 0"):
        vfe.exact.log_evidence(labelled, {"l": np.array([-1, 0]), "x": x})
    with pytest.raises(ValueError, match=r"node 'l'.*fractional"):
        vfe.exact.log_evidence(labelled, {"l": np.array([0.5, 1.0]), "x": x})
    binary = vfe.Model(
        z=vfe.gaussian(np.zeros(1)), x=vfe.bernoulli(vfe.Affine(np.ones((2, 1))), parents="z")
    )
    with pytest.raises(ValueError, match=r"node 'x'.*wanted 0 … 1"):
        vfe.perceive(binary, {"x": np.array([0, 2])})
    with pytest.raises(ValueError, match="grey values"):
        vfe.perceive(binary, {"x": np.array([0.5, 1.0])})
    # A masked label may hold anything where it is missing.
    vfe.exact.log_evidence(labelled, {"l": vfe.masked(np.array([-1, 2]), np.array([False, True])), "x": x})


def test_values_outside_a_support():
    model = vfe.Model(z=vfe.gaussian(0.0), t=vfe.gamma(lambda z: 1.0 + z**2, 1.0, parents="z"))
    with pytest.raises(ValueError, match=r"node 't'.*leave its support"):
        vfe.perceive(model, {"t": np.array([1.0, -1.0])}, belief=vfe.Point)


def test_given_inputs():
    model = vfe.Model(
        u=vfe.given(2),
        z=vfe.gaussian(vfe.Affine(np.eye(2)), parents="u"),
        x=vfe.gaussian(vfe.Affine(np.eye(2)), parents="z"),
    )
    with pytest.raises(ValueError, match=r"no values for the inputs \['u'\]"):
        vfe.perceive(model, {"x": np.zeros(2)})
    with pytest.raises(ValueError, match=r"node 'u'.*missing values; inputs must be known"):
        vfe.perceive(model, {"x": np.zeros(2), "u": np.array([np.nan, 0.0])})


def test_plate_indices():
    model = vfe.Model(
        m=vfe.gaussian(np.zeros(1), plate=vfe.plate("subject", 2)),
        x=vfe.gaussian(vfe.Affine(np.eye(1)), parents="m"),
    )
    with pytest.raises(ValueError, match="subject"):
        vfe.perceive(model, {"x": np.zeros((3, 1))})
    with pytest.raises(ValueError, match=r"plate 'subject': indices from 0 to 2; wanted 0 … 1"):
        vfe.perceive(model, {"x": np.zeros((3, 1)), "subject": np.array([0, 1, 2])})
    with pytest.raises(ValueError, match="plate 'subject': got type float64"):
        vfe.perceive(model, {"x": np.zeros((3, 1)), "subject": np.zeros(3)})


# Kinds of F and beliefs


def test_kinds_are_not_mixed(model):
    data = {"x": np.zeros(3)}
    belief = belief_for(model)
    exact = vfe.free_energy(model, belief, data)
    sampled = vfe.free_energy(model, belief, data, expectation=vfe.MonteCarlo(8))
    energy = vfe.free_energy(model, vfe.Point.from_values(model, {"z": np.zeros(2)}), data)
    assert [f.kind.value for f in (exact, sampled, energy)] == ["exact", "monte_carlo", "energy"]
    for one, two in ((exact, sampled), (exact, energy), (sampled, energy)):
        with pytest.raises(ValueError, match="different kinds"):
            one + two
    assert_close((exact + exact).total, 2 * exact.total, 1e-15)
    assert_close((sampled + sampled).standard_error, np.sqrt(2) * sampled.standard_error, 1e-15)


def test_a_point_has_no_divergence_entropy_or_density(model):
    energy = vfe.free_energy(model, vfe.Point.from_values(model, {"z": np.zeros(2)}), {"x": np.zeros(3)})
    with pytest.raises(ValueError, match=r"divergence.*undefined"):
        energy.divergence(0.0)
    for word in ("entropy", "complexity"):
        with pytest.raises(ValueError, match="no entropy"):
            getattr(energy, word)
    with pytest.raises(TypeError, match="no density"):
        vfe.Point.from_values(model, {"z": np.zeros(2)}).log_density({"z": np.zeros(2)})
    assert "not a bound on surprise" in energy.table()


def test_enumerated_over_point_is_refused():
    with pytest.raises(ValueError, match="Point below a discrete node gives energies"):
        vfe.Enumerated("l", vfe.Point)


def test_beliefs_and_solvers_that_do_not_fit(model, labelled):
    x = {"x": np.zeros(3)}
    with pytest.raises(ValueError, match=r"ErrorCoordinates finds modes.*JointGaussian"):
        vfe.perceive(model, x, belief=vfe.JointGaussian, solver=vfe.ErrorCoordinates())
    with pytest.raises(ValueError, match="NaturalGradient moves Gaussian and categorical"):
        vfe.perceive(model, x, belief=vfe.Point, solver=vfe.NaturalGradient())
    with pytest.raises(ValueError, match="CoordinateAscent updates factors"):
        vfe.perceive(model, x, belief=vfe.JointGaussian, solver=vfe.CoordinateAscent())
    bent = vfe.Model(z=vfe.gaussian(0.0), x=vfe.gaussian(jnp.tanh, parents="z"))
    with pytest.raises(
        ValueError, match=r"no closed form, because the mean of node 'x' is not a vfe.Affine"
    ):
        vfe.exact.posterior(bent, {"x": 0.0})
    with pytest.raises(ValueError, match="no closed form"):
        vfe.perceive(bent, {"x": 0.0}, solver=vfe.Exact())
    with pytest.raises(ValueError, match="not a hidden discrete node"):
        vfe.perceive(model, x, belief=vfe.Enumerated("z", vfe.Laplace))
    with pytest.raises(ValueError, match="Enumerate: the belief has continuous nodes"):
        vfe.free_energy(model, belief_for(model), x, expectation=vfe.Enumerate())
    with pytest.raises(ValueError, match=r"the belief is about \['z'\].*hidden nodes are \['l'\]"):
        vfe.free_energy(labelled, belief_for(model), {"x": np.zeros(1)})
    family = vfe.Amortised(lambda x: x, vfe.DiagonalGaussian)
    with pytest.raises(ValueError, match="the encoder returned shape"):
        vfe.free_energy(model, family, x)


def test_moments_that_do_not_fit(model):
    with pytest.raises(ValueError, match="not positive definite"):
        vfe.JointGaussian.from_moments(model, {"z": np.zeros(2)}, -np.eye(2))
    with pytest.raises(ValueError, match="couples elements"):
        vfe.DiagonalGaussian.from_moments(model, {"z": np.zeros(2)}, np.eye(2) + 0.5)
    with pytest.raises(ValueError, match=r"the mean of 'z' has shape \(3,\)"):
        vfe.JointGaussian.from_moments(model, {"z": np.zeros(3)}, np.eye(3))
    with pytest.raises(ValueError, match="covariance has shape"):
        vfe.JointGaussian.from_moments(model, {"z": np.zeros(2)}, np.eye(3))
    with pytest.raises(ValueError, match="must sum to one"):
        vfe.Categorical.from_probabilities({"l": np.array([0.5, 0.6])})


def test_probabilities_from_a_function_must_sum_to_one():
    """What a function returns cannot be checked before; energies of no density are no numbers."""
    model = vfe.Model(
        z=vfe.gaussian(np.zeros(3)),
        x=vfe.categorical(lambda z: jnp.exp(z), parents="z"),
    )
    with pytest.raises(vfe.DivergenceError):
        vfe.perceive(model, {"x": np.array([0, 1])}, belief=vfe.DiagonalGaussian)
    good = vfe.Model(
        z=vfe.gaussian(np.zeros(3)),
        x=vfe.categorical(lambda z: jax.nn.softmax(z), parents="z"),
    )
    logits = vfe.Model(z=vfe.gaussian(np.zeros(3)), x=vfe.categorical(logits=lambda z: z, parents="z"))
    one, other = (m.energies({"z": np.array([0.3, -1.0, 2.0]), "x": 1}) for m in (good, logits))
    np.testing.assert_allclose(one["x"], other["x"], rtol=1e-5)
