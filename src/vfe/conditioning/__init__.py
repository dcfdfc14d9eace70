"""A model together with what was observed: −ln p(x, z) as a function of what is hidden.

Everything that perceives, learns or compares first turns a model and a dictionary of observations into
a `Conditioned`: data are checked, NaN becomes a mask, nodes are sorted into observed and hidden, and
hidden values get unconstrained coordinates.
"""

from vfe.conditioning.door import Masked, condition, examine, masked
from vfe.conditioning.layout import Layout, Slot
from vfe.conditioning.posterior import Conditioned, Energies, outer

__all__ = ["Conditioned", "Energies", "Layout", "Masked", "Slot", "condition", "examine", "masked", "outer"]
