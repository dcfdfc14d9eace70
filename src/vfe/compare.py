"""Which model? Ranks by free energy, and what a model would have been worth with another prior."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from vfe.beliefs import AbstractGaussian, JointGaussian, Laplace
from vfe.conditionals import Gaussian
from vfe.densities import base_density
from vfe.free_energy import FreeEnergy, Kind, same_kind
from vfe.model import Model


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison:
    """Models ranked by F, the best first; every array is in that order, in nats.

    `free_energy`: F of all observations together, (models,); `standard_error`: of each F, zero unless
    Monte Carlo; `log_prior`: ln p(m), normalised; `kind`: which kind of number F is; `observations`:
    how many there are.
    """

    names: tuple[str, ...]
    free_energy: np.ndarray
    standard_error: np.ndarray
    log_prior: np.ndarray
    kind: Kind
    observations: int

    @property
    def best(self) -> str:
        """The name of the model with the least F."""
        return self.names[0]

    @property
    def differences(self) -> np.ndarray:
        """F − F of the best, (models,): ln of the Bayes factor of the best over each."""
        return self.free_energy - self.free_energy[0]

    @property
    def difference_errors(self) -> np.ndarray:
        """The standard error of `differences`; the Monte Carlo errors of two models add in squares."""
        errors = np.sqrt(self.standard_error**2 + self.standard_error[0] ** 2)
        return np.where(np.arange(len(self.names)) == 0, 0.0, errors)

    @property
    def log_bayes_factors(self) -> np.ndarray:
        """ln p(x | m_i) − ln p(x | m_j) ≈ F_j − F_i, (models, models)."""
        return self.free_energy[None, :] - self.free_energy[:, None]

    @property
    def probabilities(self) -> np.ndarray:
        """p(m | x) = softmax(−F + ln p(m)), (models,)."""
        logs = self.log_prior - self.free_energy
        weights = np.exp(logs - logs.max())
        return weights / weights.sum()

    @property
    def probability_errors(self) -> np.ndarray:
        """The standard error of `probabilities`: dp_i = p_i (Σ_j p_j dF_j − dF_i)."""
        p = self.probabilities
        slopes = p[:, None] * (p[None, :] - np.eye(p.size))
        return np.sqrt((slopes**2 * self.standard_error[None, :] ** 2).sum(1))

    def table(self) -> str:
        """The ranking as a table."""
        width = max(12, *(len(n) + 2 for n in self.names))
        monte_carlo = self.kind is Kind.monte_carlo
        rows = [f"models by free energy in nats ({self.kind.value}, {self.observations} observations)"]
        rows.append(f"{'model':<{width}}{'F':>16}{'F − best':>24}{'p(model | x)':>22}")
        columns = (
            self.names,
            self.free_energy,
            self.differences,
            self.difference_errors,
            self.probabilities,
            self.probability_errors,
        )
        for name, f, d, d_error, p, p_error in zip(*columns, strict=True):
            difference = f"{d:.4f} ± {d_error:.4f}" if monte_carlo else f"{d:.4f}"
            probability = f"{p:.4f} ± {p_error:.4f}" if monte_carlo else f"{p:.4f}"
            rows.append(f"{name:<{width}}{f:16.4f}{difference:>24}{probability:>22}")
        if self.kind is Kind.approximation:
            rows.append("  F is an approximation and no bound: so are the differences.")
        return "\n".join(rows)

    def __repr__(self) -> str:
        return self.table()

    def to_xarray(self) -> Any:
        """The ranking as an xarray Dataset over the coordinate `model`."""
        import xarray as xr

        columns = ("free_energy", "standard_error", "differences", "difference_errors")
        columns += ("log_prior", "probabilities", "probability_errors")
        found = xr.Dataset(
            {name: ("model", np.asarray(getattr(self, name))) for name in columns},
            coords={"model": list(self.names)},
            attrs={"kind": self.kind.value, "observations": self.observations, "units": "nats"},
        )
        factors = (("model", "other_model"), self.log_bayes_factors)
        return found.assign(log_bayes_factors=factors).assign_coords(other_model=list(self.names))


def compare(models: Mapping[str, Any], *, prior: Mapping[str, float] | None = None) -> Comparison:
    """Rank models of the same data by F: −F approximates ln p(x | m).

    **Arguments:** `models`: per name a `FreeEnergy`, or anything with one as `.free_energy` (a
    `vfe.Percept`, a fit of `vfe.dynamics`), of all observations (not their mean); `prior`: p(m) per
    name, positive, up to a factor; equal by default.

    **Returns:** a `Comparison`.

    **Raises:** `ValueError` where kinds, observed nodes or numbers of observations differ, where F is
    an energy (a Point belief has no entropy, so its energy does not approximate ln p(x)), or where an
    F is not a number.

    **Example:**
    ```python
    found = vfe.compare({"narrow": narrow_percept, "wide": wide_percept})
    found.best, found.probabilities, print(found)
    ```

    **Source:** Kass and Raftery 1995; Penny et al. 2004.
    """
    if not isinstance(models, Mapping):
        raise TypeError(f"compare: got a {type(models).__name__}; wanted a dictionary from names to F.")
    if len(models) < 2:
        raise ValueError(f"compare: got {len(models)} models; wanted at least 2.")
    energies = {name: _free_energy_of(name, value) for name, value in models.items()}
    kind = same_kind(*energies.values())
    if kind is Kind.energy:
        raise ValueError(
            "compare: these are energies of beliefs without entropy (Point, Particles), which do not "
            "approximate ln p(x); perceive with belief=vfe.Laplace or a Gaussian belief first."
        )
    observed = {name: tuple(sorted(f.observed)) for name, f in energies.items()}
    if len(set(observed.values())) > 1:
        raise ValueError(
            f"compare: the observed nodes differ: { {n: list(o) for n, o in observed.items()} }; "
            "models can be compared on the same data only."
        )
    counts = {name: _count(f) for name, f in energies.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"compare: the numbers of observations differ: {counts}; perceive the same data under "
            "every model, and give the F of each observation (or their sum, not their mean)."
        )
    totals = np.asarray([_total(f) for f in energies.values()])
    errors = np.asarray([_error(f) for f in energies.values()])
    if not np.isfinite(totals).all():
        bad = [n for n, t in zip(energies, totals, strict=True) if not np.isfinite(t)]
        raise ValueError(
            f"compare: the F of {bad} is not finite; see the percept's status, or leave that model out."
        )
    log_prior = _log_prior(tuple(energies), prior)
    order = np.argsort(totals, kind="stable")
    return Comparison(
        tuple(np.asarray(list(energies), dtype=object)[order]),
        totals[order],
        errors[order],
        log_prior[order],
        kind,
        next(iter(counts.values())),
    )


def _free_energy_of(name: str, value: Any) -> FreeEnergy:
    found = value if isinstance(value, FreeEnergy) else getattr(value, "free_energy", None)
    if not isinstance(found, FreeEnergy):
        raise TypeError(
            f"compare: {name!r} is a {type(value).__name__} without a free energy; wanted a "
            "vfe.FreeEnergy or something with one as .free_energy, such as a vfe.Percept."
        )
    return found


def _count(free_energy: FreeEnergy) -> int:
    if not free_energy.shared:
        return int(np.size(free_energy.total))
    local = [v for n, v in free_energy.by_level.items() if n not in free_energy.shared]
    return max((int(np.size(v)) for v in local), default=1)


def _total(free_energy: FreeEnergy) -> float:
    return float(np.asarray(free_energy.total, dtype=np.float64).sum())


def _error(free_energy: FreeEnergy) -> float:
    return float(np.sqrt((np.asarray(free_energy.standard_error, dtype=np.float64) ** 2).sum()))


def _log_prior(names: tuple[str, ...], prior: Mapping[str, float] | None) -> np.ndarray:
    if prior is None:
        return np.full(len(names), -np.log(len(names)))
    if set(prior) != set(names):
        raise ValueError(
            f"compare: the prior is over {list(prior)} and the models are {list(names)}; give one "
            "probability per model."
        )
    weights = np.asarray([float(prior[n]) for n in names])
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise ValueError(f"compare: the prior {dict(prior)} must be finite and positive.")
    return np.log(weights / weights.sum())


class Reduction(NamedTuple):
    """The posterior under a reduced prior, (…, n) and (…, n, n), and the change in ln p(x), in nats."""

    mean: Array
    covariance: Array
    log_evidence_change: Array


def reduce(
    prior_mean: Any,
    prior_covariance: Any,
    posterior_mean: Any,
    posterior_covariance: Any,
    reduced_mean: Any,
    reduced_covariance: Any,
) -> Reduction:
    """Bayesian model reduction: the posterior and evidence under another Gaussian prior, without refitting.

    From p(z | x) = N(μ, C) under p(z) = N(η, Σ), what would follow from p̃(z) = N(η̃, Σ̃):

    - C̃⁻¹ = C⁻¹ + Σ̃⁻¹ − Σ⁻¹, μ̃ = C̃ (C⁻¹ μ + Σ̃⁻¹ η̃ − Σ⁻¹ η),
    - ln p̃(x) − ln p(x) = ½ ln (|C⁻¹| |Σ̃⁻¹| |C̃| |Σ|) − ½ (μᵀ C⁻¹ μ + η̃ᵀ Σ̃⁻¹ η̃ − ηᵀ Σ⁻¹ η − μ̃ᵀ C̃⁻¹ μ̃).

    Computed through Σ̃ = R Rᵀ and the likelihood's Λ = C⁻¹ − Σ⁻¹ as ln |I + Rᵀ Λ R| and its like, so
    that Σ̃ may have zero variances: a parameter switched off, held at its η̃. A positive change
    favours the reduced model. Exact for a Gaussian posterior; as good as the Gaussian elsewhere.

    **Arguments:** means (…, n) and covariances (…, n, n), any leading axes; in the units of z, and of
    z squared.

    **Returns:** a `Reduction`: `mean`, `covariance`, `log_evidence_change`.

    **Raises:** `ValueError` for shapes that do not fit, a prior or posterior covariance that is not
    positive definite, a reduced one with negative variances, or a reduced prior so wide that the
    posterior under it has no finite integral.

    **Example:**
    ```python
    prior, posterior = (jnp.zeros(1), jnp.eye(1)), (0.1 * jnp.ones(1), 0.01 * jnp.eye(1))
    vfe.reduce(*prior, *posterior, jnp.zeros(1), jnp.zeros((1, 1))).log_evidence_change
    ```

    **Source:** Friston and Penny 2011, Post hoc Bayesian model selection; Friston et al. 2016,
    Bayesian model reduction and empirical Bayes for group (DCM) studies.
    """
    means = [jnp.asarray(m, float) for m in (prior_mean, posterior_mean, reduced_mean)]
    matrices = [jnp.asarray(c, float) for c in (prior_covariance, posterior_covariance, reduced_covariance)]
    words = ("prior", "posterior", "reduced prior")
    size = means[0].shape[-1] if means[0].ndim else 0
    for word, mean, matrix in zip(words, means, matrices, strict=True):
        if mean.shape[-1:] != (size,) or matrix.shape[-2:] != (size, size) or not size:
            raise ValueError(
                f"reduce: the {word} has a mean of shape {mean.shape} and a covariance of shape "
                f"{matrix.shape}; wanted (..., n) and (..., n, n) with one n for all three."
            )
    for word, matrix in zip(words, matrices, strict=True):
        _require_covariance(word, matrix)
    function = jnp.vectorize(_reduce, signature="(n),(n,n),(n),(n,n),(n),(n,n)->(n),(n,n),()")
    found = Reduction(*function(means[0], matrices[0], means[1], matrices[1], means[2], matrices[2]))
    change = found.log_evidence_change
    if not isinstance(change, Tracer) and not np.isfinite(np.asarray(change)).all():
        raise ValueError(
            "reduce: the reduced prior is so wide that the posterior under it has no finite "
            "integral: the given posterior is wider than its own prior in some direction."
        )
    return found


def _require_covariance(word: str, matrix: Array) -> None:
    if isinstance(matrix, Tracer):
        return
    numbers = np.asarray(matrix, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError(f"reduce: the covariance of the {word} has elements that are not finite.")
    values = np.linalg.eigvalsh(0.5 * (numbers + np.swapaxes(numbers, -1, -2)))
    least, most = values.min(), max(np.abs(values).max(), np.finfo(float).tiny)
    if word == "reduced prior":
        if least < -1e-6 * most:
            raise ValueError(
                f"reduce: the covariance of the reduced prior has a negative eigenvalue ({least:.3g}); "
                "zero switches a parameter off."
            )
    elif least <= 0:
        raise ValueError(
            f"reduce: the covariance of the {word} is not positive definite (its least eigenvalue is "
            f"{least:.3g}); leave parameters that were already switched off out of all six arguments."
        )


def _reduce(
    prior_mean: Array,
    prior_covariance: Array,
    mean: Array,
    covariance: Array,
    reduced_mean: Array,
    reduced_covariance: Array,
) -> tuple[Array, Array, Array]:
    identity = jnp.eye(mean.shape[0], dtype=mean.dtype)
    precision = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(covariance), identity)
    prior_precision = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(prior_covariance), identity)
    # The likelihood as a function of the distance to the posterior mean, up to a constant:
    # exp(−½ dᵀ Λ d + gᵀ d), d = z − μ, where the posterior's slope is zero: g = Σ⁻¹ (μ − η).
    curvature = precision - prior_precision
    slope = prior_precision @ (mean - prior_mean)

    def integral(prior_mean: Array, root: Array) -> tuple[Array, Array, Array]:
        """ln ∫ N(z; prior_mean, R Rᵀ) exp(−½ dᵀ Λ d + gᵀ d) dz, and the mean and spread of e."""
        d = prior_mean - mean
        matrix = identity + root.T @ curvature @ root
        factor = jnp.linalg.cholesky(0.5 * (matrix + matrix.T))
        push = root.T @ (slope - curvature @ d)
        white = jax.scipy.linalg.solve_triangular(factor, push, lower=True)
        e = jax.scipy.linalg.solve_triangular(factor.T, white, lower=False)
        spread = jax.scipy.linalg.solve_triangular(factor, root.T, lower=True)
        log = -0.5 * d @ curvature @ d + slope @ d + 0.5 * white @ white
        return log - jnp.log(jnp.diag(factor)).sum(), prior_mean + root @ e, spread.T @ spread

    values, vectors = jnp.linalg.eigh(0.5 * (reduced_covariance + reduced_covariance.T))
    root = vectors * jnp.sqrt(jnp.maximum(values, 0.0))
    reduced, new_mean, new_covariance = integral(reduced_mean, root)
    full, _, _ = integral(prior_mean, jnp.linalg.cholesky(prior_covariance))
    return new_mean, new_covariance, reduced - full


class ReducedModel(NamedTuple):
    """A model with another prior on one node, the belief under it, and the change in ln p(x), in nats."""

    model: Model
    belief: AbstractGaussian
    log_evidence_change: Array


def reduce_model(model: Model, percept: Any, node: str, reduced: Gaussian) -> ReducedModel:
    """Give one root node another Gaussian prior, and get belief and evidence without perceiving again.

    The node's moments follow `vfe.reduce`; the other hidden nodes follow them by their regression on
    it, z_b + C_ba C_aa⁻¹ (z_a − μ_a), as their conditional density does not depend on the node's
    prior. Exact where the belief is the exact posterior.

    **Arguments:** `percept`: a `vfe.Percept` or its Gaussian belief; `node`: a hidden `vfe.gaussian`
    without parents; `reduced`: the `vfe.gaussian` to put in its place, of the same shape. For a
    variance of zero, which no node can have, use `vfe.reduce` on the moments.

    **Returns:** a `ReducedModel`: `model`, `belief` (a `Laplace` or `JointGaussian`) and
    `log_evidence_change`, with the leading axes of the belief.

    **Raises:** `TypeError` for other beliefs or nodes; `ValueError` for parents or shapes in the way.

    **Example:**
    ```python
    percept = vfe.perceive(model, {"x": x})
    vfe.reduce_model(model, percept, "z", vfe.gaussian(jnp.zeros(2), scale=1e-3)).log_evidence_change
    ```

    **Source:** as `vfe.reduce`.
    """
    belief = getattr(percept, "belief", percept)
    if not isinstance(belief, AbstractGaussian):
        raise TypeError(
            f"reduce_model: got a belief of type {type(belief).__name__}; wanted a Gaussian one, such as "
            "vfe.Laplace or vfe.JointGaussian."
        )
    info = model.describe(node)
    old: Any = model.nodes[node]
    for word, conditional in (("the node", old), ("the reduced prior", reduced)):
        if not isinstance(conditional, Gaussian):
            raise TypeError(
                f"reduce_model: {word} for {node!r} is a {type(conditional).__name__}; wanted a "
                "vfe.gaussian."
            )
        if conditional.parents:
            raise ValueError(
                f"reduce_model: {word} for {node!r} has the parents {conditional.parents}; only the prior "
                "of a node without parents can be reduced."
            )
    if reduced.shared != old.shared or reduced.plate != old.plate:
        raise ValueError(
            f"reduce_model: node {node!r} has shared={old.shared}, plate={old.plate} and its reduced prior "
            f"shared={reduced.shared}, plate={reduced.plate}; they must be the same."
        )
    new_model = Model(**{n: reduced if n == node else c for n, c in model.nodes.items()})
    if new_model.describe(node).shape != info.shape:
        raise ValueError(
            f"reduce_model: node {node!r} has shape {info.shape} and its reduced prior "
            f"{new_model.describe(node).shape}; they must be the same."
        )
    slot = belief.layout.slot(node)
    copies = (slot.stop - slot.start) // _moments(old, 1)[0].size
    mean, covariance = belief.location, belief.covariance()
    mine, all_of = slot.where, slice(None)
    here = (mean[..., mine], covariance[..., mine, mine])
    found = reduce(*_moments(old, copies), *here, *_moments(reduced, copies))
    across = jnp.linalg.solve(here[1], covariance[..., mine, all_of])  # C_aa⁻¹ C_a·
    back = jnp.swapaxes(across, -1, -2)
    shift = jnp.einsum("...ij,...j->...i", back, found.mean - here[0])
    shrink = back @ (found.covariance - here[1]) @ across
    factor = jnp.linalg.cholesky(covariance + shrink)
    family = Laplace if isinstance(belief, Laplace) else JointGaussian
    new = family.from_factor(belief.layout, mean + shift, factor)
    return ReducedModel(new_model, new, found.log_evidence_change)


def _moments(node: Gaussian, copies: int) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """The mean and covariance of a Gaussian root, of several independent copies side by side."""
    density = base_density(node())
    if hasattr(density, "scale_tril"):
        covariance = density.covariance_matrix
    else:
        covariance = jnp.diag(jnp.broadcast_to(density.scale, jnp.shape(density.loc)).reshape(-1) ** 2)
    mean = jnp.reshape(density.loc, -1)
    return jnp.tile(mean, copies), jnp.kron(jnp.eye(copies), covariance)
