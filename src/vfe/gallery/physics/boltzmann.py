"""Hidden units of a Boltzmann machine couple the visible ones, by the cumulants of their priors.

Visible spins v_i = ±1 and hidden units h_j with priors p_j: p(v, h) ∝ Π_j p_j(h_j) exp(Σ_i v_i (a_i +
Σ_j w_ij h_j)). With the hidden units summed out,

    ln p(v) = Σ_i a_i v_i + Σ_j Σ_n κ_n(p_j) (Σ_i w_ij v_i)ⁿ / n! + constant,

so hidden unit j contributes κ_n(p_j) w_{i₁j} … w_{iₙj} / n! to every product of n visible units (n! of
which are the same): the effective coupling of n different ones is Σ_j κ_n(p_j) w_{i₁j} … w_{iₙj}, up to a
share of order w² from higher orders, as v_i² = 1.

Measured by brute force: ln p(v) of every visible state, as evidence in a model of the library, and its
Walsh–Hadamard transform, which is the coupling of every subset of visible units.

Expected: under a Gaussian prior pairs are coupled by Σ_j w_ij w_kj exactly and nothing else is; under spins
pairs and fours are, the latter with opposite sign (κ₄ = −2); under a skewed prior threes are too;
deviations from the formula fall with the square of the weights.

Refuted by: couplings beyond pairs under a Gaussian prior, couplings that are not in the ratio of the
cumulants, or deviations that do not fall. Moments in the place of cumulants fail.
"""

import dataclasses
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vfe
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.gallery.physics.cumulants import cumulants_of
from vfe.gallery.settings import about


@dataclasses.dataclass(frozen=True)
class Settings:
    """The size of the machine and of its weights."""

    visible: int = about("visible units, 4 to 10", 6)
    hidden: int = about("hidden units, 1 to 3", 3)
    weight: float = about("size of the weights: sd", 0.1)

    def __post_init__(self) -> None:
        if not (4 <= self.visible <= 10 and 1 <= self.hidden <= 3):
            raise ValueError(
                f"boltzmann: got visible={self.visible} and hidden={self.hidden}; wanted 4 to 10 and 1 to "
                "3 "
                "(every state is summed over)."
            )
        if not 0 < self.weight <= 0.5:
            raise ValueError(
                f"boltzmann: got weight={self.weight}; wanted a number in (0, 0.5], where the series of "
                "the "
                "cumulants converges."
            )


class Prior(NamedTuple):
    """The values of a hidden unit and their probabilities; mean 0 and variance 1."""

    values: np.ndarray
    weights: np.ndarray


