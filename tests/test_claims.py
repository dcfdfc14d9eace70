"""Claims 1 to 7 and 14 to 19 of the essay, with the toys whose numbers are known exactly.

Claims 2, 3, 14 and 15 on the linear-Gaussian hierarchies are in test_linear_gaussian.py.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import assert_close, gaussian_energy, load, normal_energy

import vfe

pytestmark = pytest.mark.usefixtures("float64")

VAES = ("ppca_iris_k1_r0", "ppca_iris_k2_r1", "ppca_wine_k3_r2", "ppca_digits_k5_r3")


def discrete_toy():
    """p(z), p(x | z) and the model made of them."""
    toys = load("toys/toys")
    pz, pxz = toys["discrete_pz"], toys["discrete_pxz"]
    return pz, pxz, vfe.Model(z=vfe.categorical(pz), x=vfe.categorical(pxz.T, parents="z"))


def ppca(v, weight=None):
    weight = v["W"] if weight is None else weight
    mean = vfe.Affine(weight, v["mu"])
    return vfe.Model(
        z=vfe.gaussian(np.zeros(weight.shape[1])),
        x=vfe.gaussian(mean, scale=np.sqrt(v["s2"]), parents="z"),
    )


def encoder(v, covariance, gain=1.0):
    """The amortised joint Gaussian with these linear means and this covariance."""
    k = covariance.shape[0]
    factor = np.linalg.cholesky(covariance)
    spread = np.concatenate([np.log(np.diag(factor)), factor[np.tril_indices(k, -1)]])

    def encode(x):
        return jnp.concatenate([gain * v["encoder_weight"] @ (x - v["mu"]), spread])

    return vfe.Amortised(encode, vfe.JointGaussian)


def best_ensemble(pz, pxz):
    """argmin over one q shared by all x: ∝ p(z) exp Σ_x p(x) ln p(x | z)."""
    log_q = np.log(pz) + np.log(pxz) @ (pz @ pxz)
    q = np.exp(log_q - log_q.max())
    return q / q.sum()


@pytest.mark.core
def test_claim_1_joint_is_likelihood_times_prior():
    """(1): ln p(x, z) = ln p(x | z) + ln p(z), and Σ_{x,z} p(x, z) = 1."""
    pz, pxz, model = discrete_toy()
    z, x = (a.ravel() for a in np.meshgrid(np.arange(5), np.arange(7), indexing="ij"))
    energies = model.energies({"z": z, "x": x})
    assert_close(energies["z"], -np.log(pz)[z], 1e-14)
    assert_close(energies["x"], -np.log(pxz)[z, x], 1e-14)
    assert_close(np.exp(-sum(energies.values())).sum(), 1.0, 1e-13)


def test_claim_1_continuous():
    """(1) for densities: the energy of a hierarchy is the sum of its conditionals' energies."""
    c = load("linear_gaussian/case_001")
    model = vfe.hierarchy(
        [
            vfe.gaussian(c["top_mean"], covariance=c["top_cov"]),
            vfe.gaussian(vfe.Affine(c["W1"], c["b1"]), covariance=c["R1"]),
            vfe.gaussian(vfe.Affine(c["W0"], c["b0"]), covariance=c["R0"]),
        ]
    )
    z1, z2 = np.split(c["z_true"], [c["level_offsets"][1]])
    energies = model.energies({"z1": z1, "z2": z2, "x": c["x"]})
    assert_close(energies["z2"], gaussian_energy(z2, c["top_mean"], c["top_cov"]), 1e-12)
    assert_close(energies["z1"], gaussian_energy(z1, c["W1"] @ z2 + c["b1"], c["R1"]), 1e-12)
    assert_close(energies["x"], gaussian_energy(c["x"], c["W0"] @ z1 + c["b0"], c["R0"]), 1e-12)


