"""Learning from data that are not arrays on the device; resuming after a kill; numbers that are none."""

import json
import os
import shutil
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, gaussian_energy, normal_energy

import vfe
from vfe.conditioning import examine
from vfe.learning.cursor import decoded, encoded
from vfe.networks import dense, supervised

pytestmark = pytest.mark.usefixtures("float64")

KEY = jax.random.key(3)
RATE, SCALE = 0.1, 0.5


def data(count=12):
    rng = np.random.default_rng(0)
    u = rng.normal(size=(count, 2))
    return {"u": u, "y": u @ np.array([[1.0], [-0.5]]) + 0.1 * rng.normal(size=(count, 1))}


def regression():
    """y = W u + b + noise: no hidden node, so that learning is gradient descent on squared errors."""
    mean = vfe.Affine(np.array([[0.2, 0.1]]), np.zeros(1))
    return vfe.Model(u=vfe.given(2), y=vfe.gaussian(mean, scale=SCALE, parents="u"))


OPTIONS = {"keep_beliefs": False, "key": KEY, "optimiser": optax.sgd(RATE)}


class Dataset:
    """Single observations by number, as torch's data sets give them, and what was asked for."""

    def __init__(self, arrays):
        self.arrays, self.asked = arrays, []

    def __len__(self):
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, i):
        self.asked.append(i)
        if not isinstance(i, int):
            raise TypeError("one at a time")
        return {n: a[i] for n, a in self.arrays.items()}


def by_hand(minibatches):
    """Weights after plain gradient descent on these minibatches, and F of each observation on the way."""
    w, b, met = np.array([[0.2, 0.1]]), np.zeros(1), []
    for u, y in minibatches:
        error = y - u @ w.T - b
        met.append(normal_energy(y, y - error, SCALE**2).sum(1))
        w = w + RATE * error.T @ u / SCALE**2 / len(u)
        b = b + RATE * error.mean(0) / SCALE**2
    return w, b, np.concatenate(met)


def orders(count, epochs, key=KEY):
    order_key = jax.random.split(key, 3)[1]
    return [
        np.asarray(jax.random.permutation(jax.random.fold_in(order_key, e), count)) for e in range(epochs)
    ]


def parameters(model):
    return [np.asarray(a) for a in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(parameters(one), parameters(other), strict=True))


# What comes in.


@pytest.mark.parametrize("kind", ["arrays", "items", "rows", "disk"])
def test_minibatches_in_the_order_of_the_key(tmp_path, kind):
    """Three epochs of minibatches of 5 out of 12 (the last one filled up), by hand in NumPy."""
    seen = data()
    observed = {"arrays": seen, "items": Dataset(seen), "rows": vfe.Rows(seen)}.get(kind)
    if kind == "disk":
        for name, array in seen.items():
            np.save(tmp_path / name, array)
        observed = vfe.Rows({n: np.load(tmp_path / f"{n}.npy", mmap_mode="r") for n in seen})
    learned = vfe.learn(regression(), observed, epochs=3, batch_size=5, **OPTIONS)
    index = [i for o in orders(12, 3) for i in (o[:5], o[5:10], np.concatenate([o[10:], o[:3]]))]
    w, b, met = by_hand([(seen["u"][i], seen["y"][i]) for i in index])
    assert_close(learned.model["y"].mean.weight, w, 1e-12)
    assert_close(learned.model["y"].mean.bias, b, 1e-12)
    last = np.zeros(12)
    last[np.concatenate(index[6:])[::-1]] = met[30:][::-1]
    assert_close(learned.free_energy.total, last, 1e-12, "F in the order of the data")
    assert float(learned.history["total"][-1]) == pytest.approx(last.mean())


def test_a_source_is_never_asked_for_all_of_it(monkeypatch):
    monkeypatch.setattr("vfe.learning.feed.MOST_BYTES", 2 * 4 * 3 * 8)  # two minibatches of four
    rows = vfe.Rows(data(24))
    asked = []
    monkeypatch.setattr(
        vfe.Rows,
        "__getitem__",
        lambda self, i: asked.append(np.size(i)) or {n: a[i] for n, a in data(24).items()},
    )
    vfe.learn(regression(), rows, epochs=1, batch_size=4, **OPTIONS)
    assert asked[2:] == [8, 8, 8], "after the item that says the shapes"


