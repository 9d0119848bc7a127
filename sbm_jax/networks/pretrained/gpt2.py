"""GPT-2 with a cache and, optionally, the latent of Optimus.

References: A. Radford et al., "Language Models are Unsupervised Multitask Learners", 2019. C. Li et al., "Optimus",
  2020, https://arxiv.org/abs/2004.04092. Equivalent to `transformers.GPT2LMHeadModel`.

    hf download openai-community/gpt2 model.safetensors tokenizer.json
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, require
from sbm_jax.networks.pretrained.weights import Tensors, as_params, check_length, without_prefix
from sbm_jax.types import Array, Params


@checked_dataclass
class GPT2Config:
    """Sizes of GPT-2; the smallest model's by default.

    Attributes:
      vocabulary_size: size of the tokenizer's vocabulary.
      width: size of a token.
      depth: number of layers.
      heads: attention heads, a divisor of `width`.
      most_tokens: maximum number of positions.
      latent_size: size of the latent that conditions decoding, as in Optimus; 0 for none.
    """

    vocabulary_size: int = 50_257
    width: int = 768
    depth: int = 12
    heads: int = 12
    most_tokens: int = 1024
    latent_size: int = 0

    def __post_init__(self):
        for name in ("vocabulary_size", "width", "depth", "heads", "most_tokens"):
            require(getattr(self, name) >= 1, f"gpt2: {name}", getattr(self, name), "at least 1")
        require(self.width % self.heads == 0, "gpt2: heads", self.heads, f"a divisor of width ({self.width})")
        require(self.latent_size >= 0, "gpt2: latent_size", self.latent_size, "0 (none) or more")


class Cache(NamedTuple):
    """Keys and values of the positions so far.

    Attributes:
      keys: [depth, B, L, heads, head size] for L positions; 0 from position `filled` on.
      values: values, of the same shape.
      filled: scalar int, the number of positions so far.
      embedding: [B, width], which the latent adds to each token.
    """

    keys: Array
    values: Array
    filled: Array
    embedding: Array


class GPT2(nn.Module):
    """The language model.

    Attributes:
      config: its sizes.
    """

    config: GPT2Config

    def setup(self):
        """Make the layers; a latent has two, for the memory and for the embedding."""
        config = self.config
        self.wte = nn.Embed(config.vocabulary_size, config.width, name="transformer.wte")
        self.wpe = nn.Embed(config.most_tokens, config.width, name="transformer.wpe")
        self.layers = [_Layer(config, name=f"transformer.h.{number}") for number in range(config.depth)]
        self.norm = _norm("transformer.ln_f")
        if config.latent_size:
            linear = {"use_bias": False}
            self.linear = nn.Dense(config.width * config.depth, name="transformer.linear", **linear)
            self.linear_emb = nn.Dense(config.width, name="transformer.linear_emb", **linear)

    def __call__(self, ids: Array, z: Array | None = None) -> Array:
        """Return the logits [B, T, V] of the token after each id, int [B, T], given latents [B, D] or None."""
        batch, length = ids.shape
        return self.extend(ids, self.start(batch, length, z))[0]

    def start(self, batch: int, length: int, z: Array | None = None) -> Cache:
        """Return an empty cache for `length` tokens of `batch` texts, given latents [B, D] or None.

        A latent becomes the first position of every layer, as its key and its value, and is added to every token.

        Raises:
          SbmError: if there are not enough positions, or latents do not match `latent_size`.
        """
        config = self.config
        memory = 0 if z is None else 1
        check_length(memory + length, config.most_tokens, "gpt2")
        shape = (config.depth, batch, memory + length, config.heads, config.width // config.heads)
        empty, none = jnp.zeros(shape), jnp.zeros((batch, config.width))
        if z is not None and z.shape[1:] != (config.latent_size,):
            raise SbmError(f"gpt2: latents have the shape {z.shape}; expected [B, {config.latent_size}] (latent_size).")
        if z is None:
            return Cache(empty, empty, jnp.int32(0), none)
        own = self.linear(z).reshape(batch, config.depth, *shape[3:]).transpose(1, 0, 2, 3)
        filled = empty.at[:, :, 0].set(own)
        return Cache(filled, filled, jnp.int32(1), self.linear_emb(z))

    def extend(self, ids: Array, cache: Cache) -> tuple[Array, Cache]:
        """Return the logits [B, T, V] after each of the next ids, int [B, T], and the extended cache."""
        places = cache.filled + jnp.arange(ids.shape[1])
        x = self.wte(ids) + self.wpe(places)[None] + cache.embedding[:, None]
        sees = (jnp.arange(cache.keys.shape[2])[None] <= places[:, None])[None, None]
        keys, values = [], []
        for layer, key, value in zip(self.layers, cache.keys, cache.values, strict=True):
            x, key, value = layer(x, key, value, cache.filled, sees)
            keys.append(key)
            values.append(value)
        logits = self.wte.attend(self.norm(x))
        return logits, Cache(jnp.stack(keys), jnp.stack(values), cache.filled + ids.shape[1], cache.embedding)


class _Linear(nn.Module):
    """A linear layer whose weight is [in, out] in files as well."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        weight = self.param("weight", nn.initializers.normal(0.02), (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return x @ weight + bias[None, None]


class _Layer(nn.Module):
    config: GPT2Config

    @nn.compact
    def __call__(self, x: Array, keys: Array, values: Array, filled: Array, sees: Array) -> tuple[Array, Array, Array]:
        parts = jnp.split(_Linear(3 * self.config.width, name="attn.c_attn")(_norm("ln_1")(x)), 3, axis=-1)
        query, key, value = (part.reshape(*x.shape[:2], *keys.shape[2:]) for part in parts)
        keys, values = (
            jax.lax.dynamic_update_slice_in_dim(old, new, filled, axis=1) for old, new in ((keys, key), (values, value))
        )
        attended = jax.nn.dot_product_attention(query, keys, values, mask=sees).reshape(x.shape)
        x = x + _Linear(self.config.width, name="attn.c_proj")(attended)
        hidden = nn.gelu(_Linear(4 * self.config.width, name="mlp.c_fc")(_norm("ln_2")(x)), approximate=True)
        return x + _Linear(self.config.width, name="mlp.c_proj")(hidden), keys, values


def _norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(1e-5, name=name)


def read_gpt2(config: GPT2Config, tensors: Tensors, option: str) -> Params:
    """Convert tensors to the parameters of `GPT2`; they may be named as in `GPT2Model` or in `GPT2LMHeadModel`.

    Raises:
      SbmError: see `as_params`.
    """
    ids = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    z = jax.ShapeDtypeStruct((1, config.latent_size), jnp.float32) if config.latent_size else None
    named = {f"transformer.{name}": tensor for name, tensor in without_prefix(tensors, "transformer.").items()}
    return as_params(GPT2(config), (ids, z), named, option)
