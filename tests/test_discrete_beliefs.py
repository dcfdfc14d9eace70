"""Approximate beliefs about discrete chains, against reference values, enumeration and definitions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discrete_cases import read

import vfe
from vfe.discrete import POMDP, Marginal, MeanField, Structured

CASES = ["weather", "random_13"]


def two_factors():
    """Two factors, the first moved by both; three times of outcomes and actions."""
    rng = np.random.default_rng(0)

    def table(*shape):
        values = rng.gamma(1.0, size=shape)
        return values / values.sum(0)

    model = POMDP(
        A=[table(3, 3, 2), table(2, 2)],
        B=[table(2, 3, 2, 2), table(3, 3, 1)],
        D=[[0.3, 0.7], [0.2, 0.3, 0.5]],
        A_dependencies=[[1, 0], [0]],
        B_dependencies=[[1, 0], [1]],
    )
    return {"obs": np.array([[0, 1], [1, 0], [2, 1]]), "actions": np.array([[1, 0], [0, 0]])}, model


def near(got, wanted, tolerance=1e-12):
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance)


def log(table):
    return np.log(np.maximum(table, np.finfo(float).eps))


def plain_free_energy(model, data, factors):
    """F of q = Π_t Π_f q(s_f,t) in plain NumPy: energies under the product, less its entropies."""
    value = sum((q * np.log(np.where(q > 0, q, 1))).sum() for q in factors)
    for t, seen in enumerate(data["obs"]):
        for A, depends, o in zip(model.A, model.A_dependencies, seen, strict=True):
            mean = log(A[o])
            for f in depends:
                mean = np.tensordot(factors[f][t], mean, (0, 0))
            value -= mean
    for f, depends in enumerate(model.B_dependencies):
        value -= factors[f][0] @ log(model.D[f])
        for t, u in enumerate(data["actions"]):
            mean = np.tensordot(factors[f][t + 1], log(model.B[f][..., u[f]]), (0, 0))
            for g in depends:
                mean = np.tensordot(factors[g][t], mean, (0, 0))
            value -= mean
    return value


@pytest.mark.parametrize("case", CASES)
def test_free_energies_lie_where_they_must(case):
    """exact ≤ structured ≤ mean field ≤ best known + 1e-6 ≤ marginal; none ever rises."""
    data, model = read(case)
    exact = data["exact_neg_log_evidence"][-1]
    found = {
        kind: vfe.smooth(model, data["obs"], actions=data["actions"], belief=kind())
        for kind in (MeanField, Structured, Marginal)
    }
    totals = {kind: one.free_energy.total.sum() for kind, one in found.items()}
    assert totals[MeanField] <= data["mf_seq_vfe"] + 1e-6
    assert exact - 1e-12 <= totals[Structured] <= totals[MeanField] + 1e-9
    assert totals[MeanField] <= totals[Marginal]
    for kind, one in found.items():
        assert one.converged
        assert np.all(np.diff(one.trace) <= 1e-12)
        near(one.trace[-1], totals[kind], 1e-12)
        near(one.gap, totals[kind] - exact, 1e-12)
        near(sum(one.free_energy.by_level.values()), one.free_energy.total)
        for f, pair in enumerate(one.pairs):
            near(pair.sum(tuple(range(2, pair.ndim))), one.factors[f][1:], 1e-12)
    for kind in (MeanField, Marginal):
        near(totals[kind], plain_free_energy(model, data, found[kind].factors), 1e-10)
    if len(model.states) == 1:
        near(totals[Structured], exact)
        near(found[Structured].factors[0], data["exact_smooth_0"])
        near(found[Structured].pairs[0], data["exact_pair_0"])


@pytest.mark.parametrize("case", ["weather", "random_13"])
def test_marginal_messages_are_those_of_the_reference(case):
    """Sixteen whole steps end where the reference implementation's do, at the fixed point here."""
    data, model = read(case)
    found = vfe.smooth(model, data["obs"], actions=data["actions"], belief=Marginal())
    for f, q in enumerate(found.factors):
        near(q, data[f"pymdp_mmp_q_{f}"], 1e-7)
    near(found.free_energy.total.sum(), data["pymdp_mmp_vfe_it257"].sum(), 1e-6)


