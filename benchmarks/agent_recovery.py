"""Are the parameters of agents recovered from their choices, and do the intervals cover the truth?

    python benchmarks/agent_recovery.py [--subjects 300] [--only bandit|reversals|tmaze] [--plot FOLDER]

Draws the parameters of every subject from the prior, lets agents with them live, and fits the agents to
what they did. Prints, in unconstrained coordinates, correlation, mean error, and how many 95 % intervals
hold the truth (wanted: 0.9 or more where the design tells parameters apart, and 90 to 98 %).
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

import vfe
from vfe.discrete import behaviour as b
from vfe.discrete.worlds import POMDPWorld, bandit, tmaze

HAZARD = 0.05
PRECISION, BIAS = b.positive(1.5, 0.5), b.real(0.0, 1.0)


def reversal_agent(parameters, pays=0.8):
    """Two arms that change places; utility alone, so that precision, bias and hazard are told apart."""
    arms, bias = bandit((pays, 1 - pays), reward=1.0, loss=-1.0), parameters["bias"]
    h = parameters.get("hazard", jnp.full((), HAZARD))
    change = jnp.stack([jnp.stack([1 - h, h]), jnp.stack([h, 1 - h])])
    model = vfe.discrete.POMDP(
        arms.A,
        [change[..., None], arms.B[1]],
        arms.C,
        arms.D,
        jax.nn.softmax(jnp.stack([jnp.zeros_like(bias), bias])),
        A_dependencies=arms.A_dependencies,
    )
    terms = vfe.discrete.Terms(state_information=None)
    return vfe.discrete.Agent(
        model, 1, terms=terms, precision=parameters["precision"], action_precision=1.0
    )


def surer_agent(parameters):
    """The same where the better arm pays nine times of ten, which shows what is believed sooner."""
    return reversal_agent(parameters, 0.9)


def maze_agent(parameters):
    """A T-maze with a cue: how much is expected information worth, and how surely is the best done."""
    return vfe.discrete.Agent(
        tmaze(),
        2,
        terms=vfe.discrete.Terms(state_information=parameters["curiosity"]),
        precision=parameters["precision"],
        action_precision=1.0,
    )


DESIGNS = {
    "bandit": (
        reversal_agent,
        bandit((0.8, 0.2), hazard=HAZARD),
        200,
        {"precision": PRECISION, "bias": BIAS},
    ),
    "reversals": (
        surer_agent,
        bandit((0.9, 0.1), hazard=0.1),
        800,
        {"precision": PRECISION, "bias": BIAS, "hazard": b.probability(0.1, 1.0, upper=0.5)},
    ),
    "tmaze": (
        maze_agent,
        POMDPWorld(tmaze(), episode=3),
        300,
        {"precision": b.positive(1.0, 0.5), "curiosity": b.real(1.0, 1.0)},
    ),
}


def study(name: str, subjects: int, seed: int):
    """The recovery of one design."""
    agent_of, world, steps, prior = DESIGNS[name]
    rng = np.random.default_rng(seed)
    drawn = {n: p.coordinate + p.sd * rng.normal(size=subjects) for n, p in prior.items()}
    true = {n: np.asarray(p.support.decode(jnp.asarray(drawn[n]))) for n, p in prior.items()}
    history = vfe.live(agent_of, world, steps, jax.random.key(seed), each=true, keep=())
    jax.block_until_ready(history.actions)
    start = time.perf_counter()
    fitted = b.fit_choices(agent_of, history, prior=prior, throw=False)
    first = time.perf_counter() - start
    print(f"\n{name}: {steps} outcomes each, fitted in {first:.1f} s with compilation")
    return b.recovery(true, fitted)


def main() -> None:
    """Every design in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--subjects", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=DESIGNS)
    parser.add_argument("--plot", help="a folder for a figure of every design")
    options = parser.parse_args()
    for name in [options.only] if options.only else DESIGNS:
        found = study(name, options.subjects, options.seed)
        print(found)
        if options.plot:
            found.plot()[0].figure.savefig(f"{options.plot}/agent_recovery_{name}.png", dpi=150)


if __name__ == "__main__":
    main()
