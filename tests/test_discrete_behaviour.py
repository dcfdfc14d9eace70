"""Agents fitted to choices: likelihood, subjects, groups, samples, recovery; choices are simulated here."""

import os
import socket
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close

import vfe
from vfe.action.loop_parts import AbstractAgent, AbstractWorld
from vfe.discrete import POMDP, Agent, DirichletTables, OnlineLearning, Terms, worlds
from vfe.discrete import behaviour as b
from vfe.free_energy import Kind

GOOD, HAZARD, TRIALS = 0.8, 0.05, 150


@pytest.fixture
def double():
    """Double precision for one test; the others run as JAX is set."""
    with jax.enable_x64(True):
        yield


def reversal_agent(parameters):
    """Which of two arms pays changes now and then; utility alone, and a bias to the second arm."""
    pays = np.zeros((3, 2, 3))
    pays[0, :, 0] = 1.0
    pays[1, :, 1:] = [[GOOD, 1 - GOOD], [1 - GOOD, GOOD]]
    pays[2, :, 1:] = 1 - pays[1, :, 1:]
    changes = np.array([[1 - HAZARD, HAZARD], [HAZARD, 1 - HAZARD]])[..., None]
    pulls = np.broadcast_to(np.eye(3)[:, None, 1:], (3, 3, 2))
    bias = parameters["bias"]
    model = POMDP(
        [pays],
        [changes, pulls],
        [[0.0, 1.0, -1.0]],
        [[0.5, 0.5], [1.0, 0.0, 0.0]],
        E=jax.nn.softmax(jnp.stack([jnp.zeros_like(bias), bias])),
    )
    terms = Terms(state_information=None)
    return Agent(model, 1, terms=terms, precision=parameters["precision"], action_precision=1.0)


class Arms(AbstractWorld):
    """Two arms, of which one pays more, until they change places."""

    def reset(self, key):
        return jax.random.bernoulli(key).astype(int), jnp.zeros(1, int)

    def step(self, state, action, key):
        change, pay = jax.random.split(key)
        state = jnp.where(jax.random.bernoulli(change, HAZARD), 1 - state, state)
        won = jax.random.bernoulli(pay, jnp.where(action[1] == state, GOOD, 1 - GOOD))
        return state, jnp.where(won, 1, 2)[None]

    def ended(self, state):
        return False


PRIOR = {"precision": b.positive(1.5, 0.5), "bias": b.real(0.0, 1.0)}
SUBJECTS = 60


@pytest.fixture(scope="module")
def simulated():
    """Choices of agents whose parameters were drawn from the prior, and these parameters."""
    rng = np.random.default_rng(0)
    true = {
        "precision": 1.5 * np.exp(0.5 * rng.normal(size=SUBJECTS)),
        "bias": rng.normal(size=SUBJECTS),
    }
    history = vfe.live(reversal_agent, Arms(), TRIALS, jax.random.key(1), each=true, keep=())
    return true, jax.tree.map(np.asarray, history)


@pytest.fixture(scope="module")
def fitted(simulated):
    return b.fit_choices(reversal_agent, simulated[1], prior=PRIOR)


def plain(outcomes, actions, precision, bias):
    """ln p of choices by the equations, in NumPy: belief that arm two is good, utility difference."""
    q, total = 0.5, 0.0
    for t, (won, arm) in enumerate(zip(outcomes, actions, strict=True)):
        if t:
            q = q * (1 - HAZARD) + (1 - q) * HAZARD
            pays = [GOOD, 1 - GOOD] if actions[t - 1] == 1 else [1 - GOOD, GOOD]
            pays = pays if won == 1 else [1 - p for p in pays]
            q = q * pays[0] / (q * pays[0] + (1 - q) * pays[1])
        later = q * (1 - HAZARD) + (1 - q) * HAZARD
        second = later * GOOD + (1 - later) * (1 - GOOD)
        # Utilities of win and loss are ±1, so the arms differ by 2 (p2 − p1) = 2 (2 p2 − 1).
        logit = precision * 2 * (2 * second - 1) + bias
        total -= np.logaddexp(0, -logit if arm == 1 else logit)
    return total


