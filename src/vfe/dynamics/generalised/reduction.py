"""What a fitted dynamic model would be worth with other priors, and its posterior as a prior."""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from vfe.compare import Reduction, reduce
from vfe.double_precision import released
from vfe.dynamics.levels.dynamic_model import DynamicModel
from vfe.dynamics.levels.level import Level
from vfe.dynamics.levels.noise_precision import Precision
from vfe.dynamics.levels.trajectory import Believed, Parameters, Trajectory


class ReducedTrajectory(eqx.Module):
    """What follows under other priors: `parameters` and `log_precisions` as in a `vfe.dynamics.Trajectory`,
    and `log_evidence_change`, ln p(y | reduced) − ln p(y | full), in nats."""

    parameters: Parameters
    log_precisions: Believed
    log_evidence_change: Float[Array | np.ndarray, ""]


def reduce_dynamic_model(
    model: DynamicModel, found: Trajectory, reduced: DynamicModel
) -> ReducedTrajectory:
    """Bayesian model reduction: other priors on parameters and log-precisions, without fitting again.

    **Arguments:** `model`: what was fitted; `found`: what `vfe.dem` or `vfe.generalised_filter` returned
    for one series; `reduced`: the same model with other prior means and (co)variances of parameters, and
    of log-precisions. A variance of zero switches a parameter off, at its prior mean.

    **Returns:** a `vfe.dynamics.ReducedTrajectory`; a positive change favours the reduced model. Exact for
    static linear models of known causes and precisions. Elsewhere states are not inferred again: F of
    fitting again may differ by a nat or so for each parameter.

    **Raises:** `ValueError` where the models differ in more than priors, or the reduced one frees what was
    known.

    **Example:**
    ```python
    def model(variance):
        A, B, C = [[-0.5]], [[1.0]], [[1.0], [0.0]]
        return vfe.dynamics.linear_convolution(A, B, C, parameter_covariance=variance)
    full, reduced = model([0, 0, 0, 1]), model(0)       # is the second channel connected?
    vfe.dynamics.reduce_dynamic_model(full, vfe.dem(full, y), reduced).log_evidence_change
    ```

    **Source:** Friston and Penny 2011, "Post hoc Bayesian model selection".
    """
    for name, one, kind in (
        ("model", model, DynamicModel),
        ("found", found, Trajectory),
        ("reduced", reduced, DynamicModel),
    ):
        if not isinstance(one, kind):
            raise TypeError(
                f"reduce_dynamic_model: got a {type(one).__name__} as {name}; wanted a {kind.__name__}."
            )
    _check_alike(model, reduced)
    if found.states.mean.ndim != 2:
        raise ValueError(
            "reduce_dynamic_model: got several series; take one first, jax.tree.map(lambda a: a[0], found)."
        )
    full, other = model.problem, reduced.problem
    basis, size = full.basis, full.basis.shape[1]
    covariances = [_prior_covariance(m) for m in (model, reduced)]
    shift = other.parameters - full.parameters
    outside = np.eye(len(basis)) - basis @ basis.T
    scale = max(np.abs(covariances[1]).max(initial=0.0), 1e-300)
    if (
        np.abs(outside @ shift).max(initial=0.0) > 1e-9 * np.abs(full.parameters).max(initial=1.0)
        or np.abs(outside @ covariances[1]).max(initial=0.0) > 1e-9 * scale
    ):
        raise ValueError(
            "reduce_dynamic_model: the reduced model has another value, or a variance, for a parameter "
            "that was known in the model that was fitted; fit it with that parameter free "
            "(parameter_covariance=)."
        )
    at = np.concatenate([np.zeros(0), *(np.ravel(a) for a in jax.tree.leaves(found.parameters.mean))])
    change, parameters, precisions = 0.0, found.parameters, found.log_precisions
    with jax.enable_x64(True):
        if size:
            one = reduce(
                np.zeros(size),
                basis.T @ covariances[0] @ basis,
                basis.T @ (at - full.parameters),
                basis.T @ np.asarray(found.parameters.covariance) @ basis,
                basis.T @ shift,
                basis.T @ covariances[1] @ basis,
            )
            parameters, change = _parameters(model, one), change + float(one.log_evidence_change)
        if full.log_precision_mean.size:
            two = reduce(
                full.log_precision_mean,
                np.diag(full.log_precision_variance),
                found.log_precisions.mean,
                found.log_precisions.covariance,
                other.log_precision_mean,
                np.diag(other.log_precision_variance),
            )
            precisions = Believed(np.asarray(two.mean), np.asarray(two.covariance))
            change = change + float(two.log_evidence_change)
    return released(ReducedTrajectory(parameters, precisions, np.asarray(change)))


