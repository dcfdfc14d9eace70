"""The main job: a hierarchy learns handwritten digits, and accounts for every nat of its free energy.

label → z₂ → z₁ → pixels, with a curved map to the pixels, learned by descent on F = complexity − accuracy,
which bounds the surprise: F ≥ −ln p(x). Expected on held-out images: F, a bound, lies below the exact
−ln p(x) of probabilistic PCA with as many hidden dimensions; hidden pixels are filled in with less error;
comparing F across labels names more digits than the nearest mean image; F is higher for what is no digit.
What would have refuted it: a linear model that does as well, F below an estimate of −ln p(x), or F that is
no higher for shuffled, inverted or turned images. So it is where labels are read from other images, or
where digits that are intact are held against digits.
"""

from vfe.gallery.digits.job import run
from vfe.gallery.digits.settings import Settings

__all__ = ["Settings", "run"]