def test_likelihood_by_hand_with_gradient_padding_and_episodes(simulated):
    true, choices = simulated
    with jax.enable_x64(True):
        agent = reversal_agent({"precision": 1.0, "bias": jnp.zeros(())})
        data = b.read_choices(agent, choices.outcomes[:3], choices.actions[:3])
        parameters = {name: jnp.asarray(v[:3]) for name, v in true.items()}
        value = jax.jit(jax.vmap(jax.value_and_grad(b.AgentLikelihood(reversal_agent))))
        found, slope = value(parameters, data)
        for n in range(3):
            seen, done = choices.outcomes[n, :, 0], choices.actions[n, :, 1]
            p, k = true["precision"][n], true["bias"][n]
            wanted = plain(seen, done, p, k)
            assert_close(found[n], wanted, 1e-12)
            step = 1e-5
            rise = plain(seen, done, p + step, k) - plain(seen, done, p - step, k)
            assert_close(slope["precision"][n], rise / (2 * step), 1e-7)
        # Of one subject a part is padding, of another an episode begins in the middle.
        mask = np.ones((3, TRIALS), bool)
        mask[0, 100:] = False
        first = np.zeros((3, TRIALS), bool)
        first[1, 70] = True
        outcomes, actions = np.array(choices.outcomes[:3], float), np.array(choices.actions[:3], float)
        outcomes[0, 100:] = np.nan
        actions[0, 100:] = np.nan
        outcomes[1, 70] = 0
        found, _ = value(parameters, b.read_choices(agent, outcomes, actions, mask=mask, first=first))
        seen, done = outcomes[..., 0], actions[..., 1]
        p, k = true["precision"], true["bias"]
        assert_close(found[0], plain(seen[0, :100], done[0, :100], p[0], k[0]), 1e-12)
        halves = [plain(seen[1, part], done[1, part], p[1], k[1]) for part in (slice(70), slice(70, None))]
        assert_close(found[1], sum(halves), 1e-12)
        share = b.predicted(
            reversal_agent({n: v[2] for n, v in parameters.items()}), jax.tree.map(lambda a: a[2], data)
        )
        assert TRIALS / 2 < share <= TRIALS


@pytest.mark.usefixtures("double")
def test_recorded_actions_leave_an_agent_as_its_own_do():
    """Tables, habits and precision that change: choices scored afterwards and while they were made."""
    model = reversal_agent({"precision": 1.0, "bias": jnp.zeros(())}).model
    agent = Agent(
        model,
        1,
        precision=2.0,
        action_precision=1.0,
        infer_precision=True,
        learning=OnlineLearning(DirichletTables.from_model(model, 4.0, "AE"), forgetting=0.1),
    )
    maze = worlds.POMDPWorld(model, episode=7)

    class Watched(AbstractAgent):
        """The same, saying how probable it holds every action before it acts."""

        inner: Agent

        def init(self):
            return self.inner.init()

        def restart(self, state):
            return self.inner.restart(state)

        def observe(self, state, outcome):
            return self.inner.observe(state, outcome)

        def decide(self, state, key):
            logs = self.inner.log_probabilities(state)
            state, decision = self.inner.decide(state, key)
            return state, Said(decision.action, logs)

    history = vfe.live(Watched(agent), maze, 20, jax.random.key(0))
    data = b.read_choices(agent, history)
    logs = b.choice_log_probabilities(agent, jax.tree.map(lambda a: a[0], data))
    assert np.asarray(history.ended).sum() == 2
    assert np.abs(np.diff(history.decisions.logs, axis=0)).max() > 0.05
    assert_close(logs, history.decisions.logs, 1e-9)


class Said(eqx.Module):
    """A decision with what was thought before."""

    action: jax.Array
    logs: jax.Array


def test_recovery_and_laplace(simulated, fitted):
    true, choices = simulated
    found = b.recovery(true, fitted)
    assert fitted.converged.all()
    assert min(found.correlation.values()) >= 0.9
    # 120 intervals: five binomial standard deviations about 95 %.
    assert abs(np.mean([*found.coverage.values()]) - 0.95) < 5 * np.sqrt(0.95 * 0.05 / 120)
    assert max(abs(error) for error in found.error.values()) < 0.15
    assert "precision" in found.table()
    assert [one.get_xlabel() for one in found.plot()] == ["true", "true"]
    # −ln ∫ p(choices | θ) p(θ) dθ of one subject on a grid.
    seen, done = choices.outcomes[0, :, 0], choices.actions[0, :, 1]
    x = np.linspace(-4, 4, 41)
    logs = np.array([[plain(seen, done, 1.5 * np.exp(0.5 * u), v) for v in x] for u in x])
    logs = logs - 0.5 * (x[:, None] ** 2 + x**2) - np.log(2 * np.pi)
    evidence = np.log(np.exp(logs - logs.max()).sum() * (x[1] - x[0]) ** 2) + logs.max()
    assert_close(fitted.free_energy.total[0], -evidence, 2e-3)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    assert_close(fitted.coordinates[0, 1], (weights.sum(0) * x).sum(), 0.05)
    spread = np.sqrt((weights.sum(0) * x**2).sum() - (weights.sum(0) * x).sum() ** 2)
    assert_close(fitted.sd["bias"][0], spread, 0.02)