@pytest.mark.core
def test_claims_2_and_3_bound_and_readings():
    """(3)–(6): for 1000 random q, F + ln p(x) = KL(q ‖ p(z | x)) ≥ 0, and the three readings agree."""
    pz, pxz, model = discrete_toy()
    rng = np.random.default_rng(0)
    q = rng.dirichlet(np.full(5, 0.7), 1000) + 1e-9
    q /= q.sum(1, keepdims=True)
    x = rng.integers(0, 7, 1000)
    found = vfe.free_energy(model, vfe.Categorical.from_probabilities({"z": q}), {"x": x})
    px = pz @ pxz
    posterior = (pz[:, None] * pxz / px).T[x]
    divergence = (q * np.log(q / posterior)).sum(1)
    assert found.kind is vfe.Kind.exact
    assert_close(found.total, -np.log(px[x]) + divergence, 1e-13)
    assert_close(found.divergence(np.log(px[x])).value, divergence, 1e-13)
    assert_close(found.energy - found.entropy, found.complexity - found.accuracy, 1e-13)
    assert_close(found.complexity, (q * np.log(q / pz)).sum(1), 1e-13)
    assert_close(found.accuracy, (q * np.log(pxz.T[x])).sum(1), 1e-13)
    assert_close(sum(found.by_level.values()), found.total, 1e-13)
    assert np.all(divergence > 0)
    assert np.all(np.asarray(found.total) > -np.log(px[x]))


@pytest.mark.core
def test_claim_2_equality_at_the_posterior():
    """(6): F = −ln p(x) at q = p(z | x), which perception finds for every x."""
    pz, pxz, model = discrete_toy()
    x = np.arange(7)
    percept = vfe.perceive(model, {"x": x})
    px = pz @ pxz
    assert_close(percept.belief["z"].probabilities, (pz[:, None] * pxz / px).T, 1e-13)
    assert_close(percept.free_energy.total, -np.log(px), 1e-13)
    assert_close(vfe.exact.log_evidence(model, {"x": x}), np.log(px), 1e-13)


def test_claim_4_two_densities_one_functional():
    """(3) and (4): F_4 − F_3 = Δ⟨E⟩ − ΔS; mean optimum 2.1008 against 1.7784, gap .3224 nats."""
    pz, pxz, model = discrete_toy()
    px = pz @ pxz
    x = np.arange(7)
    each = vfe.free_energy(model, vfe.exact.posterior(model, {"x": x}), {"x": x})
    q = best_ensemble(pz, pxz)
    shared = vfe.free_energy(model, vfe.Categorical.from_probabilities({"z": q}), {"x": x})
    conditional, ensemble = float(px @ np.asarray(each.total)), float(px @ np.asarray(shared.total))
    assert conditional == pytest.approx(1.7784, abs=5e-5)
    assert ensemble == pytest.approx(2.1008, abs=5e-5)
    log_posterior = np.log(pz[:, None] * pxz / px)
    gap = -np.log(np.exp(log_posterior @ px).sum())
    assert gap == pytest.approx(0.3224, abs=5e-5)
    assert ensemble - conditional == pytest.approx(gap, abs=1e-12)
    difference = (shared.energy - each.energy) - (shared.entropy - each.entropy)
    assert_close(shared.total - each.total, difference, 1e-13)

    def mean_total(logits):
        return px @ vfe.free_energy(model, vfe.Categorical({"z": logits}), {"x": x}).total

    assert_close(jax.grad(mean_total)(jnp.log(q)), np.zeros(5), 1e-13)


