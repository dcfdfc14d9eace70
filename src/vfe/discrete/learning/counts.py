"""Dirichlet beliefs over the tables of a discrete world."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Float

from vfe.arrays import real_numbers
from vfe.discrete.labels import Labels
from vfe.discrete.pomdp import POMDP, Dependencies


class DirichletTables(eqx.Module):
    """Counts over the tables of a `POMDP`: each column of a table is Dirichlet, independent of the others.

    q(A, B, C, D, E) = Π over columns of Dir(θ; a), a = counts of the column (along the first axis).

    **Arguments:**

    - `model`: whose tables they are; its shapes, dependencies and names are kept.
    - `A`, `B`, `C`, `D`: for every modality or factor an array of counts of the shape of the table; None in
      the place of a table, or of all of them, for what is known and not learned. `C`: (outcomes,), E:
      (policies,).

    An entry without count is impossible, and stays so whatever is seen. Under a transformation of JAX
    counts may be traced and are then not checked.

    **Raises:** `ValueError` that names the table, for shapes that do not fit, counts that are negative or
    not finite, columns without any, and preferences or habits with a zero.

    **Example:**
    ```python
    counts = vfe.discrete.DirichletTables(model, A=[np.ones_like(model.A[0])])
    counts.expected(model).A[0]
    ```

    **Source:** MacKay 1997, "Ensemble learning for hidden Markov models".
    """

    A: tuple[Any, ...]
    B: tuple[Any, ...]
    C: tuple[Any, ...]
    D: tuple[Any, ...]
    E: Any
    A_dependencies: Dependencies = eqx.field(static=True)
    B_dependencies: Dependencies = eqx.field(static=True)
    labels: Labels

    def __init__(
        self,
        model: POMDP,
        A: Sequence[Any] | None = None,
        B: Sequence[Any] | None = None,
        C: Sequence[Any] | None = None,
        D: Sequence[Any] | None = None,
        E: Any = None,
    ):
        self.A = _several("A", A, [t.shape for t in model.A])
        self.B = _several("B", B, [t.shape for t in model.B])
        self.C = _several("C", C, [(n,) for n in model.outcomes], positive=True)
        self.D = _several("D", D, [t.shape for t in model.D])
        self.E = None
        if E is not None:
            self.E = _counts("E", E, np.shape(E) if model.E is None else model.E.shape, positive=True)
        self.A_dependencies, self.B_dependencies = model.A_dependencies, model.B_dependencies
        self.labels = model.labels

    @classmethod
    def from_model(cls, model: POMDP, concentration: float = 1.0, tables: str = "ABD") -> "DirichletTables":
        """Counts whose mean is the model, `concentration` in every column; zeros stay impossible.

        **Arguments:** `tables`: the letters of those that are learned; preferences count as softmax(C).

        **Raises:** `ValueError` for a concentration that is not positive, unknown letters, preferences that
        vary in time, and habits that the model does not have.

        **Example:** `vfe.discrete.DirichletTables.from_model(model, 10.0, "AB")`.
        """
        if not concentration > 0:
            raise ValueError(
                f"DirichletTables: got concentration={concentration}; wanted a positive number."
            )
        if not tables or set(tables) - set("ABCDE"):
            raise ValueError(
                f"DirichletTables: got tables={tables!r}; wanted letters of 'ABCDE', such as 'AB'."
            )
        if "E" in tables and model.E is None:
            raise ValueError("DirichletTables: the model has no habits E; give it some, POMDP(..., E=...).")
        if "C" in tables and any(c.ndim != 1 for c in model.C):
            raise ValueError("DirichletTables: preferences C that vary in time have no counts.")
        given: dict[str, Any] = {}
        for letter in tables:
            means: Any = getattr(model, letter)
            if letter == "C":
                means = [np.exp(c - c.max()) / np.exp(c - c.max()).sum() for c in means]
            several = [concentration * mean for mean in ([means] if letter == "E" else means)]
            given[letter] = several[0] if letter == "E" else several
        return cls(model, **given)

    @classmethod
    def flat(cls, model: POMDP, count: float = 1.0, tables: str = "ABD") -> "DirichletTables":
        """The same count for every entry that the model does not hold impossible.

        Counts that treat all hidden states alike cannot tell them apart: keep what is known of some table,
        or start elsewhere (`vfe.fit(..., start=)`).

        **Raises:** as `from_model`.

        **Example:** `vfe.discrete.DirichletTables.flat(model, 0.5, "A")`.
        """
        found = cls.from_model(model, count, tables)
        return eqx.tree_at(
            lambda c: [t for t in (*c.A, *c.B, *c.C, *c.D, c.E) if t is not None],
            found,
            replace_fn=lambda table: np.where(table > 0, float(count), 0.0),
        )

    def expected(self, model: POMDP) -> POMDP:
        """The model with ⟨θ⟩ in the place of every table that is learned; preferences are ⟨ln θ⟩.

        **Example:** `counts.expected(model).B[0]`.
        """
        return self._put(model, mean_of, log_mean)

    def expected_log(self, model: POMDP) -> POMDP:
        """The model with exp⟨ln θ⟩ in the place of every table that is learned: columns sum to at most one.

        It gives the belief about states that goes with these beliefs about tables (variational Bayes).

        **Example:** `counts.expected_log(model).A[0].sum(0)`.
        """
        return self._put(model, geometric_mean, log_mean)

    def divergence(self, prior: "DirichletTables") -> dict[str, Array]:
        """KL(Dir(counts) ‖ Dir(prior)) in nats, by table: the free energy of the parameters.

        **Returns:** by name, such as "A[o0]".

        **Example:** `counts.divergence(prior)["A[o0]"]`.
        """
        mine, theirs = self.named(), prior.named()
        if [*mine] != [*theirs]:
            raise ValueError(
                f"divergence: got counts of {[*mine]} and a prior of {[*theirs]}; wanted the same."
            )
        pairs = zip(mine.items(), theirs.items(), strict=True)
        return {name: divergence(table, before) for (name, table), (_, before) in pairs}

    def named(self) -> dict[str, Any]:
        """What is learned, by name: "A[modality]", "B[factor]", "C[modality]", "D[factor]", "E".

        **Example:** `list(counts.named())`.
        """
        factors, modalities = self.labels.factors, self.labels.modalities
        found: dict[str, Any] = {}
        for letter, names in zip("ABCD", (modalities, factors, modalities, factors), strict=True):
            tables = zip(names, getattr(self, letter), strict=True)
            found |= {f"{letter}[{name}]": table for name, table in tables if table is not None}
        return found if self.E is None else found | {"E": self.E}

    def _put(self, model: POMDP, read: Any, logs: Any) -> POMDP:
        def several(counts: tuple[Any, ...], tables: tuple[Any, ...], how: Any) -> tuple[Any, ...]:
            pairs = zip(counts, tables, strict=True)
            return tuple(table if c is None else how(c) for c, table in pairs)

        new = (
            several(self.A, model.A, read),
            several(self.B, model.B, read),
            several(self.C, model.C, logs),
            several(self.D, model.D, read),
            model.E if self.E is None else read(self.E),
        )
        return eqx.tree_at(
            lambda m: (m.A, m.B, m.C, m.D, m.E), model, new, is_leaf=lambda leaf: leaf is None
        )


def mean_of(counts: Float[Array, "n *columns"]) -> Array:
    """⟨θ⟩ = a / Σ a, by column. **Example:** `mean_of(jnp.array([1.0, 3.0]))`."""
    counts = jnp.asarray(counts)
    sums = counts.sum(0)
    return counts / jnp.where(sums > 0, sums, 1.0)


def log_mean(counts: Float[Array, "n *columns"]) -> Array:
    """⟨ln θ⟩ = ψ(a) − ψ(Σ a), by column; −∞ where there is no count.

    **Example:** `log_mean(jnp.array([1.0, 3.0]))`.
    """
    counts = jnp.asarray(counts)
    there = counts > 0
    sums = counts.sum(0)
    found = digamma(jnp.where(there, counts, 1.0)) - digamma(jnp.where(sums > 0, sums, 1.0))
    return jnp.where(there, found, -jnp.inf)


def geometric_mean(counts: Float[Array, "n *columns"]) -> Array:
    """exp⟨ln θ⟩, by column. **Example:** `geometric_mean(jnp.array([1.0, 3.0]))`."""
    return jnp.exp(log_mean(counts))


def log_beta(counts: Float[Array, "n *columns"]) -> Array:
    """ln B(a) = Σ ln Γ(a) − ln Γ(Σ a), by column, entries without count left out.

    **Example:** `log_beta(jnp.array([1.0, 3.0]))`.
    """
    counts = jnp.asarray(counts)
    there, sums = counts > 0, counts.sum(0)
    each = jnp.where(there, gammaln(jnp.where(there, counts, 1.0)), 0.0).sum(0)
    return each - jnp.where(sums > 0, gammaln(jnp.where(sums > 0, sums, 1.0)), 0.0)


def divergence(counts: Float[Array, "n *columns"], prior: Float[Array, "n *columns"]) -> Array:
    """KL(Dir(a) ‖ Dir(b)) summed over columns, in nats: ln B(b) − ln B(a) + Σ (a − b) ⟨ln θ⟩.

    Entries without count in either are left out of both.

    **Example:** `divergence(jnp.array([2.0, 3.0]), jnp.ones(2))`.
    """
    counts, prior = jnp.asarray(counts), jnp.asarray(prior)
    logs = log_mean(counts)
    moved = jnp.where(counts > 0, (counts - prior) * jnp.where(counts > 0, logs, 0.0), 0.0)
    return (log_beta(prior) - log_beta(counts)).sum() + moved.sum()


def _several(word: str, given: Any, shapes: list[tuple[int, ...]], *, positive: bool = False) -> Any:
    if given is None:
        return (None,) * len(shapes)
    if len(given) != len(shapes):
        raise ValueError(
            f"DirichletTables: got {len(given)} tables {word}; wanted {len(shapes)} (None for one that is "
            "not learned)."
        )
    tables = enumerate(zip(given, shapes, strict=True))
    return tuple(
        None if table is None else _counts(f"{word}[{k}]", table, shape, positive=positive)
        for k, (table, shape) in tables
    )


def _counts(name: str, given: Any, shape: tuple[int, ...], *, positive: bool) -> Any:
    if isinstance(given, Tracer):
        return given
    table = real_numbers(name, given)
    if table.shape != shape or not table.ndim:
        raise ValueError(f"{name}: got counts of shape {table.shape}; wanted {shape}, that of the table.")
    bad = ~np.isfinite(table) | (table < 0) | (positive & (table == 0))
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        wanted = "positive counts" if positive else "counts, zero or more"
        raise ValueError(f"{name}: got {table[where]} at {where}; wanted {wanted}.")
    empty = np.argwhere(table.sum(0) == 0)
    if len(empty):
        where = tuple(int(i) for i in empty[0])
        raise ValueError(f"{name}: column {where} has no counts; wanted some in every column.")
    return table
