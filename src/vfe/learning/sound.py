"""Numbers that are none: which node, and at which step, learning met the first of them."""

from typing import Any

import equinox as eqx
import jax
import numpy as np

from vfe.learning.step import Report
from vfe.perception import DivergenceError

ADVICE = (
    "lower the rate (optimiser=optax.adam(1e-3)), limit the step "
    "(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))), or check the scale of the data and "
    "the model's precisions (and that probabilities sum to one)"
)


def check_weights(model: Any, encoder: Any) -> None:
    """**Raises:** `ValueError` that names the node whose parameters hold NaN before the first step."""
    for path, leaf in jax.tree_util.tree_leaves_with_path((model, encoder)):
        if eqx.is_inexact_array(leaf) and np.isnan(np.asarray(leaf)).any():
            raise ValueError(f"learn: {place(path)} holds NaN before the first step.")


def check_steps(report: Report, learned: Any, epoch: int, first: int, kept: str) -> None:
    """Look through the reports of several steps, on the host.

    **Arguments:** `learned`: what is learned, for the names; `epoch`, `first`: counted from zero, of the
    first of the steps; `kept`: a sentence about the checkpoint.

    **Raises:** `DivergenceError` that names the node and the step.
    """
    if report.sound.all() and all(np.isfinite(a).all() for t in _terms(report) for a in t.values()):
        return
    for i in range(report.sound.shape[0]):
        answered = np.asarray(report.answered[i])
        considered = answered if answered.any() else np.ones_like(answered)
        where = f"learn: in epoch {epoch + 1}, minibatch {first + i + 1}"
        for node in report.free_energy.order:
            bad = _not_finite([t[node][i] for t in _terms(report) if node in t], considered)
            if bad:
                raise DivergenceError(
                    f"{where}, F of node {node!r} is NaN or infinite for {bad} of {considered.size} "
                    f"observations; {ADVICE}. {kept}"
                )
        if not report.sound[i].all():
            paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(learned)]
            worst = int(np.argmin(report.sound[i]))
            raise DivergenceError(
                f"{where}, {place(paths[worst])} became NaN or infinite; {ADVICE}. {kept}"
            )


def place(path: Any) -> str:
    """Where a leaf of (model, encoder) is, in words: `.mean.weight of node 'z1'`."""
    text = jax.tree_util.keystr(path[1:])
    if path[0].idx == 1:
        return f"{text or 'the whole'} of the encoder"
    inside, _, rest = text.removeprefix(".nodes['").partition("']")
    return f"{rest} of node {inside!r}" if text.startswith(".nodes['") else f"{text} of the model"


def _terms(report: Report) -> list[dict[str, Any]]:
    f = report.free_energy
    return [t for t in (f.observed, f.hidden, f.entropies) if t is not None]


def _not_finite(terms: list[Any], considered: np.ndarray) -> int:
    """How many of the observations considered have a term that is no number; all, of a shared one."""
    found = np.zeros_like(considered)
    for term in terms:
        bad = ~np.isfinite(term)
        found |= bad & considered if bad.shape == considered.shape else bool(bad.any())
    return int(found.sum())
