"""Ready-made active systems: worlds with bodies, and agents that expect something of them."""

from vfe.action.systems.limb import limb
from vfe.action.systems.mountain_car import climbing, mountain_car, rushing
from vfe.action.systems.pursuit import RETINA, contrast, pursuit, stopping, swinging
from vfe.action.systems.reaching import hand, reaching

__all__ = [
    "RETINA",
    "climbing",
    "contrast",
    "hand",
    "limb",
    "mountain_car",
    "pursuit",
    "reaching",
    "rushing",
    "stopping",
    "swinging",
]