@pytest.mark.parametrize("name", VAES)
def test_claims_4_13_14_19_on_the_linear_vae(name):
    """An amortised q(z | x) in the right family reaches −ln p(x); poorer densities lose what they should.

    iris, k = 2: one q shared by all data 45.65 nats against 2.74.
    """
    v = load(f"vae/{name}")
    model, data = ppca(v), {"x": v["x_train"]}

    def mean_of(belief):
        return vfe.free_energy(model, belief, data).mean().total

    best = vfe.free_energy(model, encoder(v, v["encoder_cov"]), data)
    assert_close(best.total, v["nll_train"], 1e-9, "F of the best encoder")
    assert_close(best.accuracy, v["accuracy_train"], 1e-9, "accuracy")
    assert_close(best.complexity, v["complexity_train"], 1e-9, "complexity")
    assert_close(
        -vfe.exact.log_evidence(model, {"x": v["x_test"]}), v["nll_test"], 1e-9, "nll of the test set"
    )
    diagonal = np.diag(v["diag_encoder_var"])
    assert_close(mean_of(encoder(v, diagonal)), v["F_diag_train_mean"], 1e-9, "diagonal encoder")
    assert_close(
        mean_of(encoder(v, diagonal)) - best.mean().total, v["diag_encoder_gap"], 1e-9, "gap of mean field"
    )
    poor = encoder(v, v["encoder_cov"], float(v["half_gain"]))
    assert_close(mean_of(poor), v["F_half_gain_train_mean"], 1e-9, "poor encoder")
    shared = vfe.JointGaussian.from_moments(model, {"z": v["ensemble_mean"]}, v["ensemble_cov"])
    assert_close(mean_of(shared), v["F_ensemble_train_mean"], 1e-9, "one q for all data")
    k = v["W"].shape[1]
    prior = vfe.JointGaussian.from_moments(model, {"z": np.zeros(k)}, np.eye(k))
    assert_close(mean_of(prior), v["F_prior_train_mean"], 1e-9, "the prior as q")
    point = vfe.Point.from_values(model, {"z": v["encoder_mean_train"]})
    assert_close(mean_of(point), v["map_energy_train_mean"], 1e-9, "energy at the mode")
    if name == "ppca_iris_k2_r1":
        assert float(v["F_ensemble_train_mean"]) == pytest.approx(45.65, abs=0.005)
        assert float(v["nll_train_mean"]) == pytest.approx(2.74, abs=0.005)


def test_claim_5_aggregate_posterior_is_the_prior():
    """Σ_x p(x) q(z | x) = p(z) with an exact encoder and the model's own p(x)."""
    pz, pxz, model = discrete_toy()
    posterior = vfe.exact.posterior(model, {"x": np.arange(7)})["z"].probabilities
    assert_close((pz @ pxz) @ np.asarray(posterior), pz, 1e-15)


@pytest.mark.parametrize("name", VAES)
def test_claim_5_linear_vae(name):
    """At the maximum-likelihood solution the aggregate's moments are those of N(0, I), to 1e-8."""
    v = load(f"vae/{name}")
    belief = vfe.exact.posterior(ppca(v), {"x": v["x_train"]})["z"]
    means = np.asarray(belief.mean)
    k = means.shape[1]
    assert_close(means.mean(0), np.zeros(k), 1e-8)
    covariance = np.asarray(belief.covariance[0]) + np.cov(means.T, bias=True).reshape(k, k)
    assert_close(covariance, np.eye(k), 1e-8)


def test_claim_6_likelihood_learns_through_accuracy_alone():
    """∂F/∂θ = −∂accuracy/∂θ for likelihood parameters θ at fixed q; ∂complexity/∂θ is exactly 0."""
    v = load("vae/ppca_wine_k3_r2")
    belief = vfe.JointGaussian.from_moments(ppca(v), {"z": v["encoder_mean_train"][0]}, v["encoder_cov"])

    def reading(word):
        def value(weight, bias, log_scale):
            model = vfe.Model(
                z=vfe.gaussian(np.zeros(3)),
                x=vfe.gaussian(vfe.Affine(weight, bias), scale=jnp.exp(log_scale), parents="z"),
            )
            return getattr(vfe.free_energy(model, belief, {"x": v["x_train"][0]}), word)

        return jax.grad(value, (0, 1, 2))(v["W"], v["mu"], jnp.log(v["s2"]) / 2)

    for total, accuracy, complexity in zip(
        reading("total"), reading("accuracy"), reading("complexity"), strict=True
    ):
        assert_close(total, -accuracy, 1e-12)
        assert np.all(np.asarray(complexity) == 0)
        assert np.abs(total).max() > 1e-3


