"""HiFi-GAN against `transformers`, tiny and with random weights."""

import jax
import numpy as np
import pytest

from sbm_jax.networks.pretrained.hifi_gan import HifiGan, HifiGanConfig, read_hifi_gan
from sbm_jax.networks.pretrained.weights import read_tensors
from tests.networks.pretrained.peers import assert_close, saved

pytestmark = pytest.mark.peer


@pytest.mark.parametrize("with_norm", [False, True])
@pytest.mark.parametrize("standardized", [False, True])
def test_waveforms(tmp_path, with_norm, standardized):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"upsample_initial_channel": 16, "upsample_rates": [5, 2], "upsample_kernel_sizes": [9, 4]}
    sizes |= {"resblock_kernel_sizes": [3, 5], "resblock_dilation_sizes": [[1, 3], [1, 3]]}
    config = transformers.SpeechT5HifiGanConfig(model_in_dim=6, normalize_before=standardized, **sizes)
    peer = transformers.SpeechT5HifiGan(config).eval()
    peer.mean.copy_(torch.randn(6))
    peer.scale.copy_(1 + torch.rand(6))
    if with_norm:
        peer.apply_weight_norm()
    own = HifiGanConfig(6, 16, (5, 2), (9, 4), (3, 5), (1, 3), standardized)
    params = read_hifi_gan(own, read_tensors(saved(peer, tmp_path), "weights"), "weights")
    mel = np.random.default_rng(0).normal(size=(2, 11, 6)).astype(np.float32)
    with torch.no_grad():
        expected = peer(torch.tensor(mel)).numpy()
    assert expected.shape == (2, 110)
    assert_close(jax.jit(HifiGan(own).apply)({"params": params}, mel), expected)