def priors() -> dict[str, Prior]:
    """Priors that differ from the third cumulant on. **Example:** `priors()["spin"].values`.

    The Gaussian has the nodes and weights of Gauss and Hermite: sixteen values with its first 31 moments.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)
    return {
        "Gaussian": Prior(nodes, weights / weights.sum()),
        "spin": Prior(np.array([-1.0, 1.0]), np.array([0.5, 0.5])),
        "skewed": Prior(np.array([-0.5, 2.0]), np.array([0.8, 0.2])),
        "sparse": Prior(np.array([-2.0, 0.0, 2.0]), np.array([0.125, 0.75, 0.125])),
    }


def machine(prior: Prior, bias: np.ndarray, weights: np.ndarray) -> vfe.Model:
    """A restricted Boltzmann machine as a directed model of the same p(v, h).

    `h`: one node whose states are those of all hidden units together, with p(h) ∝ Π_j p_j(h_j) Π_i
    2 cosh(a_i + Σ_j w_ij h_j), what is left of the couplings when v is summed out; `v`: (v_i + 1) / 2.

    **Arguments:** `bias`: (visible,); `weights`: (visible, hidden).

    **Example:** `machine(priors()["spin"], np.zeros(4), np.ones((4, 2))).sample(key)["v"]`.
    """
    units = weights.shape[1]
    states = np.array(list(itertools.product(prior.values, repeat=units)))
    each = np.array(list(itertools.product(np.log(prior.weights), repeat=units))).sum(1)
    field = bias + states @ weights.T
    logits = each + np.logaddexp(field, -field).sum(1)
    return vfe.Model(
        h=vfe.categorical(logits=jnp.asarray(logits)),
        v=vfe.bernoulli(vfe.Table(jnp.asarray(2 * field)), parents="h"),
    )


class Couplings(NamedTuple):
    """By subset of visible units, from none to all: `members`, the effective coupling, and what the
    cumulants say (nothing for no unit)."""

    members: tuple[tuple[int, ...], ...]
    measured: np.ndarray
    predicted: np.ndarray

    def of_order(self, order: int) -> tuple[np.ndarray, np.ndarray]:
        """Measured and predicted couplings of so many units. **Example:** `found.of_order(2)`."""
        pick = np.array([len(s) == order for s in self.members])
        return self.measured[pick], self.predicted[pick]

    def beyond(self, order: int) -> float:
        """The largest coupling of more units than that. **Example:** `found.beyond(2)`."""
        return float(
            max(np.abs(c) for s, c in zip(self.members, self.measured, strict=True) if len(s) > order)
        )

    def deviation(self, order: int) -> float:
        """The largest difference from the formula, as a share of the largest coupling it says."""
        measured, predicted = self.of_order(order)
        return float(np.abs(measured - predicted).max() / np.abs(predicted).max())

    def strength(self, order: int) -> float:
        """The slope of measured on predicted couplings: 1 where the cumulant is the right number."""
        measured, predicted = self.of_order(order)
        return float((measured * predicted).sum() / (predicted**2).sum())


def couplings(prior: Prior, bias: np.ndarray, weights: np.ndarray, moments: bool = False) -> Couplings:
    """Couplings of all subsets of visible units. `moments`: these in the place of cumulants (wrong).

    **Example:** `couplings(priors()["spin"], np.zeros(4), 0.1 * np.ones((4, 2))).of_order(4)`.
    """
    count = len(bias)
    seen = np.array(list(itertools.product([0, 1], repeat=count)))
    logs = np.asarray(vfe.exact.log_evidence(machine(prior, bias, weights), {"v": jnp.asarray(seen)}))
    spins = 2.0 * seen - 1
    members = tuple(s for n in range(count + 1) for s in itertools.combinations(range(count), n))
    if moments:
        numbers = np.array([(prior.weights * prior.values**n).sum() for n in range(1, count + 1)])
    else:
        numbers = cumulants_of(prior.values, prior.weights, count)
    measured, predicted = [], []
    for subset in members:
        chosen = list(subset)
        measured.append((logs * spins[:, chosen].prod(1)).mean())
        said = numbers[len(subset) - 1] * weights[chosen].prod(0).sum() if subset else np.nan
        predicted.append(said + (bias[subset[0]] if len(subset) == 1 else 0.0))
    return Couplings(members, np.array(measured), np.array(predicted))


class Found(NamedTuple):
    """By prior: couplings at the weights asked for, and at half of them, and so on to a sixteenth."""

    sizes: np.ndarray
    by_size: dict[str, list[Couplings]]

    def power(self, name: str, order: int) -> float:
        """k in deviation ∝ weightᵏ, from the two smallest sizes. **Example:** `found.power("spin", 4)`."""
        last, smallest = (c.deviation(order) for c in self.by_size[name][-2:])
        return float(np.log2(last / smallest))


# The orders of which each prior has a cumulant.
ORDERS = {"Gaussian": (2,), "spin": (2, 4), "skewed": (2, 3, 4), "sparse": (2, 4)}


def measure(settings: Settings, seed: int, moments: bool = False) -> Found:
    """Couplings under all priors, at five sizes of the weights. **Example:** `measure(Settings(), 0)`."""
    rng = np.random.default_rng(seed)
    bias = 0.3 * rng.normal(size=settings.visible)
    weights = settings.weight * rng.normal(size=(settings.visible, settings.hidden))
    sizes = 0.5 ** np.arange(5)
    found = {
        name: [couplings(prior, bias, s * weights, moments) for s in sizes]
        for name, prior in priors().items()
    }
    return Found(settings.weight * sizes, found)


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Couplings of visible units by exact sums, and the cumulants of hidden priors: figure couplings.png;
    result.nc holds measured and predicted couplings by prior, subset and size of the weights.

    **Example:** `vfe run boltzmann --set visible=8`.
    """
    from vfe.gallery.physics.boltzmann_page import write_up

    with jax.enable_x64(True):
        progress.start("sums over all states", 1)
        found = measure(settings, seed)
        progress.step()
        progress.done()
    return write_up(settings, found)
