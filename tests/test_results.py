"""Storing and loading: nothing is lost, nothing is executed, nothing of another shape slips in."""

import html.parser
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import vfe
from vfe.results import load, read_config, save_run
from vfe.results.checkpoint import load_checkpoint, save_checkpoint
from vfe.results.claims import Claim
from vfe.results.folders import check_free, written_whole
from vfe.results.numbers import duration, say
from vfe.results.plots import plot_learned, plot_percept
from vfe.results.report import Figure, Report, Section, Table, build_report, picture
from vfe.results.run_folder import provenance
from vfe.results.tables import learned_to_xarray, percept_to_xarray

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def hierarchy(width=6):
    return vfe.hierarchy([3, width, 8], key=jax.random.key(0))


def linear():
    return vfe.Model(
        z2=vfe.gaussian(jnp.zeros(2)),
        z1=vfe.gaussian(vfe.Affine.random(2, 3, key=jax.random.key(0)), scale=0.5, parents="z2"),
        x=vfe.gaussian(vfe.Affine.random(3, 4, key=jax.random.key(1)), scale=0.5, parents="z1"),
    )


@pytest.fixture(scope="module")
def percept():
    return vfe.perceive(linear(), {"x": jnp.arange(20.0).reshape(5, 4) / 10})


def history(length=40, validation=True, point=False):
    step = np.arange(length) * 10
    fall = 300 * np.exp(-np.arange(length) / 3) - 20
    found = {
        "step": step,
        "total": fall,
        "energy": fall + 15,
        "entropy": np.full(length, 15.0),
        "complexity": np.full(length, 9.0),
        "accuracy": 9 - fall,
        "by_level": {"z": np.full(length, 9.0), "x": fall - 9},
    }
    if point:
        del found["entropy"], found["complexity"]
        found["prior_energy"] = np.full(length, 9.0)
    if validation:
        found["validation"] = history(5, False, point)
    return found


def learned(**options):
    return types.SimpleNamespace(
        history=history(**options), kind="approximation", steps=400, status="all epochs were done"
    )


# Run folders


def test_a_run_comes_back_as_it_was_written(tmp_path, percept):
    model = percept.conditioned.model
    report = Report("Title", "Summary.")
    folder = tmp_path / "deep" / "run"
    save_run(
        folder,
        name="toy",
        model=model,
        dataset=percept.to_xarray(),
        figures={"percept": percept.plot()[0].figure},
        report=report,
        seed=4,
        settings={"sizes": (3, 6), "rate": np.float32(0.5)},
        command="vfe run toy",
        data=provenance({"x": np.arange(3)}),
        headline=[("F", "−1 nats")],
    )
    xr.testing.assert_equal(load(folder), percept.to_xarray())
    blank = jax.tree.map(lambda a: jnp.zeros_like(a) if eqx.is_array(a) else a, model)
    assert eqx.tree_equal(load(folder, like=blank), model, typematch=True)
    config = read_config(folder)
    assert config["settings"] == {"sizes": [3, 6], "rate": 0.5}
    assert config["x64"] is False
    assert "0x" not in config["model"]["structure"]
    assert config["data"]["x"]["dtype"] == "int64"
    assert {"python", "jax", "numpyro"} <= set(config["versions"])
    page = (folder / "report.html").read_text()
    assert "vfe run toy" in page
    assert not list(tmp_path.glob("**/.*")), "no temporary folder may stay"


def test_a_model_may_be_asked_for_by_shape_alone(tmp_path):
    save_run(tmp_path / "run", name="toy", model=hierarchy(), dataset=xr.Dataset())
    like = eqx.filter_eval_shape(hierarchy)
    assert eqx.tree_equal(load(tmp_path / "run", like=like), hierarchy(), typematch=True)


