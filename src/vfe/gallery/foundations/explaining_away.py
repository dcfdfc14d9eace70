"""Explaining away: causes that share their effects compete, which one pass forward does not settle.

Two causes are independent before anything is seen. Once an effect of both is seen, each makes the other
less needed: p(burglary | alarm, earthquake) < p(burglary | alarm). Recognition must let causes talk to
each other.

Here four causes have six effects, one for each pair (noisy-OR). A feed-forward encoder with one weight
for every effect and cause, trained on F over everything that may be seen, is compared with beliefs of the
same family, independent causes, that are iterated from the encoder's guess through the model itself, with
no weights of their own. Expected: F(encoder) > F(iterated) ≥ −ln p(x); what is left above −ln p(x) is the
family's. Where every effect has one cause only, the log-odds of causes are sums over effects, and the
encoder is exact: nothing is left to iterate. It does not say that no encoder can do it: one with an
output for every pattern would.

It would be refuted by an encoder that does as well as iteration where causes share effects, by iterations
that raise F, or by an encoder that falls short where they do not share.
"""

import dataclasses
import itertools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import vfe
from vfe.gallery.job import JobResult, Progress, Workspace

CAUSES = 4
PAIRS = tuple(itertools.combinations(range(CAUSES), 2))
PATTERNS = np.array(list(itertools.product((0, 1), repeat=len(PAIRS))))


@dataclasses.dataclass(frozen=True)
class Settings:
    """How probable causes are, and how reliably they have their effects."""

    prior: float = dataclasses.field(default=0.2, metadata={"help": "how probable every cause is"})
    strength: float = dataclasses.field(
        default=0.85, metadata={"help": "how probable an effect is by one of its causes"}
    )
    leak: float = dataclasses.field(
        default=0.02, metadata={"help": "how probable an effect is without any of its causes"}
    )
    starts: int = dataclasses.field(
        default=4, metadata={"help": "random starts of the encoder's training, besides zero"}
    )

    def __post_init__(self) -> None:
        if self.starts < 0:
            raise ValueError(f"explaining-away: got starts={self.starts}; wanted none or more.")
        for name in ("prior", "strength", "leak"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"explaining-away: got {name}={getattr(self, name)}; wanted a probability between 0 "
                    f"and 1."
                )


class Recognised(NamedTuple):
    """All 64 patterns of effects under one model. `weight`: p(x); `surprise`, `encoder`, `iterated`: −ln
    p(x) and F of the two beliefs, by pattern; `trace`: F by pattern and iteration, from the encoder's on;
    `posterior`, `encoded`, `found` (64, 4): probability of every cause; `parameters`: the encoder's."""

    weight: np.ndarray
    surprise: np.ndarray
    encoder: np.ndarray
    iterated: np.ndarray
    trace: np.ndarray
    posterior: np.ndarray
    encoded: np.ndarray
    found: np.ndarray
    parameters: int

    def mean(self, free: np.ndarray) -> float:
        """Over what may be seen. **Example:** `recognised.mean(recognised.encoder)`."""
        return float(self.weight @ free)


class Found(NamedTuple):
    """`alarm`: p(burglary), given the alarm, and given the earthquake too; `shared`, `alone`: recognition
    where effects have two causes, and where they have one."""

    alarm: tuple[float, float, float]
    shared: Recognised
    alone: Recognised


def effects(settings: Settings, shared: bool) -> np.ndarray:
    """p(effect = 1 | causes), (6, 2, 2, 2, 2): of both causes of a pair if `shared`, else of one in turn.

    **Example:** `effects(Settings(), True)[0, 1, 0, 0, 0]` is 0.853.
    """
    states = np.indices((2,) * CAUSES)
    found = []
    for k, pair in enumerate(PAIRS):
        active = sum(states[i] for i in (pair if shared else (k % CAUSES,)))
        found.append(1 - (1 - settings.leak) * (1 - settings.strength) ** active)
    return np.stack(found)


def model(settings: Settings, shared: bool) -> vfe.Model:
    """Four causes above one node, the pattern of effects. **Example:** `model(Settings(), True).order`."""
    chance = effects(settings, shared)
    on = PATTERNS.T[:, :, None, None, None, None]
    table = np.where(on, chance[:, None], 1 - chance[:, None]).prod(0)
    cause = vfe.categorical(np.array([1 - settings.prior, settings.prior]))
    causes = {f"z{i}": cause for i in range(CAUSES)}
    return vfe.Model(**causes, x=vfe.categorical(table, parents=tuple(causes)))


