"""What the experiments in time claim, in numbers, on small runs."""

import dataclasses

import numpy as np
import pytest
from gallery_cases import page_of

from vfe.gallery.dynamics import birdsong, oddball, permanence
from vfe.gallery.job import Workspace
from vfe.gallery.progress import Silent


def write_up(module, settings, folder):
    result = module.run(
        settings, seed=0, data=None, folder=Workspace(folder), progress=Silent(), resume=False
    )
    page_of(result)
    return result


def test_a_hidden_target_goes_on(tmp_path):
    settings = permanence.Settings(targets=100, seconds=8.0, hidden_from=3.0, hidden_for=3.0, dt=0.1)
    found = permanence.follow(settings, 0)
    hidden = np.flatnonzero(found.hidden)
    first, last = hidden[0], hidden[-1]
    sd = found.moving.sd[0, :, 0]
    # With nothing seen the variance relaxes to that of the prior: P → a² + e^{−2t/m} (P − a²).
    t = settings.dt * np.arange(1, last - first + 2)
    wanted = 1 + np.exp(-2 * t / settings.memory) * (sd[first - 1] ** 2 - 1)
    np.testing.assert_allclose(sd[hidden] ** 2, wanted, rtol=1e-9)
    assert sd[last + 2] < 1.5 * sd[first - 1]
    # The believed spread is the true one, within four standard errors of a root mean square.
    both = (found.moving, found.present)
    for followed in both:
        ratio = permanence.error(found, followed)[hidden] / followed.sd[0, hidden, 0]
        assert np.all(np.abs(ratio - 1) < 4 / np.sqrt(2 * 2 * settings.targets))
    # A belief about the present alone is the prior there, and elsewhere that of one Gaussian sample.
    np.testing.assert_array_equal(found.present.mean[:, hidden], 0)
    np.testing.assert_array_equal(found.present.sd[:, hidden], 1)
    gain = 1 / (1 + settings.noise**2)
    np.testing.assert_allclose(found.present.mean[:, 0], gain * found.seen[:, 0], rtol=1e-6)
    np.testing.assert_allclose(found.present.sd[:, 0], np.sqrt(1 - gain), rtol=1e-6)
    seen = found.seen[:, ~found.hidden]
    variance = 1 + settings.noise**2
    surprise = 0.5 * (seen**2 / variance + np.log(2 * np.pi * variance)).sum((1, 2))
    np.testing.assert_allclose(found.present.surprise, surprise, rtol=1e-6)
    assert np.all(found.moving.surprise < found.present.surprise)
    assert all(claim.holds for claim in write_up(permanence, settings, tmp_path).claims)
    # Broken: a belief without time in its place; one that is twice as sure as it may be.
    without = [claim.holds for claim in permanence.claims(found._replace(moving=found.present))]
    assert without == [False, True, True, True, False]
    sure = found._replace(moving=found.moving._replace(sd=found.moving.sd / 2))
    assert [claim.holds for claim in permanence.claims(sure)] == [True, True, True, False, True]


def test_errors_shrink_with_repetition_and_rise_at_a_deviant(tmp_path):
    settings = oddball.Settings(listeners=3, standards=3, after=1)
    heard = oddball.listen(settings, 0)
    total = heard.total_error
    assert np.all(total[:, 2] < total[:, 0])
    assert np.all(total[:, 3] > 1.5 * total[:, 2])
    assert np.all(total[:, 4] < total[:, 0])
    assert np.all(heard.free_energy[:, 3] > heard.free_energy[:, 2] + 100)
    # What is learned approaches the truth at every standard.
    distance = np.abs(heard.believed[:, :3, 0] - settings.standard)
    assert np.all(np.diff(distance, axis=1) < 0)
    assert np.all(np.diff(heard.believed_sd[..., 0], axis=1) < 0)
    assert all(claim.holds for claim in oddball.claims(settings, heard))
    # Broken: a deviant that is one more standard; standards in the reverse order.
    same = oddball.listen(dataclasses.replace(settings, deviant=settings.standard), 0)
    assert [claim.holds for claim in oddball.claims(settings, same)] == [True, False, False, True, False]
    back = [2, 1, 0, 3, 4]
    errors = {name: values[:, back] for name, values in heard.errors.items()}
    reverse = heard._replace(errors=errors, believed=2 * settings.expected - heard.believed)
    verdicts = [claim.holds for claim in oddball.claims(settings, reverse)]
    assert verdicts[0] is verdicts[3] is False
    write_up(oddball, dataclasses.replace(settings, listeners=2, standards=2), tmp_path)