def test_an_index_array_is_only_asked_for_where_it_gives_what_the_items_give():
    """A data set that reads an index array as something else would silently learn from other data."""

    class Odd(Dataset):
        def __getitem__(self, i):
            return {"u": self.arrays["u"][i] * np.ndim(i) + self.arrays["u"][i], "y": self.arrays["y"][i]}

    one = vfe.learn(regression(), Odd(data()), epochs=1, batch_size=4, **OPTIONS)
    other = vfe.learn(regression(), vfe.Rows(data()), epochs=1, batch_size=4, **OPTIONS)
    assert same(one.model, other.model)


def pieces(*sizes):
    found, start, seen = [], 0, data(sum(sizes))
    for size in sizes:
        found.append({n: a[start : start + size] for n, a in seen.items()})
        start += size
    return found


@pytest.mark.parametrize("kind", ["loader", "generator", "endless"])
def test_minibatches_as_they_come(kind):
    """A pass is an epoch; minibatches of several sizes; `per_epoch` makes an epoch of any number."""
    found = pieces(4, 4, 3)

    class Loader:
        def __iter__(self):
            return iter(found)

    observed, epochs, met = {
        "loader": (Loader(), 2, found * 2),
        "generator": ((b for b in found), 1, found),
        "endless": (vfe.Batches(found, per_epoch=4), 2, (found * 3)[:8]),
    }[kind]
    learned = vfe.learn(regression(), observed, epochs=epochs, **OPTIONS)
    w, b, energies = by_hand([(m["u"], m["y"]) for m in met])
    assert_close(learned.model["y"].mean.weight, w, 1e-12)
    assert_close(learned.model["y"].mean.bias, b, 1e-12)
    in_last = sum(len(m["u"]) for m in met[len(met) // epochs * (epochs - 1) :])
    assert_close(learned.free_energy.total, energies[-in_last:], 1e-12)
    assert learned.epochs == epochs


@pytest.mark.core
def test_missing_values_and_amortised_beliefs_from_a_source():
    """The same as from arrays; a mask that only some minibatches need changes nothing."""
    seen = data()
    seen["y"][[0, 7]] = np.nan
    options = {**OPTIONS, "batch_size": 3, "epochs": 2}
    one, other = (vfe.learn(regression(), o, **options) for o in (seen, vfe.Rows(seen)))
    for a, b in zip(parameters(one.model), parameters(other.model), strict=True):
        assert_close(a, b, 1e-12)
    assert_close(one.free_energy.total, other.free_energy.total, 1e-12)
    assert_close(other.free_energy.total[np.array([0, 7])], [0.0, 0.0], 1e-12, "nothing observed")
    masked = {**seen, "y": vfe.masked(np.nan_to_num(seen["y"]), ~np.isnan(seen["y"]))}
    assert same(vfe.learn(regression(), vfe.Rows(masked), **options).model, other.model)

    latent = vfe.Model(
        z=vfe.gaussian(np.zeros(1)), x=vfe.gaussian(vfe.Affine(np.ones((2, 1))), parents="z")
    )
    encoder = eqx.nn.Linear(2, 2, key=KEY)
    amortised = {"belief": vfe.Amortised(encoder, vfe.DiagonalGaussian), "batch_size": 4, "epochs": 2}
    x = {"x": data()["u"]}
    one, other = (vfe.learn(latent, o, key=KEY, **amortised) for o in (x, Dataset(x)))
    assert_close(one.family.encoder.weight, other.family.encoder.weight, 1e-12)
    assert other.belief is None


def test_a_node_that_is_hidden_in_some_minibatches_only():
    """A missing value of a node with children: F of every observation is −ln p of what is there."""
    model = vfe.Model(
        z=vfe.gaussian(np.zeros(1)), x=vfe.gaussian(vfe.Affine(np.ones((2, 1))), scale=0.5, parents="z")
    )
    rng = np.random.default_rng(2)
    seen = {"z": rng.normal(size=(6, 1)), "x": rng.normal(size=(6, 2))}
    seen["z"][4] = np.nan
    stream = vfe.Batches([{n: a[i : i + 2] for n, a in seen.items()} for i in (0, 2, 4)])
    options = {**OPTIONS, "belief": vfe.Laplace, "optimiser": optax.sgd(0.0), "rtol": 1e-12, "atol": 1e-12}
    learned = vfe.learn(model, stream, epochs=1, **options)
    wanted = normal_energy(seen["z"], 0.0, 1.0).sum(1) + normal_energy(seen["x"], seen["z"], 0.25).sum(1)
    wanted[4] = gaussian_energy(seen["x"][4], np.zeros(2), np.ones((2, 2)) + 0.25 * np.eye(2))
    assert_close(learned.free_energy.total, wanted, 1e-9)
    # What one process of several does where the values are missing in the share of another.
    whole = {n: a[:2] for n, a in seen.items()}
    assert set(examine(model, whole)[0].masks) == set()
    asked, _ = examine(model, whole, incomplete={"z"})
    assert asked.masks["z"].all()
    assert asked.hidden == ("z",)


traced = 0


class Counted(eqx.Module):
    """A linear map that counts how often Python runs it: that is, how often it is traced."""

    weight: jax.Array

    def __call__(self, u):
        global traced
        traced += 1
        return self.weight @ u


def test_minibatches_of_one_shape_share_one_compiled_step():
    model = vfe.Model(u=vfe.given(2), y=vfe.gaussian(Counted(jnp.ones((1, 2))), parents="u"))
    counts = []
    for observed, size in (
        (vfe.Rows(data(24)), 4),
        (vfe.Rows(data(24)), 4),
        (vfe.Batches(pieces(4)), None),
        (vfe.Batches(pieces(*[4] * 20)), None),
    ):
        before = traced
        vfe.learn(model, observed, epochs=3, batch_size=size, **OPTIONS)
        counts.append(traced - before)
    assert counts[0] > counts[1] == 0
    assert counts[2] > counts[3] == 0


def test_a_shorter_last_group_takes_one_program_more(tmp_path):
    """37 minibatches go in 19 and 18 steps: at most twice traced, and resumed bit for bit."""
    model = vfe.Model(u=vfe.given(2), y=vfe.gaussian(Counted(jnp.ones((1, 2))), parents="u"))

    def learned(count, **options):
        before = traced
        found = vfe.learn(model, vfe.Rows(data(count)), batch_size=1, **OPTIONS, **options)
        return traced - before, found

    even, _ = learned(36, epochs=2)
    uneven, whole = learned(37, epochs=3)
    assert 0 < uneven <= 2 * even
    learned(37, epochs=1, checkpoint=tmp_path)
    _, resumed = learned(37, epochs=3, checkpoint=tmp_path, resume=True)
    assert np.array_equal(resumed.model["y"].mean.weight, whole.model["y"].mean.weight)
    assert np.array_equal(resumed.history["total"], whole.history["total"])
    arrays = vfe.learn(model, data(37), batch_size=1, epochs=3, **OPTIONS)
    assert_close(arrays.model["y"].mean.weight, whole.model["y"].mean.weight, 1e-12)


# Going on.

KILLED = """
import os, signal, sys, jax
jax.config.update("jax_enable_x64", True)
sys.path.insert(0, sys.argv[1])
from test_learning_scale import *

class Last(Dataset):
    def __getitem__(self, i):
        if len(self.asked) == 70:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(i)

def kill(epoch, numbers, model):
    if epoch == 5:
        os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[3] == "arrays":
    resumable(data(), sys.argv[2], callback=kill)
else:
    resumable(Last(data()), sys.argv[2])
"""


def resumable(observed, folder, **options):
    more = {"checkpoint": folder, "checkpoint_every": 2, **options}
    optimiser = optax.adam(0.05)
    return vfe.learn(
        regression(),
        observed,
        epochs=7,
        batch_size=5,
        keep_beliefs=False,
        key=KEY,
        optimiser=optimiser,
        **more,
    )


def test_the_same_numbers_after_a_kill(tmp_path):
    """kill -9 after the fifth epoch, or within a minibatch of it: what follows is the same to the last "
    "bit."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    here = os.path.dirname(__file__)
    started = {
        kind: subprocess.Popen(
            [sys.executable, "-c", KILLED, here, str(tmp_path / kind), kind], env=environment
        )
        for kind in ("arrays", "source")
    }
    whole = vfe.learn(
        regression(), data(), epochs=7, batch_size=5, **{**OPTIONS, "optimiser": optax.adam(0.05)}
    )
    for kind, process in started.items():
        assert process.wait(timeout=120) == -9
        observed = data() if kind == "arrays" else Dataset(data())
        epochs = []
        again = resumable(
            observed, tmp_path / kind, resume=True, callback=lambda e, n, m, epochs=epochs: epochs.append(e)
        )
        assert epochs == [5, 6, 7], kind
        assert same(again.model, whole.model), kind
        assert np.array_equal(again.history["total"], whole.history["total"]), kind
        assert np.array_equal(again.free_energy.total, whole.free_energy.total), kind
        # Nothing left to do: F under the model as it is.
        done = resumable(observed, tmp_path / kind, resume=True)
        u, y = data()["u"], data()["y"]
        w, b = done.model["y"].mean.weight, done.model["y"].mean.bias
        assert_close(done.free_energy.total, normal_energy(y, u @ w.T + b, SCALE**2).sum(1), 1e-12)


class ByIterable:
    """Shuffles with its own generator and says where it is, as torchdata's StatefulDataLoader does."""

    def __init__(self):
        self.rng, self.place, self.order = np.random.default_rng(5), 0, np.arange(6)

    def __iter__(self):
        if self.place % 6 == 0:
            self.order, self.place = self.rng.permutation(6), 0
        while self.place < 6:
            self.place += 1
            yield pieces(*[4] * 6)[self.order[self.place - 1]]

    def state_dict(self):
        return {"rng": self.rng.bit_generator.state, "place": self.place, "order": self.order}

    def load_state_dict(self, state):
        self.rng.bit_generator.state = state["rng"]
        self.place, self.order = state["place"], state["order"]


class ByIterator:
    """Its iterators say where they are, in bytes, as those of grain do."""

    class Pass:
        def __init__(self):
            self.place = 0

        def __iter__(self):
            return self

        def __next__(self):
            if self.place == 6:
                raise StopIteration
            self.place += 1
            return pieces(*[4] * 6)[self.place - 1]

        def get_state(self):
            return str(self.place).encode()

        def set_state(self, state):
            self.place = int(state)

    def __iter__(self):
        return self.Pass()


@pytest.mark.parametrize("make", [ByIterable, ByIterator])
@pytest.mark.parametrize("per_epoch", [None, 4])
def test_an_iterable_that_says_where_it_is_goes_on_from_there(tmp_path, make, per_epoch):
    """Also from within a pass, where an epoch is not a whole one."""
    options = {**OPTIONS, "epochs": 5}
    whole = vfe.learn(regression(), vfe.Batches(make(), per_epoch), **options)
    stopped = {**options, "callback": lambda e, n, m: e == 2, "checkpoint": tmp_path}
    vfe.learn(regression(), vfe.Batches(make(), per_epoch), **stopped)
    again = vfe.learn(
        regression(), vfe.Batches(make(), per_epoch), checkpoint=tmp_path, resume=True, **options
    )
    assert same(again.model, whole.model)
    assert np.array_equal(again.history["total"], whole.history["total"])


@pytest.mark.parametrize("make", [lambda: vfe.Batches(pieces(4, 4)), lambda: (b for b in pieces(4, 4))])
def test_an_iterable_that_does_not_say_where_it_is_is_refused(tmp_path, make):
    vfe.learn(regression(), make(), epochs=1, checkpoint=tmp_path, **OPTIONS)
    with pytest.raises(ValueError, match=r"state_dict\(\) and load_state_dict"):
        vfe.learn(regression(), make(), epochs=2, checkpoint=tmp_path, resume=True, **OPTIONS)


def test_states_are_stored_without_pickle():
    state = {
        "a": [1, None, (2.5, b"\x00\xff")],
        3: np.arange(6.0).reshape(2, 3),
        "s": np.int64(4),
        "t": True,
    }
    found = decoded(encoded(state))
    assert found["a"] == state["a"]
    assert found["t"] is True
    assert np.array_equal(found[3], state[3])
    assert found["s"] == 4
    with pytest.raises(TypeError, match="holds a object"):
        encoded({"a": object()})


def test_a_checkpoint_of_another_run_is_refused_in_words(tmp_path):
    def again(model=None, observed=None, **options):
        options = {"epochs": 2, "batch_size": 4, "checkpoint": tmp_path, **OPTIONS, **options}
        return vfe.learn(model or regression(), observed or data(), **options)

    again(epochs=1)
    mean = vfe.Affine(np.zeros((1, 3)), np.zeros(1))
    other = vfe.Model(u=vfe.given(3), y=vfe.gaussian(mean, scale=SCALE, parents="u"))
    wider = {**data(), "u": np.zeros((12, 3))}
    with pytest.raises(ValueError, match=r"another model.*weight of shape \(1, 2\).*wanted.*\(1, 3\)"):
        again(other, wider, resume=True)
    with pytest.raises(ValueError, match="key="):
        again(key=jax.random.key(4), resume=True)
    with pytest.raises(ValueError, match=r"got batch_size=6, wanted batch_size=4"):
        again(batch_size=6, resume=True)
    for options, words in (
        ({"belief": vfe.Point}, "got belief=Point, wanted belief="),
        ({"solver": vfe.Descent()}, r"got solver=Descent\(optimiser=None\), wanted solver=None"),
        ({"expectation": vfe.MonteCarlo(6)}, r"got expectation=MonteCarlo\(samples=6\), wanted .*=None"),
        ({"gradient": vfe.TotalDerivative()}, r"got gradient=TotalDerivative\(\), wanted .*Maximisation"),
        ({"perception_steps": 7}, "got perception_steps=7, wanted perception_steps=100"),
        ({"parameter_steps": 2}, "got parameter_steps=2, wanted parameter_steps=1"),
        ({"optimiser": optax.adam(0.1)}, r"got optimiser=\(ScaleByAdamState\(.*, wanted optimiser="),
    ):
        with pytest.raises(ValueError, match=words):
            again(resume=True, **options)
    # adabelief's state has the names and shapes of adam's.
    both = {"checkpoint": tmp_path / "adam", "optimiser": optax.adam(0.1)}
    again(epochs=1, **both)
    with pytest.raises(ValueError, match=r"got optimiser=.*ScaleByBeliefState.*wanted .*ScaleByAdamState"):
        again(resume=True, **{**both, "optimiser": optax.adabelief(0.1)})
    # A float32 run is another one too.
    with jax.enable_x64(False), pytest.raises(ValueError, match="jax_enable_x64"):
        again(resume=True)


# A read that fails leaves a future of tensorstore behind, whose loop is closed when it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_checkpoint_half_written_is_never_loaded(tmp_path):
    options = {"epochs": 2, "batch_size": 4, **OPTIONS}
    vfe.learn(regression(), data(), checkpoint=tmp_path / "a", **options)
    whole = vfe.learn(regression(), data(), **{**options, "epochs": 3})
    newest = sorted((tmp_path / "a").glob("checkpoint-*"))[-1]

    def resumed(folder):
        more = {**options, "epochs": 3, "checkpoint": folder, "resume": True}
        return vfe.learn(regression(), data(), **more)

    def broken(name, change):
        folder = tmp_path / name
        shutil.copytree(tmp_path / "a", folder)
        change(folder / newest.name)
        return folder

    def other(place):
        """Whole, but not what was written: Orbax itself would hand out a flipped bit without a word."""
        sums = json.loads((place / "tree/checksums.json").read_text())
        (place / "tree/checksums.json").write_text(json.dumps({n: s ^ 1 for n, s in sums.items()}))

    def cut(place):
        file = place / "tree/arrays/manifest.ocdbt"
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    # What a killed process leaves has a name of its own, and is not looked at.
    left = broken("left", lambda place: shutil.copytree(place, place.parent / ".checkpoint-00000009.x.tmp"))
    assert same(resumed(left).model, whole.model)
    for number, change in enumerate(
        (
            lambda place: (place / "checkpoint.json").unlink(),
            lambda place: shutil.rmtree(place / "tree/arrays"),
            lambda place: (place / "tree/leaves.json").write_text("["),
            cut,
        )
    ):
        folder = broken(f"b{number}", change)
        with pytest.raises(ValueError, match=r"is damaged.*remove it to use the one before"):
            resumed(folder)
        shutil.rmtree(folder / newest.name)
        assert same(resumed(folder).model, whole.model), "the one before goes on to the same numbers"


# Bad input.


def bad_at(step, leaf):
    """Plain descent, whose given step is NaN for one leaf."""

    def update(slope, count, params=None):
        def one(path, g):
            bad = (count == step) & (leaf in jax.tree_util.keystr(path))
            return jnp.where(bad, jnp.nan, -0.01 * g)

        return jax.tree_util.tree_map_with_path(one, slope), count + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), int), update)


