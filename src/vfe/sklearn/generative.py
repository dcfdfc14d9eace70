"""A generative network as a classifier: every class explains the features, the best explanation wins."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

import vfe
from vfe.sklearn.activations import activation_of
from vfe.sklearn.supervised import MOST_CURVATURE
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


class GenerativeClassifier(ClassifierMixin, BaseEstimator):
    """p(x, z, label) = p(x | z₁) p(z₁ | z₂) … p(z_n) p(label), a network that draws x, as a classifier.

    z_n ~ N(0, 1) is what varies within a class, label has the frequencies of the classes, hidden levels
    scatter with s² about their means (s one number a level) and x_j with (σ t_j)², t_j the spread by which
    the feature is standardised; every s and σ are learned.
    Learning observes x and label and descends F of Gauss–Newton Laplace beliefs about the levels, whose
    entropy keeps both scales honest. At prediction each class is held in turn, the levels perceived, and

        p(class | x) = exp(−F_class) / Σ exp(−F_class),   F(x) = −ln Σ exp(−F_class).

    F_class is −ln p(x, class) where the network is linear (`activation="identity"`), elsewhere an
    approximation of it, no bound. Missing elements (NaN) are left out of the likelihood, at `fit` as at
    prediction: the answer is conditioned on what is there.

    **Arguments:**

    - `hidden_layer_sizes`: of the hidden levels between (class, z_n) and x, at least one; `latent_size`:
      of z_n; `activation`: as in `PredictiveCodingClassifier`.
    - `standardise`: "together" divides all features by one spread, for features of one unit such as
      pixels; "each" divides every feature by its own.
    - `solver`, `perception_steps`: how levels are perceived while learning, by default
      `vfe.ErrorCoordinates()`, Newton's steps, and how many; at prediction until they have converged.
    - `learning_rate`, `weight_decay`, `batch_size`, `max_iter`, `tol`, `n_iter_no_change`,
      `random_state`, `verbose`: as there, of F.

    **Attributes:** `model_`, the learned `vfe.Model` (nodes label, z_n … z1, x, in the units of X; label
    an index into `classes_`); `classes_`; `n_iter_`, epochs done; `free_energy_curve_`, F per epoch in
    nats per observation, of x and label together; `n_features_in_`, `feature_names_in_`.

    **Raises:** at `fit`, `ValueError` for settings without meaning, fewer than two classes, features that
    are never seen, and features that do not vary where their own spread is needed; at prediction,
    `vfe.DivergenceError` for rows of which perception found no answer.

    **Example:** `GenerativeClassifier(random_state=0).fit(X, y).predict_proba(X_with_holes)`.

    **Source:** Friston 2005; Rao and Ballard 1999; Tipping and Bishop 1999 (the linear case, with classes).
    """

    model_: vfe.Model
    classes_: np.ndarray
    n_iter_: int
    n_features_in_: int
    free_energy_curve_: np.ndarray

    def __init__(
        self,
        hidden_layer_sizes: Any = (64,),
        latent_size: int = 12,
        activation: Any = "tanh",
        *,
        standardise: str = "each",
        solver: Any = None,
        perception_steps: int = 4,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.1,
        batch_size: int = 64,
        max_iter: int = 60,
        tol: float = 1e-4,
        n_iter_no_change: int = 10,
        random_state: Any = None,
        verbose: bool = False,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.latent_size = latent_size
        self.activation = activation
        self.standardise = standardise
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

    def fit(self, X: Any, y: Any) -> "GenerativeClassifier":
        """Learn from X, (n, features), NaN where an element is missing, and labels y, (n,), of any type."""
        check_settings(self)
        if not len(self.hidden_layer_sizes):
            raise ValueError(
                "hidden_layer_sizes: GenerativeClassifier got (); wanted at least one hidden level, such "
                'as (64,). For a linear model, write activation="identity".'
            )
        options: dict[str, Any] = {"dtype": np.float64, "ensure_all_finite": "allow-nan"}
        checked: Any = validate_data(self, X, y=y, **options)
        x, y = checked[0], column_or_1d(checked[1], warn=True)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"GenerativeClassifier: y has 1 class ({self.classes_[0]!r}); wanted at least two."
            )
        mean, spread = _standard(x, self.standardise)
        weights, key = jax.random.split(key_of(self.random_state))
        count = len(self.classes_)
        sizes = [count + int(self.latent_size), *(int(n) for n in self.hidden_layer_sizes), x.shape[1]]
        layers = vfe.networks.dense(
            sizes, key=weights, activation=activation_of(self.activation), repeat_from=len(sizes)
        )
        start = vfe.networks.generative(
            layers,
            labels=count,
            latent=int(self.latent_size),
            scale=vfe.learnable(1.0),
            output_scale=vfe.learnable(1.0),
        )
        frequencies = np.bincount(labels) / len(labels)
        start = _with(start, label=vfe.categorical(jnp.asarray(frequencies)))
        learned = self._learn(start, single((x - mean) / spread), labels, key)
        output: Any = learned["x"]
        scale = np.exp(-0.5 * float(output.noise.log_precision)) * spread
        layer = in_units(output.mean, mean, spread)
        self.model_ = _with(learned, x=vfe.gaussian(layer, scale=jnp.asarray(scale, float), parents="z1"))
        present = (~np.isnan(x)).mean(0)
        self.free_energy_curve_ = self.free_energy_curve_ + float((present * np.log(spread)).sum())
        return self

    def _learn(self, model: vfe.Model, x: np.ndarray, labels: np.ndarray, key: PRNGKeyArray) -> vfe.Model:
        # A row of which nothing is seen stays at the prior, whatever its label: F has no gradient there.
        # But what is missing costs time, so several batches of whole rows are not filled up.
        whole = len(x) > int(self.batch_size) and not np.isnan(x).any()
        rows = len(x) if whole else whole_batches(len(x), int(self.batch_size))
        observed = {"x": filled(x, rows, np.nan), "label": filled(labels, rows, 0)}
        return learned_model(
            self,
            model,
            observed,
            len(x),
            key,
            weight_decay=float(self.weight_decay),
            belief=vfe.GaussNewtonLaplace,
            solver=_solver(self),
            gradient=vfe.StochasticTrace(),
            keep_beliefs=False,
            perception_steps=int(self.perception_steps),
            rtol=1e-2,
        )

    def _perceived(self, X: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """X, and of every row p(class | x), F, and the modes of z₁ given each class, (n, classes, size)."""
        check_is_fitted(self)
        found = validate_data(self, X, reset=False, dtype=np.float64, ensure_all_finite="allow-nan")
        given = np.asarray(found)
        x = single(given).astype(jnp.result_type(float))
        model = self.model_
        size = sum(model.describe(n).size for n in model.order if n.startswith("z"))

        def one(block: np.ndarray) -> tuple[Array, Array, Array]:
            # A row of which nothing is seen: with a mask always there, one program serves all blocks.
            percept = vfe.perceive(
                model,
                {"x": filled(block, len(block) + 1, np.nan)},
                belief=vfe.Enumerated("label", vfe.GaussNewtonLaplace),
                solver=_solver(self),
                throw=False,
            )
            belief = percept.belief
            return belief.probabilities, percept.free_energy.total, belief.conditional["z1"].mean

        largest = max(1, MOST_CURVATURE // (size**2 * len(self.classes_)))
        chances, total, modes = in_blocks(one, x, np.nan, largest)
        bad = np.flatnonzero(~np.isfinite(total))
        if bad.size:
            raise vfe.DivergenceError(
                f"{bad.size} of {len(x)} rows have no answer (the first is row {bad[0]}): perception found "
                "no minimum of their energy; look at those rows, whose values may be far from any learned."
            )
        return given, chances.astype(np.float64), total.astype(np.float64), modes

    def predict_proba(self, X: Any) -> np.ndarray:
        """p(class | what is there of x), (n, classes), in the order of `classes_`."""
        found = self._perceived(X)[1]
        return found / found.sum(1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each row, (n,)."""
        found = self.predict_proba(X)
        return self.classes_[found.argmax(1)]

    def score_samples(self, X: Any) -> np.ndarray:
        """−F of each row, (n,), in nats and in the units of X: about ln p(what is there of x)."""
        return -self._perceived(X)[2]

    def impute(self, X: Any) -> np.ndarray:
        """X with its missing elements (NaN) at Σ p(class | x) g(z₁), z₁ at its mode for each class.

        The conditional mean where the network is linear.
        """
        given, chances, _, modes = self._perceived(X)
        means = np.asarray(_decoded(self.model_, jnp.asarray(modes)), np.float64)
        return np.where(np.isnan(given), (chances[..., None] * means).sum(1), given)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _standard(x: np.ndarray, how: str) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the spread, (features,), by which features are standardised."""
    if how not in ("each", "together"):
        raise ValueError(f'standardise: got {how!r}; wanted "each" or "together".')
    unseen = np.flatnonzero(np.isnan(x).all(0))
    if unseen.size:
        raise ValueError(
            f"GenerativeClassifier: the features {unseen.tolist()} are missing in every observation; "
            "leave them out."
        )
    mean = np.nanmean(x, 0)
    square = np.nanmean((x - mean) ** 2, 0)
    together = float(np.sqrt(square.mean()))
    if together == 0:
        raise ValueError("GenerativeClassifier: no feature varies, so there is nothing to learn.")
    spread = np.sqrt(square) if how == "each" else np.full(len(mean), together)
    constant = np.flatnonzero(spread == 0)
    if constant.size:
        raise ValueError(
            f"GenerativeClassifier: the features {constant.tolist()} do not vary, so they have no spread "
            'of their own; leave them out, or write standardise="together".'
        )
    return mean, spread


def _with(model: vfe.Model, **nodes: Any) -> vfe.Model:
    """The model with some nodes replaced."""
    return vfe.Model(**{n: nodes.get(n, model[n]) for n in model.order})


def _solver(estimator: Any) -> Any:
    return vfe.ErrorCoordinates() if estimator.solver is None else estimator.solver


@eqx.filter_jit
def _decoded(model: vfe.Model, modes: Array) -> Array:
    """g(z₁), (n, classes, features)."""
    node: Any = model["x"]
    return jax.vmap(jax.vmap(node.mean))(modes)
