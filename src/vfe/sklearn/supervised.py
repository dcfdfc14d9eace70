"""Classifier and regressor: supervised predictive-coding networks behind scikit-learn's interface."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

import vfe
from vfe.sklearn.activations import activation_of
from vfe.sklearn.training import (
    check_settings,
    filled,
    in_blocks,
    in_units,
    key_of,
    learned_model,
    single,
    whole_batches,
)

# Laplace beliefs hold a curvature per observation: at most so many numbers at once.
MOST_CURVATURE = 2**24


def _no_density(estimator: Any) -> bool:
    raise AttributeError(
        f"{type(estimator).__name__} takes its input as given and has no density for it, so there is no "
        "score_samples(X); free_energy(X, y) is F of y given x, and vfe.sklearn.FreeEnergyEncoder has "
        "a density for X."
    )


def _inputs(estimator: Any, X: Any, **options: Any) -> Any:
    """Checked data; what is missing in X is named, because nothing here could stand in for it."""
    options = {"dtype": np.float64, "ensure_all_finite": "allow-nan", **options}
    checked = validate_data(estimator, X, **options)
    x = checked[0] if "y" in options else checked
    if np.isnan(x).any():
        raise ValueError(
            f"{type(estimator).__name__}: X has {int(np.isnan(x).sum())} missing values (NaN). Its input "
            "is given, not modelled, so it has no density for them; fill them (sklearn.impute), or use a "
            "model of X such as vfe.sklearn.FreeEnergyEncoder."
        )
    return checked


def _layers(estimator: Any, inputs: int, outputs: int, key: PRNGKeyArray) -> list[Any]:
    if not len(estimator.hidden_layer_sizes):
        raise ValueError(
            f"hidden_layer_sizes: {type(estimator).__name__} got {estimator.hidden_layer_sizes!r}; wanted "
            "at least one hidden layer, such as (100,). Without any, nothing is inferred: that is what "
            "sklearn.linear_model is for."
        )
    sizes = [inputs, *(int(n) for n in estimator.hidden_layer_sizes), outputs]
    return vfe.networks.dense(
        sizes, key=key, activation=activation_of(estimator.activation), repeat_from=len(sizes)
    )


def _learn(estimator: Any, model: vfe.Model, x: np.ndarray, y: Any, key: PRNGKeyArray) -> vfe.Model:
    """Learn the weights; leaves the curve of F and the number of epochs on the estimator."""
    count, batch = len(x), int(estimator.batch_size)
    rows = whole_batches(count, batch)
    present = np.arange(rows) < count
    missing: Any = np.nan if np.issubdtype(y.dtype, np.floating) else 0
    seen: dict[str, Any] = {"x": filled(x, rows, 0.0), "y": filled(y, rows, missing)}
    if y.ndim == 1:
        seen["y"] = vfe.masked(seen["y"], present)
    return learned_model(
        estimator,
        model,
        seen,
        count,
        key,
        weight_decay=float(estimator.weight_decay),
        belief=vfe.Point,
        solver=vfe.Anderson() if estimator.solver is None else estimator.solver,
        keep_beliefs=False,
        perception_steps=int(estimator.perception_steps),
        rtol=1e-2,
    )


def _predicted(estimator: Any, X: Any) -> np.ndarray:
    check_is_fitted(estimator)
    x = single(_inputs(estimator, X, reset=False))
    model = estimator.model_
    found = in_blocks(lambda block: vfe.networks.predict(model, {"x": block}), x, 0.0, 1024)
    return np.asarray(found, np.float64)


def _free_energy(estimator: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """F of each target given its input under a Laplace belief, in nats."""
    size = sum(estimator.model_.describe(n).size for n in estimator.model_.order if n.startswith("z"))
    both = np.concatenate([single(x), y.reshape(len(x), -1)], 1)
    width, discrete = x.shape[1], not np.issubdtype(y.dtype, np.floating)

    def total(block: np.ndarray) -> Array:
        target = block[:, width].astype(int) if discrete else block[:, width:]
        seen = {"x": block[:, :width].astype(np.float32), "y": target}
        return vfe.perceive(estimator.model_, seen, belief=vfe.Laplace).free_energy.total

    return np.asarray(in_blocks(total, both, 0.0, max(1, MOST_CURVATURE // size**2)), np.float64)


class PredictiveCodingClassifier(ClassifierMixin, BaseEstimator):
    """A predictive-coding network p(y | z₁) p(z₁ | z₂) … p(z_n | x) as a classifier.

    Learning alternates perception, the activities z going to the equilibrium of
    E = −ln p(y | z₁) + Σ_i ½ |z_i − g_i(z_{i+1})|² / s² + const, and a step of the weights down the same
    E. Probabilities are those of the feed-forward pass. Standardising the features is left to the
    user (`make_pipeline(StandardScaler(), …)`); computation is in float32.

    **Arguments:**

    - `hidden_layer_sizes`: of the hidden levels, from the input on; `activation`: "gelu", "identity",
      "logistic", "relu", "silu", "tanh" or a function of an array (to be pickled, one of a module).
    - `hidden_scale`: s, by default 1 / √(10 · number of layers); `perception_steps` per minibatch, of
      `solver` (`vfe.Anderson()` by default).
    - `learning_rate` of AdamW and its `weight_decay`; `batch_size`; `max_iter`: epochs at most;
      learning ends when E has not fallen by `tol` nats per observation for `n_iter_no_change` epochs.
    - `random_state`: seeds the weights and the order of the data; `verbose`: a progress bar.

    **Attributes:** `model_`, the learned `vfe.Model` (nodes x, z_n … z1, y; y an index into
    `classes_`); `classes_`; `n_iter_`, epochs done; `free_energy_curve_`, E per epoch in nats per
    observation (a Point belief: an energy); `n_features_in_`, `feature_names_in_`.

    **Raises:** at `fit` and prediction, `ValueError` for settings without meaning, missing values, and
    fewer than two classes.

    **Example:** `PredictiveCodingClassifier(random_state=0).fit(X, y).predict_proba(X)`.

    **Source:** Whittington and Bogacz 2017.
    """

    model_: vfe.Model
    classes_: np.ndarray
    n_iter_: int
    n_features_in_: int
    free_energy_curve_: np.ndarray

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "gelu",
        *,
        hidden_scale: float | None = None,
        solver: Any = None,
        perception_steps: int = 4,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.1,
        batch_size: int = 64,
        max_iter: int = 200,
        tol: float = 1e-4,
        n_iter_no_change: int = 10,
        random_state: Any = None,
        verbose: bool = False,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.hidden_scale = hidden_scale
        self.solver = solver
        self.perception_steps = perception_steps
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> "PredictiveCodingClassifier":
        """Learn from inputs X, (n, features), and labels y, (n,), of any type."""
        check_settings(self)
        x, y = _inputs(self, X, y=y)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"PredictiveCodingClassifier: y has 1 class ({self.classes_[0]!r}); wanted at least two."
            )
        weights, key = jax.random.split(key_of(self.random_state))
        layers = _layers(self, x.shape[1], len(self.classes_), weights)
        model = vfe.networks.supervised(layers, inputs=x.shape[1], scale=self.hidden_scale)
        self.model_ = _learn(self, model, single(x), labels, key)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """p(class | x) with every hidden level at its mean, (n, classes), in the order of `classes_`."""
        found = _predicted(self, X)
        return found / found.sum(1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each row, (n,)."""
        found = self.predict_proba(X)
        return self.classes_[found.argmax(1)]

    def free_energy(self, X: Any, y: Any) -> np.ndarray:
        """F of each label given its input, (n,), in nats: about −ln p(y | x).

        Under a Laplace belief about the hidden levels: an approximation, no bound.

        **Raises:** `ValueError` for labels that were not among those learned.
        """
        check_is_fitted(self)
        x, y = _inputs(self, X, y=y, reset=False)
        y = column_or_1d(y)
        unknown = sorted(set(np.unique(y).tolist()) - set(self.classes_.tolist()))
        if unknown:
            raise ValueError(
                f"free_energy: the labels {unknown} are not among the classes {self.classes_.tolist()}."
            )
        return _free_energy(self, x, np.searchsorted(self.classes_, y))

    @available_if(_no_density)
    def score_samples(self, X: Any) -> np.ndarray:
        """Not there: x is given, not modelled. See `free_energy`."""
        raise AssertionError("never available")


