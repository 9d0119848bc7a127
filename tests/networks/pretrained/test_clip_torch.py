"""CLIP against `transformers`, tiny and with random weights."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.networks.pretrained.clip import Clip, ClipConfig, TowerConfig, as_clip_input, read_clip
from sbm_jax.networks.pretrained.weights import read_tensors
from tests.networks.pretrained.peers import assert_close, saved

pytestmark = pytest.mark.peer

CONFIG = ClipConfig(12, TowerConfig(32, 2, 4), 24, 8, TowerConfig(16, 3, 2), 60, 10)


@pytest.fixture(scope="module")
def peer():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    text = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    text |= {"intermediate_size": 64, "max_position_embeddings": 10, "bos_token_id": 58, "eos_token_id": 59}
    image = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    image |= {"image_size": 24, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=image, projection_dim=12)
    return transformers.CLIPModel(config).eval()


def test_both_vectors(peer, tmp_path):
    import torch

    generator = np.random.default_rng(0)
    images = generator.normal(size=(3, 24, 24, 3)).astype(np.float32)
    ids = generator.integers(0, 58, (3, 7))
    ids[:, 0] = 58
    ids[np.arange(3), [6, 4, 1]] = 59
    params = read_clip(CONFIG, read_tensors(saved(peer, tmp_path), "weights"), "weights")
    with torch.no_grad():
        expected = peer(torch.tensor(ids), torch.tensor(images).permute(0, 3, 1, 2))
    apply = functools.partial(Clip(CONFIG).apply, {"params": params})
    for found, vectors in zip(
        apply(images, jnp.asarray(ids)), (expected.image_embeds, expected.text_embeds), strict=True
    ):
        assert_close(found / jnp.linalg.norm(found, axis=1, keepdims=True), vectors.numpy())


@pytest.mark.parametrize("shape", [(40, 30), (16, 16)])
def test_preprocessing(shape):
    transformers = pytest.importorskip("transformers")
    # Pillow cuts at 0 and 255 between its two passes, which is not to be copied: no edges, so that nothing is cut.
    rows, columns = (np.linspace(0, 3, side) for side in shape)
    waves = np.sin(rows[:, None, None] + 2 * columns[None, :, None] + np.arange(3)[None, None])
    image = (128 + 90 * waves).astype(np.uint8)
    size = {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}}
    processor = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)(**size)
    expected = processor(image, return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
    found = as_clip_input(jnp.asarray(image[None]) / 255.0, 24)
    assert np.abs(np.asarray(found) - expected).max() < 0.02  # Pillow rounds to whole values of 255
