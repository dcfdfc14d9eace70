"""learn: minimise F over the parameters of a model, beliefs following along."""

import dataclasses
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

from vfe.beliefs import AbstractBelief, Amortised, Particles
from vfe.conditioning import Conditioned, condition
from vfe.expectation import AbstractExpectation
from vfe.free_energy import FreeEnergy, align, default_expectation, free_energy_of, leading_axes
from vfe.learning.contrast import Contrast
from vfe.learning.gradient import ExpectationMaximisation, TotalDerivative
from vfe.learning.history import record, stack
from vfe.learning.trainable import (
    is_amortised,
    joined,
    refuse_point_precisions,
    split,
    trainable,
    with_encoder,
)
from vfe.model import Model
from vfe.perception.feed_forward import FeedForward
from vfe.perception.langevin import Langevin
from vfe.perception.perceive import (
    Settings,
    default_family,
    family_of,
    perceive_one,
    prepare_start,
    start_belief,
)
from vfe.perception.status import Status


class Learned(eqx.Module):
    """What was learned.

    `model`; `belief`: the last beliefs about the training data, flattened to one leading axis (None
    for amortised ones); `family`: the belief family, with a learned encoder inside where amortised;
    `history`: arrays over the epochs, in nats per observation; `free_energy`: of the last epoch, per
    observation in the order of the data, as met during that epoch; `epochs` done; `failed`: visits in
    the last epoch at which perception found no answer.
    """

    model: Model
    family: Any
    belief: Any
    free_energy: FreeEnergy
    history: dict[str, Any]
    kind: str = eqx.field(static=True)
    epochs: int = eqx.field(static=True)
    status: str = eqx.field(static=True)
    failed: int = eqx.field(static=True)

    @property
    def steps(self) -> int:
        """Epochs done."""
        return self.epochs

    def plot(self, **options: Any) -> Any:
        """Draw F in its readings and by level over the epochs; returns matplotlib axes."""
        from vfe.results.plots import plot_learned

        return plot_learned(self, **options)

    def to_xarray(self) -> Any:
        """The history as an xarray Dataset."""
        from vfe.results.tables import learned_to_xarray

        return learned_to_xarray(self)

    def __repr__(self) -> str:
        totals = self.history.get("total", [])
        if not len(totals):
            return f"Learned(epochs={self.epochs})"
        return (
            f"Learned: F {totals[0]:.4f} → {totals[-1]:.4f} nats per observation ({self.kind}) in "
            f"{self.epochs} epochs; {self.status}"
        )


