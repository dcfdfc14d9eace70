"""Makers of nodes: a node is a conditional density p(node | parents) for one observation.

A node is a function of its parents' values that returns a numpyro distribution. Whatever shape that
distribution has for one observation is the node's event. The makers below build the nodes most models
need; `conditional` turns any function of your own into one that is just as good.
"""

import abc
from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from equinox import AbstractVar
from jax.core import Tracer
from jaxtyping import Array

from vfe.maps import Affine, Constant, Exp, Fixed, Learnable, Summing, Table, as_map, released
from vfe.noise import AbstractNoise, DependentNoise, FullNoise, IndependentNoise, make_noise


class Plate(eqx.Module):
    """A group of copies: one value of a node for each of `size` members; made by `vfe.plate`."""

    name: str = eqx.field(static=True)
    size: int = eqx.field(static=True)


def plate(name: str, size: int) -> Plate:
    """A plate: a node inside it has one value for each of `size` groups, shared by its observations.

    The group that each observation belongs to is said at the call, as integers 0 … size − 1 under
    the plate's name: `vfe.perceive(model, {"x": x, "subject": subject_of_each_row})`.

    **Raises:** `ValueError` where `size` is not a positive integer.

    **Example:** `vfe.gaussian(0.0, plate=vfe.plate("subject", 20))`.
    """
    if not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(f"plate {name!r}: got size {size!r}; wanted a positive integer.")
    return Plate(name, int(size))


class AbstractConditional(eqx.Module):
    """p(node | parents), for one observation. State: its parameters. Frozen."""

    parents: AbstractVar[tuple[str, ...]]
    shared: AbstractVar[bool]
    plate: AbstractVar[Plate | None]

    @abc.abstractmethod
    def __call__(self, *parents: Array) -> dist.Distribution:
        """The density of one value, given one value of each parent, in the order of `parents`."""


class AbstractGaussianNode(AbstractConditional):
    """A node whose standardised errors e are N(0, I): z = g(parents) + s ∘ e, level by level."""

    noise: AbstractVar[AbstractNoise]

    @property
    @abc.abstractmethod
    def has_constant_noise(self) -> bool:
        """Whether the spread is *declared* independent of every parent."""


class Gaussian(AbstractGaussianNode):
    """p(z | parents) = N(z; g(parents), Σ); made by [`gaussian`][vfe.gaussian]."""

    mean: Callable[..., Array]
    noise: AbstractNoise
    parents: tuple[str, ...] = eqx.field(static=True)
    shared: bool = eqx.field(static=True)
    plate: Plate | None = eqx.field(static=True)

    def __call__(self, *parents: Array) -> dist.Distribution:
        return self.noise.density(self.mean(*parents), parents)

    @property
    def has_affine_mean(self) -> bool:
        """Whether the mean is *declared* affine in every parent."""
        return isinstance(self.mean, Affine | Constant)

    @property
    def has_constant_noise(self) -> bool:
        return isinstance(self.noise, IndependentNoise | FullNoise)


class CategoricalTable(AbstractConditional):
    """p(z = k | i, j) = softmax_k logits[k, i, j]; made by [`categorical`][vfe.categorical]."""

    logits: Any
    parents: tuple[str, ...] = eqx.field(static=True)
    shared: bool = eqx.field(static=True)
    plate: Plate | None = eqx.field(static=True)

    def __call__(self, *parents: Array) -> dist.Distribution:
        return dist.CategoricalLogits(logits=released(self.logits)[(slice(None), *parents)])


class Distributed(AbstractConditional):
    """Any function of the parents that returns a numpyro distribution; made by `conditional`."""

    density: Callable[..., dist.Distribution]
    parents: tuple[str, ...] = eqx.field(static=True)
    shared: bool = eqx.field(static=True)
    plate: Plate | None = eqx.field(static=True)

    def __call__(self, *parents: Array) -> dist.Distribution:
        return self.density(*parents)


class Given(AbstractConditional):
    """An exogenous input u: no density, no energy, always observed; made by [`given`][vfe.given]."""

    shape: tuple[int, ...] = eqx.field(static=True)
    integer: bool = eqx.field(static=True)
    parents: tuple[str, ...] = eqx.field(static=True, default=())
    shared: bool = eqx.field(static=True, default=False)
    plate: Plate | None = eqx.field(static=True, default=None)

    def __call__(self, *parents: Array) -> dist.Distribution:
        raise TypeError("a given node has no density")


class Parametrised(eqx.Module):
    """The function of the parents that builds `family(**parameters)`, each parameter a map."""

    family: Callable[..., dist.Distribution] = eqx.field(static=True)
    parameters: dict[str, Callable[..., Array]]

    def __call__(self, *parents: Array) -> dist.Distribution:
        return self.family(**{name: f(*parents) for name, f in self.parameters.items()})


