"""Action: what an agent does so that its sensations come to fit its beliefs."""

from vfe.action.act import act
from vfe.action.acted import Acted, World
from vfe.action.active_system import ActiveSystem
from vfe.action.process import Process
from vfe.action.systems import (
    RETINA,
    climbing,
    contrast,
    hand,
    limb,
    mountain_car,
    pursuit,
    reaching,
    rushing,
    stopping,
    swinging,
)

__all__ = [
    "RETINA",
    "Acted",
    "ActiveSystem",
    "Process",
    "World",
    "act",
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
