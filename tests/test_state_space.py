"""StateSpace: filter, smoother, evidence and path free energy, against references and dense Gaussians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, gaussian_energy, load

import vfe
from vfe.dynamics import ParallelInTime, Sequential

METHODS = [Sequential(), ParallelInTime()]
NAMES = {
    "initial_mean": "m1",
    "initial_covariance": "P1",
    "transition": "A",
    "transition_covariance": "Q",
    "observation": "C",
    "observation_covariance": "R",
    "transition_input": "B",
    "transition_offset": "b",
    "observation_input": "D",
    "observation_offset": "d",
}


def spread(rng, n, scale=1.0):
    factor = rng.normal(size=(n, n))
    return scale * (factor @ factor.T / n + 0.1 * np.eye(n))


def matrices(rng, n=2, k=2, r=1, time=()):
    """A random system under the names of `vfe.StateSpace`; `time`: a leading axis, or none."""
    return {
        "initial_mean": rng.normal(size=n),
        "initial_covariance": spread(rng, n),
        "transition": 0.6 * rng.normal(size=(*time, n, n)),
        "transition_covariance": np.broadcast_to(spread(rng, n), (*time, n, n)),
        "observation": rng.normal(size=(*time, k, n)),
        "observation_covariance": np.broadcast_to(spread(rng, k), (*time, k, k)),
        "transition_input": rng.normal(size=(*time, n, r)),
        "transition_offset": rng.normal(size=(*time, n)),
        "observation_input": rng.normal(size=(*time, k, r)),
        "observation_offset": rng.normal(size=(*time, k)),
    }


def dense(m, y, u):
    """Moments of all states given what is there of y, and −ln p(y): one big Gaussian, in NumPy."""
    count, k = y.shape
    n = len(m["initial_mean"])

    def at(name, t):
        base = {"transition_offset": 1, "observation_offset": 1}.get(name, 2)
        return m[name][t] if np.ndim(m[name]) > base else m[name]

    # States as a linear map of independent noise: z = base + mix e.
    mix, base = np.zeros((count * n, count * n)), np.zeros(count * n)
    noise = np.zeros((count * n, count * n))
    rows = [slice(t * n, (t + 1) * n) for t in range(count)]
    base[rows[0]], mix[rows[0], rows[0]] = m["initial_mean"], np.eye(n)
    noise[rows[0], rows[0]] = m["initial_covariance"]
    for t in range(1, count):
        a = at("transition", t)
        base[rows[t]] = (
            a @ base[rows[t - 1]] + at("transition_input", t) @ u[t] + at("transition_offset", t)
        )
        mix[rows[t]] = a @ mix[rows[t - 1]]
        mix[rows[t], rows[t]] = np.eye(n)
        noise[rows[t], rows[t]] = at("transition_covariance", t)
    prior = mix @ noise @ mix.T
    observe, error = np.zeros((count * k, count * n)), np.zeros((count * k, count * k))
    expected = np.zeros(count * k)
    for t in range(count):
        own = slice(t * k, (t + 1) * k)
        observe[own, rows[t]] = at("observation", t)
        error[own, own] = at("observation_covariance", t)
        expected[own] = at("observation_input", t) @ u[t] + at("observation_offset", t)
    there = ~np.isnan(y.ravel())
    observe, error = observe[there], error[np.ix_(there, there)]
    residual = y.ravel()[there] - expected[there] - observe @ base
    total = observe @ prior @ observe.T + error
    gain = np.linalg.solve(total, observe @ prior).T
    mean, covariance = base + gain @ residual, prior - gain @ observe @ prior
    return (
        mean.reshape(count, n),
        covariance.reshape(count, n, count, n),
        gaussian_energy(residual, 0, total),
    )


@pytest.mark.core
@pytest.mark.parametrize("method", METHODS, ids=["sequential", "parallel"])
@pytest.mark.parametrize("case", ["003", "005", "006", "008"])
def test_reference(case, method):
    want = load(f"ssm/case_{case}")
    model = vfe.StateSpace(**{name: want[key] for name, key in NAMES.items()})
    found = vfe.smooth(model, want["y"], inputs=want["U"], method=method)
    filtered = vfe.filter(model, want["y"], inputs=want["U"], method=method)
    f = found.free_energy.sum()
    numbers = {
        "pred_mean": filtered.predicted_mean,
        "pred_cov": filtered.predicted_covariance,
        "filt_mean": filtered.mean,
        "filt_cov": filtered.covariance,
        "innovation": filtered.innovation,
        "innovation_cov": filtered.predicted_y.covariance,
        "surprise": filtered.surprise,
        "smooth_mean": found.mean,
        "smooth_cov": found.covariance,
        "smooth_cross": found.cross_covariance,
        "neg_log_evidence": -found.log_evidence,
        "path_energy_initial": f.hidden["initial"],
        "path_energy_dynamics": f.hidden["dynamics"],
        "path_energy_observation": f.observed["observation"],
        "path_entropy": f.entropy,
    }
    for key, got in numbers.items():
        assert np.asarray(got).dtype == np.float64, key
        assert_close(got / np.abs(want[key]).max(), want[key] / np.abs(want[key]).max(), 1e-10, key)
    assert_close(f.total, want["neg_log_evidence"], 1e-10)
    assert f.kind is vfe.Kind.exact


@pytest.mark.parametrize("method", METHODS, ids=["sequential", "parallel"])
@pytest.mark.parametrize("moving", [False, True], ids=["constant", "varying"])
def test_missing_samples_against_one_large_gaussian(method, moving):
    rng = np.random.default_rng(1)
    m = matrices(rng, 3, 2, 1, (9,) if moving else ())
    y, u = rng.normal(size=(9, 2)), rng.normal(size=(9, 1))
    y[2, 0] = y[3, 1] = y[5] = y[0, 1] = y[8] = np.nan
    mean, covariance, energy = dense(m, y, u)
    found = vfe.smooth(vfe.StateSpace(**m), y, inputs=u, method=method)
    index = np.arange(9)
    assert_close(found.mean, mean, 1e-11)
    assert_close(found.covariance, covariance[index, :, index, :], 1e-11)
    assert_close(found.cross_covariance, covariance[index[:-1], :, index[1:], :], 1e-11)
    assert_close(-found.log_evidence, energy, 1e-11)
    assert_close(found.free_energy.sum().total, energy, 1e-11)
    assert found.surprise[5] == found.surprise[8] == 0
    assert (np.isnan(found.filtered.innovation) == np.isnan(y)).all()
    # The filter at t is the smoother of the series that ends there; prediction, that with t missing.
    for t in (0, 4, 7):
        cut = {name: v if name.startswith("initial") or not moving else v[: t + 1] for name, v in m.items()}
        last = y[: t + 1].copy()
        assert_close(found.filtered.mean[t], dense(cut, last, u)[0][t], 1e-11)
        last[t] = np.nan
        before = dense(cut, last, u)
        assert_close(found.filtered.predicted_mean[t], before[0][t], 1e-11)
        assert_close(found.filtered.predicted_covariance[t], before[1][t, :, t], 1e-11)


@pytest.mark.parametrize("method", METHODS, ids=["sequential", "parallel"])
def test_singular_noise(method):
    """A second-order autoregression (no noise in the lag) from a known start, where F keeps its sum."""
    m = matrices(np.random.default_rng(2), 2, 1, 1)
    m |= {
        "transition": np.array([[1.2, -0.5], [1.0, 0.0]]),
        "transition_covariance": np.diag([0.3, 0.0]),
        "initial_covariance": np.zeros((2, 2)),
    }
    y, u = np.random.default_rng(3).normal(size=(12, 1)), np.zeros((12, 1))
    mean, covariance, energy = dense(m, y, u)
    found = vfe.smooth(vfe.StateSpace(**m), y, inputs=u, method=method)
    assert_close(found.mean, mean, 1e-11)
    assert_close(found.covariance, covariance[np.arange(12), :, np.arange(12), :], 1e-11)
    assert_close(found.free_energy.sum().total, energy, 1e-11)
    assert (found.free_energy.complexity > -1e-12).all()


def test_vague_start():
    """A trend seen through noise under a prior variance of 1e8: least squares, whose answer is known."""
    y = 3.0 + 0.5 * np.arange(8.0)[:, None] + np.random.default_rng(4).normal(size=(8, 1))
    model = vfe.StateSpace(
        initial_mean=np.zeros(2),
        initial_covariance=1e8 * np.eye(2),
        transition=[[1.0, 1.0], [0.0, 1.0]],
        transition_covariance=np.zeros((2, 2)),
        observation=[[1.0, 0.0]],
        observation_covariance=[[1.0]],
    )
    design = np.stack([np.ones(8), np.arange(8.0)], 1)
    precision = design.T @ design + 1e-8 * np.eye(2)
    for method in METHODS:
        found = vfe.smooth(model, y, method=method)
        assert_close(found.mean[0], np.linalg.solve(precision, design.T @ y[:, 0]), 1e-10)
        assert_close(found.covariance[0], np.linalg.inv(precision), 1e-10)


def test_online_is_the_whole_pass():
    rng = np.random.default_rng(5)
    for time in ((), (6,)):
        model = vfe.StateSpace(**matrices(rng, 2, 2, 1, time))
        y, u = rng.normal(size=(6, 2)), rng.normal(size=(6, 1))
        y[3, 1] = np.nan
        whole = vfe.filter(model, y, inputs=u)
        state = model.init()
        for t in range(6):
            state, now = model.step(state, y[t], u[t])
            assert_close(now.mean, whole.mean[t], 1e-14)
            assert_close(now.covariance, whole.covariance[t], 1e-14)
            assert_close(now.predicted_mean, whole.predicted_mean[t], 1e-14)
            assert_close(now.predicted_y.covariance, whole.predicted_y.covariance[t], 1e-14)
            assert_close(now.surprise, whole.surprise[t], 1e-14)
    with pytest.raises(ValueError, match=r"6 steps, and this is sample 6"):
        model.step(state, y[0], u[0])


def test_forecast_is_a_filter_of_missing_samples():
    rng = np.random.default_rng(6)
    model = vfe.StateSpace(**matrices(rng))
    y, u = rng.normal(size=(9, 2)), rng.normal(size=(9, 1))
    y[5:] = np.nan
    want = vfe.filter(model, y, inputs=u)
    got = vfe.smooth(model, y[:5], inputs=u[:5]).forecast(4, inputs=u[5:])
    assert_close(got.states.mean, want.mean[5:], 1e-13)
    assert_close(got.states.covariance, want.covariance[5:], 1e-13)
    assert_close(got.y.mean, want.predicted_y.mean[5:], 1e-13)
    lower, upper = got.y.interval(0.5)
    assert_close(upper - lower, 2 * 0.6744897501960817 * np.asarray(got.y.sd), 1e-13)
    with pytest.raises(ValueError, match=r"steps=0"):
        want.forecast(0)


def test_batches():
    rng = np.random.default_rng(7)
    model = vfe.StateSpace(**matrices(rng))
    y, u = rng.normal(size=(2, 3, 5, 2)), rng.normal(size=(5, 1))
    many = vfe.smooth(model, y, inputs=u)
    one = vfe.smooth(model, y[1, 2], inputs=u)
    assert many.mean.shape == (2, 3, 5, 2)
    assert_close(many.cross_covariance[1, 2], one.cross_covariance, 1e-13)
    assert_close(many.log_evidence[1, 2], one.log_evidence, 1e-13)
    assert_close(many.forecast(2, inputs=u[:2]).y.mean[1, 2], one.forecast(2, inputs=u[:2]).y.mean, 1e-13)
    mapped = jax.vmap(lambda y: vfe.smooth(model, y, inputs=u).mean)(jnp.asarray(y[1]))
    assert_close(mapped[2], one.mean, 1e-5)


def test_equals_the_graph():
    """Four steps as a `vfe.Model`, whose posterior and evidence `vfe.exact` finds another way."""
    rng = np.random.default_rng(8)
    m = {name: v for name, v in matrices(rng).items() if "input" not in name}
    y = rng.normal(size=(4, 2))
    found = vfe.smooth(vfe.StateSpace(**m), y)
    with jax.enable_x64(True):
        chain = vfe.Chain(
            vfe.gaussian(m["initial_mean"], covariance=m["initial_covariance"]),
            vfe.gaussian(
                vfe.Affine(m["transition"], m["transition_offset"]),
                covariance=m["transition_covariance"],
                parents="z",
            ),
            vfe.gaussian(
                vfe.Affine(m["observation"], m["observation_offset"]),
                covariance=m["observation_covariance"],
                parents="z",
            ),
        )
        data = chain.split({"x": y})
        posterior = vfe.exact.posterior(chain.unroll(4), data)
        for t in range(4):
            assert_close(posterior[f"z_{t}"].mean, found.mean[t], 1e-11)
        assert_close(vfe.exact.log_evidence(chain.unroll(4), data), found.log_evidence, 1e-11)
        f = chain.free_energy(posterior, {"x": y})
        assert_close(f.observed["x"], found.free_energy.observed["observation"], 1e-11)
        hidden = found.free_energy.by_level
        assert_close(f.by_level["z"], hidden["initial"] + hidden["dynamics"], 1e-10)


@pytest.mark.parametrize("method", METHODS, ids=["sequential", "parallel"])
@pytest.mark.parametrize("name", ["transition", "transition_covariance", "observation_covariance"])
def test_gradient_of_the_evidence(name, method):
    rng = np.random.default_rng(9)
    m, y, u = matrices(rng), rng.normal(size=(7, 2)), rng.normal(size=(7, 1))
    y[2, 1] = np.nan
    direction = rng.normal(size=m[name].shape)
    if "covariance" in name:
        direction = direction + direction.T

    def surprise(step):
        return dense(m | {name: m[name] + step * direction}, y, u)[2]

    want = (surprise(1e-5) - surprise(-1e-5)) / 2e-5
    with jax.enable_x64(True):

        def ours(step):
            model = vfe.StateSpace(**(m | {name: m[name] + step * direction}))
            return -vfe.filter(model, y, inputs=u, method=method).log_evidence

        def path(step):
            model = vfe.StateSpace(**(m | {name: m[name] + step * direction}))
            return vfe.smooth(model, y, inputs=u, method=method).free_energy.total.sum()

        assert_close(jax.grad(path)(0.0), want, 1e-8)
        assert_close(jax.jit(jax.grad(ours))(0.0), want, 1e-8)


def test_looks():
    import matplotlib.pyplot as plt

    rng = np.random.default_rng(10)
    model = vfe.StateSpace(**matrices(rng))
    y, u = rng.normal(size=(3, 5, 2)), np.zeros((5, 1))
    many, one = vfe.smooth(model, y, inputs=u), vfe.smooth(model, y[0], inputs=u)
    data = many.to_xarray()
    assert data["mean"].dims == ("series", "time", "state")
    total = data["free_energy_by_term"].sum(("time", "term"))
    assert_close(total, -many.log_evidence, 1e-12)
    assert "free_energy_by_term" not in one.filtered.to_xarray()
    for result in (one, one.filtered):
        assert len(result.plot()) == 3
    plt.close("all")
    with pytest.raises(ValueError, match=r"\(3,\) series"):
        many.plot()
    assert repr(many) == "Smoothed((3,) series of 5 samples, 2 states)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transition": np.eye(3)}, r"transition has shape \(3, 3\); wanted \(2, 2\), or \('time', 2, 2\)"),
        ({"initial_covariance": np.eye(3)}, r"initial_covariance has shape"),
        ({"observation": np.ones(2)}, r"observation has shape \(2,\); wanted 2 axes"),
        ({"observation_covariance": np.zeros((2, 2))}, r"observation_covariance is not positive definite"),
        (
            {"transition_covariance": np.diag([1.0, -1.0])},
            r"transition_covariance is not positive semi",
        ),
        ({"transition_covariance": np.array([[1.0, 0.5], [0.0, 1.0]])}, r"is not symmetric"),
        ({"initial_mean": np.array([0.0, np.nan])}, r"initial_mean has values that are not finite"),
        ({"transition": "A"}, r"transition: got 'A', no array of real numbers"),
        (
            {"transition": np.ones((4, 2, 2)), "transition_offset": np.ones((5, 2))},
            r"lengths of the axes of time differ: \{'transition': 4, 'transition_offset': 5\}",
        ),
    ],
)
def test_bad_models(change, message):
    with pytest.raises(ValueError, match=message):
        vfe.StateSpace(**(matrices(np.random.default_rng(0)) | change))


def test_bad_data():
    model = vfe.StateSpace(**matrices(np.random.default_rng(0)))
    y, u = np.zeros((4, 2)), np.zeros((4, 1))
    for verb in (vfe.filter, vfe.smooth):
        with pytest.raises(ValueError, match=r"has shape \(4, 3\); wanted \(\*batch, time, 2\)"):
            verb(model, np.zeros((4, 3)), inputs=u)
        with pytest.raises(ValueError, match=r"give inputs= of shape \(time, 1\)"):
            verb(model, y)
        with pytest.raises(ValueError, match=r"inputs have shape \(3, 1\); wanted \(4, 1\)"):
            verb(model, y, inputs=u[:3])
        with pytest.raises(ValueError, match="an input cannot be missing"):
            verb(model, y, inputs=u * np.nan)
        with pytest.raises(ValueError, match="no samples"):
            verb(model, y[:0], inputs=u[:0])
        with pytest.raises(ValueError, match=r"infinite at \(1, 0\)"):
            verb(model, np.where(np.arange(8).reshape(4, 2) == 2, np.inf, 0.0), inputs=u)
        with pytest.raises(TypeError, match="wanted a model of a series"):
            verb({}, y)
        with pytest.raises(TypeError, match=r"wanted vfe\.dynamics\.Sequential"):
            verb(model, y, inputs=u, method="fast")
    varying = vfe.StateSpace(**matrices(np.random.default_rng(0), time=(5,)))
    with pytest.raises(ValueError, match="y has 4 samples, and the matrices of the model 5"):
        vfe.filter(varying, y, inputs=u)
    with pytest.raises(ValueError, match="vary in time"):
        vfe.filter(varying, np.zeros((5, 2)), inputs=np.zeros((5, 1))).forecast(1)
    unstable = vfe.StateSpace(
        initial_mean=[0.0],
        initial_covariance=[[1.0]],
        transition=[[1e60]],
        transition_covariance=[[1.0]],
        observation=[[1.0]],
        observation_covariance=[[1.0]],
    )
    with pytest.raises(vfe.DivergenceError, match="not finite at sample"):
        vfe.filter(unstable, np.r_[[np.nan] * 8, 1.0][:, None])


def test_all_missing_and_one_sample():
    m = matrices(np.random.default_rng(0))
    model, u = vfe.StateSpace(**m), np.zeros((3, 1))
    nothing = vfe.smooth(model, np.full((3, 2), np.nan), inputs=u)
    assert nothing.log_evidence == 0
    assert_close(nothing.mean[0], m["initial_mean"], 1e-14)
    assert_close(nothing.free_energy.total, np.zeros(3), 1e-12)
    y = np.ones((1, 2))
    for method in METHODS:
        one = vfe.smooth(model, y, inputs=u[:1], method=method)
        assert one.cross_covariance.shape == (0, 2, 2)
        assert_close(one.mean, dense(m, y, u[:1])[0], 1e-12)