def as_parents(parents: str | tuple[str, ...] | list[str] | None) -> tuple[str, ...]:
    """One name or several, as a tuple of distinct names."""
    names = (parents,) if isinstance(parents, str) else tuple(parents or ())
    if len(set(names)) != len(names):
        raise ValueError(f"parents {names} name a node twice; name each parent once.")
    return names


def gaussian(
    mean: Any,
    *,
    scale: Any = None,
    covariance: Any = None,
    precision: Any = None,
    parents: str | tuple[str, ...] = (),
    shared: bool = False,
    plate: Plate | None = None,
) -> Gaussian:
    """A Gaussian node, p(z | parents) = N(z; mean(parents), Σ).

    **Arguments:** `mean`: numbers (fixed unless wrapped in `vfe.learnable`) or a callable of the
    parents' values; at most one of `scale` (standard deviation: scalar or shape of the mean, or a
    callable of the parents), `covariance` (matrix) and `precision` (scalar, elementwise, matrix, or
    a callable); unit scale where none is given. Numbers are fixed unless wrapped in `vfe.learnable`.
    `parents`: one name or several; `shared=True`: one value for the whole data set; `plate`: one
    value per group.

    **Raises:** `ValueError` for a spread that is not finite and positive (definite), or more than
    one of the three.

    **Example:** `vfe.gaussian(vfe.Affine(jnp.ones((5, 3))), scale=0.5, parents="z1")`.

    **Source:** Friston 2005 (levels of a hierarchy with additive Gaussian errors).
    """
    parents = as_parents(parents)
    return Gaussian(
        mean=as_map(mean, "gaussian"),
        noise=make_noise(scale, covariance, precision),
        parents=parents,
        shared=shared or plate is not None,
        plate=plate,
    )


def bernoulli(
    logits: Any,
    *,
    parents: str | tuple[str, ...] = (),
    shared: bool = False,
    plate: Plate | None = None,
) -> Distributed:
    """Independent binary elements, p(z_j = 1 | parents) = 1 / (1 + exp(−logits_j(parents))).

    The data must be 0 or 1: grey values want a Gaussian, or
    `vfe.conditional(lambda z: numpyro.distributions.…)`.

    **Example:** `vfe.bernoulli(vfe.Affine(jnp.ones((64, 3))), parents="z1")`.
    """
    return _parametrised(dist.BernoulliLogits, {"logits": logits}, "bernoulli", parents, shared, plate)


def categorical(
    probabilities: Any = None,
    *,
    logits: Any = None,
    parents: str | tuple[str, ...] = (),
    shared: bool = False,
    plate: Plate | None = None,
) -> CategoricalTable | Distributed:
    """A discrete node with K states 0 … K − 1.

    **Arguments:** one of `probabilities`, a table p[k, i, j, …] = p(k | parents = i, j, …) whose
    columns sum to one (the outcome is the *first* axis, as in A[o, s]), fixed unless wrapped in
    `vfe.learnable`; and `logits`, a table of the same layout; or, for either of them, a callable of the
    parents that returns (K,) or (n, K).

    **Raises:** `ValueError` for negative entries, for columns that do not sum to one, or for a table
    whose axes do not match the number of parents. What a callable returns for `probabilities` without
    summing to one has an energy of NaN, on which perception and learning raise.

    **Example:** `vfe.categorical(jnp.asarray([[.9, .2], [.1, .8]]), parents="weather")`.
    """
    parents = as_parents(parents)
    if (probabilities is None) == (logits is None):
        raise ValueError("categorical: give either probabilities or logits.")
    if callable(logits):
        return _parametrised(
            dist.CategoricalLogits, {"logits": logits}, "categorical", parents, shared, plate
        )
    if callable(probabilities):
        return _parametrised(
            dist.CategoricalProbs,
            {"probs": Summing(cast(Any, probabilities))},
            "categorical",
            parents,
            shared,
            plate,
        )
    table = logits if probabilities is None else probabilities
    learn = isinstance(table, Learnable)
    array = jnp.asarray(table.value if isinstance(table, Learnable | Fixed) else table, dtype=float)
    if array.ndim != 1 + len(parents):
        raise ValueError(
            f"categorical: the table has shape {array.shape}; with parents {parents} it wants "
            f"{1 + len(parents)} axes, (states, *states of each parent)."
        )
    if probabilities is not None:
        if not isinstance(array, Tracer):
            numbers = np.asarray(array, dtype=np.float64)
            if not np.isfinite(numbers).all() or (numbers < 0).any():
                raise ValueError("categorical: the probabilities must be finite and not negative.")
            if not np.allclose(numbers.sum(0), 1.0, atol=1e-5):
                raise ValueError(
                    "categorical: the probabilities must sum to one over the first axis (the states "
                    f"of the node); the sums lie between {numbers.sum(0).min():.6g} and "
                    f"{numbers.sum(0).max():.6g}."
                )
        array = jnp.log(array)
    return CategoricalTable(
        logits=array if learn else Fixed(array),
        parents=parents,
        shared=shared or plate is not None,
        plate=plate,
    )


