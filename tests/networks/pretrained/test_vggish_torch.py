"""VGGish and its front end against torchvggish, with random weights."""

import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.networks.pretrained.vggish import RATE, Vggish, VggishConfig, mel_patches, read_vggish
from sbm_jax.networks.pretrained.weights import read_tensors
from tests.networks.pretrained.peers import assert_close, saved

pytestmark = pytest.mark.peer


def sounds() -> np.ndarray:
    generator = np.random.default_rng(0)
    times = np.arange(2 * RATE + 300) / RATE
    tones = np.sin(2 * np.pi * np.array([[440.0], [1234.5]]) * times) * np.exp(-times)
    return (0.5 * tones + 0.01 * generator.normal(size=tones.shape)).astype(np.float32)


def test_front_end():
    peer = pytest.importorskip("torchvggish.vggish_input")
    expected = np.stack([peer.waveform_to_examples(sound, RATE, return_tensor=False) for sound in sounds()])
    assert_close(mel_patches(jnp.asarray(sounds())), expected)


@pytest.mark.parametrize("rectified", [False, True])
def test_features(tmp_path, rectified):
    torch, peer = pytest.importorskip("torch"), pytest.importorskip("torchvggish.torchvggish")
    torch.manual_seed(0)
    network = peer.VGG(peer.make_layers(), postprocess=False).eval()
    config = VggishConfig(rectified=rectified)
    params = read_vggish(config, read_tensors(saved(network, tmp_path), "weights"), "weights")
    patches = np.random.default_rng(0).normal(size=(2, 96, 64)).astype(np.float32)
    if not rectified:
        network.embeddings = network.embeddings[:-1]
    with torch.no_grad():
        expected = network(torch.tensor(patches)[:, None]).numpy()
    assert_close(Vggish(config).apply({"params": params}, patches), expected)