@pytest.mark.parametrize(
    ("stored", "like", "words"),
    [
        ({"w": np.zeros(3)}, {"w": np.zeros(4)}, r"\['w'\] of shape \(3,\).*\(4,\)"),
        ({"w": np.zeros(3)}, {"w": np.zeros(3, np.float32)}, r"float64.*jax_enable_x64"),
        ({"w": np.zeros(3)}, {"v": np.zeros(3)}, r"\['w'\].*\['v'\]"),
        ({"w": np.zeros(3)}, {"w": np.zeros(3), "z": np.zeros(1)}, r"lacks \['z'\]"),
        ({"w": np.zeros(3), "z": 1.0}, {"w": np.zeros(3)}, r"one more leaf: the float \['z'\]"),
        ({"w": 1.0}, {"w": 1}, r"the float \['w'\].*the int \['w'\]"),
        ({"w": jax.random.key(0)}, {"w": jax.random.key(0, impl="rbg")}, "key<fry>.*key<rbg>"),
    ],
)
def test_another_structure_is_refused_by_the_name_of_the_leaf(tmp_path, stored, like, words):
    save_run(tmp_path / "run", name="toy", model=stored, dataset=xr.Dataset())
    with pytest.raises(ValueError, match=words):
        load(tmp_path / "run", like=like)


def test_arrays_that_disagree_with_their_list_are_refused(tmp_path):
    """Orbax crops or casts to the shape asked for; a forged list must not make use of that."""
    save_run(tmp_path / "run", name="toy", model={"w": np.arange(6.0)}, dataset=xr.Dataset())
    leaves = tmp_path / "run/model/leaves.json"
    leaves.write_text(leaves.read_text().replace("6", "3", 1))
    with pytest.raises(ValueError, match="does not agree"):
        load(tmp_path / "run", like={"w": np.zeros(3)})


def test_damaged_folders_are_refused_in_words(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a run folder"):
        load(tmp_path / "none")
    for victim, words in [("config.json", "damaged"), ("result.nc", "damaged"), ("model", "leaves")]:
        folder = tmp_path / victim.replace(".", "_")
        save_run(folder, name="toy", model={"w": np.zeros(3)}, dataset=xr.Dataset({"a": ("t", [1.0])}))
        target = folder / victim
        if target.is_dir():
            (target / "leaves.json").write_text("[1]")
        else:
            target.write_bytes(target.read_bytes()[:20])
        with pytest.raises(ValueError, match=words):
            load(folder, like={"w": np.zeros(3)} if victim == "model" else None)
    config = {"schema_version": 99}
    (tmp_path / "config_json/config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="newer vfe"):
        load(tmp_path / "config_json")


def test_a_run_never_overwrites_and_says_what_to_do(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(FileExistsError, match="--out"):
        save_run(tmp_path / "run", name="toy", model={}, dataset=xr.Dataset())
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match="exists"):
        check_free(tmp_path / "link")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be written"):
        check_free(tmp_path / "file" / "run")


def test_a_place_without_permission_is_refused_before_any_work(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    tmp_path.chmod(0o500)
    if os.geteuid() == 0:  # whom no mode keeps out: the system's answer is put in place of it
        monkeypatch.setattr("vfe.results.folders.tempfile.mkdtemp", refuse)
    with pytest.raises(PermissionError, match="cannot be written"):
        check_free(tmp_path / "run")
    tmp_path.chmod(0o700)


def test_a_write_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), written_whole(tmp_path / "run") as folder:
        (folder / "none" / "half").write_text("")
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileExistsError), written_whole(tmp_path / "run") as folder:
        folder.with_name("run").mkdir()  # somebody else was quicker
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_figure_names_cannot_leave_the_folder(tmp_path):
    with pytest.raises(ValueError, match=r"\.\./up"):
        save_run(tmp_path / "a", name="t", model={}, dataset=xr.Dataset(), figures={"../up": None})


# Checkpoints


def everything():
    return {
        "model": hierarchy(),
        "key": jax.random.key(3),
        "keys": jax.random.split(jax.random.key(1, impl="rbg"), 3),
        "empty": jnp.zeros((0, 2)),
        "half": jnp.ones(2, jnp.bfloat16),
        "numpy": np.arange(3.0),
        "scalar": np.float32(2),
        "numbers": (1, 2.5, True, 1 + 2j, float("inf")),
        "none": None,
    }


def test_a_checkpoint_keeps_every_kind_of_leaf(tmp_path):
    tree = everything()
    save_checkpoint(tmp_path, 7, tree, {"F": [1.5, None]})
    step, found, metadata = load_checkpoint(tmp_path, tree)
    assert (step, metadata) == (7, {"F": [1.5, None]})
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(found), strict=True):
        assert type(a) is type(b), path
        if hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            assert jax.random.key_impl(a) == jax.random.key_impl(b)
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        if not callable(a):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=str(path))


