"""AutoencoderKL against `diffusers`, tiny and with random weights."""

import functools

import numpy as np
import pytest

from sbm_jax.networks.pretrained.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig, read_autoencoder_kl
from sbm_jax.networks.pretrained.weights import read_tensors
from tests.networks.pretrained.peers import assert_close, saved

pytestmark = pytest.mark.peer

CONFIG = AutoencoderKLConfig(channels=3, latent_channels=2, widths=(8, 16, 16), depth=2, groups=4, scaling=0.5)


@pytest.fixture(scope="module")
def peer():
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    torch.manual_seed(0)
    levels = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    sizes = {"block_out_channels": (8, 16, 16), "layers_per_block": 2, "latent_channels": 2, "norm_num_groups": 4}
    return diffusers.AutoencoderKL(in_channels=3, out_channels=3, **levels, **sizes).eval()


@pytest.mark.parametrize("older", [False, True])
def test_encoder_and_decoder(peer, tmp_path, older):
    import torch

    tensors = read_tensors(saved(peer, tmp_path), "weights")
    if older:
        names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        for now, before in names.items():
            for name in [name for name in tensors if f".attentions.0.{now}." in name]:
                tensor = tensors.pop(name)
                tensors[name.replace(now, before)] = tensor[..., None, None] if tensor.ndim == 2 else tensor
    params = read_autoencoder_kl(CONFIG, tensors, "weights")
    x = np.random.default_rng(0).uniform(-1, 1, (2, 16, 24, 3)).astype(np.float32)
    with torch.no_grad():
        posterior = peer.encode(torch.tensor(x).permute(0, 3, 1, 2)).latent_dist
        decoded = peer.decode(posterior.mean).sample
    apply = functools.partial(AutoencoderKL(CONFIG).apply, {"params": params})
    mean, log_variance = apply(x, method="encode")
    assert_close(mean / 0.5, posterior.mean.permute(0, 2, 3, 1).numpy())
    assert_close(np.exp(log_variance) / 0.25, posterior.var.permute(0, 2, 3, 1).numpy())
    assert_close(apply(mean, method="decode"), decoded.permute(0, 2, 3, 1).numpy())