def flips(parameters, chosen):
    """Choices that do not depend on what was seen: a coin with a bias."""
    return jax.nn.log_sigmoid((2 * chosen - 1.0) * parameters["bias"]).sum()


def coins(subjects, trials, mean=0.7, sd=0.8):
    rng = np.random.default_rng(3)
    bias = mean + sd * rng.normal(size=subjects)
    return bias, (rng.uniform(size=(subjects, trials)) < 1 / (1 + np.exp(-bias[:, None]))).astype(int)


def test_a_group_tells_its_own_prior():
    bias, chosen = coins(240, 20)
    prior = {"bias": b.real(0.0, 2.0)}
    group = b.fit_group(flips, chosen, prior=prior)
    assert group.converged
    assert (np.diff(group.trace) <= 0).all()
    assert_close(group.free_energy.total.sum(), group.trace[-1], 1e-12)
    assert group.trace[-1] < group.trace[0] - 5
    # The likeliest normal prior by quadrature over every subject's bias.
    x = np.linspace(-5, 6, 400)
    ones = chosen.sum(1)[:, None]
    logs = -ones * np.logaddexp(0, -x) - (20 - ones) * np.logaddexp(0, x)

    def surprise(mean, sd):
        prior = np.exp(-0.5 * ((x - mean) / sd) ** 2) / (sd * np.sqrt(2 * np.pi))
        return -np.log((np.exp(logs) * prior).sum(1) * (x[1] - x[0])).sum()

    mean, sd = float(group.mean["bias"]), float(group.sd["bias"])
    least = min(
        surprise(m, s) for m in mean + 0.05 * np.arange(-3, 4) for s in sd + 0.05 * np.arange(-3, 4)
    )
    assert surprise(mean, sd) < least + 0.1
    assert_close(group.trace[-1], surprise(mean, sd), 2e-3)
    alone = b.fit_subjects(flips, chosen, prior=prior)
    near = ((group.subjects.value["bias"] - bias) ** 2).mean()
    assert near < ((alone.value["bias"] - bias) ** 2).mean()
    ranked = vfe.compare({"as given": alone, "of the group": group.subjects})
    assert ranked.best == "of the group"


def by_subject(totals):
    totals = np.asarray(totals)
    return vfe.FreeEnergy({"choices": totals}, {}, {}, None, np.ones(()), Kind.exact, (), ("choices",))


def test_frequencies_of_two_models_against_quadrature():
    rng = np.random.default_rng(2)
    first = rng.normal(size=30)
    second = first + np.where(np.arange(30) < 22, 3.0, -3.0) + rng.normal(size=30)
    found = b.model_frequencies({"one": by_subject(first), "two": by_subject(second)})
    r = (np.arange(4000) + 0.5) / 4000
    logs = np.log(r * np.exp(-first[:, None]) + (1 - r) * np.exp(-second[:, None])).sum(0)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    assert_close(found.mean[0], (weights * r).sum(), 0.02)
    assert_close(found.exceedance[0], weights[r > 0.5].sum(), 0.02)
    # All alike against a flat prior over frequencies, by their evidence.
    alike = np.log(0.5 * np.exp(-first) + 0.5 * np.exp(-second)).sum()
    evidence = np.log(np.exp(logs - logs.max()).mean()) + logs.max()
    assert_close(found.omnibus_risk, 1 / (1 + np.exp(evidence - alike)), 0.05)
    assert found.mean[0] > found.protected_exceedance[1]
    assert_close(found.of_subject.sum(1), np.ones(30), 1e-12)
    assert "one" in repr(found)


def test_exceedance_against_draws():
    totals = np.random.default_rng(4).normal(size=(3, 25))
    totals[1] += 0.7
    found = b.model_frequencies({name: by_subject(f) for name, f in zip("abc", totals, strict=True)})
    draws = np.random.default_rng(5).dirichlet(found.counts, 200_000)
    shares = np.bincount(draws.argmax(1), minlength=3) / 200_000
    assert_close(found.exceedance, shares, 5 * np.sqrt(0.25 / 200_000))
    with pytest.raises(ValueError, match="of shapes"):
        b.model_frequencies({"a": by_subject(totals[0]), "b": by_subject(totals[1][:5])})
    with pytest.raises(ValueError, match="two or more fits"):
        b.model_frequencies({"a": by_subject(totals[0])})