def test_claim_6_fails_for_empirical_priors():
    """With a learned upper level θ acts through the complexity: its gradient is not 0."""

    def complexity(mean):
        model = vfe.Model(
            z=vfe.gaussian(vfe.learnable(mean)), x=vfe.gaussian(vfe.Affine(np.eye(1)), parents="z")
        )
        belief = vfe.JointGaussian.from_moments(model, {"z": [0.7]}, [[0.2]])
        return vfe.free_energy(model, belief, {"x": np.array([1.0])}).complexity

    # KL(N(.7, .2) ‖ N(m, 1)) has the derivative m − .7.
    assert_close(jax.grad(complexity)(jnp.array([0.0])), [-0.7], 1e-14)


def test_claim_7_perception_shrinks_the_divergence():
    """∂F/∂λ = ∂KL(q ‖ p(z | x))/∂λ, as −ln p(x) does not depend on λ; both vanish at the posterior."""
    pz, pxz, model = discrete_toy()
    posterior = pz * pxz[:, 3] / (pz @ pxz[:, 3])

    def total(logits):
        return vfe.free_energy(model, vfe.Categorical({"z": logits}), {"x": 3}).total

    def divergence(logits):
        log_q = jax.nn.log_softmax(logits)
        return jnp.sum(jnp.exp(log_q) * (log_q - jnp.log(posterior)))

    for logits in np.random.default_rng(0).normal(size=(5, 5)):
        assert_close(jax.grad(total)(logits), jax.grad(divergence)(logits), 1e-14)
    assert_close(jax.grad(total)(jnp.log(posterior)), np.zeros(5), 1e-14)


def test_claim_7_gaussian():
    """The same in the mean and the factor of a Gaussian belief, against a KL written out here."""
    c = load("linear_gaussian/case_008")
    model = vfe.hierarchy(
        [
            vfe.gaussian(c["top_mean"], covariance=c["top_cov"]),
            vfe.gaussian(vfe.Affine(c["W0"], c["b0"]), covariance=c["R0"]),
        ]
    )
    precision = np.linalg.inv(c["post_cov"])

    def total(mean, factor):
        belief = vfe.JointGaussian.from_moments(model, {"z1": mean}, factor @ factor.T)
        return vfe.free_energy(model, belief, {"x": c["x"]}).total

    def divergence(mean, factor):
        d = mean - c["post_mean"]
        log_det = jnp.linalg.slogdet(factor @ factor.T)[1] + np.linalg.slogdet(precision)[1]
        return 0.5 * (jnp.trace(precision @ factor @ factor.T) + d @ precision @ d - 3 - log_det)

    factor = np.linalg.cholesky(c["qfull_cov"])
    for got, want in zip(
        jax.grad(total, (0, 1))(c["qfull_mean"], factor),
        jax.grad(divergence, (0, 1))(jnp.asarray(c["qfull_mean"]), jnp.asarray(factor)),
        strict=True,
    ):
        assert_close(got, want, 1e-12)


