"""Which approximate belief about the states of a discrete chain is wanted, and how it is found."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class MeanField:
    """q = Π_t Π_f q(s_f,t): every factor at every time by itself.

    Coordinate updates, each of which minimises F in its factor and time: F never rises. Several starts
    (uniform beliefs, the marginals of independent chains, the exact ones where they are affordable, then
    random ones), of which the lowest end is kept; no local minimum is known to be the lowest of all.

    **Arguments:** `starts`; `max_sweeps`; `tolerance`: sweeps end when F falls by less than
    tolerance × (1 + |F|); `seed` of the random starts.

    **Raises:** `ValueError` for numbers below one, or a negative tolerance.

    **Example:** `vfe.smooth(model, y, belief=vfe.discrete.MeanField()).gap`.

    **Source:** Friston, FitzGerald, Rigoli, Schwartenbeck and Pezzulo 2017, "Active inference: a process
    theory"; Beal 2003, section 2.2.
    """

    starts: int = 16
    max_sweeps: int = 500
    tolerance: float = 1e-10
    seed: int = 0

    def __post_init__(self):
        _check(self)


@dataclasses.dataclass(frozen=True)
class Structured:
    """q = Π_f q(s_f,1 … s_f,T): every factor a Markov chain, independent of the other factors.

    Each factor in turn by forward and backward messages, the others averaged out: F never rises, and is
    exact for one factor. The starts are those of `MeanField` and its result, so that F is never above that
    of a mean-field belief with the same settings.

    **Arguments:** as `MeanField`.

    **Raises:** as `MeanField`.

    **Example:** `vfe.smooth(model, y, belief=vfe.discrete.Structured()).pairs[0]`.

    **Source:** Ghahramani and Jordan 1997, "Factorial hidden Markov models".
    """

    starts: int = 8
    max_sweeps: int = 500
    tolerance: float = 1e-10
    seed: int = 0

    def __post_init__(self):
        _check(self)


@dataclasses.dataclass(frozen=True)
class Marginal:
    """Marginal message passing: factorised beliefs whose messages come from beliefs, not from ⟨ln B⟩.

    ln q(s_t) = ln p(o_t | s_t) + ½ ln Σ B q(s_t−1) + ½ ln Σ B† q(s_t+1) + constant, all times and factors
    at once, in damped steps. Its fixed point is less overconfident than `MeanField`, and no minimum of F:
    what is reported is F of the same beliefs read as q = Π_t Π_f q(s_f,t), a bound on −ln p(o) that lies
    above `MeanField`'s. Along the way that F never rises, since a step that would raise it is halved; where
    no step is left before the fixed point, `converged` is false. (The marginal free energy that the scheme
    was derived from is no such guide: it was seen to rise even in steps of a tenth.)

    **Arguments:** `damping`: the share of ln q that a step keeps; `max_sweeps`; `tolerance`: what a whole
    step may change in a probability at the end.

    **Raises:** `ValueError` for a damping outside [0, 1), less than one sweep, a negative tolerance.

    **Example:** `vfe.smooth(model, y, belief=vfe.discrete.Marginal()).factors[0]`.

    **Source:** Parr, Markovic, Kiebel and Friston 2019, "Neuronal message passing using mean-field, Bethe,
    and marginal approximations".
    """

    damping: float = 0.5
    max_sweeps: int = 500
    tolerance: float = 1e-8

    def __post_init__(self):
        _check(self)
        if not 0 <= self.damping < 1:
            raise ValueError(f"Marginal: got damping={self.damping!r}; wanted 0 or more, and less than 1.")


def _check(settings: MeanField | Structured | Marginal) -> None:
    name, found = type(settings).__name__, dataclasses.asdict(settings)
    for key, value in found.items():
        whole = key in ("starts", "max_sweeps", "seed")
        good = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        lowest = 1 if key in ("starts", "max_sweeps") else 0
        if not good or not value >= lowest:
            kind = "a whole number" if whole else "a number"
            raise ValueError(f"{name}: got {key}={value!r}; wanted {kind} of {lowest} or more.")