def test_structured_energy_and_entropy_by_every_path():
    """F of q = Π_f q(s_f,1 … s_f,3), from its definition, summed over all paths."""
    data, model = two_factors()
    outcomes, actions = data["obs"], data["actions"]
    padded = np.concatenate([outcomes, [[np.nan, np.nan]]])
    found = vfe.smooth(
        model, padded, actions=[*actions, [0, 0]], belief=Structured(starts=2), mask=[1, 1, 1, 0]
    )
    value = 0.0
    singles, pairs = found.factors, found.chains
    for path in itertools.product(*(range(n) for n in model.states for _ in range(3))):
        states = np.array(path).reshape(2, 3)
        q = 1.0
        for f in range(2):
            a, b, c = states[f]
            p = pairs[f]
            middle = singles[f][1][b]
            q *= 0.0 if middle == 0 else p[0][b, a] * p[1][c, b] / middle
        if q > 0:
            energy = -sum(log(model.D[f])[states[f, 0]] for f in range(2))
            for t in range(3):
                for A, depends, o in zip(model.A, model.A_dependencies, outcomes[t], strict=True):
                    energy -= log(A)[(int(o), *(states[f, t] for f in depends))]
            for t, u in enumerate(actions):
                for f, depends in enumerate(model.B_dependencies):
                    before = tuple(states[g, t] for g in depends)
                    energy -= log(model.B[f])[(states[f, t + 1], *before, u[f])]
            value += q * (energy + np.log(q))
    near(found.free_energy.total.sum(), value, 1e-10)
    assert np.isnan(found.factors[0][3]).all()
    assert found.free_energy.total[3] == 0


@pytest.mark.parametrize("case", CASES)
def test_one_step_from_a_given_prior(case):
    """F at or below the best known; the gap to the exact one-step evidence is a divergence."""
    data, model = read(case)
    priors = tuple(data[f"pymdp_fpi_prior_{f}"] for f in range(len(model.states)))

    def one(prior, outcomes):
        with np.errstate(divide="ignore"):
            seen = tuple(jnp.log(jnp.asarray(A))[o] for A, o in zip(model.A, outcomes, strict=True))
        return vfe.discrete.mean_field_step(model, prior, seen)

    with jax.enable_x64(True):
        factors, free, converged = jax.jit(jax.vmap(one))(priors, data["obs"])
        assert converged.all()
        assert (free.total <= data["mf_step_vfe"] + 1e-6).all()
        assert (free.total >= data["exact_step_neg_log_evidence"] - 1e-12).all()
        best = np.flatnonzero(np.abs(free.total - data["mf_step_vfe"]) < 1e-12)
        if case == "random_13":
            for f, q in enumerate(factors):
                near(q[best], data[f"mf_step_q_{f}"][best], 1e-5)


def test_factorised_filter():
    """Each step is the mean field under the product of predictions of the step before."""
    data, model = two_factors()
    found = vfe.filter(model, data["obs"], actions=data["actions"], belief=MeanField())
    priors = [np.asarray(table) for table in model.D]
    for t in range(len(data["obs"])):
        joint = np.einsum("a,b->ab", *priors)
        energy = sum(
            (q[t] * (np.log(np.where(q[t] > 0, q[t], 1)) - log(p))).sum()
            for q, p in zip(found.factors, priors, strict=True)
        )
        for A, depends, o in zip(model.A, model.A_dependencies, data["obs"][t], strict=True):
            letters = "".join("ab"[f] for f in depends)
            row = np.einsum(f"{letters},ab->ab", A[o], np.ones(model.states))
            joint = joint * row
            q = [found.factors[f][t] for f in range(2)]
            energy -= (np.einsum("a,b->ab", *q) * log(row)).sum()
        near(found.free_energy.total[t], energy)
        near(found.step_surprise[t], -np.log(joint.sum()))
        near(found.gap[t], energy + np.log(joint.sum()))
        if t < len(data["actions"]):
            priors = []
            for f, depends in enumerate(model.B_dependencies):
                move = model.B[f][..., data["actions"][t][f]]
                for g in reversed(depends):
                    move = np.tensordot(move, found.factors[g][t], (-1, 0))
                priors.append(move)
                near(found.predicted[f][t + 1], move)
    assert found.converged.all()