@functools.cache
def default_optimiser() -> optax.GradientTransformation:
    """Adam with a rate of 0.01; one object, so that a second call need not compile again."""
    return optax.adam(1e-2)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that stays the same from step to step, hashable."""

    family: Any
    solver: Any
    settings: Settings
    gradient: Any
    contrast: Contrast | None
    optimiser: Any
    parameter_steps: int
    augment: Any
    whole: int

    @property
    def node(self) -> str:
        """The node whose labels are contrasted."""
        if self.contrast is None:
            raise ValueError("learn: labels without a contrast.")
        return self.contrast.node


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
    gradient: ExpectationMaximisation | TotalDerivative | None = None,
    perception_steps: int = 100,
    parameter_steps: int = 1,
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
    is the incremental schedule, in which weights move at every step. With `vfe.Amortised` beliefs the
    encoder is learned together with the model and nothing is kept.

    **Arguments:**

    - `observed`: as in `vfe.perceive`; `batch_size`: observations per step (all by default). The
      order is a function of `key` and the epoch.
    - `belief`, `solver`, `expectation`, `rtol`, `atol`: as in `vfe.perceive` (a belief to start from
      may be that of an earlier `Learned`); `perception_steps` at each visit, then `parameter_steps` of
      `optimiser` (an optax transformation; Adam by default).
    - `where`: picks the leaves to learn (see `trainable`); `gradient`: `vfe.ExpectationMaximisation()`
      (default) or `vfe.TotalDerivative()`.
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

    **Source:** Neal and Hinton 1998 (incremental EM as descent on F); THEORY, section 3.
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
    count = _count(conditioned)
    batch_size = count if batch_size is None else int(batch_size)
    if not 1 <= batch_size <= count:
        raise ValueError(f"learn: batch_size={batch_size}; wanted 1 … {count} (the observations).")
    if conditioned.repeats is not None and batch_size != count:
        raise ValueError(
            "learn: latents are shared by all observations, so beliefs about them need the whole data "
            "set at each step; leave batch_size out."
        )
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
    )
    learned, fixed = split(model, spec, family)
    start_key, order_key, step_key = jax.random.split(key, 3)
    state: dict[str, Any] = {
        "learned": learned,
        "optimiser": plan.optimiser.init(learned),
        "store": _store(conditioned, family, contrast, start_key, labels)
        if given is None
        else _given_store(given, conditioned, observed, model, contrast),
    }
    watch = None
    if validation is not None:
        seen, _, val_labels = _prepare(model, validation, belief, solver, contrast)
        watch = (seen, val_labels)
        state["validation"] = _store(seen, family, None, start_key, val_labels, contrast and contrast.node)
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
            for number, index in enumerate(_batches(np.asarray(order), batch_size)):
                here = jax.random.fold_in(jax.random.fold_in(step_key, epoch), number)
                state, free_energy, bad = _step(
                    plan, state, fixed, conditioned, labels, jnp.asarray(index), here, jnp.asarray(on)
                )
                # One step at a time: a queue of asynchronous steps gains nothing on a busy device, and an
                # interrupt would have to wait for all of it.
                failed += int(bad)
                pieces.append(free_energy)
                indices.append(index)
            last = _gather(pieces, np.concatenate(indices), conditioned)
            rows.append(record(last, count))
            if watch is not None:
                seen, val_labels = watch
                held = jax.random.fold_in(jax.random.fold_in(step_key, epoch), 2**30)
                watched, val_energy = _watch(
                    plan, state["learned"], fixed, seen, val_labels, state["validation"], held
                )
                state = {**state, "validation": watched}
                val_rows.append(record(val_energy, _count(seen)))
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
        last = _remembered(plan, state, fixed, conditioned, labels, step_key)
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


def _check_kinds(gradient: Any, optimiser: Any, where: Any) -> None:
    if gradient is not None and not isinstance(gradient, ExpectationMaximisation | TotalDerivative):
        raise TypeError(
            f"learn: got {gradient!r} for gradient; wanted vfe.ExpectationMaximisation() or "
            "vfe.TotalDerivative()."
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


def _given_store(
    belief: AbstractBelief,
    conditioned: Conditioned,
    observed: Mapping[str, Any],
    model: Model,
    contrast: Contrast | None,
) -> dict[str, Any]:
    """The beliefs that were handed in, one per observation."""
    if contrast is not None:
        raise ValueError("learn: under contrast every label has beliefs of its own; give belief= a class.")
    count = _count(conditioned)
    _, batch = condition(model, observed)
    flat = leading_axes(align(belief, conditioned)) == (count,)
    return {"belief": prepare_start(belief, conditioned, (count,) if flat else batch)}


def _count(conditioned: Conditioned) -> int:
    if conditioned.repeats is not None:
        return conditioned.repeats
    return next(iter(conditioned.observed.values())).shape[0]


def _batches(order: np.ndarray, size: int) -> list[np.ndarray]:
    """Whole batches; what is left over of an epoch joins the last batch's shape by wrapping round."""
    full = [order[i : i + size] for i in range(0, len(order) - size + 1, size)]
    rest = len(order) % size
    if rest:
        full.append(np.concatenate([order[-rest:], order[: size - rest]]))
    return full


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


def _store(
    conditioned: Conditioned,
    family: Any,
    contrast: Contrast | None,
    key: PRNGKeyArray,
    labels: Array | None,
    node: str | None = None,
) -> dict[str, Any] | None:
    """Beliefs to start from, one per observation (and per label, under contrast).

    Without contrast but with labels, `node` is held at them.
    """
    if is_amortised(family):
        if contrast is None:
            return None
        return {"last": jnp.zeros((_count(conditioned), conditioned.discrete[contrast.node]))}
    if contrast is None:
        if labels is None:
            belief = conditioned.over(lambda c: start_belief(c, family, key))
        else:
            belief = conditioned.over(lambda c, l: start_belief(c.clamp(node, l), family, key), labels)
        return {"belief": belief}
    states = conditioned.discrete[contrast.node]

    def one(c: Conditioned) -> Any:
        return eqx.filter_vmap(lambda k: start_belief(c.clamp(contrast.node, k), family, key))(
            jnp.arange(states)
        )

    belief = eqx.filter_jit(lambda c: c.over(one))(conditioned)
    return {"belief": belief, "last": jnp.zeros((_count(conditioned), states))}


