"""Experiments that run by name: `vfe run NAME`. Nothing is imported before it is asked for."""

from vfe.gallery.job import Job

JOBS: dict[str, Job] = {
    "digits": Job(
        name="digits",
        summary="A hierarchy learns handwritten digits: F by level, hidden pixels, labels, imagination.",
        module="vfe.gallery.digits",
        seconds=120,
        data="x_train, y_train, x_test, y_test; scikit-learn's embedded digits by default",
    ),
    "birdsong": Job(
        name="birdsong",
        summary="A song of two levels is heard: the percept goes on in an omission, and dies in silence.",
        module="vfe.gallery.dynamics.birdsong",
        seconds=30,
    ),
    "oddball": Job(
        name="oddball",
        summary="A chirp is heard again and again: errors shrink as it is learned, and rise at a deviant.",
        module="vfe.gallery.dynamics.oddball",
        seconds=60,
    ),
    "permanence": Job(
        name="permanence",
        summary="A moving target is hidden for a while: the belief goes on, its sd grows, and recovers.",
        module="vfe.gallery.dynamics.permanence",
        seconds=15,
    ),
    "reflex": Job(
        name="reflex",
        summary="A limb is pushed: prediction errors drive action, which cancels what was not predicted.",
        module="vfe.gallery.action.reflex",
        seconds=10,
    ),
    "reaching": Job(
        name="reaching",
        summary="An arm of two joints goes where its owner expects the hand to be.",
        module="vfe.gallery.action.reaching",
        seconds=20,
    ),
    "pursuit": Job(
        name="pursuit",
        summary="An eye follows a target behind an occluder, under two beliefs about it.",
        module="vfe.gallery.action.pursuit",
        seconds=20,
    ),
    "mountain-car": Job(
        name="mountain-car",
        summary="A car too weak for the hill gets to its top by expectation alone.",
        module="vfe.gallery.action.mountain_car",
        seconds=20,
    ),
    "tmaze": Job(
        name="tmaze",
        summary="A cue before an arm: who reads it first, who again and again, and what reading brings.",
        module="vfe.gallery.discrete.tmaze",
        seconds=45,
    ),
    "glimpses": Job(
        name="glimpses",
        summary="An eye names a digit from a few glimpses, looking where it expects to learn most.",
        module="vfe.gallery.glimpses",
        seconds=45,
        data="x_train, y_train, x_test, y_test; scikit-learn's embedded digits by default",
    ),
    "grid-learning": Job(
        name="grid-learning",
        summary="Agents that want to know what their actions do learn it sooner than those who wander.",
        module="vfe.gallery.discrete.grid_learning",
        seconds=10,
    ),
    "recognition-gaps": Job(
        name="recognition-gaps",
        summary="What an encoder loses: by its family, by unseen context, by haste; what iteration mends.",
        module="vfe.gallery.recognition.gaps",
        seconds=90,
    ),
    "vae": Job(
        name="vae",
        summary="Images learned in one pass and by an iterated hierarchy: −ln p(x) at equal time.",
        module="vfe.gallery.recognition.vae",
        seconds=110,
        data="x_train, y_train, x_test, y_test; scikit-learn's embedded digits by default",
    ),
    "geodesic": Job(
        name="geodesic",
        summary="Natural gradients go the same way in any parametrisation; what is conjugate takes a step.",
        module="vfe.gallery.physics.geodesic",
        seconds=25,
    ),
    "cumulants": Job(
        name="cumulants",
        summary="Derivatives of free energies are cumulants: of priors, of pairs of nodes, of beliefs.",
        module="vfe.gallery.physics.cumulants",
        seconds=15,
    ),
    "boltzmann": Job(
        name="boltzmann",
        summary="Hidden units couple visible ones: how many at a time, and how strongly, say their priors.",
        module="vfe.gallery.physics.boltzmann",
        seconds=5,
    ),
    "renormalisation": Job(
        name="renormalisation",
        summary="Spins and levels are integrated out: couplings change, the free energy does not.",
        module="vfe.gallery.physics.renormalisation",
        seconds=15,
    ),
}

__all__ = ["JOBS", "Job"]
