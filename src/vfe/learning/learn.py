"""learn: minimise F over the parameters of a model, beliefs following along."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from vfe.beliefs import AbstractBelief, GaussNewtonLaplace, Particles, Point
from vfe.conditioning import Conditioned, condition
from vfe.curvature import check_gauss_newton
from vfe.expectation import AbstractExpectation, Taylor
from vfe.free_energy import FreeEnergy, is_laplace
from vfe.learning.augmented import check_augmented, hidden_by
from vfe.learning.contrast import Contrast
from vfe.learning.course import Course
from vfe.learning.feed import AbstractFeed, Resident, open_feed
from vfe.learning.gradient import CentredNudging, ExpectationMaximisation, StochasticTrace, TotalDerivative
from vfe.learning.history import stack
from vfe.learning.learned import Learned
from vfe.learning.modes import MOST_NUMBERS, Modes
from vfe.learning.nudging import check_nudging
from vfe.learning.objective import ImportanceWeighted, Refined, Tempered, check_objective
from vfe.learning.parallel import Placement
from vfe.learning.plan import Plan, sought
from vfe.learning.resume import Checkpoint, Settled, cursor_for
from vfe.learning.shared import refuse_minibatches
from vfe.learning.sound import check_weights
from vfe.learning.source import is_source
from vfe.learning.store import count_of, first_store, given_store
from vfe.learning.trainable import (
    encoder_of,
    is_amortised,
    joined,
    refuse_point_precisions,
    split,
    trainable,
    with_encoder,
)
from vfe.model import Model
from vfe.perception.langevin import Langevin
from vfe.perception.perceive import Settings, default_family, family_of


@functools.cache
def default_optimiser() -> optax.GradientTransformation:
    """Adam with a rate of 0.01; one object, so that a second call need not compile again."""
    return optax.adam(1e-2)


def learn(
    model: Model,
    observed: Any,
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
    objective: Tempered | ImportanceWeighted | Refined | None = None,
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
    devices: Sequence[Any] | None = None,
    callback: Callable[[int, dict[str, Any], Model], Any] | None = None,
    progress: bool = False,
) -> Learned:
    """Learn a model's parameters: alternate perception (over q) and descent (over θ) of the same F.

    q ← argmin_q F[q; θ], then θ ← θ − rate · ∂F/∂θ, on minibatches. Beliefs are kept from visit to
    visit, so perception goes on where it stopped: with many `perception_steps` this is EM, with one it
    is the incremental schedule, in which weights move at every step: with `vfe.Point` beliefs and
    `vfe.ActivityDescent` or `vfe.ErrorDescent`, incremental predictive coding (one step of the activities,
    then one of the weights at the new activities). With `vfe.Amortised` beliefs the
    encoder is learned together with the model and nothing is kept (`objective`: on F tempered, on a tighter
    bound, or on F of beliefs refined from its guess). Where latents are shared by all
    observations, a minibatch of B stands for all N (its terms are multiplied by N / B), and what it says
    of the shared nodes is blended into the belief with a weight that falls from visit to visit,
    (1 + t)^(−0.7): stochastic variational inference, exact in the limit for conjugate nodes and an
    approximation elsewhere.

    **Arguments:**

    - `observed`: arrays, as in `vfe.perceive`, which the device holds whole; or an indexable source
      (`vfe.Rows`, or anything with `len()` whose items, by number, are mappings from node names to
      arrays), read minibatch by minibatch; or an iterable of minibatches (mappings), taken as they come
      (`vfe.Batches`). The last two keep no beliefs: they want `keep_beliefs=False` or `vfe.Amortised`.
    - `batch_size`: observations per step (all by default; a source wants it said, an iterable says it
      itself). The order is a function of `key` and the epoch, the same for arrays and for a source. An
      epoch of an iterable is one pass through it, or `per_epoch` minibatches of a `vfe.Batches`.
    - `belief`, `solver`, `expectation`, `rtol`, `atol`: as in `vfe.perceive` (a belief to start from
      may be that of an earlier `Learned`); `perception_steps` at each visit, then `parameter_steps` of
      `optimiser` (an optax transformation; Adam by default; `vfe.natural_descent()` follows the natural
      gradient).
    - `keep_beliefs`: with False every visit starts afresh, from the feed-forward pass: for deep networks,
      whose weights move further between two visits of an observation than its belief would.
    - `where`: picks the leaves to learn (see `trainable`; `lambda m: ()`: the encoder alone);
      `gradient`: `vfe.ExpectationMaximisation()` (default), `vfe.StochasticTrace()` (cheaper for
      networks), `vfe.TotalDerivative()`, or
      `vfe.CentredNudging()` (the feed-forward loss, from two nudged equilibria).
    - `objective`: with an encoder, what is descended: `vfe.Tempered(beta)`,
      `vfe.ImportanceWeighted(samples)` or `vfe.Refined()`; by default F of its beliefs, which is reported.
    - `contrast`: sharpen recognition of a label (`vfe.Contrast`); `augment(key, batch)`: a fresh
      version of one observation's arrays at each visit (shifted images, or binary pixels drawn from grey
      ones: what it returns must be data, what it is given need not be; NaN in a node without children is
      missing in this visit: what an encoder that sees `vfe.Present` is to do without);
      `validation`: arrays on which beliefs, but not parameters, follow, to watch F on what is not learned
      from.
    - `checkpoint`: a folder; `resume=True` goes on from what is there, bit for bit on one machine, with
      the settings of that run (an iterable must then say where it is, by `state_dict` and
      `load_state_dict`, or by `get_state` and `set_state` of its iterator).
      `callback(epoch, numbers, model)`: stops learning by returning True; `numbers`: those of the history,
      and F of each observation as `numbers["observations"]`. `progress`: a bar with F.
    - `devices`: those that share the observations of a minibatch, such as `jax.devices()`; of several
      processes (`jax.distributed`) each reads its share of a source, or of an iterable brings its own, and
      the first one writes the checkpoints. By default JAX's default device.

    **Returns:** `Learned`: the model, the beliefs, and F by level and epoch.

    **Raises:** `ValueError` for data or settings that do not fit, and for hidden precisions learned
    under `vfe.Point`; `DivergenceError` where F or a parameter becomes NaN or infinite, naming the node,
    the epoch and the minibatch; `ConnectionError` where another process has gone.

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
    placement = Placement.of(devices)
    given, belief = (belief, family_of(belief)) if isinstance(belief, AbstractBelief) else (None, belief)
    if min(epochs, perception_steps, parameter_steps, checkpoint_every) < 1:
        raise ValueError(
            f"learn: epochs={epochs}, perception_steps={perception_steps}, parameter_steps="
            f"{parameter_steps} and checkpoint_every={checkpoint_every} must be at least 1."
        )
    if resume and checkpoint is None:
        raise ValueError("learn: resume=True wants checkpoint=, the folder to go on from.")
    if validation is not None and not isinstance(validation, Mapping):
        raise TypeError(
            f"learn: validation is a {type(validation).__name__}; wanted a dictionary of arrays, whatever "
            "the data to learn from are."
        )
    start_key, order_key, step_key = jax.random.split(key, 3)
    folder = None if checkpoint is None else Checkpoint(Path(checkpoint), placement)
    found = folder.metadata() if folder is not None and resume else None
    feed: AbstractFeed
    if isinstance(observed, Mapping):
        conditioned, family, labels = _prepare(model, observed, belief, solver, contrast, augment)
        batch_size = count_of(conditioned) if batch_size is None else int(batch_size)
        feed = Resident(conditioned, labels, batch_size, order_key, placement)
    else:
        _refuse_single_observations(given, contrast)

        def opened() -> AbstractFeed:
            start = None if is_source(observed) else cursor_for(found, placement)
            return open_feed(model, observed, batch_size, order_key, placement, start, augment)

        feed = placement.in_all(opened)
        conditioned, labels = feed.conditioned, None
        family = default_family(conditioned, solver) if belief is None else belief
        _refuse_kept_beliefs(keep_beliefs, family, observed)
    if keep_beliefs and isinstance(observed, Mapping):
        _refuse_large_store(conditioned, family)
    if family is GaussNewtonLaplace:
        _check_gauss_newton(conditioned, contrast, expectation)
    check_objective(objective, family, solver, contrast, conditioned, expectation, gradient)
    spec = trainable(model, where, encoder_of(family))
    refuse_point_precisions(conditioned, family, spec)
    if family is Particles or isinstance(solver, Langevin):
        raise ValueError("learn: Particles have no F to descend; use a Gaussian or Laplace belief.")
    if contrast is not None and isinstance(gradient, StochasticTrace):
        raise ValueError(
            "learn: under a contrast beliefs are held in z, where there is no trace to estimate; leave "
            "gradient= out."
        )
    if conditioned.repeats is not None and (contrast is not None or augment is not None):
        raise ValueError(
            "learn: latents are shared by all observations, and contrast= and augment= are about "
            "observations on their own; leave them out."
        )
    if conditioned.repeats is not None and batch_size != feed.count:
        refuse_minibatches(conditioned, family, solver, gradient)
    check_weights(model, encoder_of(family))
    if isinstance(gradient, CentredNudging):
        check_nudging(conditioned, family, solver, keep_beliefs)
    plan = Plan(
        with_encoder(family, None),
        solver,
        Settings(int(perception_steps), float(rtol), float(atol), expectation),
        ExpectationMaximisation() if gradient is None else gradient,
        objective,
        contrast,
        default_optimiser() if optimiser is None else optimiser,
        parameter_steps,
        augment,
        feed.count,
        keep_beliefs,
        placement,
        hidden_by(conditioned, augment),
    )
    learned, fixed = split(model, spec, family)
    state: dict[str, Any] = {"learned": learned, "optimiser": plan.optimiser.init(learned), "store": None}
    if folder is not None:
        folder.settle(key, batch_size, plan, state["optimiser"], found)
    if isinstance(observed, Mapping):
        state["store"] = _initial(
            keep_beliefs, given, conditioned, observed, model, family, contrast, start_key, labels
        )
        if given is not None and conditioned.repeats is not None and batch_size is not None:
            # A belief to start from counts as one pass over the data, not as nothing.
            state["store"]["visits"] = jnp.asarray(float(-(-count_of(conditioned) // batch_size)))
    watch = None
    if validation is not None:
        seen, _, val_labels = _prepare(model, validation, belief, solver, contrast)
        state["validation"] = first_store(
            seen, sought(family), None, start_key, val_labels, contrast and contrast.node
        )
        watch = placement.put((seen, val_labels))
    now = Settled(0, state, [], [], placement.exchanged(feed.cursor()))
    if folder is not None and found is not None:
        now = folder.load(state, found)
    now = dataclasses.replace(now, state=placement.put(now.state))
    course = Course(plan, feed, placement.put(fixed), watch, step_key, folder)
    bar = _bar(epochs, now.done, progress)
    status = "all epochs done"
    try:
        while now.done < epochs:
            now = course.epoch(now, epochs)
            bar.update(now.done, now.rows[-1]["total"])
            if folder is not None and (now.done % checkpoint_every == 0 or now.done == epochs):
                folder.save(now)
            if callback is not None and callback(
                now.done,
                _numbers(now, course),
                joined(placement.plain(now.state["learned"]), fixed, family)[0],
            ):
                status = f"stopped by the callback after epoch {now.done}"
                break
        last = course.last if course.last is not None else course.measured(now)
    except KeyboardInterrupt:
        # What a checkpoint may hold: the state between two epochs, never one in the middle.
        if folder is not None:
            folder.save(now)
        raise
    except Exception as error:
        if not placement.lost(error):
            raise
        left = "" if folder is None else f" {folder.sentence}"
        raise ConnectionError(
            f"learn: another process of this run has ended or cannot be reached ({error}).{left}"
        ) from error
    finally:
        bar.close()
    if isinstance(objective, Tempered):
        objective.check_end(now.done)
    history = stack(now.rows, list(range(1, len(now.rows) + 1)))
    if now.validation_rows:
        history["validation"] = stack(now.validation_rows, list(range(1, len(now.validation_rows) + 1)))
    state = placement.plain(now.state)
    model, family = joined(state["learned"], fixed, family)
    final: FreeEnergy = jax.tree.map(jnp.asarray, last)
    kept = None if state["store"] is None else state["store"].get("belief")
    if kept is not None and sought(family) is not family:
        kept = Modes(kept, placement.plain(conditioned), contrast and contrast.node)
    return Learned(
        model,
        family,
        kept,
        final,
        history,
        final.kind.value,
        now.done,
        status,
        course.failed,
    )


def _numbers(now: Settled, course: Course) -> dict[str, Any]:
    """What a callback is told of the last epoch."""
    assert course.last is not None  # an epoch is done
    return {**now.rows[-1], "observations": np.asarray(course.last.per_observation)}


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
        return first_store(conditioned, sought(family), contrast, key, labels)
    if isinstance(given, GaussNewtonLaplace):
        given = Point(given.layout, given.location)
    return given_store(given, conditioned, observed, model, contrast)


def _refuse_single_observations(given: AbstractBelief | None, contrast: Contrast | None) -> None:
    if given is not None or contrast is not None:
        raise ValueError(
            "learn: a belief to start from and a contrast between labels go with single observations, "
            "which are then needed as arrays; give a dictionary of arrays, or leave them out."
        )


def _refuse_kept_beliefs(keep: bool, family: Any, observed: Any) -> None:
    if keep and not is_amortised(family):
        raise ValueError(
            "learn: beliefs are kept of observations that the device holds, and these data are a "
            f"{type(observed).__name__}; write keep_beliefs=False (every visit starts afresh), take "
            "belief=vfe.Amortised(...), or give a dictionary of arrays."
        )


def _refuse_large_store(conditioned: Conditioned, family: Any) -> None:
    size, count = conditioned.layout.size, count_of(conditioned)
    if conditioned.repeats is None and is_laplace(sought(family)) and count * size**2 > MOST_NUMBERS:
        raise ValueError(
            f"learn: {family.__name__} beliefs of {count:,} observations about {size:,} hidden elements "
            f"would be {count * size**2:,} numbers to keep (at most {MOST_NUMBERS:,}); write "
            "keep_beliefs=False (every visit starts afresh), or take belief=vfe.GaussNewtonLaplace, of "
            "which the modes alone are kept, or vfe.Point."
        )


def _check_gauss_newton(
    conditioned: Conditioned, contrast: Contrast | None, expectation: AbstractExpectation | None
) -> None:
    inner = conditioned if contrast is None else conditioned.clamp(contrast.node, jnp.zeros((), int))
    check_gauss_newton(inner)
    if not isinstance(expectation, Taylor | None):
        raise ValueError(
            f"learn: F of vfe.GaussNewtonLaplace beliefs is taken in closed form, without an expectation; "
            f"got {type(expectation).__name__}. Leave expectation= out, or take belief=vfe.Laplace."
        )


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
    model: Model,
    observed: Mapping[str, Any],
    belief: Any,
    solver: Any,
    contrast: Contrast | None,
    augment: Any = None,
) -> tuple[Conditioned, Any, Array | None]:
    if contrast is None:
        conditioned, _ = condition(model, observed, raw=() if augment is None else tuple(observed))
        if augment is not None:
            # What it does not make must be data as it is.
            made = check_augmented(conditioned, augment)
            conditioned, _ = condition(model, observed, raw=made)
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
