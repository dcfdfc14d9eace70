"""The local linear step: how far a flow carries in a given time if its Jacobian stays as it is."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Coefficients of the [13/13] Padé approximant of exp and the norm up to which it is exact in double
# precision (Higham 2005).
PADE = (
    64764752532480000.0,
    32382376266240000.0,
    7771770303897600.0,
    1187353796428800.0,
    129060195264000.0,
    10559470521600.0,
    670442572800.0,
    33522128640.0,
    1323241920.0,
    40840800.0,
    960960.0,
    16380.0,
    182.0,
    1.0,
)
PADE_NORM = 5.371920351148152
LONGEST = np.exp(16)  # beyond this time the regularised step is a full Newton step
SMALLEST_SINGULAR, LARGEST_SINGULAR = 1e-16, 1e16
FIRM = np.exp(-32)


def regularised_inverse(A: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """(A + tol I)⁻¹, tol = max(spacing(‖A‖_∞) n, e⁻³²). **Example:** `regularised_inverse(jnp.eye(2))`."""
    return jnp.linalg.inv(
        A + inverse_tolerance(jnp.abs(A).sum(1).max(initial=0.0), len(A)) * jnp.eye(len(A))
    )


def inverse_tolerance(norm: Float[Array, ""], size: int) -> Float[Array, ""]:
    """What is added to the diagonal before a matrix of that largest row sum is inverted."""
    _, exponent = jnp.frexp(jnp.maximum(norm, np.finfo(float).tiny))
    return jnp.maximum(jnp.ldexp(jnp.ones_like(norm), exponent - 53) * size, FIRM)


@jax.custom_batching.custom_vmap
def log_determinant(A: Float[Array, "*batch n n"]) -> Float[Array, "*batch"]:
    """ln |det A| over the rows with a diagonal entry and singular values in (1e−16, 1e16): always finite.

    **Example:** `log_determinant(jnp.diag(jnp.array([2.0, 0.0])))` is ln 2.
    """
    kept = jnp.diagonal(A, axis1=-2, axis2=-1) != 0
    A = jnp.where(kept[..., :, None] & kept[..., None, :], A, jnp.eye(A.shape[-1]) * ~kept[..., None, :])
    pivots = jnp.abs(jnp.diagonal(jax.scipy.linalg.lu_factor(A)[0], axis1=-2, axis2=-1))
    # Far from the cut no singular value can cross it.
    ordinary = (pivots.min(initial=1.0) > 1e-12) & (jnp.abs(A).sum(-1).max(initial=0.0) < 1e14)

    def by_pivots() -> Float[Array, "*batch"]:
        return jnp.log(jnp.where(ordinary, pivots, 1.0)).sum(-1)

    def by_singular_values() -> Float[Array, "*batch"]:
        values = jnp.linalg.svd(A, compute_uv=False)
        counted = (values > SMALLEST_SINGULAR) & (values < LARGEST_SINGULAR)
        return jnp.log(jnp.where(counted, values, 1.0)).sum(-1)

    return jax.lax.cond(ordinary, by_pivots, by_singular_values)


@log_determinant.def_vmap
def _several(size: int, batched: list[bool], A: Float[Array, "*batch n n"]) -> tuple[Array, bool]:
    # One decision for all: else singular values would be found of every matrix, for nothing.
    return log_determinant(A), True


def driven_exponential(
    A: Float[Array, "n n"], C: Float[Array, "n m"], N: Float[Array, "m m"]
) -> tuple[Float[Array, "n n"], Float[Array, "n m"]]:
    """The upper blocks of exp [[A, C], [0, N]]: how x moves in unit time under dx = A x + C s, ds = N s.

    Scaling and squaring, the squaring on the blocks; N is small and fixed (a shift, or zero), A may be
    stiff.

    **Arguments:** `A`: (n, n); `C`: (n, m); `N`: (m, m).

    **Returns:** exp(A) and the block beside it.

    **Example:** `driven_exponential(A, flow[:, None], jnp.zeros((1, 1)))[1]`.

    **Source:** Van Loan 1978; Higham 2005.
    """
    n, m = C.shape
    size = jnp.maximum(_norm(A), 1.0)
    # A similarity that leaves A and N as they are keeps a strong drive from adding to the squarings.
    weight = jnp.maximum(_norm(C) / size, np.finfo(float).tiny)
    norm = jnp.maximum(size, _norm(N)) * 2
    squarings = jnp.maximum(jnp.ceil(jnp.log2(norm / PADE_NORM)), 0).astype(jnp.int32)
    whole = jnp.block([[A, C / weight], [jnp.zeros((m, n)), N]])
    whole = _pade(whole * jnp.exp2(-squarings.astype(A.dtype)))
    blocks = whole[:n, :n], whole[:n, n:], whole[n:, n:]

    # What is squared is exp less one: slow directions would else be lost in rounding beside fast ones.
    def square(_, blocks):
        E, X, G = blocks
        return E @ E + 2 * E, E @ X + X @ G + 2 * X, G @ G + 2 * G

    E, X, _ = jax.lax.fori_loop(0, squarings, square, blocks)
    return E + jnp.eye(n), X * weight


def _norm(A: Float[Array, "n m"]) -> Float[Array, ""]:
    return jnp.abs(A).sum(0).max(initial=0.0)


def _pade(A: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """exp(A) − I by the [13/13] Padé approximant."""
    b = PADE
    one = jnp.eye(len(A))
    A2 = A @ A
    A4 = A2 @ A2
    A6 = A4 @ A2
    U = A @ (A6 @ (b[13] * A6 + b[11] * A4 + b[9] * A2) + b[7] * A6 + b[5] * A4 + b[3] * A2 + b[1] * one)
    V = A6 @ (b[12] * A6 + b[10] * A4 + b[8] * A2) + b[6] * A6 + b[4] * A4 + b[2] * A2 + b[0] * one
    return jnp.linalg.solve(V - U, 2 * U)


def local_linear_step(
    jacobian: Float[Array, "n n"], flow: Float[Array, " n"], time: float | Float[Array, ""] = 1.0
) -> Float[Array, " n"]:
    """Δ = (exp(t J) − I) J⁻¹ F, for singular J too.

    **Arguments:** `jacobian`: J, (n, n) per unit of time; `flow`: F, (n,); `time`: t.

    **Example:** `local_linear_step(-jnp.eye(1), jnp.ones(1), 1.0)` is 1 − e⁻¹.

    **Source:** Ozaki 1992, "A bridge between nonlinear time series models and nonlinear stochastic
    dynamical systems".
    """
    _, moved = driven_exponential(jacobian * time, (flow * time)[:, None], jnp.zeros((1, 1)))
    return moved[:, 0]


def regularised_step(
    curvature: Float[Array, "n n"],
    gradient: Float[Array, " n"],
    temperature: float | Float[Array, ""],
    size: int | None = None,
) -> Float[Array, " n"]:
    """A local linear step over t = exp(τ − ln|det J|/m): Newton's step where the curvature is known well.

    Where t > e¹⁶, Newton's step −J⁺F.

    **Arguments:** `curvature`: J, (n, n); `gradient`: F, (n,); `temperature`: τ, −4 for heavy and 4 for
    light regularisation; `size`: m, n by default.

    **Example:** `regularised_step(-jnp.eye(1), jnp.ones(1), 4.0)`.

    **Source:** Friston 2008, "Hierarchical models in the brain".
    """
    size = len(gradient) if size is None else size
    time = jnp.exp(temperature - log_determinant(curvature) / size)
    return jax.lax.cond(
        time > LONGEST,
        lambda: -regularised_inverse(curvature.T @ curvature) @ (curvature.T @ gradient),
        lambda: local_linear_step(curvature, gradient, jnp.minimum(time, LONGEST)),
    )