@pytest.mark.core
@pytest.mark.parametrize("make", [lambda d: d, vfe.Rows], ids=["arrays", "source"])
def test_a_weight_that_becomes_nan_is_named_with_its_step(tmp_path, make):
    """Minibatch 2 of the third epoch: the checkpoint is that of the second, and goes on as it should."""
    options = {**OPTIONS, "epochs": 4, "batch_size": 4, "checkpoint": tmp_path}
    words = (
        r"epoch 3, minibatch 2, \.mean\.bias of node 'y' became NaN.*checkpoint in .* is that of epoch 2"
    )
    with pytest.raises(vfe.DivergenceError, match=words):
        vfe.learn(regression(), make(data()), **{**options, "optimiser": bad_at(7, "bias")})
    good = {**options, "optimiser": bad_at(-1, "bias")}
    again = vfe.learn(regression(), make(data()), resume=True, **good)
    del good["checkpoint"]
    assert same(again.model, vfe.learn(regression(), make(data()), **good).model)


def test_an_f_that_becomes_infinite_is_named_with_its_step():
    """exp of a steep line overflows: the weights are finite, F of the node is not."""

    class Steep(eqx.Module):
        weight: jax.Array

        def __call__(self, u):
            return jnp.exp(self.weight @ u)

    model = vfe.Model(u=vfe.given(2), y=vfe.gaussian(Steep(jnp.ones((1, 2))), parents="u"))
    seen = data(8)
    seen["u"][5] = 1e4
    options = {**OPTIONS, "optimiser": optax.sgd(0.0)}
    number = list(orders(8, 1)[0]).index(5) // 2 + 1
    with pytest.raises(vfe.DivergenceError, match=f"epoch 1, minibatch {number}, F of node 'y'.*1 of 2"):
        vfe.learn(model, seen, batch_size=2, epochs=1, **options)
    weight = np.full((1, 2), np.nan)
    with pytest.raises(ValueError, match=r"\.weight of node 'y' holds NaN before the first step"):
        vfe.learn(eqx.tree_at(lambda m: m["y"].mean.weight, model, weight), data(8), **options)


