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

from vfe.beliefs import Amortised, Particles
from vfe.conditioning import Conditioned, condition
from vfe.expectation import AbstractExpectation
from vfe.free_energy import FreeEnergy, default_expectation, free_energy_of
from vfe.learning.contrast import Contrast
from vfe.learning.gradient import ExpectationMaximisation, TotalDerivative
from vfe.learning.history import record, stack
from vfe.learning.trainable import joined, refuse_point_precisions, split, trainable
from vfe.model import Model
from vfe.perception.langevin import Langevin
from vfe.perception.perceive import Settings, default_family, perceive_one, start_belief
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
    free_energy: FreeEnergy | None
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
    - `belief`, `solver`, `expectation`, `rtol`, `atol`: as in `vfe.perceive`; `perception_steps` at
      each visit, then `parameter_steps` of `optimiser` (an optax transformation; Adam by default).
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
        family if not isinstance(family, Amortised) else Amortised(None, family.family, family.inputs),
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
        "store": _store(conditioned, family, contrast, start_key, labels),
    }
    watch = None
    if validation is not None:
        seen, _, val_labels = _prepare(model, validation, belief, solver, contrast)
        watch = (seen, val_labels)
        state["validation"] = _store(seen, family, None, start_key, val_labels)
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
    return Learned(
        model,
        family,
        None if store is None else store.get("belief"),
        last,
        history,
        last.kind.value if last is not None else "",
        done,
        status,
        failed,
    )


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
) -> dict[str, Any] | None:
    """Beliefs to start from, one per observation (and per label, under contrast)."""
    if isinstance(family, Amortised):
        if contrast is None:
            return None
        return {"last": jnp.zeros((_count(conditioned), conditioned.discrete[contrast.node]))}
    if contrast is None:
        if labels is None:
            belief = conditioned.over(lambda c: start_belief(c, family, key))
        else:
            node = _label_node(conditioned)
            belief = conditioned.over(lambda c, l: start_belief(c.clamp(node, l), family, key), labels)
        return {"belief": belief}
    states = conditioned.discrete[contrast.node]

    def one(c: Conditioned) -> Any:
        return eqx.filter_vmap(lambda k: start_belief(c.clamp(contrast.node, k), family, key))(
            jnp.arange(states)
        )

    belief = eqx.filter_jit(lambda c: c.over(one))(conditioned)
    return {"belief": belief, "last": jnp.zeros((_count(conditioned), states))}


