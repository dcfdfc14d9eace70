"""Bistable percepts: one stimulus, two interpretations, and noise that alternates between them.

Two causes a and b, such as what either eye shows, are sensed through their sum and their product,
x = (a + b, a b) + noise. Something strong is seen, x_1 = s, and no overlap, x_2 = 0: either cause explains
it, and each explains the other away; both at once do not. The energy E = −ln p(x, z) has two valleys of one
depth. Recognition descends it, with the noise of units,

dz = −∂E/∂z dt + √(2T) dW.

Expected: without noise (T = 0) a percept stays what it is. With T = 1 the dynamics are a sampler of
p(z | x), so that percepts alternate, share time as the posterior does, e^−F each, and last

τ_A = ∫ p q / ∫ p |∂q/∂z|²,

q(z) the probability that A was visited last, −∇·(p ∇q) = 0. The dynamics keep no memory, so how long a
percept lasts varies as much as it lasts; percepts of people are more regular, for which a model needs
fatigue. Context, a prior that expects one cause, gives its percept more time. Where the overlap is seen
too (x_2 = s²/4) there is one percept, of both.

It would be refuted by alternation without noise or none with it, by shares or durations other than those
of the posterior, as noise of another size has them, or by two percepts of a stimulus that is not ambiguous.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vfe
from vfe.gallery.job import JobResult, Progress, Workspace

# Standard deviations of the sensed sum and product.
SUM, PRODUCT = 0.5, 0.8
# (a − b)/√2 beyond which a percept counts as reached, so that trembling on the ridge is no alternation.
CORE = 1.0
STEP, OFTEN = 0.002, 10  # of time, and after how many of them states are kept
SETTLING = 40.0  # time before anything counts
KINDS = ("ambiguous", "with context", "overlap seen", "without noise")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The stimulus, the context, the noise, and how much is simulated."""

    strength: float = dataclasses.field(default=4.0, metadata={"help": "s, of the stimulus"})
    context: float = dataclasses.field(default=0.2, metadata={"help": "by how much more a is expected"})
    temperature: float = dataclasses.field(default=1.0, metadata={"help": "T, of the units' noise"})
    chains: int = dataclasses.field(default=64, metadata={"help": "observers, each with its own noise"})
    duration: float = dataclasses.field(default=400.0, metadata={"help": "for which each one looks"})
    draws: int = dataclasses.field(default=20000, metadata={"help": "of vfe.Langevin, in each of 8 chains"})

    def __post_init__(self) -> None:
        if not 2 <= self.strength <= 5 or not 0 <= self.context <= 1 or not self.temperature >= 0:
            raise ValueError(
                f"bistable: got strength={self.strength}, context={self.context} and "
                f"temperature={self.temperature}; wanted a strength from 2 to 5, a context from 0 to 1, "
                f"and no temperature below zero."
            )
        if self.chains < 8 or not 20 <= self.duration <= 1e4 or self.draws < 100:
            raise ValueError(
                f"bistable: got chains={self.chains}, duration={self.duration} and draws={self.draws}; "
                f"wanted 8 chains, a duration of 20 to 10000, and 100 draws, or more."
            )


def model() -> vfe.Model:
    """p(x | z) p(z | context) p(context). **Example:** `model().order`."""
    return vfe.Model(
        context=vfe.gaussian(jnp.zeros(1)),
        z=vfe.gaussian(vfe.Affine(jnp.array([[1.0], [0.0]])), parents="context"),
        x=vfe.gaussian(
            lambda z: jnp.stack([z[0] + z[1], z[0] * z[1]]), scale=jnp.array([SUM, PRODUCT]), parents="z"
        ),
    )


def stimuli(settings: Settings) -> dict[str, np.ndarray]:
    """What is sensed and expected, by kind. **Example:** `stimuli(Settings())["x"]` is (4, 2)."""
    s = settings.strength
    return {
        "x": np.array([[s, 0.0], [s, 0.0], [s, s**2 / 4], [s, 0.0]]),
        "context": np.array([[0.0], [settings.context], [0.0], [0.0]]),
    }


class Percepts(NamedTuple):
    """By kind, and by the percept where recognition began (a, b): `mode` (4, 2, 2), `free_energy` (4, 2) of
    Gaussian beliefs around them; `rise`: the most that the energy rises in a step of the flow."""

    mode: np.ndarray
    free_energy: np.ndarray
    rise: float


class Course(NamedTuple):
    """By kind and chain: `side` (4, time) of z, (a − b)/√2, of the first chain; `share` (4, chains) of
    time with a > b; `changes` and `lasting` (4, 2, chains): how often percepts a and b ended, and all the
    time they had; `whole`: durations of percepts seen from beginning to end, ambiguous alone."""

    side: np.ndarray
    share: np.ndarray
    changes: np.ndarray
    lasting: np.ndarray
    whole: np.ndarray


