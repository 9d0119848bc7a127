import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def _quick_compilation():
    """These tests compile many small programs once each: compiling is their cost, not running."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
