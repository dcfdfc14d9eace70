"""Action: what an agent does so that its sensations come to fit its beliefs."""

from typing import TYPE_CHECKING

from vfe.lazy import later

if TYPE_CHECKING:
    from vfe.action.acted import Acted, World
    from vfe.action.acting import act
    from vfe.action.active_system import ActiveSystem
    from vfe.action.gymnasium_worlds import GymnasiumWorld, Policy, policy
    from vfe.action.history import History
    from vfe.action.living import live
    from vfe.action.loop_parts import AbstractAgent, AbstractWorld
    from vfe.action.process import Process
    from vfe.action.systems.limb import limb
    from vfe.action.systems.mountain_car import climbing, mountain_car, rushing
    from vfe.action.systems.pursuit import RETINA, contrast, pursuit, stopping, swinging
    from vfe.action.systems.reaching import hand, reaching

__all__ = [
    "RETINA",
    "AbstractAgent",
    "AbstractWorld",
    "Acted",
    "ActiveSystem",
    "GymnasiumWorld",
    "History",
    "Policy",
    "Process",
    "World",
    "act",
    "climbing",
    "contrast",
    "hand",
    "limb",
    "live",
    "mountain_car",
    "policy",
    "pursuit",
    "reaching",
    "rushing",
    "stopping",
    "swinging",
]

# A discrete agent needs none of what acts in continuous time, nor its models.
_LATER = {
    "acting": ("act",),
    "acted": (
        "Acted",
        "World",
    ),
    "active_system": ("ActiveSystem",),
    "gymnasium_worlds": (
        "GymnasiumWorld",
        "Policy",
        "policy",
    ),
    "history": ("History",),
    "living": ("live",),
    "loop_parts": (
        "AbstractAgent",
        "AbstractWorld",
    ),
    "process": ("Process",),
    "systems.limb": ("limb",),
    "systems.mountain_car": (
        "climbing",
        "mountain_car",
        "rushing",
    ),
    "systems.pursuit": (
        "RETINA",
        "contrast",
        "pursuit",
        "stopping",
        "swinging",
    ),
    "systems.reaching": (
        "hand",
        "reaching",
    ),
}

__getattr__ = later(__name__, _LATER)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
