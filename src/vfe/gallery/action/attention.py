"""Attention is precision: a cue that raises a precision speeds the response, and the right precision has
the least F.

Two places may show a target, x_i = z_i + noise. How precise each place's prediction error is taken to be
depends on a hidden state a, of which a cue tells: Π_i = exp(b ± g a), cue = a + noise. Perception descends
the energy of all of it, so that precision is the gain of the error units,

dz_i/dt = −∂E/∂z_i = Π_i (x_i − z_i) − z_i.

Expected (Posner's task): a belief passes the threshold soonest where the cue points (valid), later where
it says nothing (neutral), last where it points elsewhere (invalid). And gain may not be turned up at will:
of all precisions assumed, that of the noise has the least F, −⟨ln p(x)⟩; less and more both cost.

It would have been refuted by responses in another order or at the same time, as they are with a gain g of
zero (the order is reversed where it is negative), or by a least F at another precision than that of the
noise.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vfe
from vfe.gallery.intervals import Interval, mean_of
from vfe.gallery.job import JobResult, Progress, Workspace
from vfe.gallery.settings import about
from vfe.results.claims import Claim
from vfe.results.report import Report, Section, Table, picture
from vfe.results.style import BLUE, GREEN, INK, RED, style

CUES = {"valid": 1.0, "neutral": 0.0, "invalid": -1.0}
COLOURS = {"valid": BLUE, "neutral": GREEN, "invalid": RED}
# Time of a step of the descent, and how long the cue is shown, then the target; the prior's precision is 1.
STEP, CUE_TIME, TARGET_TIME = 0.004, 1.0, 4.0
CUE_SD = 0.2


@dataclasses.dataclass(frozen=True)
class Settings:
    """The task and the agent."""

    trials: int = about("of each kind, with the same noise", 100)
    gain: float = about("g, by how much a cue moves a log-precision", 1.0)
    log_precision: float = about("b, ln precision of a place without a cue", 1.4)
    target: float = about("strength of the target", 2.0)
    threshold: float = about("of the belief, at which a response is made", 0.8)
    noise: float = about("sd of the sensations", 0.3)
    samples: int = about("of a second series, whose noise has precision 1", 4000)

    def __post_init__(self) -> None:
        if self.trials < 10 or self.samples < 100 or not self.noise > 0:
            raise ValueError(
                f"attention: got trials={self.trials}, samples={self.samples} and noise={self.noise}; "
                f"wanted "
                "10 trials and 100 samples or more, and noise above zero."
            )
        if not 0 < self.threshold < self.target:
            raise ValueError(
                f"attention: got threshold={self.threshold} and target={self.target}; wanted a threshold "
                "between zero and the target."
            )


def model(settings: Settings) -> vfe.Model:
    """p(x | z, a) p(cue | a) p(z) p(a): a says how precise the sensations of two places are.

    **Example:** `model(Settings()).sample(jax.random.key(0), 3)`.
    """
    signs = jnp.array([1.0, -1.0])

    def precision(z: Any, attended: Any) -> Any:
        return jnp.exp(settings.log_precision + settings.gain * signs * attended)

    return vfe.Model(
        attended=vfe.gaussian(jnp.zeros(1)),
        cue=vfe.gaussian(lambda attended: attended, scale=CUE_SD, parents="attended"),
        z=vfe.gaussian(jnp.zeros(2)),
        x=vfe.gaussian(lambda z, attended: z, precision=precision, parents=("z", "attended")),
    )


class Responses(NamedTuple):
    """By cue: `belief` (steps, trials) of the target's place from its onset on, `time` (trials,) until it
    passes the threshold (the whole time where it never does), `log_precision` (trials,) of that place
    after the cue."""

    time_axis: np.ndarray
    belief: dict[str, np.ndarray]
    time: dict[str, np.ndarray]
    log_precision: dict[str, np.ndarray]


def respond(settings: Settings, seed: int) -> Responses:
    """Trials of Posner's task: a cue alone, then the target at the first place.

    **Example:** `respond(Settings(), 0).time["valid"].mean()`.
    """
    steps = round(TARGET_TIME / STEP)
    with jax.enable_x64(True):
        built = model(settings)

        def energy(hidden: Any, cue: Any, x: Any, shown: Any) -> Any:
            values = {"attended": hidden[:1], "z": hidden[1:], "cue": cue[None], "x": x}
            parts = built.energies(values)
            # A target that is not there yet drops out; it is not seen as darkness.
            return parts["attended"] + parts["cue"] + parts["z"] + shown * parts["x"]

        slope = jax.grad(energy)

        def trial(cue: Any, x: Any) -> Any:
            def phase(hidden: Any, shown: float, count: int) -> Any:
                def step(hidden: Any, _: Any) -> Any:
                    return hidden - STEP * slope(hidden, cue, x, shown), hidden[1]

                return jax.lax.scan(step, hidden, None, length=count)

            ready, _ = phase(jnp.zeros(3), 0.0, round(CUE_TIME / STEP))
            _, belief = phase(ready, 1.0, steps)
            return belief, settings.log_precision + settings.gain * ready[0]

        x = np.random.default_rng(seed).normal(size=(settings.trials, 2)) * settings.noise
        x[:, 0] += settings.target
        found = jax.jit(jax.vmap(jax.vmap(trial, (None, 0)), (0, None)))(np.array(list(CUES.values())), x)
        beliefs, precisions = (np.asarray(part) for part in found)
    times = STEP * np.arange(steps)
    passed = beliefs >= settings.threshold
    first = np.where(passed.any(2), times[passed.argmax(2)], TARGET_TIME)
    return Responses(
        times,
        {name: beliefs[k].T for k, name in enumerate(CUES)},
        {name: first[k] for k, name in enumerate(CUES)},
        {name: precisions[k] for k, name in enumerate(CUES)},
    )


class Sweep(NamedTuple):
    """F per sample, nats, by the ln precision that is assumed; `best`: where it is least."""

    log_precision: np.ndarray
    free_energy: np.ndarray
    best: float


def sweep(settings: Settings, seed: int, true_precision: float = 1.0) -> Sweep:
    """F = −⟨ln p(x)⟩ of x = z + noise under assumed precisions of the noise.

    **Example:** `sweep(Settings(), 0).best`.
    """
    rng = np.random.default_rng([seed, 1])
    x = rng.normal(size=(settings.samples, 1))
    x = x + rng.normal(size=x.shape) / math.sqrt(true_precision)
    grid = np.linspace(-3.0, 3.0, 49)

    def free(log_precision: Any) -> Any:
        assumed = vfe.Model(
            z=vfe.gaussian(jnp.zeros(1)),
            x=vfe.gaussian(vfe.Affine(jnp.eye(1)), precision=jnp.exp(log_precision), parents="z"),
        )
        return -vfe.exact.log_evidence(assumed, {"x": jnp.asarray(x)}).mean()

    with jax.enable_x64(True):
        values = np.asarray(jax.jit(jax.vmap(free))(grid))
    # The vertex of the parabola through the least value and its neighbours.
    k = int(np.clip(values.argmin(), 1, len(grid) - 2))
    low, middle, high = values[k - 1 : k + 2]
    best = grid[k] + 0.5 * (grid[1] - grid[0]) * (low - high) / (low - 2 * middle + high)
    return Sweep(grid, values, float(best))


def apart(found: Responses, later: str, sooner: str) -> Interval:
    """By how much responses to one cue are later than to another, trial by trial.

    **Example:** `apart(respond(Settings(), 0), "invalid", "valid").low`.
    """
    return mean_of(found.time[later] - found.time[sooner])


def claims(found: Responses, matched: Sweep) -> list[Claim]:
    """What would have refuted it: another order of responses, or a least F elsewhere.

    **Example:** `claims(respond(Settings(), 0), sweep(Settings(), 0))[0].holds`.
    """
    grid, free = matched.log_precision, matched.free_energy
    wrong = [float(free[np.abs(grid - off).argmin()] - free.min()) for off in (-2.0, 2.0)]
    return [
        Claim(
            "benefit: responses to a valid cue are sooner than to a neutral one, lower end",
            float(apart(found, "neutral", "valid").low),
            1e-3,
        ),
        Claim(
            "cost: responses to an invalid cue are later, lower end",
            float(apart(found, "invalid", "neutral").low),
            1e-3,
        ),
        # Four standard errors of the estimate from 4000 samples are 0.18.
        Claim("ln precision of least F, where the noise has 0", matched.best, -0.2, 0.2),
        Claim("e² times too little precision costs", wrong[0], 0.05, unit="nats per sample"),
        Claim("e² times too much costs", wrong[1], 0.05, unit="nats per sample"),
    ]


def run(
    settings: Settings,
    *,
    seed: int,
    data: dict[str, np.ndarray] | None,
    folder: Workspace,
    progress: Progress,
    resume: bool,
) -> JobResult:
    """Posner's task, and F by the precision assumed: figure attention.png; result.nc holds beliefs,
    response times and F.

    **Example:** `vfe run attention`.
    """
    import xarray as xr

    progress.start("trials", 1)
    found, matched = respond(settings, seed), sweep(settings, seed)
    progress.step(F=float(matched.free_energy.min()))
    progress.done()
    figures = {"attention": draw(settings, found, matched)}
    times = {name: mean_of(1000 * found.time[name]) for name in CUES}
    headline = [(f"response, {name} cue (thousandths)", each.text(".0f")) for name, each in times.items()]
    headline.append(("ln precision of least F (noise: 0)", f"{matched.best:.2f}".replace("-", "−")))
    rows = [
        [name, f"{found.log_precision[name].mean():.2f}", each.text(".0f"), f"{_missed(found, name):.0f}"]
        for name, each in times.items()
    ]
    section = Section(
        "A cue, then a target",
        "While only the cue is shown, the sensations of the target drop out of the energy and the cue "
        "moves what is "
        "believed of precision. When the target comes, its prediction error is weighed by that. What "
        "would have refuted this: responses in another order, or at one time, as they come with a gain of "
        "zero.\n\n"
        "Precision is no volume to be turned up: F of a series of sensations is least where the precision "
        "that is "
        "assumed is that of its noise.",
        [
            picture(
                figures["attention"],
                "Left: belief in the target, mean over trials, and the threshold (dotted). Middle: time "
                "until "
                "it is passed, with 95 % intervals over trials. Right: F by the precision assumed; dotted: "
                "that "
                "of the noise.",
                "The belief rises fastest after a valid cue, slowest after an invalid one. F is least at "
                "the "
                "precision of the noise.",
            )
        ],
        Table(
            ["cue", "ln precision at the target", "response (thousandths)", "never (%)"],
            rows,
            "Time is counted in units of one over the prior's precision; never: the threshold was not "
            "passed.",
        ),
    )
    return JobResult(
        model={"ln precision": np.stack([found.log_precision[name] for name in CUES])},
        dataset=xr.Dataset(
            {
                "belief": (("cue", "time", "trial"), np.stack([found.belief[name] for name in CUES])),
                "response": (("cue", "trial"), np.stack([found.time[name] for name in CUES])),
                "free_energy": ("log_precision", matched.free_energy, {"units": "nats per sample"}),
            },
            coords={"cue": list(CUES), "time": found.time_axis, "log_precision": matched.log_precision},
        ),
        figures=figures,
        report=Report(
            "Attention is precision",
            "A cue says where a target will be. It moves no belief about targets, only how precise "
            "sensations are "
            "taken to be at either place; precision is the gain of prediction errors, and so beliefs move "
            "faster where "
            f"the cue points: {times['valid'].text('.0f')} thousandths of a unit of time after a valid "
            f"cue, "
            f"{times['neutral'].text('.0f')} after a neutral one, {times['invalid'].text('.0f')} after an "
            f"invalid one.",
            [section],
            headline,
        ),
        headline=headline,
        claims=claims(found, matched),
    )


def _missed(found: Responses, name: str) -> float:
    return 100 * float((found.time[name] >= TARGET_TIME).mean())


def draw(settings: Settings, found: Responses, matched: Sweep) -> Any:
    """Beliefs, response times, and F by precision. **Example:** `draw(settings, found, matched)`."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(12.0, 4.0), layout="constrained")
        one, two, three = figure.subplots(1, 3, width_ratios=(1.3, 0.9, 1.1))
        for k, (name, belief) in enumerate(found.belief.items()):
            one.plot(found.time_axis, belief.mean(1), color=COLOURS[name], label=name)
            time = mean_of(found.time[name])
            half = [[time.value - time.low], [time.high - time.value]]
            two.bar(k, time.value, yerr=half, capsize=4, color=COLOURS[name])
        one.axhline(settings.threshold, color=INK, linestyle=":", linewidth=1.2)
        one.set(xlabel="time from the target's onset", ylabel="belief in the target", xlim=(-0.05, 1.5))
        one.set_title("belief by cue")
        one.legend(loc="lower right")
        two.set_xticks(range(len(CUES)), list(CUES))
        two.set(ylabel="time until the threshold")
        two.set_title("response")
        three.plot(matched.log_precision, matched.free_energy, color=BLUE)
        three.plot(matched.best, matched.free_energy.min(), "o", color=BLUE, label="least F")
        three.axvline(0.0, color=INK, linestyle=":", linewidth=1.2)
        three.set(xlabel="ln precision assumed", ylabel="F (nats per sample)")
        three.set_title("F by precision; dotted: of the noise")
        three.legend()
    return figure
