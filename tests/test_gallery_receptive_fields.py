"""Extra-classical receptive fields: what the experiment claims, how it fails, and responses by hand."""

from typing import Any

import jax
import numpy as np
import pytest

from vfe.gallery.recognition import receptive_fields, receptive_fields_page
from vfe.results.report import build_report

SETTINGS = receptive_fields.Settings(patches=1000, networks=2)


@pytest.fixture(scope="module")
def found():
    learned = [
        tuple(receptive_fields.learn(SETTINGS, 0, number, together) for number in range(2))
        for together in (True, False)
    ]
    return receptive_fields.Found((learned[0], learned[1]))


def failing(found):
    return [claim.statement for claim in receptive_fields_page.claims(found) if not claim.holds]


def test_bars_that_go_on_are_not_reported_twice(found):
    assert failing(found) == []
    result = receptive_fields_page.write_up(SETTINGS, found)
    page = build_report(result.report)
    for name, value in result.headline:
        assert name in page
        assert "nan" not in value
    for each in (*found.learners[0], *found.learners[1]):
        assert each.free_energy[-1] < each.free_energy[0] - 1


def test_without_photographs_or_backward_connections_it_fails(found):
    photographs, shuffled = found.learners
    assert len(failing(found._replace(learners=(shuffled, photographs)))) >= 2
    cut = tuple(each._replace(intact=each.cut) for each in photographs)
    assert failing(found._replace(learners=(cut, shuffled)))[:2] == [
        claim.statement for claim in receptive_fields_page.claims(found)[:2]
    ]


def test_responses_by_hand():
    settings = receptive_fields.Settings(units=3, above=2)
    model = receptive_fields.network(settings, jax.random.key(4))
    nodes: Any = model.nodes
    weights = {name: np.asarray(nodes[name].mean.weight, float) for name in model.order if name != "z"}
    shown = receptive_fields.bars()
    x = np.concatenate([shown[name] for name in receptive_fields.STIMULI])
    parts = [x[:, :, 6 * k : 6 * k + 6].reshape(len(x), -1) for k in range(3)]
    # z, then the three modules: precision and what is seen of them.
    size = 2 + 9
    precision, seen = np.zeros((size, size)), np.zeros((len(x), size))
    precision[:2, :2] = np.eye(2)
    for k, name in enumerate(receptive_fields.MODULES):
        rows = np.zeros((3, size))
        rows[:, 2 + 3 * k : 5 + 3 * k], rows[:, :2] = np.eye(3), -weights[f"z_{name}"]
        precision += rows.T @ rows
        field = np.zeros((36, size))
        field[:, 2 + 3 * k : 5 + 3 * k] = weights[f"x_{name}"]
        precision += field.T @ field / receptive_fields.NOISE**2
        seen += parts[k] @ field / receptive_fields.NOISE**2
    mean = np.linalg.solve(precision, seen.T).T
    error = mean[:, 5:8] - mean[:, :2] @ weights["z_middle"].T
    with jax.enable_x64(True):
        responses = receptive_fields.errors(model)
    np.testing.assert_allclose(responses, (error**2).sum(1).reshape(3, -1), rtol=1e-4)


def test_patches_are_of_one_place_or_of_different_ones():
    beside = receptive_fields.triples(300, 0)
    apart = receptive_fields.triples(300, 0, together=False)

    def agreement(parts):
        """Correlation of pixels at either side of the border."""
        left, right = (
            parts["x_left"].reshape(-1, 6, 6)[:, :, 5],
            parts["x_middle"].reshape(-1, 6, 6)[:, :, 0],
        )
        return np.corrcoef(left.ravel(), right.ravel())[0, 1]

    assert agreement(beside) > 0.5
    assert abs(agreement(apart)) < 0.1
    np.testing.assert_allclose(np.stack(list(beside.values())).std((0, 2)), 1.0, atol=0.05)