class Expected(NamedTuple):
    """By quadrature, for the first two kinds: `share` (2,) of a > b, `lasts` (2, 2): mean duration of a and
    of b, `surprise` (2,)."""

    share: np.ndarray
    lasts: np.ndarray
    surprise: np.ndarray


class Found(NamedTuple):
    """`percepts` of the flow without noise, the `course` with it, what is `expected`, and the share of
    a > b by chain of `vfe.Langevin`, `drawn` (2, 8)."""

    percepts: Percepts
    course: Course
    expected: Expected
    drawn: np.ndarray


def perceive(settings: Settings) -> Percepts:
    """Where the flow without noise ends from either side.

    **Example:** `perceive(Settings()).mode[0]`.
    """
    import diffrax

    seen, s = stimuli(settings), settings.strength
    starts = np.array([[s, 0.5], [0.5, s]])
    data = {name: np.repeat(values, 2, axis=0) for name, values in seen.items()}
    under = model()
    start = vfe.Point.from_values(under, {"z": np.tile(starts, (len(KINDS), 1))})
    belief = vfe.Laplace.from_vector(start.layout, start.location)
    # Nothing here is stiff: an explicit scheme does.
    flow = vfe.GradientFlow(solver=diffrax.Heun())
    percept = vfe.perceive(under, data, belief=belief, solver=flow)
    return Percepts(
        np.asarray(percept.belief["z"].mean).reshape(-1, 2, 2),
        np.asarray(percept.free_energy.total).reshape(-1, 2),
        float(np.diff(np.asarray(percept.trace), axis=-1).max()),
    )


def simulate(settings: Settings, seed: int) -> Course:
    """Recognition with noise, half of the chains from either percept, and, last, without.

    **Example:** `simulate(Settings(chains=8, duration=20.0), 0).share.mean(1)`.
    """
    seen, built = stimuli(settings), model()
    heat = np.array([settings.temperature] * 3 + [0.0])[:, None, None]
    blocks = round((SETTLING + settings.duration) / (STEP * OFTEN))
    s = settings.strength

    def energy(z: Any, x: Any, context: Any) -> Any:
        values = {"x": x, "context": context, "z": z}
        return sum(built.energies(values).values())

    slope = jax.vmap(jax.vmap(jax.grad(energy), (0, None, None)))
    start = np.where(np.arange(settings.chains)[:, None] % 2, [[0.5, s]], [[s, 0.5]])
    start = jnp.asarray(np.broadcast_to(start, (len(KINDS), *start.shape)))

    def block(carry: Any, key: Any, spread: Any) -> Any:
        noise = spread * jax.random.normal(key, (OFTEN, *start.shape))

        def one(k: Any, carry: Any) -> Any:
            z, label = carry
            z = z - STEP * slope(z, seen["x"], seen["context"]) + noise[k]
            side = (z[..., 0] - z[..., 1]) / np.sqrt(2)
            return z, jnp.where(side >= CORE, 1, jnp.where(side <= -CORE, -1, label))

        z, label = jax.lax.fori_loop(0, OFTEN, one, carry)
        return (z, label), ((z[..., 0] - z[..., 1]) / np.sqrt(2), label)

    @jax.jit
    def all_blocks(key: Any, spread: Any) -> Any:
        first = start, jnp.sign(start[..., 0] - start[..., 1]).astype(int)
        return jax.lax.scan(partial(block, spread=spread), first, jax.random.split(key, blocks))[1]

    kept = all_blocks(jax.random.key(seed), np.sqrt(2 * heat * STEP))
    side, label = (np.moveaxis(np.asarray(part), 0, -1) for part in kept)
    # What came before the percepts had time to mix is not counted.
    skipped = round(SETTLING / (STEP * OFTEN))
    return measured(side[..., skipped:], label[..., skipped:])


def measured(side: np.ndarray, label: np.ndarray) -> Course:
    """Shares, ends and durations of percepts, from (kinds, chains, time).

    **Example:** `measured(side, np.sign(side).astype(int)).changes`.
    """
    unit = STEP * OFTEN
    ends = np.diff(label, axis=-1) != 0
    changes = np.stack([(ends & (label[..., :-1] == sign)).sum(-1) for sign in (1, -1)], 1)
    lasting = np.stack([(label[..., :-1] == sign).sum(-1) for sign in (1, -1)], 1) * unit
    whole = [np.diff(np.flatnonzero(chain)) * unit for chain in ends[0]]
    return Course(side[:, 0], (side > 0).mean(-1), changes, lasting, np.concatenate(whole))


