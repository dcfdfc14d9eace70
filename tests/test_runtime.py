"""Batched factorisations side by side do not hang on two threads."""

import os
import subprocess
import sys

import jaxlib
import pytest

SIDE_BY_SIDE = """
import vfe, jax, jax.numpy as jnp

def both(a):
    def body(i, total):
        one = jnp.linalg.cholesky(a + i * jnp.eye(24))
        two = jnp.linalg.cholesky(a[:, ::-1, ::-1] + (2 + i) * jnp.eye(24))
        three = jnp.linalg.cholesky(1.5 * a + jnp.eye(24))
        return total + one.sum() + two.sum() + three.sum()
    return jax.lax.fori_loop(0, 1000, body, jnp.zeros(()))

a = jnp.broadcast_to(2 * jnp.eye(24), (300, 24, 24))
print(float(jax.jit(both)(a)))
"""


def run(code: str, **more: str) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | more
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.core
def test_factorisations_side_by_side_end():
    """On two threads this program never ends in jaxlib 0.10 unless the steps are put in order."""
    found = run(SIDE_BY_SIDE, NPROC="2")
    assert found.returncode == 0, found.stderr


def test_a_flag_of_the_user_is_left_alone():
    flag = "--xla_cpu_enable_concurrency_optimized_scheduler=true"
    found = run("import vfe, os; print(os.environ['XLA_FLAGS'])", XLA_FLAGS=flag)
    assert found.stdout.strip() == flag


def test_other_flags_are_kept():
    code = "import vfe, os; print(os.environ.get('XLA_FLAGS', ''))"
    found = run(code, XLA_FLAGS="--xla_cpu_enable_fast_math=false")
    assert found.stdout.strip().startswith("--xla_cpu_enable_fast_math=false")
    older = tuple(int(p) for p in jaxlib.__version__.split(".")[:2]) < (0, 12)
    assert ("concurrency_optimized_scheduler=false" in found.stdout) == older
