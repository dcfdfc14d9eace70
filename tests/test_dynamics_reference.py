"""Filtering, DEM and generalised filtering against reference runs of the original toolbox."""

import dynamic_cases as cases
import numpy as np
import pytest

import vfe

LINEAR = 1e-9
PUBLISHED = vfe.dynamics.Reference()


def near(got, wanted, tolerance):
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


def check_series(found, data, states, causes, tolerance):
    if states:
        near(found.states.mean, np.concatenate([data[k] for k in states]).T, tolerance)
    if causes:
        near(found.causes.mean, np.concatenate([data[k] for k in causes]).T, tolerance)
    near(found.prediction.mean, data["qU_v1"].T, tolerance)


def check_learned(found, data, tolerance):
    names = [n for n in ("qH_h", "qH_g") if n in data]
    near(found.log_precisions.mean, np.concatenate([data[n] for n in names]), tolerance)
    near(found.log_precisions.covariance, data["qH_C"], tolerance)


def flat(parameters):
    return np.concatenate([np.ravel(parameters[key]) for key in ("A", "G", "h")])


def test_states_of_a_linear_convolution():
    data = cases.load("conv_state")
    found = vfe.filter(cases.convolution("conv_state", data), data["Y"].T, scheme=PUBLISHED)
    assert found.states.mean.dtype == np.float64  # in a process that never enabled it
    check_series(found, data, ["qU_x1"], ["qU_v2"], LINEAR)
    near(found.states.covariance, data["qU_S"], LINEAR)
    near(found.causes.covariance, data["qU_C"], LINEAR)
    near(found.derivatives[0], data["gen_x"], LINEAR)
    near(found.derivatives[1], data["gen_v"], LINEAR)
    assert -found.free_energy.total == pytest.approx(data["F"][-1], rel=1e-10)
    energies = sum(found.free_energy.by_level.values())
    assert energies - found.free_energy.entropy.sum() == pytest.approx(found.free_energy.total, rel=1e-12)
    by_time = found.free_energy.complexity - found.free_energy.accuracy
    near(by_time, found.free_energy.by_time, 1e-12)


def test_eight_states_without_causes_and_half_the_gain():
    data = cases.load("gf_kf")
    scheme = vfe.dynamics.Reference(gain=float(data["opt_K"][0]))
    found = vfe.filter(cases.linear_8(data), data["Y"].T, scheme=scheme)
    check_series(found, data, ["qU_x1"], [], LINEAR)
    near(found.states.covariance, data["qU_S"], LINEAR)
    assert -found.free_energy.total == pytest.approx(data["F"][-1], rel=1e-9)


def test_triple_estimation():
    data = cases.load("conv_dem")
    model = cases.convolution("conv_dem", data)
    found = vfe.dem(model, data["Y"].T, scheme=vfe.dynamics.Reference(sweeps=16))
    check_series(found, data, ["qU_x1"], ["qU_v2"], LINEAR)
    near(found.states.covariance, data["qU_S"], LINEAR)
    near(flat(found.parameters.mean[0]), data["qP_P"], LINEAR)
    near(found.parameters.covariance, data["qP_C"], LINEAR)
    check_learned(found, data, LINEAR)
    near(-found.free_energy.history, data["F"], 1e-9)
    assert found.sweeps == 16


def test_generalised_filtering_of_parameters_and_precisions():
    data = cases.load("lap_conv")
    model = cases.convolution("lap_conv", data)
    found = vfe.generalised_filter(model, data["Y"].T, scheme=vfe.dynamics.Reference(sweeps=16))
    check_series(found, data, ["qU_x1"], ["qU_v2"], LINEAR)
    near(found.states.covariance, data["qU_S"], LINEAR)
    near(found.causes.covariance, data["qU_C"], LINEAR)
    near(flat(found.parameters.mean[0]), data["qP_P"], LINEAR)
    near(found.parameters.covariance, data["qP_C"], LINEAR)
    near(found.parameters_in_time, data["qP_p_t"].T, LINEAR)
    near(found.log_precisions_in_time, data["qH_p_t"].T, LINEAR)
    check_learned(found, data, LINEAR)
    near(-found.free_energy.history, data["F"], 1e-10)


@pytest.mark.parametrize(
    ("case", "build", "causes"),
    [("hlm_peb", cases.random_effects, ["qU_v2", "qU_v3"]), ("glm", cases.regression, ["qU_v2"])],
)
def test_static_models(case, build, causes):
    data = cases.load(case)
    sweeps = 16 if case == "hlm_peb" else 8
    found = vfe.dem(build(data), data["Y"].T, scheme=vfe.dynamics.Reference(sweeps=sweeps))
    check_series(found, data, [], causes, LINEAR)
    near(found.causes.covariance, data["qU_C"], LINEAR)
    check_learned(found, data, LINEAR)
    near(-found.free_energy.history[: found.sweeps], data["F"], LINEAR)


def test_a_flow_that_is_not_linear():
    # The toolbox's derivatives are finite differences: these runs have its finest.
    data = cases.load("double_well")
    found = vfe.filter(cases.double_well(data), data["Y"].T, scheme=PUBLISHED)
    near(found.states.mean, data["fine_qU_x1"].T, 1e-6)
    near(found.causes.mean, data["fine_qU_v2"].T, 1e-6)


def test_a_leaky_integrator_whose_noise_is_all_but_known():
    """A state precision of e³² makes the step ill-conditioned: right programs differ by 5e-5 and 2e-3."""
    data = cases.load("ou")
    found = vfe.filter(cases.leaky(data), data["Y"].T, scheme=PUBLISHED)
    np.testing.assert_allclose(found.states.mean, data["qU_x1"].T, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.causes.mean, data["qU_v2"].T, rtol=0, atol=5e-3)


def test_lorenz_at_an_eighth_of_a_sample():
    data = cases.load("lorenz")
    found = vfe.filter(cases.lorenz(data), data["Y"].T, scheme=PUBLISHED)
    near(found.states.mean, data["fine_qU_x1"].T, 2e-5)
    assert not found.states.sd.any()  # a known precision of e¹⁶ leaves no variance


def test_birdsong_of_two_levels():
    data = cases.load("birdsong")
    found = vfe.filter(cases.birdsong(data), data["Y"].T, scheme=vfe.dynamics.Reference(gain=np.exp(-2)))
    check_series(found, data, ["qU_x1", "qU_x2"], ["qU_v2"], 1e-8)
    near(found.state_levels[1].mean, data["fine_qU_x2"].T, 1e-8)
    near(found.cause_levels[0].mean, data["fine_qU_v2"].T, 1e-8)