def test_claim_14_minimum_is_maximum_marginal_likelihood():
    """(6): with the exact posterior, minimising F over θ reaches the maximum marginal likelihood."""
    v = load("vae/ppca_iris_k2_r1")
    x = v["x_train"]
    d, k = v["W"].shape

    def model_of(theta):
        weight, bias, log_scale = theta[: d * k].reshape(d, k), theta[d * k : -1], theta[-1]
        return vfe.Model(
            z=vfe.gaussian(np.zeros(k)),
            x=vfe.gaussian(vfe.Affine(weight, bias), scale=jnp.exp(log_scale), parents="z"),
        )

    @jax.jit
    def surprise(theta):
        return -vfe.exact.log_evidence(model_of(theta), {"x": x}).mean()

    optimum = jnp.concatenate([v["W"].ravel(), v["mu"], jnp.log(v["s2"])[None] / 2])
    assert_close(surprise(optimum), v["nll_train_mean_closed"], 1e-9)
    assert_close(jax.grad(surprise)(optimum), np.zeros(optimum.size), 1e-9)

    # Fisher's identity: at q = p(z | x; θ), held fixed, ∂F/∂θ = −∂ln p(x)/∂θ.
    start = jnp.concatenate([np.random.default_rng(0).normal(size=d * k), jnp.zeros(d), jnp.zeros(1)])
    belief = vfe.exact.posterior(model_of(start), {"x": x})

    def mean_total(theta):
        return vfe.free_energy(model_of(theta), belief, {"x": x}).mean().total

    assert_close(jax.grad(mean_total)(start), jax.grad(surprise)(start), 1e-10)

    both = jax.jit(jax.value_and_grad(surprise))
    found = scipy.optimize.minimize(
        lambda t: [np.asarray(a) for a in both(t)],
        np.asarray(start),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-9},
    )
    assert_close(found.fun, v["nll_train_mean"], 1e-6)
    weight = found.x[: d * k].reshape(d, k)
    assert_close(weight @ weight.T, v["W"] @ v["W"].T, 1e-3)


def square_toy():
    """z ~ N(0, 1), x = z² + 0.3 ε: many-to-one."""
    return vfe.Model(z=vfe.gaussian(0.0), x=vfe.gaussian(lambda z: z**2, scale=0.3, parents="z"))


def test_claim_15_deterministic_recognition():
    """(7): energy at z(x) = 2 is 2.634; Gaussians of width 1e-2, 1e-4, 1e-6 there read 5.82, 10.43, 15.03.

    −ln p(x | ẑ) − ln p(ẑ), and what the entropy that ln δ(0) = 0 drops would have added.
    """
    model = square_toy()
    point = vfe.free_energy(model, vfe.Point.from_values(model, {"z": 2.0}), {"x": 4.0})
    assert point.kind is vfe.Kind.energy
    energy = normal_energy(2.0, 0.0, 1.0) + normal_energy(4.0, 4.0, 0.09)
    assert float(point.total) == pytest.approx(float(energy), abs=1e-13)
    assert float(energy) == pytest.approx(2.634, abs=5e-4)
    with pytest.raises(ValueError, match="no entropy"):
        _ = point.complexity
    for width, want in ((1e-2, 5.82), (1e-4, 10.43), (1e-6, 15.03)):
        spread = vfe.DiagonalGaussian.from_moments(model, {"z": 2.0}, [[width**2]])
        entropy = float(spread.entropies()["z"])
        assert entropy == pytest.approx(0.5 * np.log(2 * np.pi * np.e) + np.log(width), abs=1e-12)
        assert float(point.total) - entropy == pytest.approx(want, abs=5e-3)
    # The mode: ∂E/∂z = z − 2z (4 − z²) / .09 = 0 away from z = 0. Perception would start by itself at
    # z = 0, the mean of the prior, where the gradient is 0 too.
    percept = vfe.perceive(model, {"x": 4.0}, belief=vfe.Point.from_values(model, {"z": 0.5}))
    mode = np.sqrt(4 - 0.045)
    assert float(percept.belief["z"].mean) == pytest.approx(mode, abs=1e-9)
    assert float(percept.free_energy.total) < float(point.total)


def test_claim_15_laplace_entropy():
    """Laplace F = energy − ½ ln det(2πΣ) at the mode, Σ⁻¹ the curvature there."""
    percept = vfe.perceive(square_toy(), {"x": 4.0}, belief=vfe.Laplace)
    mode = np.sqrt(4 - 0.045)
    curvature = 1 + (6 * mode**2 - 2 * 4) / 0.09  # ∂²E/∂z² = 1 + (6 z² − 2 x) / .09
    energy = normal_energy(mode, 0.0, 1.0) + normal_energy(4.0, mode**2, 0.09)
    want = energy - 0.5 * np.log(2 * np.pi / curvature)
    assert percept.free_energy.kind is vfe.Kind.approximation
    # F of the library is ⟨E⟩ by the second-order expansion, − S: E + ½ − (½ ln 2π/H + ½).
    assert float(percept.free_energy.total) == pytest.approx(float(want), abs=1e-9)


