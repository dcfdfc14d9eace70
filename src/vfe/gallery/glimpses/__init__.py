"""A moving eye names a digit from a few glimpses, looking where it expects to learn most about the name.

A generative model is learned from whole digits: label → component → pixels,

p(x, k, y) = p(y) p(k | y) Π_i N(x_i; m_{yk,i}, s_i²).

The eye sees one patch of a held-out image at a time; pixels that it has not looked at are NaN and drop
out of the accuracy. Its belief q(y, k) after every glimpse is exact, F = −ln p(what was seen): each
glimpse adds its surprise. It looks next where the expected information gain about the label is largest,

I(y; x_patch | seen) = H[q(y)] − ⟨H[p(y | seen, x_patch)]⟩, patches drawn from p(x_patch | seen):

from its own predictions, never from the image. Other scans see as many patches of the same size: at
random places, along fixed orders (rows, from the centre outwards, and the best of several chosen on the
training digits), and along the paths that the first eye took over *other* images.

Expected: after four glimpses the first eye names more digits than all of these, with 95 % intervals that
do not overlap; an eye that looks where it expects to learn least names fewer than one that looks
anywhere. What would have refuted it: a fixed order that is as good, or paths borrowed from other images
that are (then it would not be what was seen that guides the eye), or an eye with the wrong sign that does
no worse.

A glimpse is one pixel of 8 × 8 by default (1.6 % of the image). With larger glimpses there is less to
choose: with `--set patch=2` (6 %) the eye names 95.5 % after four glimpses, the best fixed order 94.5 %,
and their intervals overlap. MNIST (`--data mnist.npz`) takes some five minutes with glimpses of 4 × 4 of
28 × 28 pixels (2 %): of 1,000 test images the eye names 77.2 %, the best fixed order 74.5 %, one at
random 44.6 %; there too the intervals of the first two overlap, and the page says that this claim fails.

**Source:** Lindley 1956 (information of an experiment); Najemnik and Geisler 2005 (optimal eye movements
in search); Friston, Adams, Perrinet and Breakspear 2012 (saccades as experiments).
"""

from vfe.gallery.glimpses.job import run
from vfe.gallery.glimpses.settings import Settings

__all__ = ["Settings", "run"]