def test_the_newest_two_checkpoints_are_kept_and_leftovers_go(tmp_path):
    assert load_checkpoint(tmp_path / "none", {}) is None
    (tmp_path / ".checkpoint-00000009.abc.tmp").mkdir()
    for step in (5, 6, 6, 2):
        save_checkpoint(tmp_path, step, {"w": jnp.asarray(step)}, {})
    assert len(list(tmp_path.iterdir())) == 2
    assert load_checkpoint(tmp_path, {"w": jnp.asarray(0)})[0] == 2, "the newest, not the largest step"


def test_metadata_that_json_cannot_hold_loses_nothing(tmp_path):
    save_checkpoint(tmp_path, 1, {"w": jnp.zeros(1)}, {})
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path, 2, {"w": jnp.zeros(1)}, {"bad": object()})
    assert load_checkpoint(tmp_path, {"w": jnp.zeros(1)})[0] == 1


SAVE_FOREVER = """
import itertools, sys, numpy as np
from vfe.results.checkpoint import load_checkpoint, save_checkpoint
like = {"a": np.zeros(20000), "b": np.zeros(3)}
found = load_checkpoint(sys.argv[1], like)
for step in itertools.count(0 if found is None else found[0] + 1):
    save_checkpoint(sys.argv[1], step, {k: np.full_like(v, step) for k, v in like.items()}, {"s": step})
    print(step, flush=True)
"""