def test_claim_15_flat_prior_gives_maximum_likelihood():
    """MAP = maximum likelihood where the prior is flat: here, least squares."""
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(6, 2)), rng.normal(size=6)
    model = vfe.Model(
        z=vfe.gaussian(np.zeros(2), scale=1e6), x=vfe.gaussian(vfe.Affine(weight), parents="z")
    )
    percept = vfe.perceive(model, {"x": x}, belief=vfe.Point, rtol=1e-14, atol=1e-12, throw=False)
    want = np.linalg.lstsq(weight, x, rcond=None)[0]
    assert_close(percept.belief["z"].mean, want, 1e-9)


@pytest.mark.core
def test_claim_16_priors_by_recursion():
    """(8): downward p(z_i) = Σ p(z_i | z_{i+1}) p(z_{i+1}); upward p(z_i | x) averages to the same."""
    pz, pxz, model = discrete_toy()
    px = pz @ pxz
    assert_close(vfe.exact.marginal(model, "x"), px, 1e-15)
    assert_close(vfe.exact.marginal(model, "z"), pz, 1e-15)
    rng = np.random.default_rng(1)
    top = rng.dirichlet(np.ones(3))
    middle = rng.dirichlet(np.ones(4), 3).T
    bottom = rng.dirichlet(np.ones(5), 4).T
    chain = vfe.Model(
        z2=vfe.categorical(top),
        z1=vfe.categorical(middle, parents="z2"),
        x=vfe.categorical(bottom, parents="z1"),
    )
    joint = np.einsum("a,ba,cb->abc", top, middle, bottom)
    for node, axes in (("z2", (1, 2)), ("z1", (0, 2)), ("x", (0, 1))):
        assert_close(vfe.exact.marginal(chain, node), joint.sum(axes), 1e-14, node)
    p_x = joint.sum((0, 1))
    for node in ("z1", "z2"):
        upward = vfe.exact.recognition_marginal(chain, {"x": np.arange(5)}, node).probabilities
        assert_close(p_x @ np.asarray(upward), vfe.exact.marginal(chain, node), 1e-14, node)


def test_claim_17_a_hierarchy_learns_its_priors():
    """Empirical Bayes: the learned prior is N(2.054, .496); error .337, flat .988, oracle .335."""
    toys = load("toys/toys")
    x, truth = toys["empirical_bayes_x"], toys["empirical_bayes_truth"]

    def model_of(theta):
        return vfe.Model(
            z=vfe.gaussian(theta[0], scale=jnp.exp(0.5 * theta[1])),
            x=vfe.gaussian(lambda z: z, parents="z"),
        )

    def affine(theta):
        # The same model with vector nodes, whose mean is declared affine: closed forms apply.
        return vfe.Model(
            z=vfe.gaussian(theta[:1], scale=jnp.exp(0.5 * theta[1])),
            x=vfe.gaussian(vfe.Affine(np.eye(1)), parents="z"),
        )

    @jax.jit
    @jax.value_and_grad
    def surprise(theta):
        return -vfe.exact.log_evidence(affine(theta), {"x": x[:, None]}).mean()

    found = scipy.optimize.minimize(
        lambda t: [np.asarray(a) for a in surprise(t)], np.zeros(2), jac=True, options={"gtol": 1e-10}
    ).x
    mean, variance = found[0], np.exp(found[1])
    assert_close(mean, x.mean(), 1e-7)
    assert_close(variance, x.var() - 1, 1e-7)
    assert mean == pytest.approx(2.054, abs=5e-4)
    assert variance == pytest.approx(0.496, abs=5e-4)

    def risk(mean, variance):
        belief = vfe.exact.posterior(affine(jnp.array([mean, np.log(variance)])), {"x": x[:, None]})
        return float(np.mean((np.asarray(belief["z"].mean)[:, 0] - truth) ** 2))

    assert risk(mean, variance) == pytest.approx(0.337, abs=5e-4)
    assert risk(0.0, 1e9) == pytest.approx(0.988, abs=5e-4)
    assert risk(2.0, 0.49) == pytest.approx(0.335, abs=5e-4)
    scalar = vfe.free_energy(
        model_of(found), vfe.Point.from_values(model_of(found), {"z": truth}), {"x": x}
    )
    assert_close(scalar.total, normal_energy(x, truth, 1.0) + normal_energy(truth, mean, variance), 1e-12)