def changing(at, value):
    class Changing(Dataset):
        def __getitem__(self, i):
            return {**super().__getitem__(i), **({"y": value} if i == at else {})}

    return Changing(data())


@pytest.mark.parametrize(
    ("observed", "options", "words"),
    [
        (lambda: Dataset({"u": [], "y": []}), {"batch_size": 1}, "source is empty"),
        (lambda: vfe.Batches([]), {}, "is empty"),
        (lambda: iter([]), {}, "is empty"),
        (lambda: (b for b in pieces(4)), {"epochs": 2}, "nothing in epoch 2.*iterated again"),
        (
            lambda: changing(7, np.zeros(2)),
            {"batch_size": 4},
            r"item 7.*shape \(2,\), and item 0 of shape \(1,\)",
        ),
        (lambda: changing(7, np.array([np.inf])), {"batch_size": 4}, r"node 'y'.*1 elements are infinite"),
        (lambda: Dataset({**data(), "w": data()["u"]}), {"batch_size": 4}, "no node 'w'"),
        (lambda: Dataset({"y": data()["y"]}), {"batch_size": 4}, r"no values for the inputs \['u'\]"),
        (lambda: vfe.Batches([*pieces(4), {"u": np.zeros((4, 3)), "y": np.zeros((4, 1))}]), {}, "node 'u'"),
        (
            lambda: pieces(4, 4),
            {"batch_size": 2},
            r"items of the source have leading axes, \(4,\).*vfe.Batches",
        ),
        (lambda: vfe.Rows(data()), {}, "source of 12 observations; say how many"),
        (lambda: vfe.Rows(data()), {"batch_size": 13}, "batch_size=13; wanted 1 … 12"),
        (lambda: vfe.Batches(pieces(4)), {"batch_size": 4}, "come as they are"),
        (
            lambda: vfe.Rows(data()),
            {"batch_size": 4, "validation": vfe.Rows(data())},
            "validation is a Rows",
        ),
        (lambda: vfe.Rows(data()), {"batch_size": 4, "contrast": vfe.Contrast("y")}, "contrast"),
        (lambda: vfe.Batches([(1, 2)]), {}, "gave a tuple; wanted minibatches as mappings"),
        (lambda: [(1, 2)], {"batch_size": 1}, "item 0 of the source is a tuple; wanted a mapping"),
        (lambda: 3, {}, "got a int for the data"),
        (lambda: data(), {"batch_size": 4, "devices": []}, "wanted different JAX devices"),
        (
            lambda: data(),
            {"batch_size": 4, "devices": [jax.devices()[0]] * 2},
            "wanted different JAX devices",
        ),
    ],
)
def test_data_that_do_not_fit(observed, options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        vfe.learn(regression(), observed(), **{"epochs": 1, **OPTIONS, **options})


def test_beliefs_are_kept_of_arrays_only():
    x = {"x": data()["u"]}
    mean = vfe.Affine(np.ones((2, 1)))
    model = vfe.Model(z=vfe.gaussian(np.zeros(1)), x=vfe.gaussian(mean, parents="z"))
    with pytest.raises(ValueError, match=r"a Rows; write keep_beliefs=False.*Amortised"):
        vfe.learn(model, vfe.Rows(x), batch_size=4)
    shared = vfe.Model(z=vfe.gaussian(np.zeros(1), shared=True), x=vfe.gaussian(mean, parents="z"))
    with pytest.raises(ValueError, match=r"nodes \['z'\] are shared.*dictionary of arrays"):
        vfe.learn(shared, vfe.Rows(x), batch_size=4, keep_beliefs=False)


def test_labels_outside_the_classes_are_named_where_they_arrive():
    model = supervised(dense([2, 3, 3], key=KEY), inputs=2)
    labels = np.zeros(12, np.int64)
    labels[5] = 2**32 + 1  # would be 1 in 32 bits
    options = {**OPTIONS, "belief": vfe.Point, "batch_size": 4, "epochs": 1}
    with jax.enable_x64(False):
        for observed in ({"x": data()["u"], "y": labels}, vfe.Rows({"x": data()["u"], "y": labels})):
            with pytest.raises(ValueError, match=r"node 'y'.*wanted 0 … 2"):
                vfe.learn(model, observed, **options)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: vfe.Rows({}), "wanted a dictionary"),
        (lambda: vfe.Rows({"x": np.zeros(3), "y": np.zeros(4)}), "equally many"),
        (lambda: vfe.Rows({"x": 1.0}), "is a number"),
        (lambda: vfe.Rows({"x": [[1.0], [2.0]]}), "'x' is a list"),
        (lambda: vfe.Batches({"x": 1}), "wanted an iterable"),
        (lambda: vfe.Batches([], per_epoch=0), "at least 1"),
    ],
)
def test_wrappers_that_do_not_fit(make, words):
    with pytest.raises((ValueError, TypeError), match=words):
        make()