def alarm(settings: Settings) -> tuple[float, float, float]:
    """p(burglary), p(burglary | alarm), p(burglary | alarm, earthquake).

    **Example:** `alarm(Settings())`.
    """
    chance = effects(settings, True)[0, :, :, 0, 0]
    found = [settings.prior]
    with jax.enable_x64(True):
        cause = vfe.categorical(np.array([1 - settings.prior, settings.prior]))
        rings = vfe.Model(
            burglary=cause,
            earthquake=cause,
            alarm=vfe.categorical(np.stack([1 - chance, chance]), parents=("burglary", "earthquake")),
        )
        for seen in ({"alarm": np.array(1)}, {"alarm": np.array(1), "earthquake": np.array(1)}):
            belief: Any = vfe.exact.posterior(rings, seen)
            found.append(float(belief["burglary"].probabilities[1]))
    return found[0], found[1], found[2]


def _beliefs(parameters: Any) -> vfe.Categorical:
    """One weight per effect and cause, and a bias per cause."""
    weights = parameters.reshape(len(PAIRS) + 1, CAUSES)
    logits = PATTERNS @ weights[:-1] + weights[-1]
    return vfe.Categorical(
        {f"z{i}": jnp.stack([jnp.zeros(len(PATTERNS)), logits[:, i]], -1) for i in range(CAUSES)}
    )


@eqx.filter_jit
def _mean_free_energy(parameters: Any, under: vfe.Model, weight: Any) -> Any:
    data = {"x": jnp.arange(len(PATTERNS))}

    def value(parameters: Any) -> Any:
        return vfe.free_energy(under, _beliefs(parameters), data).total @ weight

    return jax.value_and_grad(value)(parameters)


def recognise(settings: Settings, shared: bool, seed: int = 0) -> Recognised:
    """Train the encoder from several starts, and iterate from the best. **Example:**
    `recognise(Settings(), True).surprise`."""
    from scipy.optimize import minimize

    def chances(belief: Any) -> np.ndarray:
        return np.stack([np.asarray(belief[f"z{i}"].probabilities)[:, 1] for i in range(CAUSES)], 1)

    with jax.enable_x64(True):
        under, data = model(settings, shared), {"x": np.arange(len(PATTERNS))}
        surprise = -np.asarray(vfe.exact.log_evidence(under, data))
        weight = np.exp(-surprise)

        def objective(parameters: np.ndarray) -> Any:
            value, slope = _mean_free_energy(jnp.asarray(parameters), under, jnp.asarray(weight))
            return float(value), np.asarray(slope)

        size = (len(PAIRS) + 1) * CAUSES
        options = {"gtol": 1e-9, "maxiter": 1000}
        random = np.random.default_rng(seed)
        starts = [np.zeros(size), *0.5 * random.normal(size=(settings.starts, size))]
        learned: list[Any] = [
            minimize(objective, start, jac=True, method="BFGS", options=options) for start in starts
        ]
        belief = _beliefs(jnp.asarray(min(learned, key=lambda one: one.fun).x))
        percept = vfe.perceive(
            under, data, belief=belief, solver=vfe.CoordinateAscent(), max_steps=50, throw=False
        )
        return Recognised(
            weight,
            surprise,
            np.asarray(vfe.free_energy(under, belief, data).total),
            np.asarray(percept.free_energy.total),
            np.asarray(percept.trace),
            chances(vfe.exact.posterior(under, data)),
            chances(belief),
            chances(percept.belief),
            size,
        )


def find(settings: Settings, seed: int) -> Found:
    """All parts of the experiment. **Example:** `find(Settings(), 0).alarm`."""
    return Found(alarm(settings), recognise(settings, True, seed), recognise(settings, False, seed))


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Causes that share effects, and causes that do not: figure explaining_away.png.

    **Example:** `vfe run explaining-away`.
    """
    from vfe.gallery.foundations.explaining_away_page import write_up

    progress.start("recognition", 1)
    found = find(settings, seed)
    progress.step(F=found.shared.mean(found.shared.iterated))
    progress.done()
    return write_up(settings, found)