def predictive_coding(levels, values):
    """One local update, with error and state units: ż_i = −Π_i ε_i + (∂g_{i−1}/∂z_i)ᵀ Π_{i−1} ε_{i−1}.

    `levels`, from the senses up: (g, its Jacobian, precision); the top one has a constant mean.
    """
    errors = []
    for i, (predict, _, precision) in enumerate(levels):
        above = values[i + 1] if i + 1 < len(values) else None
        errors.append(precision @ (values[i] - predict(above)))
    updates = []
    for i in range(1, len(values)):
        updates.append(-errors[i] + levels[i - 1][1](values[i]).T @ errors[i - 1])
    return updates


def linear_levels(c):
    depth = len(c["dims"]) - 1
    levels = []
    for i in range(depth):
        weight, bias = c[f"W{i}"], c[f"b{i}"]
        levels.append(
            (
                lambda z, weight=weight, bias=bias: weight @ z + bias,
                lambda z, weight=weight: weight,
                np.linalg.inv(c[f"R{i}"]),
            )
        )
    levels.append((lambda z: c["top_mean"], None, np.linalg.inv(c["top_cov"])))
    return levels


def linear_model(c):
    depth = len(c["dims"]) - 1
    below = [
        vfe.gaussian(vfe.Affine(c[f"W{i}"], c[f"b{i}"]), covariance=c[f"R{i}"])
        for i in range(depth - 1, -1, -1)
    ]
    return vfe.hierarchy([vfe.gaussian(c["top_mean"], covariance=c["top_cov"]), *below])


def energy_gradient(model, x, values):
    """∂F/∂z of a Point belief, by autodiff through the library."""

    def total(values):
        named = {f"z{i + 1}": v for i, v in enumerate(values)}
        return vfe.free_energy(model, vfe.Point.from_values(model, named), {"x": x}).total

    return jax.grad(total)([jnp.asarray(v) for v in values])


@pytest.mark.parametrize("number", [0, 2, 6])
def test_claim_18_local_updates_are_the_gradient(number):
    """The local predictive-coding update equals −∂F/∂z to 1e-12, at random states."""
    c = load(f"linear_gaussian/case_{number:03d}")
    rng = np.random.default_rng(number)
    values = [rng.normal(size=int(n)) for n in c["dims"][1:]]
    updates = predictive_coding(linear_levels(c), [c["x"], *values])
    for update, slope in zip(updates, energy_gradient(linear_model(c), c["x"], values), strict=True):
        assert_close(update, -slope, 1e-12)


def test_claim_18_nonlinear():
    """The same with tanh between the levels and diagonal precisions."""
    rng = np.random.default_rng(3)
    w0, w1 = rng.normal(size=(5, 4)), rng.normal(size=(4, 2))
    precisions = [rng.uniform(0.5, 3, n) for n in (5, 4, 2)]
    model = vfe.hierarchy(
        [
            vfe.gaussian(np.zeros(2), precision=precisions[2]),
            vfe.gaussian(lambda z: jnp.tanh(w1 @ z), precision=precisions[1]),
            vfe.gaussian(lambda z: jnp.tanh(w0 @ z), precision=precisions[0]),
        ]
    )
    levels = [
        (
            lambda z, w=w: np.tanh(w @ z),
            lambda z, w=w: (1 - np.tanh(w @ z) ** 2)[:, None] * w,
            np.diag(p),
        )
        for w, p in zip((w0, w1), precisions[:2], strict=True)
    ]
    levels.append((lambda z: np.zeros(2), None, np.diag(precisions[2])))
    values = [rng.normal(size=4), rng.normal(size=2)]
    x = rng.normal(size=5)
    for update, slope in zip(
        predictive_coding(levels, [x, *values]), energy_gradient(model, x, values), strict=True
    ):
        assert_close(update, -slope, 1e-12)


