"""One thing that must be said to XLA before it starts: how not to hang on few cores."""

import importlib.metadata
import os

FLAG = "xla_cpu_enable_concurrency_optimized_scheduler"
MENDED = (0, 12)


def order_cpu_work() -> None:
    """Let XLA run the steps of a computation on the CPU one after the other, in jaxlib before 0.12.

    There, two batched matrix factorisations that run side by side can each wait, inside the pool of
    threads, for that same pool: with two cores (two threads) the process hangs for ever. In order, they
    cannot. The flag is added to the environment variable XLA_FLAGS, where it takes effect if JAX has not
    computed anything yet; a value that is already there is left alone.
    """
    release = tuple(int(part) for part in importlib.metadata.version("jaxlib").split(".")[:2])
    flags = os.environ.get("XLA_FLAGS", "")
    if release < MENDED and FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{FLAG}=false".strip()
