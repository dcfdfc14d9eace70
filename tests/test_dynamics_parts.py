"""Generalised coordinates and local linear steps against the fixtures and against plain SciPy."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from dynamic_cases import FOLDER, load

from vfe.dynamics.generalised.local_linear import (
    driven_exponential,
    local_linear_step,
    log_determinant,
    regularised_inverse,
    regularised_step,
)
from vfe.dynamics.levels.dependence import depends_on
from vfe.dynamics.levels.smoothness import embed, smoothness_covariance, smoothness_precision

pytestmark = [pytest.mark.usefixtures("float64"), pytest.mark.core]


@pytest.fixture(scope="module")
def fixtures():
    return load("fixtures")


def near(got, wanted, tolerance=1e-10):
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("orders", range(1, 9))
def test_smoothness_and_embedding(fixtures, orders):
    for number, smoothness in enumerate(fixtures["s_values"], 1):
        near(smoothness_covariance(orders, smoothness), fixtures[f"V_n{orders}_s{number}"])
        near(smoothness_precision(orders, smoothness), fixtures[f"R_n{orders}_s{number}"])
    embedded = embed(jnp.asarray(fixtures["embed_Y"].T), orders, fixtures["embed_t"])
    near(np.transpose(embedded, (2, 1, 0)), fixtures[f"embed_n{orders}"])


def test_smoothness_as_published_and_its_determinant():
    for name, both in json.loads((FOLDER / "smoothness_matrices.json").read_text()).items():
        orders, smoothness = (float(part.split("=")[1]) for part in name.split(","))
        near(smoothness_covariance(int(orders), smoothness), both["V"])
        near(smoothness_precision(int(orders), smoothness), both["R"])
    wanted = sum(math.log(math.factorial(k)) - k * math.log(2 * 0.3**2) for k in range(6))
    assert np.linalg.slogdet(smoothness_covariance(6, 0.3))[1] == pytest.approx(wanted, rel=1e-12)


def test_embedding_is_exact_for_polynomials():
    t = np.arange(1.0, 13)
    embedded = embed(jnp.asarray((t**3)[:, None]), 5)[4:8, :, 0]
    t = t[4:8]
    near(embedded, np.stack([t**3, 3 * t**2, 6 * t, 6 + 0 * t, 0 * t], 1))


def test_local_linear_steps(fixtures):
    for number, time in enumerate(fixtures["dx_t"]):
        near(local_linear_step(fixtures["dx_J"], fixtures["dx_f"], time), fixtures["dx_out"][:, number])
    for number, temperature in enumerate(fixtures["dx_reg"]):
        step = regularised_step(fixtures["dx_H"], fixtures["dx_f"], temperature)
        near(step, fixtures["dx_reg_out"][:, number])
    near(regularised_step(fixtures["dx_H"], fixtures["dx_f"], 1e3), fixtures["dx_newton"])
    near(local_linear_step(fixtures["dx_Jsing"], fixtures["dx_f"]), fixtures["dx_sing_out"])


def test_log_determinants_and_inverse(fixtures):
    assert log_determinant(fixtures["logdet_A"]) == pytest.approx(fixtures["logdet_out"], rel=1e-12)
    assert log_determinant(fixtures["dx_J"]) == pytest.approx(fixtures["logdet_J"], rel=1e-12)
    assert log_determinant(-fixtures["dx_H"]) == pytest.approx(fixtures["logdet_pd"], rel=1e-12)
    near(regularised_inverse(fixtures["inv_A"]), fixtures["inv_out"], 1e-12)


def test_driven_exponential_against_scipy():
    a, c = jax.random.normal(jax.random.key(0), (5, 5)), 1e6 * jax.random.normal(jax.random.key(1), (5, 3))
    A = -40 * a @ a.T
    N = jnp.eye(3, k=-1)
    E, X = driven_exponential(A, c, N)
    whole = scipy.linalg.expm(np.block([[A, c], [np.zeros((3, 5)), N]]))
    values, vectors = np.linalg.eigh(A)
    near(E, (vectors * np.exp(values)) @ vectors.T, 1e-10)
    near(X, whole[:5, 5:], 1e-10)


def test_dependence_is_found_through_jit():
    one = jnp.ones(2)
    slope = jax.jacfwd(lambda x, p: jax.jit(lambda a: p * a)(x) + jnp.where(True, x, 0))
    assert depends_on(slope, one, one) == (False, True)
    assert depends_on(jax.jacfwd(lambda x, p: jnp.sin(x) * p), one, one) == (True, True)
    assert depends_on(lambda x, p: (x, p), one, one) == (True, True)
