"""GPT-2 against `transformers`, tiny and with random weights; with a latent, as Optimus has it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.networks.pretrained.gpt2 import GPT2, GPT2Config, read_gpt2
from sbm_jax.networks.pretrained.weights import read_tensors
from tests.networks.pretrained.peers import assert_close, saved

pytestmark = pytest.mark.peer

CONFIG = GPT2Config(vocabulary_size=50, width=32, depth=3, heads=4, most_tokens=16)
IDS = np.random.default_rng(0).integers(0, 50, (3, 7))


@pytest.fixture(scope="module")
def peer():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 16}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, attn_implementation="eager")).eval()


def test_logits(peer, tmp_path):
    import torch

    params = read_gpt2(CONFIG, read_tensors(saved(peer, tmp_path), "weights"), "weights")
    with torch.no_grad():
        expected = peer(torch.tensor(IDS)).logits.numpy()
    apply = functools.partial(GPT2(CONFIG).apply, {"params": params})
    assert_close(apply(jnp.asarray(IDS)), expected)
    cache, logits = apply(3, 7, method="start"), []
    for position in range(7):
        one, cache = apply(jnp.asarray(IDS[:, position : position + 1]), cache, method="extend")
        logits.append(one)
    assert_close(np.concatenate(logits, axis=1), expected)


@pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated:FutureWarning")  # not in all versions
def test_a_latent_is_the_first_position_and_added_to_all_tokens(peer, tmp_path):
    """`past_key_values` and `inputs_embeds` of the peer say what Optimus's own GPT-2 does."""
    import torch
    from transformers import DynamicCache

    tensors = read_tensors(saved(peer, tmp_path), "weights")
    generator = np.random.default_rng(1)
    linear = {"linear": generator.normal(size=(96, 5)), "linear_emb": generator.normal(size=(32, 5))}
    tensors |= {f"transformer.{name}.weight": value.astype(np.float32) for name, value in linear.items()}
    config = GPT2Config(**{**CONFIG.__dict__, "latent_size": 5})
    params = read_gpt2(config, tensors, "weights")
    z = generator.normal(size=(3, 5)).astype(np.float32)
    memory = torch.tensor(z @ linear["linear"].T.astype(np.float32)).reshape(3, 3, 4, 1, 8)
    cache = DynamicCache()
    for layer in range(3):
        cache.update(memory[:, layer], memory[:, layer], layer)
    with torch.no_grad():
        embedded = peer.transformer.wte(torch.tensor(IDS)) + torch.tensor(z @ linear["linear_emb"].T)[:, None].float()
        places = torch.arange(1, 8)[None].expand(3, -1)
        expected = peer(inputs_embeds=embedded, past_key_values=cache, position_ids=places).logits.numpy()
    assert_close(jax.jit(GPT2(config).apply)({"params": params}, jnp.asarray(IDS), jnp.asarray(z)), expected)
