"""Learning on several devices and in several processes gives what one device gives."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close

import vfe
from vfe.networks import dense, supervised

HERE = Path(__file__).parent
KEY = jax.random.key(1)
OPTIONS = {
    "epochs": 2,
    "belief": vfe.Point,
    "solver": vfe.Anderson(),
    "keep_beliefs": False,
    "perception_steps": 3,
    "key": KEY,
    "optimiser": optax.adam(0.03),
}
MORE = {"keep_beliefs": True, "perception_steps": 1}


def network():
    return supervised(dense([3, 4, 2], key=KEY, activation=jnp.tanh), inputs=3)


def regression():
    mean = vfe.Affine(np.ones((1, 3)))
    return vfe.Model(u=vfe.given(3), y=vfe.gaussian(mean, scale=vfe.learnable(1.0), parents="u"))


def seen():
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(24, 3)).astype(np.float32), "y": rng.integers(0, 2, 24)}


def mine(rank):
    """The rows of a whole pass that one of two processes brings."""
    return slice(12 * rank, 12 * rank + 12)


def weights(model):
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    return np.concatenate([np.ravel(np.asarray(a)) for a in leaves])


def environment(devices):
    flags = f"--xla_force_host_platform_device_count={devices}"
    path = os.pathsep.join([str(HERE), *sys.path])
    return {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}


EIGHT = """
import vfe, jax, sys
import numpy as np
from test_learning_parallel import *
from vfe.learning import course
options = {**OPTIONS, "devices": jax.devices(), "batch_size": 24}
compiled = {}

def noted(name, function):
    def called(*arguments):
        if name not in compiled:
            compiled[name] = function.lower(*arguments).compile()
        return compiled[name](*arguments)
    return called

for name in ("steps", "steps_on"):
    setattr(course, name, noted(name, getattr(course, name)))
found = {"source": weights(vfe.learn(network(), vfe.Rows(seen()), **options).model)}
learned = vfe.learn(network(), seen(), **{**options, **MORE}, validation=seen())
found["kept"], found["F"] = weights(learned.model), learned.free_energy.total
found["validation"] = learned.history["validation"]["total"]
found["belief"], found["devices"] = learned.belief.location, len(learned.belief.location.devices())
try:
    vfe.learn(network(), seen(), **{**options, "batch_size": 12})
except ValueError as error:
    found["error"] = str(error)
np.savez(sys.argv[1], **found, **{n: c.compiled.as_text() for n, c in compiled.items()})
"""


def test_eight_devices_give_what_one_gives(tmp_path):
    """Beliefs kept or fresh, arrays or a source: to 1e-5; and each device has an eighth of the work."""
    file = tmp_path / "eight.npz"
    command = [sys.executable, "-c", EIGHT, str(file)]
    ended = subprocess.run(command, env=environment(8), capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    found = np.load(file)
    one = vfe.learn(network(), vfe.Rows(seen()), batch_size=24, **OPTIONS)
    assert_close(found["source"], weights(one.model), 1e-5)
    kept = vfe.learn(network(), seen(), batch_size=24, validation=seen(), **{**OPTIONS, **MORE})
    assert_close(found["kept"], weights(kept.model), 1e-5)
    assert_close(found["F"], kept.free_energy.total, 1e-5)
    assert_close(found["belief"], kept.belief.location, 1e-5)
    assert_close(found["validation"], kept.history["validation"]["total"], 1e-5)
    assert found["devices"] == 1, "what comes back is an ordinary array"
    assert np.abs(weights(one.model) - weights(network())).max() > 0.01
    for name in ("steps", "steps_on"):
        text = str(found[name])
        assert "all-reduce" in text
        assert text.count("f32[3,4]") > 5 * text.count("f32[24,4]"), f"{name}: activities of 3, not of 24"
    assert "12 observations per minibatch cannot be split evenly among 8 devices" in str(found["error"])


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two processes learn together over loopback, until the second is killed while both learn."""
    folder = tmp_path_factory.mktemp("two")
    port = free_port()
    outputs = [open(folder / f"{rank}.txt", "w+") for rank in range(2)]  # noqa: SIM115
    command = [sys.executable, str(HERE / "parallel_run.py")]
    processes = [
        subprocess.Popen(
            [*command, str(rank), port, str(folder)], env=environment(1), stdout=output, stderr=output
        )
        for rank, output in enumerate(outputs)
    ]
    try:
        processes[1].wait(timeout=240)
        died = time.monotonic()
        processes[0].wait(timeout=60)
        lasted = time.monotonic() - died
    finally:
        for process in processes:
            process.kill()
        said = []
        for output in outputs:
            output.seek(0)
            said.append(output.read())
            output.close()
    return folder, [p.returncode for p in processes], said, lasted


def test_two_processes_give_what_one_gives(two):
    """Each reads its half of every minibatch; weights and F are the same in both, and as of one process."""
    folder, _, said, _ = two
    assert "learned" in said[0], said[0]
    assert "learned" in said[1], said[1]
    found = [np.load(folder / f"{rank}.npz") for rank in range(2)]
    one = vfe.learn(network(), vfe.Rows(seen()), batch_size=8, **OPTIONS)
    all_at_once = vfe.learn(network(), vfe.Batches([seen()]), **{**OPTIONS, "epochs": 1})
    both = {"u": seen()["x"], "y": seen()["x"][:, :1]}
    options = {**OPTIONS, "belief": None, "solver": None, "keep_beliefs": True}
    arrays = vfe.learn(regression(), both, batch_size=8, **options)
    both["y"] = np.where(np.arange(24)[:, None] == 20, np.nan, both["y"])
    options = {**OPTIONS, "belief": None, "solver": None}
    missing = vfe.learn(regression(), vfe.Batches([both]), **options)
    for each in found:
        assert_close(each["missing"], weights(missing.model), 1e-5, "a mask in the share of one alone")
        assert_close(each["source"], weights(one.model), 1e-5)
        assert_close(each["F"], one.free_energy.total, 1e-5)
        assert_close(each["iterable"], weights(all_at_once.model), 1e-5)
        assert_close(each["arrays"], weights(arrays.model), 1e-5)
        assert "process 1: node 'y'" in str(each["error"]), "bad data of one process are an error in all"
    asked = [set(each["asked"][2:]) for each in found]  # after the first item, which says the shapes
    assert len(asked[0]) == len(asked[1]) == 12
    assert len(asked[0] | asked[1]) == 24


def test_a_process_that_dies_ends_the_others_with_an_error(two):
    """Within a minute, in words, and the checkpoint is that of the last whole epoch."""
    folder, codes, said, lasted = two
    assert codes[1] == -9, said[1]
    assert codes[0] != 0
    assert lasted < 60
    assert "ConnectionError: learn: another process of this run has ended" in said[0]
    epochs = []
    again = vfe.learn(
        network(),
        vfe.Rows(seen()),
        batch_size=8,
        checkpoint=folder / "dies",
        resume=True,
        callback=lambda epoch, *_: epochs.append(epoch),
        **OPTIONS,
    )
    assert epochs == [2]
    whole = vfe.learn(network(), vfe.Rows(seen()), batch_size=8, **OPTIONS)
    assert_close(weights(again.model), weights(whole.model), 1e-5)