def _rows(tree: Any, index: Array) -> Any:
    return jax.tree.map(lambda a: a[index], tree)


def _put(tree: Any, index: Array, new: Any) -> Any:
    return jax.tree.map(lambda a, b: a.at[index].set(b), tree, new)


def _renewed(plan: Plan, c: Conditioned, key: PRNGKeyArray) -> Conditioned:
    """One observation with its arrays passed through `augment`."""
    if plan.augment is None:
        return c
    fresh = plan.augment(key, dict(c.observed))
    for name, array in fresh.items():
        if name not in c.observed or jnp.shape(array) != c.observed[name].shape:
            raise ValueError(
                f"learn: augment changed the shape of {name!r} to {jnp.shape(array)}; wanted that of "
                "one observation."
            )
    return dataclasses.replace(c, observed={**c.observed, **fresh})


def _visit(plan: Plan, c: Conditioned, family: Any, key: PRNGKeyArray, start: Any) -> tuple[Any, Array]:
    """The E step of one observation; where it fails the old belief stays."""
    held = jax.tree.map(lambda a: jax.lax.stop_gradient(a) if eqx.is_array(a) else a, c)
    belief, _, outcome = perceive_one(held, family, plan.solver, plan.settings, key, start)
    good = outcome.status < Status.indefinite.value
    if start is not None:
        belief = jax.tree.map(lambda new, old: jnp.where(good, new, old), belief, start)
    return jax.lax.stop_gradient(belief), good


def _encoded(plan: Plan, c: Conditioned, family: Any, key: PRNGKeyArray) -> Any:
    """The encoder's belief; where a discrete node is enumerated, with q(l) ∝ exp(−F_l)."""
    if isinstance(family, Amortised):
        return family.start(c, key)
    return perceive_one(c, family, FeedForward(), plan.settings, key, None)[0]


def _measure(plan: Plan, c: Conditioned, belief: Any, key: PRNGKeyArray) -> FreeEnergy:
    expectation = plan.settings.expectation or default_expectation(c, belief)
    return free_energy_of(c, belief, expectation, key)