def dirichlet(
    concentration: Any,
    *,
    parents: str | tuple[str, ...] = (),
    shared: bool = False,
    plate: Plate | None = None,
) -> Distributed:
    """A probability vector, p(θ) ∝ Π_k θ_k^(α_k − 1).

    **Example:** `vfe.dirichlet(jnp.ones(3), shared=True)`.
    """
    return _parametrised(
        dist.Dirichlet, {"concentration": concentration}, "dirichlet", parents, shared, plate
    )


def gamma(
    concentration: Any,
    rate: Any,
    *,
    parents: str | tuple[str, ...] = (),
    shared: bool = False,
    plate: Plate | None = None,
) -> Distributed:
    """A positive number, p(τ) ∝ τ^(a − 1) exp(−b τ), a = concentration, b = rate.

    **Example:** `vfe.gamma(2.0, 1.0, shared=True)`.
    """
    return _parametrised(
        dist.Gamma, {"concentration": concentration, "rate": rate}, "gamma", parents, shared, plate
    )


def conditional(
    density: Callable[..., dist.Distribution],
    *,
    parents: str | tuple[str, ...] = (),
    shared: bool = False,
    plate: Plate | None = None,
) -> Distributed:
    """Any function of the parents' values that returns a numpyro distribution, as a node.

    Equinox modules are learned like the library's own maps.

    **Example:** `vfe.conditional(lambda z: numpyro.distributions.Poisson(jnp.exp(z)), parents="z")`.
    """
    if not callable(density):
        raise TypeError(
            f"conditional: got {type(density).__name__}; wanted a function of the parents' values "
            "that returns a numpyro distribution."
        )
    return Distributed(
        density=density, parents=as_parents(parents), shared=shared or plate is not None, plate=plate
    )


def given(shape: int | tuple[int, ...] = (), *, integer: bool = False) -> Given:
    """An exogenous input of this shape (per observation): known at every call, not modelled.

    **Example:** `vfe.Model(u=vfe.given(3), y=vfe.gaussian(f, parents="u"))`.
    """
    return Given(shape=(shape,) if isinstance(shape, int) else tuple(shape), integer=integer)


def _parametrised(
    family: Any,
    parameters: dict[str, Any],
    maker: str,
    parents: str | tuple[str, ...],
    shared: bool,
    plate: Plate | None,
) -> Distributed:
    maps = {name: as_map(value, maker) for name, value in parameters.items()}
    if maker in ("gamma", "dirichlet"):
        for name, f in maps.items():
            if isinstance(f, Constant) and not isinstance(released(f.value), Tracer):
                numbers = np.asarray(released(f.value))
                if not (np.isfinite(numbers).all() and (numbers > 0).all()):
                    raise ValueError(f"{maker}: the {name} must be finite and positive.")
    return Distributed(
        density=Parametrised(family, maps),
        parents=as_parents(parents),
        shared=shared or plate is not None,
        plate=plate,
    )


def only_discrete_parents_matter(node: AbstractConditional) -> bool:
    """Whether every parameter of a Gaussian is declared a `Table` or a constant."""
    if not isinstance(node, Gaussian):
        return False
    scale = node.noise.scale if isinstance(node.noise, DependentNoise) else None
    scale = scale.inner if isinstance(scale, Exp) else scale
    noise_ok = node.has_constant_noise or isinstance(scale, Table)
    return isinstance(node.mean, Table | Constant) and noise_ok


def table_axes(node: AbstractConditional) -> list[tuple[int, ...]]:
    """How many states of each parent the declared tables of a node have room for."""
    if isinstance(node, CategoricalTable):
        return [released(node.logits).shape[1:]]
    maps: list[Any] = []
    if isinstance(node, Gaussian):
        scale = node.noise.scale if isinstance(node.noise, DependentNoise) else None
        maps = [node.mean, scale.inner if isinstance(scale, Exp) else scale]
    if isinstance(node, Distributed) and isinstance(node.density, Parametrised):
        maps = list(node.density.parameters.values())
    return [released(f.values).shape[: f.axes] for f in maps if isinstance(f, Table)]
