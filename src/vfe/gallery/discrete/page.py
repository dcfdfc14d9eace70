"""What the pages of these experiments share: where F went."""

from collections.abc import Mapping

import numpy as np

from vfe.action.history import History
from vfe.results.report import Section, Table


def free_energy_section(histories: Mapping[str, History], text: str) -> Section:
    """F of every kind of life, summed over its time, by level and in its readings, mean over agents."""
    rows, levels = [], []
    for name, history in histories.items():
        free = history.percepts.free_energy
        levels = list(free.by_level)
        parts = [
            free.total,
            *free.by_level.values(),
            free.energy,
            free.entropy,
            free.complexity,
            free.accuracy,
        ]
        cells = [float(np.asarray(part).sum(-1).mean()) for part in parts]
        rows.append([name, *(f"{round(cell, 3) + 0.0:.3f}".replace("-", "−") for cell in cells)])
    columns = ["lives", "F", *levels, "energy", "entropy", "complexity", "accuracy"]
    caption = (
        "Nats per life, mean over agents. F = energy − entropy = complexity − accuracy = −ln p(outcomes)."
    )
    return Section("Free energy", text, table=Table(columns, rows, caption))
