"""Numbers as a person reads them."""

import math


def say(value: float, error: float | None = None, digits: int = 2) -> str:
    """A number with its standard error, rounded to the two leading digits of the error.

    **Arguments:** `digits`: decimals where there is no error.

    **Example:** `say(-27.8134, 0.0312)` is `"−27.813 ± 0.031"`; `say(-1)` is `"−1.00"`.
    """
    value = float(value)
    if error is not None and math.isfinite(error) and error > 0:
        digits = min(max(0, 1 - math.floor(math.log10(error))), 8)
        return f"{_signed(value, digits)} ± {error:.{digits}f}"
    return _signed(value, digits)


def _signed(value: float, digits: int) -> str:
    if not math.isfinite(value):
        return {"nan": "—", "inf": "∞", "-inf": "−∞"}[str(value)]
    return f"{value:,.{digits}f}".replace("-", "−")


def duration(seconds: float) -> str:
    """A time span. **Example:** `duration(90)` is `"1 min 30 s"`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{rest} s" if not minutes else f"{minutes} min" + (f" {rest} s" if rest else "")
