"""What all tests share: double precision on request, and property tests that are the same every time."""

import hypothesis
import jax
import pytest

hypothesis.settings.register_profile(
    "vfe",
    deadline=None,
    max_examples=8,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
)
hypothesis.settings.load_profile("vfe")


@pytest.fixture(scope="module")
def float64():
    """Double precision for a whole module: `pytestmark = pytest.mark.usefixtures("float64")`."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module", autouse=True)
def release_memory():
    """Forget compiled functions after each module: they hold some 50 MB per model shape."""
    yield
    jax.clear_caches()
