"""A generative model of the features as a transformer: what is believed about its causes is the code."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

import vfe
from vfe.conditioning import condition
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


class Decoder(eqx.Module):
    """g(z): dense layers one after the other."""

    layers: tuple[Any, ...]

    def __call__(self, z: Float[Array, " k"]) -> Float[Array, " features"]:
        for layer in self.layers:
            z = layer(z)
        return z


class FreeEnergyEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """p(x | z) p(z) with z ~ N(0, 1) and x ~ N(g(z), σ²), as a transformer: X becomes ⟨z⟩ given x.

    g is a dense network (affine without hidden layers: probabilistic PCA, whose beliefs and F are exact),
    σ one scale for all features, learned with it. Learning descends F of Gaussian beliefs about z, one
    per observation, kept from epoch to epoch. Missing elements (NaN) are left out of the likelihood, at
    `fit` as at `transform`: the answer is conditioned on what is there. Standardising the features is
    left to the user; computation is in float32.

    **Arguments:**

    - `n_components`: the number of causes z; `hidden_layer_sizes`: of the decoder's layers, from z on;
      `activation`: as in `PredictiveCodingClassifier`.
    - `restarts`: with hidden layers the energy of z has several minima; perception starts from the
      prior's mean and from so many fixed draws of the prior, and the answer with the least F is kept.
    - `learning_rate`, `batch_size`, `max_iter`, `tol`, `n_iter_no_change`, `random_state`, `verbose`: as
      there, of F.

    **Attributes:** `model_`, the learned `vfe.Model` (nodes z, x); `n_iter_`, epochs done;
    `free_energy_curve_`, F per epoch in nats per observation; `n_features_in_`, `feature_names_in_`.

    **Raises:** at `fit`, `ValueError` for settings without meaning, fewer than two observations, and
    features that are never seen; features that do not vary at all leave nothing to learn.

    **Example:** `FreeEnergyEncoder(4, random_state=0).fit_transform(X)`.

    **Source:** Tipping and Bishop 1999 (probabilistic PCA); Neal and Hinton 1998 (descent on F); Khan and
    Rue 2021 (natural-gradient beliefs).
    """

    model_: vfe.Model
    n_iter_: int
    n_features_in_: int
    free_energy_curve_: np.ndarray

    def __init__(
        self,
        n_components: int = 8,
        hidden_layer_sizes: Any = (64,),
        activation: Any = "tanh",
        *,
        restarts: int = 8,
        learning_rate: float = 3e-3,
        batch_size: int = 64,
        max_iter: int = 100,
        tol: float = 1e-4,
        n_iter_no_change: int = 10,
        random_state: Any = None,
        verbose: bool = False,
    ):
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.restarts = restarts
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> "FreeEnergyEncoder":
        """Learn from X, (n, features), NaN where an element is missing; y is not looked at."""
        check_settings(self)
        x = self._checked(X, ensure_min_samples=2, reset=True)
        unseen = np.flatnonzero(np.isnan(x).all(0))
        if unseen.size:
            raise ValueError(
                f"FreeEnergyEncoder: the features {unseen.tolist()} are missing in every observation; "
                "leave them out."
            )
        mean = np.nanmean(x, 0)
        spread = float(np.sqrt(np.nanmean((x - mean) ** 2)))
        if spread == 0:
            raise ValueError("FreeEnergyEncoder: no feature varies, so there is nothing to learn.")
        weights, key = jax.random.split(key_of(self.random_state))
        learned = self._learn(single((x - mean) / spread), weights, key)
        layers = _layers_of(learned)
        layers = (*layers[:-1], in_units(layers[-1], mean, spread))
        density: Any = learned.density("x", {"z": jnp.zeros(int(self.n_components))})
        scale = spread * float(density.scale[0])
        self.model_ = _model(layers, scale)
        present = float((~np.isnan(x)).sum(1).mean())
        self.free_energy_curve_ = self.free_energy_curve_ + present * float(np.log(spread))
        return self

    def _checked(self, X: Any, **options: Any) -> np.ndarray:
        found = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", **options)
        return np.asarray(found)

    def _learn(self, x: np.ndarray, weights: PRNGKeyArray, key: PRNGKeyArray) -> vfe.Model:
        sizes = [int(self.n_components), *(int(n) for n in self.hidden_layer_sizes), x.shape[1]]
        layers: Any = vfe.networks.dense(
            sizes, key=weights, activation=activation_of(self.activation), repeat_from=len(sizes)
        )
        options: dict[str, Any] = {"solver": vfe.Exact()}
        if len(layers) > 1:
            options = {
                "belief": vfe.JointGaussian,
                "solver": vfe.NaturalGradient(0.5, vfe.GaussNewton()),
                "expectation": vfe.MonteCarlo(4),
                "perception_steps": 1,
            }
        else:
            layers = [vfe.Affine(layers[0].weight, layers[0].bias)]
        count, batch = len(x), int(self.batch_size)
        rows = whole_batches(count, batch)
        model = _model(tuple(layers), 1.0)
        return learned_model(self, model, {"x": filled(x, rows, np.nan)}, count, key, **options)

    def _perceived(self, X: Any) -> tuple[np.ndarray, np.ndarray, Any]:
        """⟨z⟩ and F of every row, and the type of X."""
        check_is_fitted(self)
        kind = getattr(X, "dtype", None)
        kind = kind if kind in (np.float32, np.float64) else np.float64
        x = single(self._checked(X, reset=False))
        exact = isinstance(_mean_of(self.model_), vfe.Affine)
        perceived = self._exact if exact else self._laplace

        def one(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            # A row of which nothing is seen: with a mask always there, one program serves all blocks.
            return perceived(filled(block, len(block) + 1, np.nan))

        mean, total = in_blocks(one, x, np.nan, 1024)
        bad = np.flatnonzero(~np.isfinite(total))
        if bad.size:
            raise vfe.DivergenceError(
                f"{bad.size} of {len(x)} rows have no answer (the first is row {bad[0]}): perception found "
                "no minimum of their energy from any start; allow more restarts=, or look at those rows."
            )
        return mean, total, kind

    def _exact(self, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        percept = vfe.perceive(self.model_, {"x": block}, solver=vfe.Exact())
        return np.asarray(percept.belief["z"].mean), np.asarray(percept.free_energy.total)

    def _laplace(self, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The modes, and F there, at the least E over all starts; F is infinite where there is none."""
        size = self._n_features_out
        conditioned, _ = condition(self.model_, {"x": block})
        draws = np.random.default_rng(0).normal(size=(int(self.restarts), size))
        best, least = np.zeros((len(block), size), np.float32), np.full(len(block), np.inf, np.float32)
        found = least
        for draw in (np.zeros(size), *draws):
            place = jnp.broadcast_to(jnp.asarray(draw, float), best.shape)
            start = vfe.Laplace.from_vector(conditioned.layout, place)
            percept = vfe.perceive(
                self.model_, {"x": block}, belief=start, solver=vfe.Anderson(), throw=False
            )
            total = np.asarray(percept.free_energy.total)
            # By the energy, which is bounded: F has no least where the curvature vanishes.
            energy = np.where(np.isfinite(total), np.asarray(percept.trace)[:, -1], np.inf)
            lower = energy < least
            best = np.where(lower[:, None], np.asarray(percept.belief["z"].mean), best)
            found = np.where(lower, total, found)
            least = np.where(lower, energy, least)
        return best, found

    def transform(self, X: Any) -> np.ndarray:
        """⟨z⟩ given what is there of each row, (n, n_components).

        The posterior mean where the decoder is affine, else the mode (the mean of the Laplace belief).

        **Raises:** `vfe.DivergenceError` for rows whose belief has no answer.
        """
        mean, _, kind = self._perceived(X)
        return mean.astype(kind)

    def score_samples(self, X: Any) -> np.ndarray:
        """−F of each row, (n,), in nats: ln p(what is there of x), where the decoder is affine.

        Elsewhere F is that of the Laplace belief: an approximation of −ln p(x), no bound.
        """
        return -self._perceived(X)[1].astype(np.float64)

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of `score_samples`."""
        return float(self.score_samples(X).mean())

    def inverse_transform(self, Z: Any) -> np.ndarray:
        """The decoder's mean g(z), (n, features), for causes Z, (n, n_components)."""
        check_is_fitted(self)
        kinds: Any = [np.float64, np.float32]
        z = check_array(Z, dtype=kinds)
        if z.shape[1] != self._n_features_out:
            raise ValueError(
                f"inverse_transform: got {z.shape[1]} columns; wanted the {self._n_features_out} causes."
            )
        model = self.model_
        found = in_blocks(lambda block: _decode(model, jnp.asarray(block)), single(z), 0.0, 1024)
        return found.astype(z.dtype)

    def impute(self, X: Any) -> np.ndarray:
        """X with its missing elements (NaN) at the decoder's mean for ⟨z⟩ given what is there."""
        mean, _, kind = self._perceived(X)
        x = self._checked(X, reset=False)
        return np.where(np.isnan(x), self.inverse_transform(mean), x).astype(kind)

    @property
    def _n_features_out(self) -> int:
        return self.model_.describe("z").size

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _model(layers: tuple[Any, ...], scale: float) -> vfe.Model:
    size = layers[0].weight.shape[1]
    mean = layers[0] if len(layers) == 1 else Decoder(layers)
    return vfe.Model(
        z=vfe.gaussian(jnp.zeros(size)),
        x=vfe.gaussian(mean, scale=vfe.learnable(scale), parents="z"),
    )


def _mean_of(model: vfe.Model) -> Any:
    node: Any = model["x"]
    return node.mean


def _layers_of(model: vfe.Model) -> tuple[Any, ...]:
    mean = _mean_of(model)
    return mean.layers if isinstance(mean, Decoder) else (mean,)


@eqx.filter_jit
def _decode(model: vfe.Model, z: Array) -> Array:
    return jax.vmap(_mean_of(model))(z)
