"""How frequent each model is among subjects: comparison of models with random effects."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import digamma, gammainc, gammaincinv, gammaln, logsumexp

from vfe.free_energy import FreeEnergy, Kind, same_kind

MAX_STEPS = 10_000


@dataclasses.dataclass(frozen=True, repr=False)
class ModelFrequencies:
    """A Dirichlet belief about how often each model is the one of a subject; arrays in the order of
    `names`.

    `counts` (models,): of the Dirichlet, from one each; `mean`: the expected frequencies; `of_subject`
    (subjects, models): p(model | subject); `exceedance`: the probability that a model is the most frequent;
    `omnibus_risk`: the probability that all are equally frequent; `protected_exceedance`: `exceedance`
    given that this may be so.
    """

    names: tuple[str, ...]
    counts: np.ndarray
    of_subject: np.ndarray
    exceedance: np.ndarray
    omnibus_risk: float

    @property
    def mean(self) -> np.ndarray:
        """⟨r⟩, (models,)."""
        return self.counts / self.counts.sum()

    @property
    def protected_exceedance(self) -> np.ndarray:
        """(1 − risk) exceedance + risk / models."""
        return (1 - self.omnibus_risk) * self.exceedance + self.omnibus_risk / len(self.names)

    def table(self) -> str:
        """The numbers as a table."""
        width = max(12, *(len(name) + 2 for name in self.names))
        rows = [
            f"models of {len(self.of_subject)} subjects (all equally frequent: {self.omnibus_risk:.4f})"
        ]
        rows.append(f"{'model':<{width}}{'frequency':>12}{'most frequent':>16}{'protected':>12}")
        for row in zip(self.names, self.mean, self.exceedance, self.protected_exceedance, strict=True):
            rows.append(f"{row[0]:<{width}}{row[1]:12.4f}{row[2]:16.4f}{row[3]:12.4f}")
        return "\n".join(rows)

    def __repr__(self) -> str:
        return self.table()


def model_frequencies(models: Mapping[str, Any]) -> ModelFrequencies:
    """How frequent models are in the population that subjects come from, each with a model of its own.

    p(data_n | r) = Σ_k r_k exp(−F_nk), r ~ Dir(1, …, 1), by variational Bayes. Where one subject may decide
    `vfe.compare` (which adds F over subjects: one model for all), here each counts once.

    **Arguments:** `models`: per name a `FreeEnergy` by subject, (subjects,), or a fit with one.

    **Raises:** `ValueError` for fewer than two models, kinds or numbers of subjects that differ, energies,
    or an F that is not finite.

    **Example:** `vfe.discrete.behaviour.model_frequencies({"reversal": one, "delta rule": other})`.

    **Source:** Stephan et al. 2009, "Bayesian model selection for group studies"; Rigoux et al. 2014.
    """
    energies = {
        n: m if isinstance(m, FreeEnergy) else getattr(m, "free_energy", None) for n, m in models.items()
    }
    bad = [name for name, one in energies.items() if not isinstance(one, FreeEnergy)]
    if len(energies) < 2 or bad:
        raise ValueError(
            f"model_frequencies: got models {list(energies)}, without a free energy {bad}; wanted two or "
            "more fits."
        )
    found: list[Any] = list(energies.values())
    if same_kind(*found) is Kind.energy:
        raise ValueError("model_frequencies: these are energies of beliefs without entropy; wanted F.")
    totals = [np.asarray(one.total, float) for one in found]
    if len({t.shape for t in totals}) > 1 or totals[0].ndim != 1 or not np.isfinite(totals).all():
        raise ValueError(
            f"model_frequencies: got F of shapes {[t.shape for t in totals]}; wanted (subjects,), finite, "
            "of the same subjects for every model."
        )
    logs = -np.stack(totals, -1)
    size = logs.shape[1]
    counts, share = np.ones(size), np.zeros_like(logs)
    for _ in range(MAX_STEPS):
        before = counts
        weights = logs + digamma(counts) - digamma(counts.sum())
        share = np.exp(weights - logsumexp(weights, axis=1, keepdims=True))
        counts = 1 + share.sum(0)
        if np.abs(counts - before).max() < 1e-10:
            break
    expected = digamma(counts) - digamma(counts.sum())
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum()
    divergence = (
        gammaln(counts.sum()) - gammaln(counts).sum() - gammaln(size) + ((counts - 1) * expected).sum()
    )
    surprise = -(share * (logs + expected)).sum() - entropy + divergence
    alike = -(logsumexp(logs, axis=1) - np.log(size)).sum()
    risk = float(1 / (1 + np.exp(np.clip(alike - surprise, -700, 700))))
    return ModelFrequencies(tuple(energies), counts, share, _exceedance(counts), risk)


def _exceedance(counts: np.ndarray) -> np.ndarray:
    """P(r_k > all others): frequencies are gamma numbers divided by their sum."""
    reach = gammaincinv(counts.max(), 1 - 1e-12)
    x = np.linspace(0, reach, 20_001)[1:]
    below = gammainc(counts[:, None], x)
    others = [np.prod(np.delete(below, k, 0), axis=0) for k in range(len(counts))]
    density = np.exp((counts[:, None] - 1) * np.log(x) - x - gammaln(counts)[:, None])
    found = (density * np.array(others)).sum(1)
    return found / found.sum()
