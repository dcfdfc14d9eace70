"""How long the schemes for dynamic models take, after compilation, on the cases of the tests.

    python benchmarks/dynamic_models.py [--blocks 20] [--only conv_state ...]

A markdown table: the first call (with compilation), the median of the others, its ratio to the toolbox (its
seconds in Octave on a quiet machine, from the notes of the reference runs), and for conv_state the ratio to
the same filter in plain NumPy, in interleaved blocks of one process. Then 1,000 series at once over one,
and series of growing length.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
from timing import interleaved, ratio

import vfe
from vfe.dynamics import Reference
from vfe.dynamics.levels.smoothness import embedding_windows

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import dynamic_cases as cases

TOOLBOX = {
    "conv_state": 0.28,
    "conv_dem": 4.5,
    "lap_conv": 12.9,
    "double_well": 0.77,
    "lorenz": 0.49,
    "birdsong": 2.5,
    "adem_motor": 1.2,
}


def build(case: str) -> tuple[Callable[[], Any], Any, np.ndarray]:
    """The call that is timed, the model and the data."""
    data = cases.load(case)
    if case == "adem_motor":
        system, given = cases.motor(data), cases.acting(data)
        return lambda: vfe.act(system, **given), system.model, data["true_v1"].T
    y = data["Y"].T
    sweeps = Reference(sweeps=16)
    if case.endswith(("state", "dem")) or case == "lap_conv":
        model = cases.convolution(case, data)
    else:
        model = getattr(cases, case)(data)
    if case == "conv_dem":
        return lambda: vfe.dem(model, y, scheme=sweeps), model, y
    if case == "lap_conv":
        return lambda: vfe.generalised_filter(model, y, scheme=sweeps), model, y
    scheme = Reference(gain=np.exp(-2) if case == "birdsong" else 1.0)
    return lambda: vfe.filter(model, y, scheme=scheme), model, y


def plain_filter(data: dict[str, np.ndarray]) -> np.ndarray:
    """The states of conv_state by the same steps in NumPy, a matrix exponential for every sample."""
    n, d, s = 7, 3, float(data["opt_s"][0])
    values, y = data["prior_pE"], data["Y"].T
    f_x, g_x, f_v = values[:4].reshape(2, 2).T, values[4:12].reshape(2, 4).T, values[12:14, None]
    R = vfe.dynamics.smoothness_precision(n, s)
    one, some = np.eye(n), np.eye(n, d)
    g = np.block([[g_x], [np.zeros((1, 2))]]), np.array([[0.0]] * 4 + [[-1.0]])
    Pi = scipy.linalg.block_diag(
        np.kron(R, scipy.linalg.block_diag(data["V1"], data["V2"])), np.kron(R, data["W1"])
    )
    motion = np.kron(np.eye(n, k=1), np.eye(2))
    E = -np.block(
        [[np.kron(one, g[0]), np.kron(some, g[1])], [np.kron(one, f_x) - motion, np.kron(some, f_v)]]
    )
    E_y = np.zeros((len(E), 4 * n))
    E_y[(np.arange(n)[:, None] * 5 + np.arange(4)).ravel(), np.arange(4 * n)] = 1
    D = scipy.linalg.block_diag(motion, np.eye(d, k=1))
    shift = np.kron(np.eye(n, k=1), np.eye(4))
    weighted = E.T @ Pi
    J = np.block([[D - weighted @ E, -weighted @ E_y], [np.zeros((4 * n, len(D))), shift]])
    weights, which, samples = embedding_windows(len(y), n, np.arange(1.0, len(y) + 1))
    u, found = np.zeros(len(D)), []
    for t in range(len(y)):
        embedded = (weights[which[t]] @ y[samples[t]]).ravel()
        error = E_y @ embedded + E @ u
        error[-2:] = 0
        found.append(u)
        flow = np.concatenate([D @ u - weighted @ error, shift @ embedded])
        whole = np.zeros((len(J) + 1,) * 2)
        whole[1:, 1:], whole[1:, 0] = J, flow
        u = u + scipy.linalg.expm(whole)[1 : len(u) + 1, 0]
    return np.array(found)[:, :2]


def table(only: list[str], blocks: int) -> None:
    """One row for every case."""
    print("| case | first call, s | then, ms | toolbox / vfe |\n| --- | --- | --- | --- |")
    for case in only:
        call, _, _ = build(case)
        start = time.perf_counter()
        call()
        first = time.perf_counter() - start
        median = np.median(interleaved({case: call}, blocks)[case])
        print(f"| {case} | {first:.1f} | {1e3 * median:.2f} | {TOOLBOX[case] / median:.0f} |", flush=True)


def against_numpy(blocks: int) -> None:
    """conv_state beside plain NumPy."""
    call, _, _ = build("conv_state")
    data = cases.load("conv_state")
    np.testing.assert_allclose(plain_filter(data), call().states.mean, atol=1e-8)
    seconds = interleaved({"vfe": call, "numpy": lambda: plain_filter(data)}, blocks)
    low, middle, high = ratio(seconds["numpy"], seconds["vfe"])
    ms = 1e3 * np.median(seconds["numpy"])
    print(f"conv_state, plain NumPy / vfe: {middle:.0f} ({low:.0f} to {high:.0f}), {ms:.2f} ms", flush=True)


def many(blocks: int) -> None:
    """1,000 series at once, and long ones."""
    call, model, y = build("conv_state")
    noise = 0.01 * np.random.default_rng(0).normal(size=(1000, *y.shape))
    scheme = Reference()
    seconds = interleaved(
        {"one": call, "many": lambda: vfe.filter(model, y + noise, scheme=scheme)}, blocks
    )
    low, middle, high = ratio(seconds["many"], seconds["one"])
    ms = 1e3 * np.median(seconds["many"])
    print(f"1,000 series over one: {middle:.1f} ({low:.1f} to {high:.1f}), {ms:.1f} ms", flush=True)
    for length in (1000, 10_000, 100_000):
        long = np.sin(0.1 * np.arange(length))[:, None] * np.ones(4)
        run = {"": lambda long=long: vfe.filter(model, long, scheme=scheme)}
        median = np.median(interleaved(run, 3)[""])
        print(
            f"{length} samples: {1e3 * median:.1f} ms, {1e6 * median / length:.2f} us a sample", flush=True
        )


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--only", nargs="*", choices=[*TOOLBOX, "numpy", "many"])
    arguments = parser.parse_args()
    only = arguments.only or [*TOOLBOX, "numpy", "many"]
    table([case for case in TOOLBOX if case in only], arguments.blocks)
    if "numpy" in only:
        against_numpy(arguments.blocks)
    if "many" in only:
        many(arguments.blocks)


if __name__ == "__main__":
    main()
