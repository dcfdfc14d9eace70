"""The main job: a hierarchy learns handwritten digits, and accounts for every nat of its free energy."""

from vfe.gallery.digits.job import run
from vfe.gallery.digits.settings import Settings

__all__ = ["Settings", "run"]