class PredictiveCodingRegressor(RegressorMixin, BaseEstimator):
    """A predictive-coding network with a Gaussian output, y ~ N(g(z₁), σ²), as a regressor.

    As `PredictiveCodingClassifier`, with −ln N(y; g(z₁), σ²) in the place of −ln p(y | z₁). The targets
    are standardised while learning; `model_` is in their own units again. One or several outputs.

    **Arguments:** as in `PredictiveCodingClassifier`; `output_scale`: σ in standard deviations of y.

    **Attributes:** as there, without `classes_`.

    **Example:** `PredictiveCodingRegressor(random_state=0).fit(X, y).predict(X)`.

    **Source:** Whittington and Bogacz 2017.
    """

    model_: vfe.Model
    n_iter_: int
    n_features_in_: int
    free_energy_curve_: np.ndarray

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "gelu",
        *,
        hidden_scale: float | None = None,
        output_scale: float = 1.0,
        solver: Any = None,
        perception_steps: int = 4,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.1,
        batch_size: int = 64,
        max_iter: int = 200,
        tol: float = 1e-4,
        n_iter_no_change: int = 10,
        random_state: Any = None,
        verbose: bool = False,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.hidden_scale = hidden_scale
        self.output_scale = output_scale
        self.solver = solver
        self.perception_steps = perception_steps
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> "PredictiveCodingRegressor":
        """Learn from inputs X, (n, features), and targets y, (n,) or (n, outputs)."""
        check_settings(self)
        x, y = _inputs(self, X, y=y, multi_output=True, y_numeric=True)
        self._flat = y.ndim == 1
        targets = y.reshape(len(y), -1).astype(np.float64)
        mean, spread = targets.mean(0), targets.std(0)
        # A target that never varies is learned in its own units.
        spread = np.where(spread > 0, spread, 1.0)
        weights, key = jax.random.split(key_of(self.random_state))
        layers = _layers(self, x.shape[1], targets.shape[1], weights)
        options: dict[str, Any] = {"inputs": x.shape[1], "output": "gaussian", "scale": self.hidden_scale}
        options["output_scale"] = float(self.output_scale)
        model = vfe.networks.supervised(layers, **options)
        standard = ((targets - mean) / spread).astype(np.float32)
        learned = _learn(self, model, single(x), standard, key)
        nodes: list[Any] = [learned[n] for n in learned.order if n != "x"]
        layers = [n.mean for n in nodes]
        layers[-1] = in_units(layers[-1], mean, spread)
        options["output_scale"] = jnp.asarray(self.output_scale * spread, float)
        self.model_ = vfe.networks.supervised(layers, **options)
        self.free_energy_curve_ = self.free_energy_curve_ + float(np.log(spread).sum())
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The mean of y with every hidden level at its mean, (n,) or (n, outputs)."""
        found = _predicted(self, X)
        return found[:, 0] if self._flat else found

    def free_energy(self, X: Any, y: Any) -> np.ndarray:
        """F of each target given its input, (n,), in nats: about −ln p(y | x), in the units of y.

        Under a Laplace belief about the hidden levels: an approximation, no bound.
        """
        check_is_fitted(self)
        x, y = _inputs(self, X, y=y, reset=False, multi_output=True, y_numeric=True)
        outputs = self.model_.describe("y").size
        if y.reshape(len(y), -1).shape[1] != outputs:
            raise ValueError(f"free_energy: y has shape {y.shape}; wanted {outputs} outputs.")
        return _free_energy(self, x, y.astype(np.float64))

    @available_if(_no_density)
    def score_samples(self, X: Any) -> np.ndarray:
        """Not there: x is given, not modelled. See `free_energy`."""
        raise AssertionError("never available")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