@eqx.filter_jit
def _step(
    plan: Plan,
    state: dict[str, Any],
    fixed: Any,
    conditioned: Conditioned,
    labels: Array | None,
    index: Array,
    key: PRNGKeyArray,
    on: Array,
) -> tuple[dict[str, Any], FreeEnergy, Array]:
    """Perceive a minibatch, then move the parameters; F is that before the parameters moved."""
    model, family = joined(state["learned"], fixed, plan.family)
    size = index.shape[0]
    whole = conditioned.repeats is not None
    batch = (
        conditioned
        if whole
        else dataclasses.replace(
            conditioned,
            observed=_rows(conditioned.observed, index),
            masks=_rows(conditioned.masks, index),
        )
    )
    store = state["store"]
    perceive_key, measure_key, renew_key, choose_key = jax.random.split(key, 4)
    many = (lambda k: k) if whole else (lambda k: jax.random.split(k, size))
    contrast = plan.contrast
    extra: dict[str, Any] = {}
    if contrast is not None and labels is not None:
        truth = labels[index]
        chosen = jax.vmap(contrast.choose)(many(choose_key), truth, store["last"][index])
        old = jax.tree.map(lambda a: a[index[:, None], chosen], store.get("belief"))

        def visit_labels(c: Conditioned, k: Any, r: Any, labels: Array, start: Any) -> Any:
            c = _renewed(plan, c, r)
            return eqx.filter_vmap(lambda l, s: _visit(plan, c.clamp(contrast.node, l), family, k, s))(
                labels, start
            )

        visit, extra = visit_labels, {"chosen": chosen}
    else:
        old = None if not store else (store["belief"] if whole else _rows(store["belief"], index))

        def visit_one(c: Conditioned, k: Any, r: Any, start: Any) -> Any:
            return _visit(plan, _renewed(plan, c, r), family, k, start)

        visit = visit_one

    held = dataclasses.replace(batch, model=model)
    belief, good = None, jnp.ones(() if whole else (size,), bool)
    amortised = is_amortised(plan.family)
    measured = batch
    total = not amortised and isinstance(plan.gradient, TotalDerivative)
    if not amortised:
        arguments = (extra["chosen"], old) if contrast is not None else (old,)
        belief, good = held.over(visit, many(perceive_key), many(renew_key), *arguments)
    # An observation without an answer must not reach the gradient, not even times zero: another one
    # stands in for it, with no weight.
    fine = good if good.ndim <= 1 else jnp.all(good, -1)
    pick = None
    if not whole and not amortised:
        pick = jnp.where(fine, jnp.arange(size), jnp.argmax(fine))
        batch = dataclasses.replace(
            batch, observed=_rows(batch.observed, pick), masks=_rows(batch.masks, pick)
        )
    put = (lambda tree: tree) if pick is None else (lambda tree: _rows(tree, pick))
    # At the belief found, one step more is enough to attach its derivative.
    near = dataclasses.replace(plan.settings, max_steps=1)

    def loss(learned: Any, key: PRNGKeyArray) -> tuple[Array, Any]:
        model, family = joined(learned, fixed, plan.family)
        live = dataclasses.replace(batch, model=model)
        if contrast is not None:

            def each(c: Conditioned, k: Any, r: Any, labels: Array, beliefs: Any) -> FreeEnergy:
                c = _renewed(plan, c, r)

                def held_at(label: Array, belief: Any) -> FreeEnergy:
                    here = c.clamp(plan.node, label)
                    if total:
                        return perceive_one(here, family, plan.solver, near, k, belief)[1]
                    belief = _encoded(plan, here, family, k) if amortised else belief
                    return _measure(plan, here, belief, k)

                return eqx.filter_vmap(held_at)(labels, beliefs)

            found = live.over(each, put(many(key)), put(many(renew_key)), put(extra["chosen"]), put(belief))
            totals = found.total
            true = jax.tree.map(lambda a: a[:, 0], found)
            terms = jax.vmap(contrast.term)(jnp.where(fine[:, None], totals, 0.0))
            value = _mean(true.total, fine) + jnp.where(on, contrast.weight, 0.0) * _mean(terms, fine)
            return value, (true, totals)
        if amortised:

            def encoded(c: Conditioned, k: Any, r: Any) -> FreeEnergy:
                c = _renewed(plan, c, r)
                return _measure(plan, c, _encoded(plan, c, family, k), k)

            found = live.over(encoded, many(key), many(renew_key))
        elif total:

            def one(c: Conditioned, k: Any, r: Any, b: Any) -> FreeEnergy:
                return perceive_one(_renewed(plan, c, r), family, plan.solver, near, k, b)[1]

            found = live.over(one, put(many(key)), put(many(renew_key)), put(belief))
        else:

            def one(c: Conditioned, k: Any, r: Any, b: Any) -> FreeEnergy:
                return _measure(plan, _renewed(plan, c, r), b, k)

            found = live.over(one, put(many(key)), put(many(renew_key)), put(belief))
        if whole:
            return found.total / plan.whole, (found, None)
        return _mean(found.total, fine), (found, None)

    def completed(found: FreeEnergy, key: PRNGKeyArray) -> FreeEnergy:
        """F of every observation: where perception failed, that of the belief it had before."""
        if pick is None:
            return found

        def again() -> FreeEnergy:
            def one(c: Conditioned, k: Any, r: Any, label: Array | None, b: Any) -> FreeEnergy:
                c = _renewed(plan, c, r)
                return _measure(plan, c if label is None else c.clamp(plan.node, label), b, k)

            label, kept = None, belief
            if contrast is not None:
                label, kept = extra["chosen"][:, 0], jax.tree.map(lambda a: a[:, 0], belief)
            live = dataclasses.replace(measured, model=model)
            other = live.over(one, many(key), many(renew_key), label, kept)
            return jax.tree.map(lambda a, b: jnp.where(_like(fine, a), a, b), found, other)

        return jax.lax.cond(jnp.all(fine), lambda: found, again)

    learned, memory = state["learned"], state["optimiser"]
    first = None
    for number in range(plan.parameter_steps):
        here = jax.random.fold_in(measure_key, number)
        (_, aux), slope = eqx.filter_value_and_grad(loss, has_aux=True)(learned, here)
        first = (*aux, here) if first is None else first
        slope = jax.tree.map(lambda a: jnp.where(jnp.any(fine), a, 0.0), slope)
        update, memory = plan.optimiser.update(slope, memory, learned)
        learned = eqx.apply_updates(learned, update)
    assert first is not None  # parameter_steps is at least 1
    found, totals, here = first
    free_energy = completed(found, here)
    new = {**state, "learned": learned, "optimiser": memory}
    if contrast is not None:
        where = (index[:, None], extra["chosen"])
        last = jnp.where(fine[:, None], totals, store["last"][where])
        new["store"] = {"last": store["last"].at[where].set(last)}
        if not amortised:
            new["store"]["belief"] = jax.tree.map(lambda a, b: a.at[where].set(b), store["belief"], belief)
    elif store is not None:
        new["store"] = {"belief": belief if whole else _put(store["belief"], index, belief)}
    return new, jax.lax.stop_gradient(free_energy), jnp.sum(~fine)


