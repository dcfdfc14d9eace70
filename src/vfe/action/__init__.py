"""Action: what an agent does so that its sensations come to fit its beliefs."""

from vfe.action.act import act
from vfe.action.acted import Acted, World
from vfe.action.active_system import ActiveSystem
from vfe.action.gymnasium_worlds import GymnasiumWorld, Policy, policy
from vfe.action.history import History
from vfe.action.live import live
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