def draw_posterior(settings: Settings, seed: int) -> np.ndarray:
    """Share of a > b in the draws of `vfe.Langevin`, (2, 8).

    **Example:** `draw_posterior(Settings(draws=200), 0).mean(1)`.
    """
    seen = {name: values[:2] for name, values in stimuli(settings).items()}
    sampler = vfe.Langevin(chains=8, draws=settings.draws, warm_up=1000)
    percept = vfe.perceive(model(), seen, solver=sampler, key=jax.random.key(seed))
    z = np.asarray(percept.belief.coordinates)
    return (z[..., 0] > z[..., 1]).mean(-1)


def expect(settings: Settings, points: int = 40) -> Expected:
    """Shares, durations and surprise by quadrature, on a grid of `points` per unit of (a ± b)/√2.

    **Example:** `expect(Settings()).lasts[0]` is about 13.2.
    """
    seen, built = stimuli(settings), model()
    h = CORE / points
    reach = 5 * points
    u, v = h * np.arange(-reach, reach + 1), h * np.arange(-2 * points, 6 * points)
    across, along = np.meshgrid(u, v, indexing="ij")
    z = np.stack([along + across, along - across], -1) / np.sqrt(2)
    share, lasts, surprise = [], [], []
    for x, context in zip(seen["x"][:2], seen["context"][:2], strict=True):
        given = {"x": x, "context": context}
        given = {name: np.broadcast_to(value, (*across.shape, len(value))) for name, value in given.items()}
        parts = built.energies({"z": z, **given})
        energy = np.asarray(sum(parts.values()))
        weight = np.exp(energy.min() - energy)
        surprise.append(energy.min() - np.log(weight.sum() * h**2))
        density = weight / weight.sum()
        share.append(density[u > 0].sum() + 0.5 * density[u == 0].sum())
        ridge = slice(reach - points, reach + points + 1)
        inside, flux = committor(density[ridge], h)
        last = np.repeat((u > 0).astype(float)[:, None], len(v), 1)
        last[ridge] = inside
        lasts.append([(density * last).sum() / flux, (density * (1 - last)).sum() / flux])
    return Expected(np.array(share), np.array(lasts), np.array(surprise))


def committor(density: np.ndarray, spacing: float) -> tuple[np.ndarray, float]:
    """q on a grid, 0 in its first row and 1 in its last, with −∇·(p ∇q) = 0, and the flux ∫ p |∇q|².

    **Example:** `committor(np.full((5, 3), 1 / 15), 0.25)[0][:, 0]` rises evenly from 0 to 1.
    """
    import scipy.sparse as sparse
    from scipy.sparse.linalg import spsolve

    index = np.arange(density.size).reshape(density.shape)
    rows, columns, values = [], [], []
    for one, other in (
        ((slice(1, None),), (slice(-1),)),
        ((slice(None), slice(1, None)), (slice(None), slice(-1))),
    ):
        between = np.sqrt(density[one] * density[other]).ravel() / spacing**2
        rows += [index[one].ravel(), index[other].ravel()]
        columns += [index[other].ravel(), index[one].ravel()]
        values += [between, between]
    joined = np.concatenate(rows), np.concatenate(columns)
    links = sparse.csr_matrix((np.concatenate(values), joined), shape=(density.size,) * 2)
    balance: Any = (sparse.diags(np.asarray(links.sum(1)).ravel()) - links).tocsr()
    found = np.zeros(density.shape)
    found[-1] = 1.0
    free = np.zeros(density.shape, bool)
    # Where p is nothing beside its largest value the equation is too, and q any number.
    free[1:-1] = density[1:-1] > 1e-12 * density.max()
    q, free = found.ravel(), free.ravel()
    solved: Any = spsolve(balance[free][:, free].tocsc(), -(balance[free] @ q))
    q[free] = solved
    return q.reshape(density.shape), float(q @ (balance @ q))


def find(settings: Settings, seed: int) -> Found:
    """All parts of the experiment. **Example:** `find(Settings(), 0).course.share.mean(1)`."""
    with jax.enable_x64(True):
        return Found(
            perceive(settings),
            simulate(settings, seed),
            expect(settings),
            draw_posterior(settings, seed),
        )


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Percepts without noise, and their alternation with it: figure bistable.png.

    **Example:** `vfe run bistable`.
    """
    from vfe.gallery.foundations.bistable_page import write_up

    progress.start("percepts", 1)
    found = find(settings, seed)
    progress.step(F=float(found.percepts.free_energy[0, 0]))
    progress.done()
    return write_up(settings, found)
