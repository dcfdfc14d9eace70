"""Settings that leave nothing to measure are refused, and the list says what is written."""

import pytest
from typer.testing import CliRunner

from vfe.cli import app
from vfe.gallery import JOBS


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("fulfilment", {"seconds": 1.0}),
        ("fulfilment", {"expected": 0.5}),
        ("alternation", {"rounds": 1}),
        ("alternation", {"rate": 0.0}),
        ("attention", {"trials": 1}),
        ("attention", {"threshold": 3.0}),
        ("tmaze", {"steps": 7}),
        ("tmaze", {"cue_validity": 0.5}),
        ("tmaze", {"small_reward": 3.0}),
        ("grid-learning", {"agents": 1}),
        ("grid-learning", {"concentration": 0.0}),
        ("readings", {"beliefs": 1}),
        ("ensembles", {"persistence": 1.0}),
        ("limits", {"x": -1.0}),
        ("empirical-bayes", {"sd": 0.0}),
        ("priors", {"disturbance": 0.0}),
        ("predictive-coding", {"occluded": 6}),
        ("entropy-bound", {"believed": 1.0}),
        ("explaining-away", {"leak": 0.0}),
        ("selection", {"validity": 0.2}),
        ("selection", {"agents": 3}),
        ("selection", {"loss": -1.0}),
        ("predator", {"hidden": 0}),
        ("predator", {"agents": 1}),
        ("homeostasis", {"tires": 1.0}),
        ("homeostasis", {"levels": 1}),
        ("geodesic", {"finest": 100}),
        ("geodesic", {"scale": 0.0}),
        ("cumulants", {"orders": 2}),
        ("boltzmann", {"visible": 3}),
        ("boltzmann", {"weight": 2.0}),
        ("renormalisation", {"spins": 12}),
        ("renormalisation", {"coupling": 0.0}),
        ("receptive-fields", {"patches": 10}),
        ("receptive-fields", {"above": 9}),
        ("receptive-fields", {"networks": 1}),
        ("bistable", {"strength": 1.0}),
        ("bistable", {"temperature": -1.0}),
        ("bistable", {"chains": 2}),
    ],
)
def test_settings_that_leave_nothing_to_measure(name, settings):
    with pytest.raises(ValueError, match=f"{name}: got .*wanted") as error:
        JOBS[name].load().Settings(**settings)
    assert next(iter(settings)) in str(error.value)


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("tmaze", "courses.png"),
        ("grid-learning", "learning.png"),
        ("birdsong", "sonograms.png"),
        ("oddball", "beliefs.png"),
        ("permanence", "target.png"),
        ("geodesic", "paths.png"),
        ("cumulants", "generating.png"),
        ("boltzmann", "couplings.png"),
        ("renormalisation", "scales.png"),
    ],
)
def test_the_list_says_what_is_written(name, figure):
    out = CliRunner().invoke(app, ["list", name]).output
    for word in (figure, "result.nc"):
        assert word in out
