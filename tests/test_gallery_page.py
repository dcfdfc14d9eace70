"""Run folders on one Markdown page, also where they hold what they should not."""

import io
import json

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

from vfe.cli import app
from vfe.gallery import JOBS
from vfe.gallery.collected import MARK, WIDTH, collect, escaped, shrunk, write
from vfe.results.claims import Claim
from vfe.results.run_folder import save_run

RUN = CliRunner()


def make_run(folder, name="permanence", claims=(), headline=(("error", "0.3 m"),), figure=True):
    drawn = Figure(figsize=(9.0, 3.0))
    ax = drawn.subplots()
    ax.imshow(np.arange(256.0).reshape(16, 16), cmap="gray", aspect="auto")
    ax.axhline(8, color="#D55E00", linewidth=1.0)
    save_run(
        folder,
        name=name,
        model={},
        dataset=xr.Dataset(),
        figures={"target": drawn} if figure else {},
        command=f"vfe run {name} --seed 0",
        headline=headline,
        claims=claims,
    )
    return folder


def change(folder, **entries):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_a_page_of_two_experiments(tmp_path):
    runs = tmp_path / "runs"
    held = Claim("the error while hidden is below", 0.3, high=0.5, unit="m")
    make_run(runs / "b", claims=[held, Claim("it fails", 2.0, high=1.0)])
    make_run(runs / "a", name="birdsong", figure=False)
    make_run(runs / "c", name="other", claims=[Claim("the two differ by", 1e-12, high=1e-9)])
    page = tmp_path / "docs" / "gallery.md"
    result = RUN.invoke(app, ["gallery", str(runs), "--out", str(page)])
    assert result.exit_code == 0
    assert "3 experiments, 3 claims, 1 failed, 2 figures" in result.output.replace("\n", "")
    text = page.read_text()
    assert text.startswith(MARK)
    # In the order of the list; what no list knows comes last.
    order = [text.index(f"## {name}\n") for name in ("birdsong", "permanence", "other")]
    assert order == sorted(order)
    assert JOBS["birdsong"].load().__doc__.split("\n\n")[0].strip() in text
    assert "| the error while hidden is below | 0.3 m | at most 0.5 | holds |" in text
    assert "| it fails | 2 | at most 1 | **FAILS** |" in text
    assert "**1 failed**" in text
    assert "1 of the claims are proved" in text
    assert "| error | 0.3 m |" in text
    assert "\n    vfe run permanence --seed 0\n" in text
    assert "](gallery/permanence-target.png)" in text
    with Image.open(tmp_path / "docs" / "gallery" / "permanence-target.png") as picture:
        assert picture.size == (WIDTH, round(WIDTH / 3))
        # A thin line in many greys keeps its colour.
        away = np.abs(np.asarray(picture.convert("RGB"), int) - (213, 94, 0)).sum(-1)
        assert (away < 40).sum() > 100


def test_the_newest_run_counts_and_old_figures_go(tmp_path):
    runs, page = tmp_path / "runs", tmp_path / "gallery.md"
    change(make_run(runs / "a", headline=[("error", "old")]), created="2026-01-01T00:00:00+00:00")
    change(make_run(runs / "b", headline=[("error", "new")]), created="2026-01-02T00:00:00+00:00")
    write(collect(runs), page)
    assert "new" in page.read_text()
    assert "old" not in page.read_text()
    mine = tmp_path / "gallery" / "mine.png"
    mine.write_bytes(b"of somebody else")
    (runs / "b" / "figures" / "target.png").rename(runs / "b" / "figures" / "course.png")
    write(collect(runs), page)
    names = {path.name for path in (tmp_path / "gallery").iterdir()}
    assert names == {"permanence-course.png", "mine.png"}


def test_what_runs_say_is_shown_not_obeyed(tmp_path):
    bad = "<script>x</script> [a](javascript:b) | c `d` **e** https://f.g\n# h ![i](j)"
    folder = make_run(tmp_path / "runs" / "a", claims=[Claim(bad, 1.0, low=0.0)], headline=[(bad, bad)])
    change(folder, command="vfe run a\n\n# heading\u202e")
    page = tmp_path / "page.md"
    write(collect(folder.parent), page)
    text = page.read_text()
    for mark in ("<script", "[a](", "`d`", "**e**", "https://", "\n# h", "![i]", "\n# heading", "\u202e"):
        assert mark not in text
    assert len({line.count("|") for line in text.splitlines() if "script" in line and "holds" in line}) == 1
    assert "    vfe run a # heading" in text
    assert escaped("0.3 ± 0.1 nats, f_x: a–b (c)") == "0.3 ± 0.1 nats, f&#95;x: a–b (c)"
    assert len(escaped("x" * 10_000)) <= 400


def test_folders_that_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is no folder"):
        collect(tmp_path / "none")
    runs = tmp_path / "runs"
    runs.mkdir()
    with pytest.raises(ValueError, match="holds no run folders"):
        collect(runs)
    folder = make_run(runs / "a")
    for entries, message in (
        ({"name": "../up"}, "name is '../up'"),
        ({"name": 3}, "wanted a text"),
        ({"headline": [["alone"]]}, "no list of pairs"),
        ({"headline": {"a": 1}}, "wanted a list"),
        ({"claims": [{"statement": "x"}]}, "which is none"),
        ({"claims": ["x"]}, "which is none"),
    ):
        before = (folder / "config.json").read_text()
        change(folder, **entries)
        with pytest.raises(ValueError, match=message):
            collect(runs)
        (folder / "config.json").write_text(before)
    secret = tmp_path / "secret.png"
    secret.write_bytes((folder / "figures" / "target.png").read_bytes())
    (folder / "figures" / "link.png").symlink_to(secret)
    with pytest.raises(ValueError, match="leads out of its run folder"):
        collect(runs)
    (folder / "figures" / "link.png").unlink()
    page = tmp_path / "page.md"
    page.write_text("# Mine")
    result = RUN.invoke(app, ["gallery", str(runs), "--out", str(page)])
    assert result.exit_code == 2
    assert page.read_text() == "# Mine"


def test_pictures_that_are_refused(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(ValueError, match="is no PNG that can be shown"):
        shrunk(path)
    buffer = io.BytesIO()
    Image.new("1", (20_000, 9_000)).save(buffer, format="PNG")  # 20 kB that would be 540 MB
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="is no PNG that can be shown"):
        shrunk(path)
    jpeg = io.BytesIO()
    Image.new("RGB", (10, 10)).save(jpeg, format="JPEG")
    path.write_bytes(jpeg.getvalue())
    with pytest.raises(ValueError, match="is no PNG"):
        shrunk(path)
    with path.open("wb") as stream:
        stream.truncate(2**24 + 1)
    with pytest.raises(ValueError, match="at most 16 are read"):
        shrunk(path)
