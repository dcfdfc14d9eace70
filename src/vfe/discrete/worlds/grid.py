"""A grid of cells with walls."""

from collections.abc import Sequence

import numpy as np

from vfe.discrete.pomdp import POMDP
from vfe.discrete.worlds.checks import check_finite, check_probability, check_whole

Cell = tuple[int, int]
STEPS = {"up": (-1, 0), "right": (0, 1), "down": (1, 0), "left": (0, -1), "stay": (0, 0)}


def grid(
    rows: int,
    columns: int,
    *,
    walls: Sequence[Cell] = (),
    start: Cell | None = None,
    goal: Cell | None = None,
    slip: float = 0.1,
    sees: float = 0.85,
    reward: float = 3.0,
) -> POMDP:
    """A grid: up, right, down, left or stay; a step into a wall or over the edge leaves one where one is.

    One factor `place` and one modality `seen`, both over the free cells by rows, with names like `0,2`
    (row, column).

    **Arguments:** `walls`: cells that cannot be entered; `start`: the first cell, any with equal
    probability if not given; `goal`: the preferred cell, the last free one if not given; `slip`: the
    probability that a step fails; `sees`: that the right cell is seen, any other with equal probability;
    `reward`: log-preference for seeing the goal, nats.

    **Raises:** `ValueError` for cells that are not free or not on the grid, and for fewer than two free.

    **Example:** `vfe.discrete.worlds.grid(10, 10, walls=[(4, 4), (4, 5)]).states`.
    """
    check_whole("grid", 1, rows=rows, columns=columns)
    check_probability("grid", slip=slip, sees=sees)
    check_finite("grid", reward=reward)
    blocked = {_cell("walls", cell, rows, columns) for cell in walls}
    cells = [(r, c) for r in range(rows) for c in range(columns) if (r, c) not in blocked]
    if len(cells) < 2:
        raise ValueError(f"grid: got {rows} × {columns} with {len(cells)} free cells; wanted two or more.")
    number = {cell: k for k, cell in enumerate(cells)}

    def free(word: str, cell: Cell) -> int:
        if _cell(word, cell, rows, columns) in blocked:
            raise ValueError(f"grid: got {word}={cell}, which is a wall.")
        return number[cell[0], cell[1]]

    count = len(cells)
    moves = np.zeros((count, count, len(STEPS)))
    for u, (down, right) in enumerate(STEPS.values()):
        for k, (r, c) in enumerate(cells):
            moves[k, k, u] += slip
            moves[number.get((r + down, c + right), k), k, u] += 1 - slip
    looks = np.full((count, count), (1 - sees) / (count - 1))
    np.fill_diagonal(looks, sees)
    wanted = np.zeros(count)
    wanted[count - 1 if goal is None else free("goal", goal)] = reward
    first = np.full(count, 1 / count) if start is None else np.eye(count)[free("start", start)]
    names = tuple(f"{r},{c}" for r, c in cells)
    return POMDP(
        [looks],
        [moves],
        [wanted],
        [first],
        factors={"place": names},
        modalities={"seen": names},
        actions={"place": tuple(STEPS)},
    )


def _cell(word: str, cell: Cell, rows: int, columns: int) -> Cell:
    try:
        r, c = (int(k) for k in cell)
    except (TypeError, ValueError) as error:
        raise ValueError(f"grid: got {word} {cell!r}; wanted cells (row, column).") from error
    if not (0 <= r < rows and 0 <= c < columns):
        raise ValueError(f"grid: got {word} {cell}, outside the grid of {rows} rows and {columns} columns.")
    return r, c
