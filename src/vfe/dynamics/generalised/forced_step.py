"""How far a dissipative linear flow carries under a drive, by one inverse: no cost in stiffness."""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# w = (I - POLE A)⁻¹ takes the half-line of decay rates to (0, 1]; functions of A are polynomials in w.
POLE = 0.0368
BITS = 5
TERMS = 2**BITS


def forced_step(A: Float[Array, "n n"], drives: Float[Array, "n m"]) -> Float[Array, " n"]:
    """x(1) from x(0) = 0 under dx/dt = A x + Σ_j c_j tʲ/j!, that is Σ_j φ_{j+1}(A) c_j.

    A is −S + D with S symmetric and positive semidefinite, however large, and ‖D‖ ≤ 1: its field of values
    then lies within one of the half-line (−∞, 0]. There φ_j(z) = w q_j(w), w = 1/(1 − γz), with q_j
    polynomials of degree 31 that are right to 5e−14; so are the functions of A, times 1 + √2 at most.

    **Arguments:** `A`: (n, n); `drives`: c_j, (n, m).

    **Example:** `forced_step(-jnp.eye(1), jnp.ones((1, 1)))` is 1 − e⁻¹.

    **Source:** Moret and Novati 2004, "RD-rational approximations of the matrix exponential"; Crouzeix and
    Palencia 2017, "The numerical range is a (1 + √2)-spectral set".
    """
    n, m = drives.shape
    one = jnp.eye(n)
    solved = jnp.linalg.solve(one - POLE * A, jnp.concatenate([one, drives], 1))
    W = solved[:, :n]
    terms = solved[:, n:] @ jnp.asarray(_coefficients(m))
    T = 2 * (1 - POLE) * W - one
    powers = [T]
    for _ in range(BITS - 1):
        powers.append(2 * powers[-1] @ powers[-1] - one)
    for T in reversed(powers):
        half = terms.shape[1] // 2
        terms = terms[:, :half] + T @ terms[:, half:]
    return terms[:, 0]


@functools.lru_cache(maxsize=16)
def _coefficients(m: int) -> Float[np.ndarray, "m terms"]:
    """Of q_1 … q_m in the products of T_1, T_2, T_4, T_8, T_16, T_k(s) the Chebyshev polynomials of
    s = 2 (1 − γ) w − 1.

    Fitted to the boundary of all z within one of (−∞, 0].
    """
    angle = np.linspace(0, np.pi / 2, 60)
    far = -np.geomspace(1e-4, 1e8, 240)
    z = np.concatenate([np.exp(1j * angle), far + 1j, far + 0j])
    w = 1 / (1 - POLE * z)
    s = 2 * (1 - POLE) * w - 1
    basis = np.polynomial.chebyshev.chebvander(s, TERMS - 1)
    wanted = _phi(z, m) / w
    scale = np.abs(wanted).max(1)
    wanted = wanted.T / scale
    fitted = np.linalg.lstsq(
        np.concatenate([basis.real, basis.imag]), np.concatenate([wanted.real, wanted.imag]), rcond=1e-15
    )[0]
    c = fitted.T * scale[:, None]
    # T_{k+j} = 2 T_k T_j − T_{k−j}
    parts = c.reshape(m, 1, TERMS)
    for bit in reversed(range(BITS)):
        low, high = parts[..., : 2**bit].copy(), parts[..., 2**bit :].copy()
        low[..., 1:] -= high[..., :0:-1]
        high[..., 1:] *= 2
        parts = np.stack([low, high], 2).reshape(m, -1, 2**bit)
    return parts[..., 0]


def _phi(z: Float[np.ndarray, " k"], m: int) -> np.ndarray:
    """φ_1 … φ_m, φ_j(z) = Σ_k zᵏ/(k + j)!: the series where it loses no digits, else the recurrence."""
    near = np.abs(z) < 4
    small, large = np.where(near, z, 0), np.where(near, 1, z)
    values, far = [], np.exp(large)
    for j in range(1, m + 1):
        far = (far - 1 / math.factorial(j - 1)) / large
        term = np.ones_like(z) / math.factorial(j)
        value = term
        for k in range(1, 40):
            term = term * small / (j + k)
            value = value + term
        values.append(np.where(near, value, far))
    return np.stack(values)