def test_predictions_by_policy():
    """Joint predictions are products of transition matrices; those of a product its marginals' products."""
    model = read("random_13")[1]
    policies = np.array([[[0, 0], [1, 1], [0, 1]], [[1, 0], [1, 0], [0, 0]]])
    with jax.enable_x64(True):
        belief = np.random.default_rng(0).dirichlet(np.ones(6)).reshape(3, 2)
        joint = vfe.discrete.predict(model, belief, policies)
        product = vfe.discrete.predict(model, model.D, policies)
    for p, policy in enumerate(policies):
        now, alone = belief, [np.asarray(d) for d in model.D]
        for t, (u, v) in enumerate(policy):
            now = model.B[0][..., u] @ now @ model.B[1][..., v].T
            alone = [model.B[0][..., u] @ alone[0], model.B[1][..., v] @ alone[1]]
            near(joint[p, t], now)
            for f in range(2):
                near(product[f][p, t], alone[f])
    with pytest.raises(ValueError, match=r"wanted \(policies, steps, 2\)"):
        vfe.discrete.predict(model, model.D, policies[0])
    with pytest.raises(ValueError, match="belief about"):
        vfe.discrete.predict(model, (model.D[0],), policies)


def test_beyond_what_can_be_summed():
    """20 factors: no exact value, F finite, its gap unknown; what no state can cause is refused."""
    sees = np.array([[0.9, 0.2], [0.1, 0.8], [0.0, 0.0]])
    model = POMDP(
        A=[sees] * 20,
        B=[np.array([[0.9, 0.1], [0.1, 0.9]])[..., None]] * 20,
        A_dependencies=[[f] for f in range(20)],
    )
    y = np.zeros((2, 20))
    with pytest.raises(ValueError, match="1048576 joint states"):
        vfe.smooth(model, y)
    found = vfe.filter(model, y, belief=MeanField(starts=2))
    assert found.gap is None
    # Factors that share nothing: each is exact.
    one = vfe.filter(vfe.discrete.HiddenMarkov(sees, [0.5, 0.5], model.B[0][..., 0]), y[:, 0])
    near(found.factors[7], one.factors[0])
    near(found.free_energy.total.sum(), -20 * one.log_evidence, 1e-9)
    y[1, 3] = 2
    with pytest.raises(ValueError, match="time 1 are impossible"):
        vfe.filter(model, y, belief=MeanField(starts=2))


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: MeanField(starts=0), "starts=0"),
        (lambda: Structured(max_sweeps=1.5), "max_sweeps=1.5"),
        (lambda: MeanField(tolerance=np.nan), "tolerance=nan"),
        (lambda: Marginal(damping=1.0), "damping=1.0"),
        (lambda: Marginal(damping="x"), "damping='x'"),
    ],
)
def test_bad_settings(make, word):
    with pytest.raises(ValueError, match=word):
        make()


def test_bad_beliefs_and_methods():
    model = vfe.discrete.HiddenMarkov(np.eye(2), [0.5, 0.5], np.eye(2))
    with pytest.raises(ValueError, match=r"vfe.discrete.MeanField\(\), or none"):
        vfe.filter(model, [0, 0], belief=Structured())
    with pytest.raises(ValueError, match="Structured"):
        vfe.smooth(model, [0, 0], belief=vfe.MeanField)
    with pytest.raises(ValueError, match="leave method out"):
        vfe.smooth(model, [0, 0], belief=MeanField(), method=vfe.dynamics.ParallelInTime())
    with pytest.raises(ValueError, match='"error" or "skip"'):
        vfe.smooth(model, [0, 0], impossible="ignore")
    with pytest.raises(ValueError, match=r"wanted vfe\.dynamics\.Sequential"):
        vfe.smooth(model, [0, 0], method="parallel")
    with pytest.raises(ValueError, match="skip"):
        vfe.smooth(model, [0, 0], impossible="skip", method=vfe.dynamics.ParallelInTime())
    with pytest.raises(ValueError, match="time 1 are impossible"):
        vfe.smooth(model, [0, 1], belief=MeanField())
    large = vfe.discrete.HiddenMarkov(np.full((2, 64), 0.5), np.full(64, 1 / 64), np.eye(64))
    with pytest.raises(ValueError, match="81920000 entries"):
        vfe.filter(large, np.zeros(20_000), method=vfe.dynamics.ParallelInTime())