def test_samples_agree_with_quadrature():
    _, chosen = coins(3, 30)
    found = b.sample_subjects(
        flips,
        chosen,
        prior={"bias": b.real(0.0, 1.0)},
        key=jax.random.key(0),
        chains=2,
        warm_up=300,
        draws=1500,
    )
    x = np.linspace(-5, 5, 2001)
    for n, ones in enumerate(chosen.sum(1)):
        logs = -ones * np.logaddexp(0, -x) - (30 - ones) * np.logaddexp(0, x) - 0.5 * x**2
        weights = np.exp(logs - logs.max())
        weights /= weights.sum()
        mean = (weights * x).sum()
        sd = np.sqrt((weights * x**2).sum() - mean**2)
        draws, worth = found.draws["bias"][..., n], float(found.effective["bias"][n])
        assert abs(draws.mean() - mean) < 5 * sd / np.sqrt(worth)
        assert abs(draws.std() / sd - 1) < 5 / np.sqrt(worth)
        assert worth > 200
    assert (found.r_hat["bias"] < 1.03).all()
    assert found.divergences == 0


def test_a_minimum_that_does_not_exist():
    chosen = np.array([[1, 0, 1], [1, 1, 0]])

    def bad(parameters, chosen):
        return flips(parameters, chosen) + jnp.where(chosen[2] == 1, jnp.nan, 0.0)

    with pytest.raises(vfe.DivergenceError, match=r"subjects \[0\] of 2"):
        b.fit_subjects(bad, chosen, prior={"bias": b.real()})
    found = b.fit_subjects(bad, chosen, prior={"bias": b.real()}, throw=False)
    assert found.converged.tolist() == [False, True]
    assert np.isnan(found.value["bias"][0])
    assert np.isnan(found.free_energy.total[0])
    assert np.isfinite(found.free_energy.total[1])


SHARED = """
import sys
import jax, numpy as np
rank, port = int(sys.argv[1]), sys.argv[2]
jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank, heartbeat_timeout_seconds=15)
from test_discrete_behaviour import b, coins, flips
_, chosen = coins(5, 20)
assert len(jax.devices()) == 4 and len(jax.local_devices()) == 2
alone = b.fit_subjects(flips, chosen, prior={"bias": b.real()})
all = b.fit_subjects(flips, chosen, prior={"bias": b.real()}, devices=jax.devices())
np.testing.assert_allclose(all.coordinates, alone.coordinates, rtol=0, atol=1e-12)
np.testing.assert_allclose(all.free_energy.total, alone.free_energy.total, rtol=0, atol=1e-12)
print("alike")
"""


def test_subjects_shared_by_processes_and_devices():
    folder = os.path.dirname(__file__)
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": os.pathsep.join([folder, *sys.path]),
        "JAX_PLATFORMS": "cpu",
    }
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SHARED, str(rank), port],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert "alike" in said[0], said[0]
    assert "alike" in said[1], said[1]


@pytest.mark.parametrize(
    ("act", "word"),
    [
        (lambda: b.positive(0.0), "positive median"),
        (lambda: b.probability(0.7, upper=0.5), "between 0 and 0.5"),
        (lambda: b.real(0.0, 0.0), "positive sd"),
        (lambda: b.fit_subjects(flips, np.ones((2, 3)), prior={}), "no parameters"),
        (lambda: b.fit_subjects(flips, np.ones((0, 3)), prior={"bias": b.real()}), "axis of subjects"),
        (lambda: b.fit_subjects(flips, np.ones((2, 3)), prior={"bias": b.real()}, starts=3), "a key"),
        (lambda: b.fit_group(flips, np.ones((1, 3)), prior={"bias": b.real()}), "got one subject"),
    ],
)
def test_bad_input(act, word):
    with pytest.raises(ValueError, match=word):
        act()


@pytest.mark.parametrize(
    ("outcomes", "actions", "word"),
    [
        (np.ones((2, 3, 1)), np.zeros((2, 2, 2)), "as many of both"),
        (np.ones((2, 3, 2)), np.zeros((2, 3, 2)), "outcomes of shape"),
        (3 * np.ones((2, 3, 1)), np.zeros((2, 3, 2)), "outcome 3 of subject 0 at time 0"),
        (np.ones((2, 3, 1)), 0.5 * np.ones((2, 3, 2)), "action 0.5 of subject 0"),
        ([[[1], [1]], [[1]]], np.zeros((2, 2, 2)), r"of \[1, 2\] times.*mask="),
    ],
)
def test_bad_choices(outcomes, actions, word):
    agent = reversal_agent({"precision": 1.0, "bias": jnp.zeros(())})
    with pytest.raises(ValueError, match=word):
        b.read_choices(agent, outcomes, actions)