def test_weighted_errors_are_what_energies_say_without_their_constants():
    """Against errors and precisions put together by hand, at order zero alone."""
    model = oddball.chirp(4.0, 1.0)
    y = np.random.default_rng(0).normal(size=(40, 2))
    import vfe
    from vfe.dynamics import Reference

    low = vfe.DynamicModel(model.levels, order=1, smoothness=model.smoothness, dt=model.dt)
    found = vfe.filter(low, y, scheme=Reference())
    # With two orders the smoothness matrix is diagonal: e and its derivative are independent.
    sigma = low.smoothness
    error = found.errors["causes"] * 1.0
    half = 0.5 * np.exp(4.0) * (error**2).sum()
    assert oddball.weighted_errors(low, found)["causes"] >= half
    first = found.derivatives[1][:, 1]  # their prior mean is zero at all orders
    wanted = half + 0.5 * np.exp(4.0) * 2 * sigma**2 * (first**2).sum()
    assert oddball.weighted_errors(low, found)["causes"] == pytest.approx(wanted, rel=1e-9)


def test_the_percept_goes_on_in_an_omission_and_dies_in_silence(tmp_path):
    settings = birdsong.Settings(seconds=2.0)
    song, found = birdsong.listen(settings, 0)
    cut = settings.cut
    np.testing.assert_array_equal(found["omitted"].states[:cut], found["intact"].states[:cut])
    sung = np.asarray(song.states)[:, 1:3]
    spread = sung.std(0)
    gap = {name: np.abs(f.percept - sung) / spread for name, f in found.items()}
    quarter = slice(cut, cut + 16)
    assert gap["intact"][cut // 2 :].max() < 0.5
    assert gap["omitted"][quarter].max() < 0.5  # a chirp and more that nobody sang
    assert gap["silence"][cut + 8 : cut + 16].min(0).max() > 0.5
    sd = found["omitted"].sd[:, 2]
    assert sd[cut + 16] > 2 * sd[cut - 1]
    # Nothing heard, nothing to be surprised by; silence heard is a burst of errors at all levels.
    np.testing.assert_array_equal(found["omitted"].surprise[cut:], 0)
    for level in birdsong.ERRORS:
        assert found["omitted"].errors[level][cut + 8 :].max() < 1e-6  # smooth noise lasts a little
        calm = found["silence"].errors[level][cut // 2 : cut].max()
        assert found["silence"].errors[level][quarter].max() > 3 * calm
    assert np.abs(found["silence"].percept[-1, 0]) < 0.05 * np.abs(sung[:, 0]).max()
    assert birdsong.followed_for(settings, song, found["omitted"]) > 0.25
    result = write_up(birdsong, settings, tmp_path)
    assert all(claim.holds for claim in result.claims)
    # Broken: silence where an omission is meant, and the reverse; a lesion that cuts nothing.
    lesioned = birdsong.listen_without_backward_connections(settings, found, link=birdsong.LINK)
    np.testing.assert_array_equal(lesioned["omitted"].states, found["omitted"].states)
    swapped = {**found, "omitted": found["silence"], "silence": found["omitted"]}
    whole = [claim.holds for claim in birdsong.claims(settings, song, found, lesioned)]
    assert whole == [True] * 5 + [False]
    assert not any(claim.holds for claim in birdsong.claims(settings, song, swapped, lesioned)[:5])
