"""What every estimator does around `vfe.learn`: settings checked, whole batches, keys, when to stop."""

import contextlib
import functools
import numbers
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray
from sklearn.utils import check_random_state

from vfe.learning import learn
from vfe.model import Model
from vfe.perception import DivergenceError

# Predictions are made on blocks of these sizes only, so that they are compiled at most twice.
BLOCKS = (64, 1024)


def check_settings(estimator: Any) -> None:
    """Refuse settings that mean nothing, at `fit` as scikit-learn wants it.

    **Raises:** `ValueError` naming the parameter, what it is and what it should be.
    """
    sizes = estimator.hidden_layer_sizes
    if not isinstance(sizes, tuple | list | np.ndarray) or not all(_is_count(n) for n in sizes):
        raise ValueError(f"hidden_layer_sizes: got {sizes!r}; wanted positive integers, such as (100, 50).")
    for name in (
        "n_components",
        "latent_size",
        "perception_steps",
        "batch_size",
        "max_iter",
        "n_iter_no_change",
    ):
        value = getattr(estimator, name, 1)
        if not _is_count(value):
            raise ValueError(f"{name}: got {value!r}; wanted an integer of at least 1.")
    may_be_zero = {"learning_rate": False, "output_scale": False, "weight_decay": True, "tol": True}
    for name, zero in may_be_zero.items():
        value = getattr(estimator, name, 1.0)
        good = isinstance(value, numbers.Real) and 0 <= float(value) < np.inf
        if not good or (float(value) == 0 and not zero):
            wanted = "a number of at least 0" if zero else "a positive number"
            raise ValueError(f"{name}: got {value!r}; wanted {wanted}.")
    restarts = getattr(estimator, "restarts", 1)
    if not _is_count(restarts) and not (isinstance(restarts, numbers.Integral) and restarts == 0):
        raise ValueError(f"restarts: got {restarts!r}; wanted an integer of at least 0.")


def _is_count(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 1


def key_of(random_state: Any) -> PRNGKeyArray:
    """A JAX key from what scikit-learn takes for a seed."""
    return jax.random.key(int(check_random_state(random_state).randint(2**31 - 1)))


@functools.cache
def optimiser(learning_rate: float, weight_decay: float) -> optax.GradientTransformation:
    """AdamW with weights, but no biases or precisions, decayed; one object per setting, so that a
    second fit need not compile again."""
    decayed = functools.partial(jax.tree.map, lambda a: a.ndim == 2)
    return optax.adamw(learning_rate, weight_decay=weight_decay, mask=decayed)


def whole_batches(count: int, batch_size: int) -> int:
    """The number of rows that fills batches of this size.

    Data are filled up with rows of which nothing is observed: they have no say in any gradient, and
    data sets of different sizes (folds, above all) share what was compiled.
    """
    return -(-count // batch_size) * batch_size


def filled(array: np.ndarray, rows: int, value: Any) -> np.ndarray:
    """The array with further rows of one value."""
    return np.concatenate([array, np.full((rows - len(array), *array.shape[1:]), value, array.dtype)])


def single(x: np.ndarray) -> np.ndarray:
    """The array in float32, in which everything is computed.

    **Raises:** `ValueError` for values beyond its range.
    """
    largest = np.nanmax(np.abs(x), initial=0.0)
    if largest > np.finfo(np.float32).max:
        raise ValueError(
            f"X has values of up to {largest:.3g}, beyond the range of float32; standardise the features."
        )
    return x.astype(np.float32)


def in_blocks(function: Callable[[np.ndarray], Any], x: np.ndarray, value: Any, largest: int) -> Any:
    """A function of rows, applied to blocks of one size; the last is filled up with `value`."""
    size = next((s for s in BLOCKS if s >= min(len(x), largest)), BLOCKS[-1])
    size = min(size, largest)
    parts = []
    for start in range(0, len(x), size):
        block = x[start : start + size]
        found = function(filled(block, size, value))
        kept = slice(0, len(block))
        parts.append(jax.tree.map(lambda a, kept=kept: np.asarray(a)[kept], found))
    return jax.tree.map(lambda *each: np.concatenate(each), *parts)


@contextlib.contextmanager
def advised() -> Iterator[None]:
    """Where learning falls apart, say what to do about it in scikit-learn's terms.

    **Raises:** `ValueError` in the place of `DivergenceError`.
    """
    try:
        yield
    except DivergenceError as error:
        raise ValueError(
            "learning fell apart. Standardise the features (sklearn.preprocessing.StandardScaler in a "
            f"pipeline), or lower learning_rate. ({error})"
        ) from error


class Patience:
    """A callback that ends learning when F has not fallen by `tol` for `epochs` epochs in a row.

    `count`: the rows that are data; those that fill up the last batch come after them. `curve`: F per epoch
    in nats per observation.
    """

    def __init__(self, tol: float, epochs: int, count: int):
        self.tol, self.epochs, self.count = tol, epochs, count
        self.best, self.waited = np.inf, 0
        self.curve: list[float] = []

    def __call__(self, epoch: int, numbers: dict[str, Any], model: Model) -> bool:
        total = float(np.asarray(numbers["observations"][: self.count], np.float64).mean())
        if not np.isfinite(total):
            raise DivergenceError(f"F is {total} after epoch {epoch}.")
        self.curve.append(total)
        self.waited = 0 if total < self.best - self.tol else self.waited + 1
        self.best = min(self.best, total)
        return self.waited >= self.epochs


def learned_model(
    estimator: Any,
    model: Model,
    observed: dict[str, Any],
    count: int,
    key: PRNGKeyArray,
    *,
    weight_decay: float = 0.0,
    **options: Any,
) -> Model:
    """The model after `vfe.learn` with an estimator's settings; leaves the curve of F and `n_iter_` on it.

    `count`: the rows that are data, before those that fill up the last batch; `options`: of `vfe.learn`.
    """
    patience = Patience(estimator.tol, int(estimator.n_iter_no_change), count)
    with advised():
        learned = learn(
            model,
            observed,
            epochs=int(estimator.max_iter),
            batch_size=int(estimator.batch_size),
            key=key,
            optimiser=optimiser(float(estimator.learning_rate), weight_decay),
            callback=patience,
            progress=bool(estimator.verbose),
            **options,
        )
    estimator.free_energy_curve_ = np.asarray(patience.curve)
    estimator.n_iter_ = learned.epochs
    return learned.model


def in_units(layer: Any, mean: np.ndarray, spread: np.ndarray | float) -> Any:
    """A dense layer of standardised values as one of the values themselves: mean + spread · g(z)."""
    weight = jnp.asarray(np.reshape(spread, (-1, 1)) * np.asarray(layer.weight, np.float64), float)
    bias = jnp.asarray(mean + spread * np.asarray(layer.bias, np.float64), float)
    return eqx.tree_at(lambda l: (l.weight, l.bias), layer, (weight, bias))