def _label_node(conditioned: Conditioned) -> str:
    return next(iter(conditioned.discrete))


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
    if contrast is not None:
        truth = labels[index]
        chosen = jax.vmap(contrast.choose)(many(choose_key), truth, store["last"][index])
        old = jax.tree.map(lambda a: a[index[:, None], chosen], store.get("belief"))

        def visit(c: Conditioned, k: Any, r: Any, labels: Array, start: Any) -> Any:
            c = _renewed(plan, c, r)
            return eqx.filter_vmap(lambda l, s: _visit(plan, c.clamp(contrast.node, l), family, k, s))(
                labels, start
            )

        extra = {"chosen": chosen}
    else:
        old = None if store is None else (store["belief"] if whole else _rows(store["belief"], index))

        def visit(c: Conditioned, k: Any, r: Any, start: Any) -> Any:
            return _visit(plan, _renewed(plan, c, r), family, k, start)

    held = dataclasses.replace(batch, model=model)
    belief, good = None, jnp.ones(() if whole else (size,), bool)
    amortised = isinstance(plan.family, Amortised)
    if not amortised and not isinstance(plan.gradient, TotalDerivative):
        arguments = (extra["chosen"], old) if contrast is not None else (old,)
        belief, good = held.over(visit, many(perceive_key), many(renew_key), *arguments)

    def loss(learned: Any, key: PRNGKeyArray, belief: Any, good: Array) -> tuple[Array, Any]:
        model, family = joined(learned, fixed, plan.family)
        live = dataclasses.replace(batch, model=model)
        if contrast is not None:

            def one(c: Conditioned, k: Any, r: Any, labels: Array, beliefs: Any) -> FreeEnergy:
                c = _renewed(plan, c, r)

                def held_at(label: Array, belief: Any) -> FreeEnergy:
                    here = c.clamp(contrast.node, label)
                    belief = family.start(here, k) if amortised else belief
                    return _measure(plan, here, belief, k)

                return eqx.filter_vmap(held_at)(labels, beliefs)

            found = live.over(one, many(key), many(renew_key), extra["chosen"], belief)
            totals = found.total
            true = jax.tree.map(lambda a: a[:, 0], found)
            fine = good if amortised else jnp.all(good, -1)
            terms = jax.vmap(contrast.term)(jnp.where(fine[:, None], totals, 0.0))
            value = _mean(true.total, fine) + jnp.where(on, contrast.weight, 0.0) * _mean(terms, fine)
            return value, (true, belief, fine, totals)
        if isinstance(plan.family, Amortised):

            def one(c: Conditioned, k: Any, r: Any) -> FreeEnergy:
                c = _renewed(plan, c, r)
                return _measure(plan, c, family.start(c, k), k)

            found = live.over(one, many(key), many(renew_key))
        elif isinstance(plan.gradient, TotalDerivative):

            def one(c: Conditioned, k: Any, r: Any, start: Any) -> Any:
                return perceive_one(_renewed(plan, c, r), family, plan.solver, plan.settings, k, start)

            belief, found, outcome = live.over(one, many(key), many(renew_key), old)
            good = outcome.status < Status.indefinite.value
            belief = jax.tree.map(lambda new, was: jnp.where(_like(good, new), new, was), belief, old)
        else:

            def one(c: Conditioned, k: Any, r: Any, b: Any) -> FreeEnergy:
                return _measure(plan, _renewed(plan, c, r), b, k)

            found = live.over(one, many(key), many(renew_key), belief)
        if whole:
            return found.total / plan.whole, (found, belief, good, None)
        return _mean(found.total, good), (found, belief, good, None)

    learned, memory = state["learned"], state["optimiser"]
    first = None
    for number in range(plan.parameter_steps):
        here = jax.random.fold_in(measure_key, number)
        (_, aux), slope = eqx.filter_value_and_grad(loss, has_aux=True)(learned, here, belief, good)
        first = aux if first is None else first
        update, memory = plan.optimiser.update(slope, memory, learned)
        learned = eqx.apply_updates(learned, update)
    free_energy, belief, good, totals = first
    new = {**state, "learned": learned, "optimiser": memory}
    if store is not None:
        if contrast is not None:
            where = (index[:, None], extra["chosen"])
            new["store"] = {"last": store["last"].at[where].set(totals)}
            if not amortised:
                new["store"]["belief"] = jax.tree.map(
                    lambda a, b: a.at[where].set(b), store["belief"], belief
                )
        else:
            new["store"] = {
                "belief": jax.lax.stop_gradient(belief)
                if whole
                else _put(store["belief"], index, jax.lax.stop_gradient(belief))
            }
    return new, jax.lax.stop_gradient(free_energy), jnp.sum(~good)


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
    if labels is not None and not isinstance(plan.family, Amortised):
        node = plan.contrast.node

        def one(c: Conditioned, k: Any, m: Any, start: Any, label: Array) -> Any:
            c = c.clamp(node, label)
            belief, _ = _visit(plan, c, family, k, start)
            return belief, _measure(plan, c, belief, m)

        belief, found = live.over(one, many(one_key), many(two_key), store["belief"], labels)
        return {"belief": belief}, found
    if isinstance(plan.family, Amortised):

        def encoded(c: Conditioned, k: Any, label: Array | None) -> FreeEnergy:
            c = c if label is None else c.clamp(plan.contrast.node, label)
            return _measure(plan, c, family.start(c, k), k)

        return None, live.over(encoded, many(two_key), labels)

    def follow(c: Conditioned, k: Any, m: Any, start: Any) -> Any:
        belief, _ = _visit(plan, c, family, k, start)
        return belief, _measure(plan, c, belief, m)

    belief, found = live.over(follow, many(one_key), many(two_key), store["belief"])
    return {"belief": belief}, found


def _gather(pieces: list[FreeEnergy], order: np.ndarray, conditioned: Conditioned) -> FreeEnergy:
    """F per observation in the order of the data, from the batches of one epoch."""
    if conditioned.repeats is not None:
        return pieces[-1]
    joined_up = jax.tree.map(lambda *parts: jnp.concatenate([jnp.atleast_1d(p) for p in parts]), *pieces)
    _, first = np.unique(order, return_index=True)

    def pick(a: Array) -> Array:
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