def test_claim_18_flow_descends_to_the_posterior_mean():
    """dF/dt = −|ż|² ≤ 0 along the flow of the local updates; it rests at the posterior mean (MAP)."""
    c = load("linear_gaussian/case_005")
    levels, model = linear_levels(c), linear_model(c)
    values = [np.zeros(int(n)) for n in c["dims"][1:]]
    step = 1.0 / np.linalg.eigvalsh(c["post_precision"]).max()
    path = [values]
    for _ in range(3000):
        updates = predictive_coding(levels, [c["x"], *values])
        values = [v + step * u for v, u in zip(values, updates, strict=True)]
        path.append(values)
    assert_close(np.concatenate(values), c["post_mean"], 1e-9)
    kept = path[:60] + path[60::100]
    named = {f"z{i + 1}": np.stack([v[i] for v in kept]) for i in range(len(values))}
    x = np.broadcast_to(c["x"], (len(kept), *c["x"].shape))
    energies = np.asarray(vfe.free_energy(model, vfe.Point.from_values(model, named), {"x": x}).total)
    assert np.all(np.diff(energies) <= 1e-12)
    assert_close(energies[-1], c["map_energy"], 1e-9)


def test_claim_19_mean_field_gap():
    """F of the best mean field exceeds −ln p(x) by ½ (Σ ln Λ_jj − ln |Λ|), Λ the posterior precision."""
    for number in (0, 8):
        c = load(f"linear_gaussian/case_{number:03d}")
        model = linear_model(c)
        belief = vfe.exact.mean_field(model, {"x": c["x"]}, vfe.DiagonalGaussian)
        gap = vfe.free_energy(model, belief, {"x": c["x"]}).total - c["neg_log_evidence"]
        precision = c["post_precision"]
        want = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
        assert_close(gap, want, 1e-9)


def test_claim_19_discrete_mean_field():
    """Coordinate ascent on two causes of one effect: F falls at every step, to a local optimum ≥ −ln p."""
    rng = np.random.default_rng(0)
    a, b = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(4))
    table = rng.dirichlet(np.ones(5), (3, 4))
    model = vfe.Model(
        a=vfe.categorical(a),
        b=vfe.categorical(b),
        x=vfe.categorical(np.moveaxis(table, -1, 0), parents=("a", "b")),
    )
    x = np.arange(5)
    percept = vfe.perceive(
        model,
        {"x": x},
        belief=vfe.Categorical,
        solver=vfe.CoordinateAscent(),
        rtol=1e-13,
        atol=1e-13,
        throw=False,
    )
    trace = np.asarray(percept.trace)
    assert np.all(np.diff(trace, axis=1) <= 1e-13)
    log_joint = np.log(np.einsum("i,j,ijk->ijk", a, b, table))
    assert np.all(np.asarray(percept.free_energy.total) >= -np.log(np.exp(log_joint).sum((0, 1))))
    qa, qb = (np.asarray(percept.belief[n].probabilities) for n in "ab")
    for k, (one, two) in itertools.product(range(5), ((0, 1), (1, 0))):
        # The stationary condition of mean field: each factor ∝ exp of the mean log joint.
        other = (qa, qb)[two][k]
        logits = np.tensordot(other, log_joint[..., k], (0, two))
        want = np.exp(logits - logits.max())
        assert_close((qa, qb)[one][k], want / want.sum(), 1e-6)
