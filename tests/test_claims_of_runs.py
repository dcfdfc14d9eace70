"""Claims of experiments: verdicts, bounds, the page, the run folder and the command line."""

import json
import math

import pytest
import xarray as xr
from rich.console import Console

from vfe.cli import print_claims
from vfe.results.claims import Claim, from_json
from vfe.results.report import Report, build_report
from vfe.results.run_folder import read_config, save_run


def test_verdicts():
    assert Claim("at least", 1.0, low=1.0).holds
    assert not Claim("at least", 0.999, low=1.0).holds
    assert Claim("at most", -3.0, high=0.0).holds
    assert not Claim("at most", 1e-9, high=0.0).holds
    assert not Claim("no number", math.nan, low=0.0).holds
    within = Claim("within", 0.12345, 0.1, 0.2, "nats")
    assert within.row == ("within", "0.1235 nats", "0.1 to 0.2", "holds")
    assert Claim("lower", -2.0, low=-1.0).row == ("lower", "−2", "at least −1", "FAILS")
    assert Claim("one value", 4.0, 4.0, 4.0).bound == "exactly 4"
    for low, high in ((-math.inf, math.inf), (1.0, 0.0), (math.nan, 1.0)):
        with pytest.raises(ValueError, match="must be able to fail"):
            Claim("cannot fail", 0.0, low, high)


def test_claims_go_to_page_folder_and_screen(tmp_path):
    claims = [Claim("F < its bound", 1.5, high=2.0, unit="nats"), Claim("lesions hurt", math.nan, low=0.0)]
    page = build_report(Report("Title", "Summary", claims=claims))
    assert "1 of 2 claims failed." in page
    assert "F &lt; its bound" in page
    assert "Every claim held." in build_report(Report("Title", "Summary", claims=claims[:1]))
    folder = save_run(tmp_path / "run", name="toy", model={}, dataset=xr.Dataset(), claims=claims)
    stored = read_config(folder)["claims"]
    assert json.dumps(stored, allow_nan=False)
    first, second = (from_json(one) for one in stored)
    assert first == claims[0]
    assert math.isnan(second.measured)
    assert not second.holds
    console = Console(record=True, width=100)
    print_claims(console, [first, second])
    assert "FAILS" in console.export_text()
    with pytest.raises(ValueError, match="which is none"):
        from_json({"statement": "x"})


@pytest.mark.parametrize(
    ("bounds", "proved"),
    [
        ({"high": 1e-9}, True),
        ({"low": -1e-11}, True),
        ({"low": 0.0, "high": 0.0}, True),
        ({"low": 0.0}, False),
        ({"high": 0.0}, False),
        ({"low": 4.0, "high": 4.0}, False),
        ({"low": -0.2, "high": 0.2}, False),
    ],
)
def test_what_is_proved_is_told_from_what_was_found(bounds, proved):
    claim = Claim("it is so", 0.0, **bounds)
    assert claim.is_proved is proved
    said = Claim("it is so", 0.0, **bounds, proved=not proved)
    assert from_json(said.to_json()).is_proved is not proved
