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
    "receptive-fields": Job(
        name="receptive-fields",
        summary="Learned from photographs: a bar that goes on into the surround is not reported twice.",
        module="vfe.gallery.recognition.receptive_fields",
        seconds=60,
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
    "readings": Job(
        name="readings",
        summary="Free energy read in three ways, for random beliefs: one number, never below surprise.",
        module="vfe.gallery.foundations.readings",
        seconds=15,
    ),
    "ensembles": Job(
        name="ensembles",
        summary="One belief per sensation, one for all, their mean, one carried in time: what each costs.",
        module="vfe.gallery.foundations.ensembles",
        seconds=15,
    ),
    "limits": Job(
        name="limits",
        summary="Recognition by the whole posterior, and by a single value: what F then is, and is not.",
        module="vfe.gallery.foundations.limits",
        seconds=15,
    ),
    "empirical-bayes": Job(
        name="empirical-bayes",
        summary="Many groups, one noisy value each: their prior is learned, and estimates gain by it.",
        module="vfe.gallery.foundations.empirical_bayes",
        seconds=20,
    ),
    "priors": Job(
        name="priors",
        summary="Priors of a hierarchy by recursion from its top, and from the senses: where they agree.",
        module="vfe.gallery.foundations.priors",
        seconds=20,
    ),
    "predictive-coding": Job(
        name="predictive-coding",
        summary="Error units and state units descend F by local updates; a lesion takes their context.",
        module="vfe.gallery.foundations.predictive_coding",
        seconds=15,
    ),
    "entropy-bound": Job(
        name="entropy-bound",
        summary="Mean free energy over time reaches the entropy rate of sensations, and never goes below.",
        module="vfe.gallery.foundations.entropy_bound",
        seconds=10,
    ),
    "explaining-away": Job(
        name="explaining-away",
        summary="Causes that share effects compete: one pass forward loses to iterating through the model.",
        module="vfe.gallery.foundations.explaining_away",
        seconds=15,
    ),
    "bistable": Job(
        name="bistable",
        summary="Two percepts explain one stimulus: noise alternates between them, as the posterior says.",
        module="vfe.gallery.foundations.bistable",
        seconds=25,
    ),
    "selection": Job(
        name="selection",
        summary="Agents in a changing world: who is fitter has lower F, and selection lowers F unseen.",
        module="vfe.gallery.discrete.selection",
        seconds=20,
    ),
    "predator": Job(
        name="predator",
        summary="A predator is hidden: a carried belief keeps it, until frames are clear.",
        module="vfe.gallery.discrete.predator",
        seconds=15,
    ),
    "fulfilment": Job(
        name="fulfilment",
        summary="Who expects to be elsewhere goes there; who cannot act changes its mind instead.",
        module="vfe.gallery.action.fulfilment",
        seconds=15,
    ),
    "alternation": Job(
        name="alternation",
        summary="Perceive, act, perceive: F becomes a tight bound, then action lowers surprise itself.",
        module="vfe.gallery.action.alternation",
        seconds=15,
    ),
    "homeostasis": Job(
        name="homeostasis",
        summary="The dark room: who expects to be fed leaves it; who only avoids surprise starves there.",
        module="vfe.gallery.discrete.homeostasis",
        seconds=15,
    ),
    "attention": Job(
        name="attention",
        summary="A cue that raises a precision speeds the response; the right precision has the least F.",
        module="vfe.gallery.action.attention",
        seconds=10,
    ),
}

__all__ = ["JOBS", "Job"]
