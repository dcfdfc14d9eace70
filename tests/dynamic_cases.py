"""The reference cases of `tests/reference/dem` as models."""

import pathlib

import numpy as np

import vfe

FOLDER = pathlib.Path(__file__).parent / "reference" / "dem"


def load(case):
    return dict(np.load(FOLDER / f"{case}.npz"))


def learned_or(known, mean, variance):
    if len(mean) == 0:
        return known
    return vfe.Precision(components=[1.0], mean=mean, variance=variance)


def convolution(case, data, dt=1.0):
    """dx/dt = A x + h v, y = G x, with the time of a sample counted as dt."""
    empty = np.zeros(0)
    values = data["prior_pE"]
    parameters = {"A": values[:4].reshape(2, 2), "G": values[4:12].reshape(2, 4), "h": values[12:14]}
    observation = learned_or(data.get("V1"), data.get("prior_hE", empty), data.get("prior_hC_diag", empty))
    motion = data["W1"] * dt**2
    if "prior_gE" in data:
        motion = vfe.Precision(components=[dt**2], mean=data["prior_gE"], variance=data["prior_gC_diag"])
    level = vfe.Level(
        lambda x, v, p: p["G"].T @ x,
        lambda x, v, p: (p["A"].T @ x + p["h"] * v[0]) / dt,
        states=2,
        causes=1,
        parameters=parameters,
        parameter_covariance=data["prior_pC_diag"],
        observation_precision=observation,
        state_precision=motion,
        cause_precision=data["V2"],
    )
    return vfe.DynamicModel([level], smoothness=float(data["opt_s"][0]) * dt, dt=dt)


def linear_8(data):
    values = data["prior_pE"]
    level = vfe.Level(
        lambda x, v, p: p[1] @ x,
        lambda x, v, p: p[0] @ x,
        states=8,
        parameters=(values[:64].reshape(8, 8).T, values[64:].reshape(8, 4).T),
        observation_precision=data["V1"],
        state_precision=data["W1"],
    )
    return vfe.DynamicModel(level, order=4, smoothness=1.0)


def scalar(observe, flow, data, start):
    return vfe.DynamicModel(
        vfe.Level(
            observe,
            flow,
            states=[start],
            causes=1,
            observation_precision=data["V1"],
            state_precision=data["W1"],
            cause_precision=data["V2"],
        )
    )


def leaky(data):
    return scalar(lambda x, v, p: x, lambda x, v, p: -x / 16 + v, data, 0.0)


def double_well(data):
    return vfe.dynamics.double_well(
        observation_precision=data["V1"], state_precision=data["W1"], cause_precision=data["V2"]
    )


def lorenz(data):
    return vfe.dynamics.lorenz(
        18,
        46.92,
        4,
        rate=1 / 32,
        coupling=2,
        states=[1, 1, 16],
        observation_precision=data["V1"],
        state_precision=data["W1"],
        smoothness=1 / 8,
    )


def birdsong(data):
    return vfe.dynamics.birdsong(
        (1 / 16, 1 / 128),
        observation_precision=data["V1"],
        state_precision=(data["W1"], data["W2"]),
        cause_precision=data["V2"],
        dt=1.0,
        smoothness=1.0,
    )


def random_effects(data):
    values = data["prior_pE"]
    one, two = (
        vfe.Precision(components=[1.0], mean=mean, variance=variance)
        for mean, variance in zip(data["prior_hE"], data["prior_hC_diag"], strict=True)
    )
    below = vfe.Level(
        lambda x, v, p: p @ v, parameters=values[:128].reshape(8, 16).T, observation_precision=one
    )
    above = vfe.Level(
        lambda x, v, p: p @ v,
        causes=2,
        parameters=values[128:].reshape(2, 8).T,
        observation_precision=two,
        cause_precision=data["V3"],
    )
    return vfe.DynamicModel([below, above])


def regression(data):
    precision = vfe.Precision(components=[1.0], mean=data["prior_hE"], variance=data["prior_hC_diag"])
    return vfe.DynamicModel(
        vfe.Level(
            lambda x, v, p: p @ v,
            causes=2,
            parameters=data["prior_pE"].reshape(2, 8).T,
            observation_precision=precision,
            cause_precision=data["V2"],
        )
    )
