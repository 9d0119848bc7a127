"""What the pretrained networks refuse before they compute."""

import jax
import jax.numpy as jnp
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.networks.pretrained.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from sbm_jax.networks.pretrained.bert import Bert, BertConfig
from sbm_jax.networks.pretrained.clip import Clip, ClipConfig, TowerConfig
from sbm_jax.networks.pretrained.gpt2 import GPT2, GPT2Config
from sbm_jax.networks.pretrained.vggish import mel_patches

IDS = jnp.zeros((1, 5), jnp.int32)
TOWER = TowerConfig(8, 1, 2)
CLIP = Clip(ClipConfig(4, TOWER, 16, 8, TOWER, 10, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Bert(BertConfig(10, 8, 1, 2, 8, 4)).init(jax.random.key(0), IDS), "bert has 4 positions"),
        (lambda: GPT2(GPT2Config(10, 8, 1, 2, 4)).init(jax.random.key(0), IDS), "gpt2 has 4 positions"),
        (
            lambda: GPT2(GPT2Config(10, 8, 1, 2, 5, 3)).init(jax.random.key(0), IDS, jnp.zeros((1, 3))),
            "5 positions .* got 6 tokens",
        ),
        (
            lambda: GPT2(GPT2Config(10, 8, 1, 2, 9)).init(jax.random.key(0), IDS, jnp.zeros((1, 3))),
            r"latents have the shape \(1, 3\); expected \[B, 0\]",
        ),
        (lambda: CLIP.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), IDS), "clip has 4 positions"),
        (lambda: CLIP.init(jax.random.key(0), jnp.zeros((1, 24, 24, 3)), IDS[:, :3]), r"expected \(16, 16, 3\)"),
        (
            lambda: AutoencoderKL(AutoencoderKLConfig(widths=(32, 32))).init(
                jax.random.key(0), jnp.zeros((1, 4, 5, 3))
            ),
            "multiples of 2",
        ),
        (lambda: mel_patches(jnp.zeros(20_000)), r"expected \[B, N\]"),
        (lambda: mel_patches(jnp.zeros((1, 2000))), "needs at least 15600 samples"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(SbmError, match=message):
        call()
