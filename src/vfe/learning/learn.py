"""learn: minimise F over the parameters of a model, beliefs following along."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from vfe.beliefs import AbstractBelief, Particles
from vfe.conditioning import Conditioned, condition
from vfe.expectation import AbstractExpectation
from vfe.free_energy import FreeEnergy
from vfe.learning.contrast import Contrast
from vfe.learning.gradient import CentredNudging, ExpectationMaximisation, StochasticTrace, TotalDerivative
from vfe.learning.history import record, stack
from vfe.learning.learned import Learned
from vfe.learning.nudging import check_nudging
from vfe.learning.shared import refuse_minibatches
from vfe.learning.step import Plan, remembered, steps, watch_step
from vfe.learning.store import batches, count_of, first_store, gather, given_store, in_groups
from vfe.learning.trainable import joined, refuse_point_precisions, split, trainable, with_encoder
from vfe.model import Model
from vfe.perception.langevin import Langevin
from vfe.perception.perceive import Settings, default_family, family_of


@functools.cache
def default_optimiser() -> optax.GradientTransformation:
    """Adam with a rate of 0.01; one object, so that a second call need not compile again."""
    return optax.adam(1e-2)


def learn(
    model: Model,
    observed: Mapping[str, Any],
    *,
    epochs: int = 10,
    batch_size: int | None = None,
    key: PRNGKeyArray | None = None,
    belief: Any = None,
    solver: Any = None,
    expectation: AbstractExpectation | None = None,
    optimiser: optax.GradientTransformation | None = None,
    where: Callable[[Model], Any] | None = None,
    gradient: ExpectationMaximisation | StochasticTrace | TotalDerivative | CentredNudging | None = None,
    perception_steps: int = 100,
    parameter_steps: int = 1,
    keep_beliefs: bool = True,
    rtol: float = 1e-3,
    atol: float = 1e-4,
    contrast: Contrast | None = None,
    augment: Callable[[PRNGKeyArray, dict[str, Array]], dict[str, Array]] | None = None,
    validation: Mapping[str, Any] | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1,
    resume: bool = False,
    callback: Callable[[int, dict[str, Any], Model], Any] | None = None,
    progress: bool = False,
) -> Learned:
    """Learn a model's parameters: alternate perception (over q) and descent (over θ) of the same F.

    q ← argmin_q F[q; θ], then θ ← θ − rate · ∂F/∂θ, on minibatches. Beliefs are kept from visit to
    visit, so perception goes on where it stopped: with many `perception_steps` this is EM, with one it
    is the incremental schedule, in which weights move at every step: with `vfe.Point` beliefs and
    `vfe.ActivityDescent` or `vfe.ErrorDescent`, incremental predictive coding (one step of the activities,
    then one of the weights at the new activities). With `vfe.Amortised` beliefs the
    encoder is learned together with the model and nothing is kept. Where latents are shared by all
    observations, a minibatch of B stands for all N (its terms are multiplied by N / B), and what it says
    of the shared nodes is blended into the belief with a weight that falls from visit to visit,
    (1 + t)^(−0.7): stochastic variational inference, exact in the limit for conjugate nodes and an
    approximation elsewhere.

    **Arguments:**

    - `observed`: as in `vfe.perceive`; `batch_size`: observations per step (all by default). The
      order is a function of `key` and the epoch.
    - `belief`, `solver`, `expectation`, `rtol`, `atol`: as in `vfe.perceive` (a belief to start from
      may be that of an earlier `Learned`); `perception_steps` at each visit, then `parameter_steps` of
      `optimiser` (an optax transformation; Adam by default).
    - `keep_beliefs`: with False every visit starts afresh, from the feed-forward pass: for deep networks,
      whose weights move further between two visits of an observation than its belief would.
    - `where`: picks the leaves to learn (see `trainable`); `gradient`: `vfe.ExpectationMaximisation()`
      (default), `vfe.StochasticTrace()` (cheaper for networks), `vfe.TotalDerivative()`, or
      `vfe.CentredNudging()` (the feed-forward loss, from two nudged equilibria).
    - `contrast`: sharpen recognition of a label (`vfe.Contrast`); `augment(key, batch)`: a fresh
      version of one observation's arrays at each visit; `validation`: data on which beliefs, but not
      parameters, follow, to watch F on what is not learned from.
    - `checkpoint`: a folder; `resume=True` goes on from what is there, bit for bit on one machine.
      `callback(epoch, numbers, model)`: stops learning by returning True. `progress`: a bar with F.

    **Returns:** `Learned`: the model, the beliefs, and F by level and epoch.

    **Raises:** `ValueError` for data or settings that do not fit, and for hidden precisions learned
    under `vfe.Point`.

    **Example:**
    ```python
    learned = vfe.learn(model, {"x": x}, epochs=20, key=jax.random.key(0))
    learned.model, learned.history["total"]
    ```

    **Source:** Neal and Hinton 1998 (incremental EM as descent on F); Hoffman et al. 2013; Salvatori et
    al. 2024 (incremental predictive coding).
    """
    key = jax.random.key(0) if key is None else key
    _check_kinds(gradient, optimiser, where)
    given, belief = (belief, family_of(belief)) if isinstance(belief, AbstractBelief) else (None, belief)
    conditioned, family, labels = _prepare(model, observed, belief, solver, contrast)
    spec = trainable(model, where)
    refuse_point_precisions(conditioned, family, spec)
    if family is Particles or isinstance(solver, Langevin):
        raise ValueError("learn: Particles have no F to descend; use a Gaussian or Laplace belief.")
    if epochs < 1 or perception_steps < 1 or parameter_steps < 1:
        raise ValueError(
            f"learn: epochs={epochs}, perception_steps={perception_steps} and parameter_steps="
            f"{parameter_steps} must be at least 1."
        )
    count = count_of(conditioned)
    batch_size = count if batch_size is None else int(batch_size)
    if not 1 <= batch_size <= count:
        raise ValueError(f"learn: batch_size={batch_size}; wanted 1 … {count} (the observations).")
    if conditioned.repeats is not None and (contrast is not None or augment is not None):
        raise ValueError(
            "learn: latents are shared by all observations, and contrast= and augment= are about "
            "observations on their own; leave them out."
        )
    if conditioned.repeats is not None and batch_size != count:
        refuse_minibatches(conditioned, family, solver, gradient)
    if isinstance(gradient, CentredNudging):
        check_nudging(conditioned, family, solver, keep_beliefs)
    plan = Plan(
        with_encoder(family, None),
        solver,
        Settings(int(perception_steps), float(rtol), float(atol), expectation),
        ExpectationMaximisation() if gradient is None else gradient,
        contrast,
        default_optimiser() if optimiser is None else optimiser,
        parameter_steps,
        augment,
        count,
        keep_beliefs,
    )
    learned, fixed = split(model, spec, family)
    start_key, order_key, step_key = jax.random.split(key, 3)
    state: dict[str, Any] = {
        "learned": learned,
        "optimiser": plan.optimiser.init(learned),
        "store": _initial(
            keep_beliefs, given, conditioned, observed, model, family, contrast, start_key, labels
        ),
    }
    if given is not None and conditioned.repeats is not None:
        # A belief to start from counts as one pass over the data, not as nothing.
        state["store"]["visits"] = jnp.asarray(float(-(-count // batch_size)))
    watch = None
    if validation is not None:
        seen, _, val_labels = _prepare(model, validation, belief, solver, contrast)
        watch = (seen, val_labels)
        state["validation"] = first_store(
            seen, family, None, start_key, val_labels, contrast and contrast.node
        )
    rows: list[dict[str, Any]] = []
    val_rows: list[dict[str, Any]] = []
    done = 0
    if checkpoint is not None and resume:
        done, state, rows, val_rows = _restore(Path(checkpoint), state)
    if resume and checkpoint is None:
        raise ValueError("learn: resume=True wants checkpoint=, the folder to go on from.")
    last: FreeEnergy | None = None
    failed = 0
    status = "all epochs done"
    bar = _bar(epochs, done, progress)
    # What a checkpoint may hold: the state between two epochs, never one in the middle.
    settled = (done, state, list(rows), list(val_rows))
    try:
        for epoch in range(done, epochs):
            order = jax.random.permutation(jax.random.fold_in(order_key, epoch), count)
            on = contrast is not None and epoch >= contrast.delay * epochs
            pieces, indices, failed = [], [], 0
            here = jax.random.fold_in(step_key, epoch)
            learning = {n: v for n, v in state.items() if n != "validation"}
            number = 0
            for index in in_groups(batches(np.asarray(order), batch_size)):
                learning, free_energy, bad = steps(
                    plan,
                    learning,
                    fixed,
                    conditioned,
                    labels,
                    jnp.asarray(index),
                    here,
                    jnp.asarray(number),
                    jnp.asarray(on),
                )
                # One group at a time: a queue of asynchronous steps gains nothing on a busy device, and
                # an interrupt would have to wait for all of it.
                failed += int(bad)
                found = jax.device_get(free_energy)
                pieces += [jax.tree.map(lambda a, i=i: a[i], found) for i in range(len(index))]
                indices += list(index)
                number += len(index)
            state = {**state, **learning}
            last = gather(pieces, np.concatenate(indices), conditioned)
            rows.append(record(last, count))
            if watch is not None:
                seen, val_labels = watch
                held = jax.random.fold_in(jax.random.fold_in(step_key, epoch), 2**30)
                watched, val_energy = watch_step(
                    plan, state["learned"], fixed, seen, val_labels, state["validation"], held
                )
                state = {**state, "validation": watched}
                val_rows.append(record(val_energy, count_of(seen)))
            done = epoch + 1
            bar.update(done, rows[-1]["total"])
            settled = (done, state, list(rows), list(val_rows))
            if checkpoint is not None and (done % checkpoint_every == 0 or done == epochs):
                _save(Path(checkpoint), *settled)
            if callback is not None and callback(
                done, rows[-1], joined(state["learned"], fixed, family)[0]
            ):
                status = f"stopped by the callback after epoch {done}"
                break
    except KeyboardInterrupt:
        if checkpoint is not None:
            _save(Path(checkpoint), *settled)
        raise
    finally:
        bar.close()
    history = stack(rows, list(range(1, len(rows) + 1)))
    if val_rows:
        history["validation"] = stack(val_rows, list(range(1, len(val_rows) + 1)))
    model, family = joined(state["learned"], fixed, family)
    store = state["store"]
    if last is None:
        # Nothing was left to do: F of what was found before.
        last = remembered(plan, state, fixed, conditioned, labels, step_key)
    final: FreeEnergy = jax.tree.map(jnp.asarray, last)
    return Learned(
        model,
        family,
        None if store is None else store.get("belief"),
        final,
        history,
        final.kind.value,
        done,
        status,
        failed,
    )


def _initial(
    keep: bool,
    given: AbstractBelief | None,
    conditioned: Conditioned,
    observed: Mapping[str, Any],
    model: Model,
    family: Any,
    contrast: Contrast | None,
    key: PRNGKeyArray,
    labels: Array | None,
) -> Any:
    if not keep:
        if given is not None or contrast is not None or conditioned.repeats is not None:
            raise ValueError(
                "learn: keep_beliefs=False starts every visit afresh, which a belief to start from, a "
                "contrast between labels and shared latents do without; leave it out."
            )
        return None
    if given is None:
        return first_store(conditioned, family, contrast, key, labels)
    return given_store(given, conditioned, observed, model, contrast)


def _check_kinds(gradient: Any, optimiser: Any, where: Any) -> None:
    kinds = ExpectationMaximisation | StochasticTrace | TotalDerivative | CentredNudging
    if gradient is not None and not isinstance(gradient, kinds):
        raise TypeError(
            f"learn: got {gradient!r} for gradient; wanted vfe.ExpectationMaximisation(), "
            "vfe.StochasticTrace(), vfe.TotalDerivative() or vfe.CentredNudging()."
        )
    if optimiser is not None and not isinstance(optimiser, optax.GradientTransformation):
        raise TypeError(
            f"learn: got {type(optimiser).__name__} for optimiser; wanted an optax transformation such "
            "as optax.adam(1e-2)."
        )
    if where is not None and not callable(where):
        raise TypeError(
            f"learn: got {where!r} for where; wanted a function from the model to the leaves to learn, "
            'such as lambda m: m["x"].mean.'
        )


def _prepare(
    model: Model, observed: Mapping[str, Any], belief: Any, solver: Any, contrast: Contrast | None
) -> tuple[Conditioned, Any, Array | None]:
    if contrast is None:
        conditioned, _ = condition(model, observed)
        family = default_family(conditioned, solver) if belief is None else belief
        return conditioned, family, None
    if contrast.node not in observed:
        raise ValueError(f"learn: contrast wants the node {contrast.node!r} among the observed.")
    checked, _ = condition(model, observed)
    if contrast.node in checked.masks:
        raise ValueError(f"learn: contrast wants every value of {contrast.node!r}; some are missing.")
    labels = checked.observed[contrast.node]
    conditioned, _ = condition(model, {n: v for n, v in observed.items() if n != contrast.node})
    states = conditioned.discrete.get(contrast.node)
    if states is None or contrast.rivals >= states:
        raise ValueError(
            f"learn: contrast wants a discrete node above what is observed with more than "
            f"{contrast.rivals} states; {contrast.node!r} has {states}."
        )
    inner = conditioned.clamp(contrast.node, jnp.zeros((), int))
    return conditioned, default_family(inner, solver) if belief is None else belief, labels


class _bar:
    """A progress bar with the current F, silent unless asked for."""

    def __init__(self, total: int, done: int, show: bool):
        self.inner = None
        if show:
            from tqdm.auto import tqdm

            self.inner = tqdm(total=total, initial=done, desc="learning", unit="epoch")

    def update(self, done: int, value: float) -> None:
        if self.inner is not None:
            self.inner.set_postfix_str(f"F = {value:.3f} nats")
            self.inner.update(done - self.inner.n)

    def close(self) -> None:
        if self.inner is not None:
            self.inner.close()


def _save(folder: Path, done: int, state: dict[str, Any], rows: list[Any], val_rows: list[Any]) -> None:
    from vfe.results.checkpoint import save_checkpoint

    arrays = eqx.filter(state, eqx.is_array)
    save_checkpoint(folder, done, arrays, {"rows": rows, "validation_rows": val_rows})


def _restore(folder: Path, state: dict[str, Any]) -> tuple[int, dict[str, Any], list[Any], list[Any]]:
    from vfe.results.checkpoint import load_checkpoint

    arrays, rest = eqx.partition(state, eqx.is_array)
    found = load_checkpoint(folder, arrays)
    if found is None:
        return 0, state, [], []
    done, arrays, metadata = found
    return done, eqx.combine(arrays, rest), metadata["rows"], metadata["validation_rows"]
