"""Claims of an experiment: what was measured, the bound that was set, and whether it held."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

PROVED = 1e-4


@dataclasses.dataclass(frozen=True)
class Claim:
    """A check that could have come out otherwise.

    `statement`: in plain words; `measured`, with its `unit`; `low`, `high`: it holds where
    low ≤ measured ≤ high. A measurement that is no number never holds. `proved`: whether theory leaves
    nothing open but rounding, so that only the code could fail it; where nothing is said, that is read off
    the bounds: within 10⁻⁴ of zero, on the side where zero itself would hold.

    **Raises:** `ValueError` where no measurement could fail, or none could hold.

    **Example:** `Claim("the cue is read first", 0.998, low=0.99).verdict`.
    """

    statement: str
    measured: float
    low: float = -math.inf
    high: float = math.inf
    unit: str = ""
    proved: bool | None = None

    def __post_init__(self) -> None:
        if not self.low <= self.high or (self.low == -math.inf and self.high == math.inf):
            raise ValueError(
                f"Claim {self.statement!r}: got the bounds {self.low} and {self.high}; wanted low ≤ high, "
                "one of them finite: a claim must be able to fail."
            )

    @property
    def holds(self) -> bool:
        """Whether the measurement lies within the bounds."""
        return bool(self.low <= self.measured <= self.high)

    @property
    def is_proved(self) -> bool:
        """Whether only the code could fail it."""
        if self.proved is not None:
            return self.proved
        return 0 < self.high <= PROVED or -PROVED <= self.low < 0 or self.low == self.high == 0

    @property
    def bound(self) -> str:
        """The bounds in words, such as "at least 0.99"."""
        if self.low == self.high:
            return f"exactly {written(self.low)}"
        if self.high == math.inf:
            return f"at least {written(self.low)}"
        if self.low == -math.inf:
            return f"at most {written(self.high)}"
        return f"{written(self.low)} to {written(self.high)}"

    @property
    def verdict(self) -> str:
        """ "holds" or "fails"."""
        return "holds" if self.holds else "FAILS"

    @property
    def row(self) -> tuple[str, str, str, str]:
        """Statement, measurement with its unit, bound, verdict: a row of a table."""
        measured = f"{written(self.measured)} {self.unit}".rstrip()
        return self.statement, measured, self.bound, self.verdict

    def to_json(self) -> dict[str, Any]:
        """For config.json; bounds that are infinite are None. **Example:** `claim.to_json()["holds"]`."""
        finite = {
            name: value if math.isfinite(value) else None
            for name, value in (("measured", self.measured), ("low", self.low), ("high", self.high))
        }
        said = {"unit": self.unit, "proved": self.proved, "holds": self.holds}
        return {"statement": self.statement, **finite, **said}


COLUMNS = ("claim", "measured", "wanted", "")


def from_json(stored: Mapping[str, Any]) -> Claim:
    """A claim as config.json holds it. **Raises:** `ValueError` for anything else.

    **Example:** `from_json(claim.to_json()) == claim`.
    """
    try:
        numbers = [stored[name] for name in ("measured", "low", "high")]
        missing = (math.nan, -math.inf, math.inf)
        values = [none if v is None else float(v) for v, none in zip(numbers, missing, strict=True)]
        proved = stored.get("proved")
        if proved is not None and not isinstance(proved, bool):
            raise TypeError("proved")
        return Claim(str(stored["statement"]), *values, unit=str(stored["unit"]), proved=proved)
    except (KeyError, TypeError) as error:
        raise ValueError(f"a claim of a run: got {stored!r}, which is none.") from error


def written(value: float) -> str:
    """A number to read: four significant digits, a proper minus. **Example:** `written(-0.12345)`."""
    return f"{value:.4g}".replace("-", "−")
