"""Reference models of discrete worlds: their tables, and the numbers known of them."""

import pathlib

import numpy as np

from vfe.discrete import POMDP

FOLDER = pathlib.Path(__file__).parent / "reference" / "discrete"
CASES = sorted(path.stem for path in FOLDER.glob("*.npz"))


def read(case):
    data = dict(np.load(FOLDER / f"{case}.npz"))
    factors, modalities = range(len(data["num_states"])), range(len(data["num_obs"]))
    model = POMDP(
        [data[f"A_{m}"] for m in modalities],
        [data[f"B_{f}"] for f in factors],
        [data[f"C_{m}"] for m in modalities],
        [data[f"D_{f}"] for f in factors],
        data["E"] / data["E"].sum(),
        A_dependencies=[np.ravel(data[f"A_dep_{m}"]) for m in modalities],
        B_dependencies=[np.ravel(data[f"B_dep_{f}"]) for f in factors],
    )
    return data, model
