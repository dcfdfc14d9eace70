"""Parameters of subjects by Markov chain Monte Carlo, on their own or as a group."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from vfe.discrete.behaviour.parameters import Coordinates, ParameterPrior
from vfe.discrete.behaviour.subjects import LogLikelihood, subjects_of


class SampledSubjects(eqx.Module):
    """Draws from the posterior of parameters.

    `draws`: by name (chains, draws, subjects), as values of the parameters; `group_mean`, `group_sd`: by
    name (chains, draws), of the coordinates, where a group was drawn, else None; `r_hat`, `effective`: by
    name, of every number's coordinates: how far chains differ (near 1: not), and how many independent draws
    they are worth; `divergences`: how many draws the integrator failed at.
    """

    draws: dict[str, Float[Array, "chains draws subjects"]]
    group_mean: dict[str, Float[Array, "chains draws"]] | None
    group_sd: dict[str, Float[Array, "chains draws"]] | None
    r_hat: dict[str, Float[Array, " subjects"]]
    effective: dict[str, Float[Array, " subjects"]]
    divergences: Array


def sample_subjects(
    log_likelihood: LogLikelihood,
    data: Any,
    *,
    prior: Mapping[str, ParameterPrior],
    key: PRNGKeyArray,
    group: bool = False,
    chains: int = 4,
    warm_up: int = 500,
    draws: int = 500,
) -> SampledSubjects:
    """Draws from p(θ | choices) of every subject by the No-U-Turn sampler of numpyro.

    With `group`, the mean of the group is drawn too, from the prior, and the standard deviation of the
    subjects about it, whose logarithm is N(ln sd of the prior, ½²); else every subject has the prior for
    itself. For choices under an agent, `log_likelihood` is `AgentLikelihood(agent_of)` and `data` what
    `read_choices` returns.

    **Arguments:** `log_likelihood`, `data`, `prior`: as `fit_subjects`; `chains`, run side by side;
    `warm_up`, `draws`: of each.

    **Raises:** `ValueError` for numbers of chains and draws that are too small.

    **Example:**
    ```python
    found = vfe.discrete.behaviour.sample_subjects(ln_p, data, prior=prior, key=jax.random.key(0))
    found.draws["bias"].mean((0, 1)), found.r_hat["bias"]
    ```

    **Source:** Hoffman and Gelman 2014; Phan, Pradhan and Jankowiak 2019 (numpyro).
    """
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
    from numpyro.infer import MCMC, NUTS

    if chains < 1 or warm_up < 1 or draws < 4:
        raise ValueError(
            f"sample_subjects: got chains={chains}, warm_up={warm_up}, draws={draws}; wanted at least one "
            "chain, one step of warm-up and four draws."
        )
    kept, count = Coordinates.of(prior), subjects_of(data)
    centre = np.array([p.coordinate for p in prior.values()])
    spread = np.array([p.sd for p in prior.values()])
    k = len(centre)
    with jax.enable_x64(True):
        data = jax.tree.map(jnp.asarray, data)

        def place(z: dict[str, Array]) -> Array:
            mean, sd = (z["mean"], jnp.exp(z["log_sd"])) if group else (0.0, 1.0)
            return jnp.asarray(centre) + spread * (mean + sd * z["own"])

        def potential(z: dict[str, Array]) -> Array:
            each = jax.vmap(lambda u, one: log_likelihood(kept.decode(u), one))(place(z), data)
            energy = 0.5 * (z["own"] ** 2).sum() - each.sum()
            if group:
                energy = energy + 0.5 * (z["mean"] ** 2).sum() + 0.5 * ((z["log_sd"] / 0.5) ** 2).sum()
            return energy

        start_key, run_key = jax.random.split(key)
        shapes = {"own": (count, k), **({"mean": (k,), "log_sd": (k,)} if group else {})}
        keys = jax.random.split(start_key, len(shapes))
        start = {
            name: 0.1 * jax.random.normal(one, (chains, *shape))
            for one, (name, shape) in zip(keys, shapes.items(), strict=True)
        }
        if chains == 1:
            start = jax.tree.map(lambda a: a[0], start)
        sampler = MCMC(
            NUTS(potential_fn=potential),
            num_warmup=warm_up,
            num_samples=draws,
            num_chains=chains,
            chain_method="vectorized",
            progress_bar=False,
        )
        sampler.run(run_key, init_params=start, extra_fields=("diverging",))
        z = sampler.get_samples(group_by_chain=True)
        u = np.asarray(jax.vmap(jax.vmap(place))(z))
        values = jax.tree.map(np.asarray, kept.decode(jnp.asarray(u)))
        r_hat = np.asarray(split_gelman_rubin(u))
        effective = np.asarray(effective_sample_size(u))
        mean = sd = None
        if group:
            mean = _named(kept, centre + spread * np.asarray(z["mean"]))
            sd = _named(kept, spread * np.exp(np.asarray(z["log_sd"])))
        failed: Any = np.asarray(sampler.get_extra_fields()["diverging"]).sum()
        return SampledSubjects(values, mean, sd, _named(kept, r_hat), _named(kept, effective), failed)


def _named(kept: Coordinates, numbers: np.ndarray) -> Any:
    return {name: numbers[..., i] for i, name in enumerate(kept.names)}