def posterior_as_prior(model: DynamicModel, found: Trajectory) -> DynamicModel:
    """The model as a series leaves it: what was learned of parameters and log-precisions is its prior.

    Correlations between levels, and between log-precisions, are left out.

    **Arguments:** `model`: what was fitted to one series, to `found`.

    **Raises:** `ValueError` for a trajectory of another model.

    **Example:** `vfe.dem(vfe.dynamics.posterior_as_prior(model, vfe.dem(model, first)), second)`.

    **Source:** Bayes' rule; Friston 2005, "A theory of cortical responses", for repetition.
    """
    if found.states.mean.ndim != 2 or len(found.parameters.mean) != len(model.levels):
        raise ValueError(
            "posterior_as_prior: got a trajectory of another model, or of several series; wanted what "
            "vfe.dem(model, y) returns for one series."
        )
    log_precisions = iter(zip(found.log_precisions.mean, np.square(found.log_precisions.sd), strict=True))
    learned = {}
    for block in model.problem.blocks:
        several = [next(log_precisions) for _ in block.components]
        learned[block.name] = np.array(several).reshape(-1, 2)

    def precision(old: Precision, name: str) -> Precision:
        if not old.components:
            return old
        mean, variance = learned[name].T
        return Precision(old.fixed, old.components, mean, variance)

    levels, start = [], 0
    for number, (level, mean) in enumerate(zip(model.levels, found.parameters.mean, strict=True), 1):
        own = slice(start, start + len(level.parameter_covariance))
        start = own.stop
        levels.append(
            Level(
                level.observe,
                level.flow,
                states=level.states,
                initial_covariance=level.initial_covariance,
                causes=level.causes,
                parameters=mean,
                parameter_covariance=np.asarray(found.parameters.covariance)[own, own],
                observation_precision=precision(level.observation_precision, f"observation {number}"),
                state_precision=precision(level.state_precision, f"states {number}"),
                cause_precision=precision(level.cause_precision, "causes"),
                smoothness=level.smoothness,
                state_smoothness=level.state_smoothness,
            )
        )
    return DynamicModel(levels, model.order, model.cause_order, model.smoothness, model.dt)


def _check_alike(model: DynamicModel, reduced: DynamicModel) -> None:
    for name in ("order", "cause_order", "smoothness", "dt", "state_sizes", "cause_sizes", "data_size"):
        one, other = getattr(model, name), getattr(reduced, name)
        if one != other:
            raise ValueError(
                f"reduce_dynamic_model: the models differ in {name}: {one} and {other}; only their priors "
                "may."
            )
    one, other = model.problem, reduced.problem
    if one.structures != other.structures or [len(b.components) for b in one.blocks] != [
        len(b.components) for b in other.blocks
    ]:
        raise ValueError(
            "reduce_dynamic_model: the models have other parameters or components of precision; wanted the "
            "same, with other priors."
        )


def _prior_covariance(model: DynamicModel) -> np.ndarray:
    import scipy.linalg

    blocks = [level.parameter_covariance for level in model.levels]
    size = sum(len(block) for block in blocks)
    return np.asarray(scipy.linalg.block_diag(*blocks)).reshape(size, size)


def _parameters(model: DynamicModel, found: Reduction) -> Parameters:
    problem = model.problem
    mean = problem.unravel(problem.full(found.mean))
    covariance = problem.basis @ np.asarray(found.covariance) @ problem.basis.T
    return Parameters(jax.tree.map(np.asarray, mean), covariance)