def _like(flags: Array, array: Array) -> Array:
    return flags.reshape(*flags.shape, *[1] * (array.ndim - flags.ndim))


def _mean(values: Array, good: Array) -> Array:
    """The mean over the observations that have an answer."""
    return jnp.sum(jnp.where(good, values, 0.0)) / jnp.maximum(jnp.sum(good), 1)


@eqx.filter_jit
def _watch(
    plan: Plan,
    learned: Any,
    fixed: Any,
    conditioned: Conditioned,
    labels: Array | None,
    store: Any,
    key: PRNGKeyArray,
) -> tuple[Any, FreeEnergy]:
    """Let beliefs about held-out data follow the parameters, and measure their F."""
    model, family = joined(learned, fixed, plan.family)
    live = dataclasses.replace(conditioned, model=model)
    whole = live.repeats is not None
    size = _count(live)
    many = (lambda k: k) if whole else (lambda k: jax.random.split(k, size))
    one_key, two_key = jax.random.split(key)
    if labels is not None and not is_amortised(plan.family):
        node = plan.node

        def one(c: Conditioned, k: Any, m: Any, start: Any, label: Array) -> Any:
            c = c.clamp(node, label)
            belief, _ = _visit(plan, c, family, k, start)
            return belief, _measure(plan, c, belief, m)

        belief, found = live.over(one, many(one_key), many(two_key), store["belief"], labels)
        return {"belief": belief}, found
    if is_amortised(plan.family):

        def encoded(c: Conditioned, k: Any, label: Array | None) -> FreeEnergy:
            c = c if label is None else c.clamp(plan.node, label)
            return _measure(plan, c, _encoded(plan, c, family, k), k)

        return None, live.over(encoded, many(two_key), labels)

    def follow(c: Conditioned, k: Any, m: Any, start: Any) -> Any:
        belief, _ = _visit(plan, c, family, k, start)
        return belief, _measure(plan, c, belief, m)

    belief, found = live.over(follow, many(one_key), many(two_key), store["belief"])
    return {"belief": belief}, found


@eqx.filter_jit
def _remembered(
    plan: Plan,
    state: dict[str, Any],
    fixed: Any,
    conditioned: Conditioned,
    labels: Array | None,
    key: PRNGKeyArray,
) -> FreeEnergy:
    """F of the beliefs kept from the last visits, under the model as it is now."""
    model, family = joined(state["learned"], fixed, plan.family)
    live = dataclasses.replace(conditioned, model=model)
    whole = live.repeats is not None
    keys = key if whole else jax.random.split(key, _count(live))
    belief = (state["store"] or {}).get("belief")
    if belief is not None and labels is not None:
        belief = jax.tree.map(lambda a: a[jnp.arange(labels.shape[0]), labels], belief)

    def one(c: Conditioned, k: Any, label: Array | None, belief: Any) -> FreeEnergy:
        c = c if label is None else c.clamp(plan.node, label)
        return _measure(plan, c, _encoded(plan, c, family, k) if belief is None else belief, k)

    return live.over(one, keys, labels, belief)


def _gather(pieces: list[FreeEnergy], order: np.ndarray, conditioned: Conditioned) -> FreeEnergy:
    """F per observation in the order of the data, from the batches of one epoch."""
    if conditioned.repeats is not None:
        return pieces[-1]
    arrays = jax.device_get(pieces)
    joined_up = jax.tree.map(lambda *parts: np.concatenate([np.atleast_1d(p) for p in parts]), *arrays)
    _, first = np.unique(order, return_index=True)

    def pick(a: np.ndarray) -> np.ndarray:
        return a[first] if a.shape[:1] == order.shape else a[0]

    return jax.tree.map(pick, joined_up)


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