def test_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    """The price of half a checkpoint is the whole computation: kill 6 times at random moments."""
    rng = np.random.default_rng(0)
    like = {"a": np.zeros(20000), "b": np.zeros(3)}
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    reached = -1
    for _ in range(6):
        command = [sys.executable, "-c", SAVE_FOREVER, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
        assert process.stdout is not None
        assert int(process.stdout.readline()) == reached + 1
        time.sleep(rng.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        said = [int(line) for line in process.communicate()[0].split()]
        reached = max([reached + 1, *said])
        found = load_checkpoint(tmp_path, like)
        assert found is not None
        step, tree, metadata = found
        assert step in (reached, reached + 1), "what was said to be saved is there"
        assert metadata == {"s": step}
        assert all((v == step).all() for v in tree.values())
        reached = step
    assert reached >= 6


# Tables and figures


def test_percept_as_dataset_has_named_axes_and_adds_up(percept):
    d = percept_to_xarray(percept)
    assert d["z1_mean"].dims == ("observation", "z1_0")
    assert d["free_energy_by_level"].dims == ("observation", "level")
    assert d["free_energy"].attrs["units"] == "nats"
    np.testing.assert_allclose(d["free_energy_by_level"].sum("level"), d["free_energy"], rtol=1e-5)
    np.testing.assert_allclose(d["energy"] - d["entropy"], d["free_energy"], rtol=1e-5)
    np.testing.assert_allclose(d["complexity"] - d["accuracy"], d["free_energy"], rtol=1e-4)
    np.testing.assert_allclose(d["trace"].isel(step=-1), percept.trace[:, -1])


def test_percepts_of_every_kind_have_a_table_and_a_figure():
    mix = vfe.Model(
        k=vfe.categorical(jnp.full(3, 1 / 3)),
        x=vfe.gaussian(vfe.Table(jnp.eye(3)), scale=0.5, parents="k"),
    )
    discrete = vfe.perceive(mix, {"x": jnp.eye(3)[None].repeat(2, 0)})
    d = percept_to_xarray(discrete)
    assert d["k_probability"].dims == ("observation_0", "observation_1", "k_state")
    line = vfe.Model(
        w=vfe.gaussian(jnp.zeros(2), shared=True),
        z=vfe.gaussian(jnp.zeros(2)),
        x=vfe.gaussian(vfe.Affine((jnp.eye(2), jnp.eye(2))), scale=0.5, parents=("w", "z")),
    )
    shared = vfe.perceive(line, {"x": jnp.ones((4, 2))})
    s = percept_to_xarray(shared)
    assert s["w_mean"].dims == ("w_0",)
    assert s["z_mean"].dims == ("observation", "z_0")
    np.testing.assert_allclose(s["free_energy_by_level"].sum("level"), s["free_energy"], rtol=1e-5)
    point = vfe.perceive(line, {"x": jnp.ones((4, 2))}, belief=vfe.Point)
    p = percept_to_xarray(point)
    assert "entropy" not in p
    assert "z_sd" not in p
    np.testing.assert_allclose(p["prior_energy"] - p["accuracy"], p["free_energy"], rtol=1e-5)
    for one in (discrete, shared, point, vfe.perceive(line, {"x": jnp.ones((4, 2))}, solver=vfe.Exact())):
        for ax in plot_percept(one)[:2]:
            assert "nats" in ax.get_xlabel() + ax.get_ylabel()


@pytest.mark.parametrize("point", [False, True])
@pytest.mark.parametrize("validation", [False, True])
def test_the_course_of_learning_as_dataset_and_figure(point, validation):
    d = learned_to_xarray(learned(point=point, validation=validation))
    assert d["free_energy"].dims == ("step",)
    assert ("validation_free_energy" in d) is validation
    assert ("entropy" in d) is not point
    np.testing.assert_allclose(d["free_energy_by_level"].sum("level"), d["free_energy"])
    axes = plot_learned(learned(point=point, validation=validation))
    assert len(axes) == (3 if point else 4)
    for ax in axes:
        assert ax.get_xlabel() == "epoch"
        assert ax.get_ylabel() == "nats per observation"
    with pytest.raises(ValueError, match="wanted"):
        plot_learned(learned(point=point), axes=axes[:2])


def test_a_course_without_a_single_epoch_is_empty_but_no_error():
    none = types.SimpleNamespace(
        history={"step": np.asarray([], int), "by_level": {}}, kind="", steps=0, status=""
    )
    assert learned_to_xarray(none)["step"].size == 0
    plot_learned(none)


def test_learning_goes_all_the_way_to_table_and_figure():
    x = jnp.arange(24.0).reshape(6, 4) / 10
    found = vfe.learn(linear(), {"x": x}, epochs=2, key=jax.random.key(2))
    d = found.to_xarray()
    assert d["free_energy"].size > 1
    np.testing.assert_allclose(d["free_energy_by_level"].sum("level"), d["free_energy"], rtol=1e-4)
    assert len(found.plot()) == 4


# The page


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_offline_and_escaped(percept):
    evil = "<script>alert('1')</script> & \"quotes\""
    figure = picture(percept.plot()[0].figure, evil, evil)
    section = Section(evil, f"{evil}\n\n`code`", [figure], Table([evil, "n"], [[evil, "−1.0 ± 0.1"]], evil))
    page = build_report(
        Report(
            evil, evil, [section], [(evil, evil)], evil, {"jax": "1"}, [Claim(evil, 1.0, 0.0, unit=evil)]
        )
    )
    parsed = Tags(page)
    assert not parsed.open
    names = {tag for tag, _ in parsed.tags}
    assert not names & {"script", "link", "iframe", "object"}
    for tag, attributes in parsed.tags:
        assert not any(k.startswith("on") for k in attributes)
        if tag == "img":
            assert attributes["src"].startswith("data:image/png;base64,")
            assert attributes["alt"] == evil
    assert not re.search(r"https?://|url\(|@import", page)
    assert "<code>code</code>" in page
    assert 'class="number"' in page


def test_the_page_refuses_what_it_cannot_show():
    with pytest.raises(ValueError, match="PNG"):
        build_report(Report("a", "b", [Section("c", "", [Figure(b"GIF89a", "", "")])]))
    with pytest.raises(ValueError, match="cells"):
        build_report(Report("a", "b", [Section("c", "", table=Table(["x", "y"], [["1"]]))]))


def test_numbers_as_a_person_reads_them():
    assert say(-27.8134, 0.0312) == "−27.813 ± 0.031"
    assert say(1234.5678, 12.3) == "1,235 ± 12"
    assert say(-1) == "−1.00"
    assert say(float("nan")) == "—"
    assert say(2.0, 0.0) == "2.00"
    assert (duration(59), duration(120), duration(90)) == ("59 s", "2 min", "1 min 30 s")


def test_import_of_the_library_is_light():
    code = "import sys, vfe, vfe.results; print(' '.join(sys.modules))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    heavy = {"matplotlib", "plotly", "sklearn", "xarray", "orbax", "typer", "rich", "h5netcdf"}
    assert not heavy & set(said.stdout.split())


def test_nothing_in_this_part_unpickles_or_evaluates():
    for path in Path(vfe.__file__).parent.joinpath("results").glob("*.py"):
        assert not re.search(
            r"import pickle|\bpickle\.\w|\beval\(|\bexec\(|allow_pickle=True", path.read_text()
        ), path
