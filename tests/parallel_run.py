"""One process of a run of two, for test_learning_parallel: learn, and write down what was learned."""

import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np

import vfe  # before JAX starts, which importing vfe must leave to jax.distributed


def main(rank: int, port: str, folder: Path) -> None:
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank, heartbeat_timeout_seconds=15)
    from test_learning_parallel import OPTIONS, mine, network, regression, seen, weights

    options = {**OPTIONS, "devices": jax.devices()}
    arrays = seen()

    class Dataset:
        """Notes which observations this process asks for, and ends it after as many as `last`."""

        def __init__(self, last=None):
            self.asked, self.last = [], last

        def __len__(self):
            return len(arrays["x"])

        def __getitem__(self, i):
            if not isinstance(i, int):
                raise TypeError("one at a time")
            if len(self.asked) == self.last:
                os.kill(os.getpid(), signal.SIGKILL)
            self.asked.append(i)
            return {n: a[i] for n, a in arrays.items()}

    def learn(observed, model=network, **more):
        return vfe.learn(model(), observed, **{**options, **more})

    found = {}
    dataset, place = Dataset(), {"checkpoint": folder / "whole", "batch_size": 8}
    learn(dataset, epochs=1, **place)
    learned = learn(Dataset(), resume=True, **place)
    found["asked"], found["source"] = dataset.asked, weights(learned.model)
    found["F"] = learned.free_energy.total
    found["iterable"] = weights(
        learn([{n: a[mine(rank)] for n, a in arrays.items()}].__iter__(), epochs=1).model
    )
    both = {"u": arrays["x"], "y": arrays["x"][:, :1]}
    plain = {"belief": None, "solver": None, "keep_beliefs": True}
    found["arrays"] = weights(learn(both, regression, batch_size=8, **plain).model)
    gap = {**both, "y": np.where(np.arange(24)[:, None] == 20, np.nan, both["y"])}
    shares = vfe.Batches([{n: a[mine(rank)] for n, a in gap.items()}])
    found["missing"] = weights(learn(shares, regression, belief=None, solver=None).model)
    wrong = {**arrays, "y": np.where(np.arange(24) == 20, 7, arrays["y"])}
    try:
        learn(vfe.Batches([{n: a[mine(rank)] for n, a in wrong.items()}]))
    except ValueError as error:
        found["error"] = str(error)
    np.savez(folder / f"{rank}.npz", **found)
    print("learned", flush=True)
    learn(Dataset(20 if rank == 1 else None), checkpoint=folder / "dies", batch_size=8)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
