"""What the comparisons with PyTorch's networks share."""

from pathlib import Path

import numpy as np


def saved(peer, directory: Path) -> Path:
    """Return a safetensors file of a PyTorch module whose parameters are all made random, norms' and biases' too."""
    import torch
    from safetensors.torch import save_file

    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    path = directory / "model.safetensors"
    save_file({name: tensor.contiguous().clone() for name, tensor in peer.state_dict().items()}, path)
    return path


def assert_close(found, expected) -> None:
    """Assert that arrays are equal to 1e-4, relative to the largest of them."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * scale)
