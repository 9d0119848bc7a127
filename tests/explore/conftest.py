"""What tests of the explorer leave behind."""

import gc
import warnings

import pytest


@pytest.fixture(scope="module", autouse=True)
def collected():
    """Collect the event loops that Gradio makes and does not close, of which a later test would else be accused."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
