"""A codec for sequences of ids, such as the words of a text: transformers around a latent of a few slots."""

import dataclasses
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sbm_jax.config import checked_dataclass, plain
from sbm_jax.errors import SbmError, require
from sbm_jax.networks.base import dense
from sbm_jax.networks.transformer import KeysValues
from sbm_jax.types import Array, Key, Modality, Params

PLACES = nn.initializers.normal(0.1)
"""Initialiser of position embeddings, which are added to embeddings of unit variance."""


@checked_dataclass
class TokensConfig:
    """Configures the transformers and the sampling of sequences.

    Attributes:
      width: features per position.
      depth: number of blocks in the encoder, and of bidirectional blocks in the decoder.
      causal_depth: number of causal blocks in the decoder.
      heads: attention heads, a divisor of `width`.
      slot_size: minimum entries per slot of the latent; in sequences of up to D / slot_size ids, each id has its own
        slot.
      word_dropout: probability of hiding each previous id from the decoder in training, so that it relies on the
        latent. The loss is then an upper bound on -log p(x | z), with random ids hidden; samples are drawn with none
        hidden.
      temperature: temperature of samples; 0 for the most probable id at each position.
      dtype: type of the blocks' operands, ``"float32"`` or ``"bfloat16"``; norms and logits are float32.
    """

    width: int = 128
    depth: int = 1
    causal_depth: int = 1
    heads: int = 4
    slot_size: int = 4
    word_dropout: float = 0.3
    temperature: float = 0.0
    dtype: str = "float32"

    def __post_init__(self):
        for name in ("width", "depth", "causal_depth", "heads", "slot_size"):
            require(getattr(self, name) >= 1, f"codec.network.{name}", getattr(self, name), "at least 1")
        require(self.width % self.heads == 0, "codec.network.heads", self.heads, f"a divisor of width ({self.width})")
        require(0 <= self.word_dropout <= 1, "codec.network.word_dropout", self.word_dropout, "0 to 1")
        require(self.temperature >= 0, "codec.network.temperature", self.temperature, "0 (the most probable) or more")
        known = self.dtype in ("float32", "bfloat16")
        require(known, "codec.network.dtype", self.dtype, "'float32' or 'bfloat16'")

    def training_settings(self) -> dict[str, Any]:
        """Return what training depends on; see `networks.codecs.training_settings`."""
        settings = plain(self)
        del settings["temperature"]
        return settings


class Slots:
    """The layout of a latent of D entries for sequences of L ids: K slots of equal size, and a remainder.

    Slot k holds the positions k, k + K, k + 2K and so on: in a sequence of at most K ids, each has its own slot; in
    longer ones, ids share slots. Slots have at least `slot_size` entries, unless the latent itself is smaller.
    """

    def __init__(self, length: int, latent_size: int, slot_size: int):
        """Compute the layout."""
        self.number = min(length, max(1, latent_size // slot_size))
        self.size = latent_size // self.number
        self.left = latent_size - self.number * self.size
        self.turns = math.ceil(length / self.number)
        self.length = length

    def gather(self, x: Array) -> Array:
        """Gather positions [B, L, W] into slots [B, K, turns W]."""
        batch, _, width = x.shape
        x = jnp.pad(x, ((0, 0), (0, self.turns * self.number - self.length), (0, 0)))
        x = x.reshape(batch, self.turns, self.number, width)
        return x.transpose(0, 2, 1, 3).reshape(batch, self.number, -1)

    def scatter(self, x: Array) -> Array:
        """Undo `gather`."""
        x = x.reshape(len(x), self.number, self.turns, -1).transpose(0, 2, 1, 3)
        return x.reshape(len(x), self.turns * self.number, -1)[:, : self.length]


def is_real(x: Array) -> Array:
    """Return bool [B, L], True at positions before the first 0 of ids [B, L]."""
    return jnp.cumprod(x != 0, axis=1).astype(bool)


class SequenceBlock(nn.Module):
    """A pre-norm transformer block: residual attention and a residual MLP."""

    width: int
    heads: int
    dtype: DTypeLike

    def setup(self):
        """Make the layers."""
        small = nn.initializers.normal(1e-2)
        self.attention_norm, self.hidden_norm = nn.LayerNorm(), nn.LayerNorm()
        self.qkv = dense(3 * self.width, self.dtype, use_bias=False)
        self.attention_out = dense(self.width, self.dtype, kernel_init=small)
        self.hidden = dense(4 * self.width, self.dtype)
        self.hidden_out = dense(self.width, self.dtype, kernel_init=small)

    def project(self, x: Array) -> tuple[Array, KeysValues]:
        """Project positions [B, N, width] to queries, and to keys and values."""
        parts = jnp.split(self.qkv(self.attention_norm(x)), 3, axis=-1)
        query, key, value = (part.reshape(*x.shape[:2], self.heads, -1) for part in parts)
        return query, KeysValues(key, value)

    def update(self, x: Array, query: Array, seen: KeysValues, sees: Array) -> Array:
        """Return the positions [B, N, width] after the block; `sees` is bool [B or 1, 1, N or 1, keys]."""
        attended = jax.nn.dot_product_attention(query, seen.key, seen.value, mask=sees)
        x = x + self.attention_out(attended.reshape(x.shape))
        return x + self.hidden_out(nn.gelu(self.hidden(self.hidden_norm(x))))

    def __call__(self, x: Array, sees: Array) -> Array:
        """Return the positions [B, N, width] after attending to each other; see `update` for `sees`."""
        query, own = self.project(x)
        return self.update(x, query, own, sees)


def _embedding(vocabulary_size: int, width: int) -> nn.Embed:
    """Return an embedding whose initial products with a normalised vector have unit variance."""
    return nn.Embed(vocabulary_size, width, embedding_init=nn.initializers.normal(width**-0.5))


class TokensEncoder(nn.Module):
    """A transformer over the ids, whose outputs are projected to the slots of the latent."""

    modality: Modality
    config: TokensConfig

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Map ids, int [B, L], to (mean, log variance) [B, D_m]; log variances are clipped to [-12, 6]."""
        config, (length,) = self.config, self.modality.shape
        real = is_real(x)
        h = _embedding(self.modality.vocabulary_size, config.width)(x) * config.width**0.5
        h = h + self.param("places", PLACES, (1, length, config.width))
        sees = real | (jnp.arange(length) == 0)[None]  # an empty sequence attends to its end
        for _ in range(config.depth):
            h = SequenceBlock(config.width, config.heads, jnp.dtype(config.dtype))(h, sees[:, None, None, :])
        h = jnp.where(real[:, :, None], nn.LayerNorm()(h), 0.0)
        log_variance = self._cut(h, kernel_init=nn.initializers.normal(1e-3))
        return self._cut(h), jnp.clip(log_variance, -12.0, 6.0)

    def _cut(self, h: Array, **options: Any) -> Array:
        """Project positions [B, L, width] to a latent [B, D_m]."""
        slots = Slots(h.shape[1], self.modality.latent_size, self.config.slot_size)
        parts = [nn.Dense(slots.size, **options)(slots.gather(h)).reshape(len(h), -1)]
        if slots.left:
            parts.append(nn.Dense(slots.left, **options)(h.mean(axis=1)))
        return jnp.concatenate(parts, axis=-1)


class TokensDecoder(nn.Module):
    """A transformer that computes a memory of each position from the latent, and a causal one that predicts the ids."""

    modality: Modality
    config: TokensConfig

    def setup(self):
        """Make the layers."""
        config, (length,) = self.config, self.modality.shape
        self.slots = Slots(length, self.modality.latent_size, config.slot_size)
        self.embedding = _embedding(self.modality.vocabulary_size, config.width)
        self.places = self.param("places", PLACES, (1, length, config.width))
        self.of_slots = nn.Dense(self.slots.turns * config.width)
        self.of_all = nn.Dense(config.width)
        make = (config.width, config.heads, jnp.dtype(config.dtype))
        self.blocks = [SequenceBlock(*make) for _ in range(config.depth)]
        self.causal_blocks = [SequenceBlock(*make) for _ in range(config.causal_depth)]
        self.norm = nn.LayerNorm()

    def __call__(self, z: Array, x: Array) -> Array:
        """Return the logits [B, L, V] of all positions; initialises all parameters."""
        return self.logits(self.memory(z), x)

    def memory(self, z: Array) -> Array:
        """Map latents [B, D_m] to the memory of each position, [B, L, width]."""
        slots = self.slots
        own = z[:, : slots.number * slots.size].reshape(len(z), slots.number, slots.size)
        h = slots.scatter(self.of_slots(own)) + self.of_all(z)[:, None] + self.places
        for block in self.blocks:
            h = block(h, jnp.ones((1, 1, 1, 1), bool))
        return h

    def logits(self, memory: Array, previous: Array) -> Array:
        """Return the logits [B, L, V] of each id, given the memory and the id before each position, int [B, L]."""
        causal = jnp.tril(jnp.ones((memory.shape[1],) * 2, bool))[None, None]
        h = memory + self._embed(previous)
        for block in self.causal_blocks:
            h = block(h, causal)
        return self._out(h)

    def step(
        self, memory: Array, previous: Array, position: Array, cache: list[KeysValues]
    ) -> tuple[Array, list[KeysValues]]:
        """Return the logits [B, V] at one position, and the cache extended by its keys and values.

        Args:
          memory: memory of all positions [B, L, width].
          previous: int [B], the id before the position.
          position: scalar int, the position.
          cache: keys and values [B, L, heads, head size] of previous positions, for each block.
        """
        length, filled = memory.shape[1], []
        h = jax.lax.dynamic_slice_in_dim(memory, position, 1, axis=1) + self._embed(previous[:, None])
        sees = (jnp.arange(length) <= position)[None, None, None]
        for block, cached in zip(self.causal_blocks, cache, strict=True):
            query, own = block.project(h)
            seen = jax.tree.map(
                lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, position, axis=1), cached, own
            )
            filled.append(seen)
            h = block.update(h, query, seen, sees)
        return self._out(h)[:, 0], filled

    def _embed(self, ids: Array) -> Array:
        return self.embedding(ids) * self.config.width**0.5

    def _out(self, h: Array) -> Array:
        return self.embedding.attend(self.norm(h))


@dataclasses.dataclass(frozen=True)
class Tokens:
    """`TokensEncoder` and `TokensDecoder`. The id 0 ends and pads a sequence; the decoder predicts the first 0 too.

    The raw output of `decode` is the memory of each position, [B, L, width]. p(x | z) is the product of the
    probabilities of the ids up to the end, each given those before it.

    Attributes:
      modality: the modality to encode.
      options: see `TokensConfig`.
    """

    Options: ClassVar[type] = TokensConfig

    modality: Modality
    options: TokensConfig

    def __post_init__(self):
        modality = self.modality
        if not modality.vocabulary_size:
            raise SbmError(
                f"modality {modality.name!r} has numbers, but the codec {modality.codec.name!r} encodes ids. Set its "
                "vocabulary_size, or use another codec."
            )

    @property
    def encoder(self) -> nn.Module:
        """The encoder's module."""
        return TokensEncoder(self.modality, self.options)

    @property
    def decoder(self) -> TokensDecoder:
        """The decoder's module."""
        return TokensDecoder(self.modality, self.options)

    def init(self, key: Key) -> Params:
        """Return fresh parameters."""
        keys = jax.random.split(key)
        x, z = jnp.zeros((1, *self.modality.shape), jnp.int32), jnp.zeros((1, self.modality.latent_size))
        return {
            "encoder": self.encoder.init(keys[0], x)["params"],
            "decoder": self.decoder.init(keys[1], z, x)["params"],
        }

    def encode(self, params: Params, x: Array) -> tuple[Array, Array]:
        """Return the posterior mean and log variance, [B, D_m] each, of ids, int [B, L]."""
        return self.encoder.apply({"params": params["encoder"]}, x)

    def decode(self, params: Params, z: Array) -> Array:
        """Map latents [B, D_m] to the memory of each position, [B, L, width]."""
        return self.decoder.apply({"params": params["decoder"]}, z, method="memory")

    def loss(self, params: Params, key: Key, x: Array, output: Array) -> Array:
        """Return -log p(x | z) [B] of ids, int [B, L], in nats, or with `word_dropout` an upper bound."""
        previous = jnp.pad(x, ((0, 0), (1, 0)))[:, :-1]
        if self.options.word_dropout:
            hidden = jax.random.bernoulli(key, self.options.word_dropout, previous.shape)
            previous = jnp.where(hidden, 0, previous)
        logits = self.decoder.apply({"params": params["decoder"]}, output, previous, method="logits")
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), x[:, :, None], axis=-1)[:, :, 0]
        with_end = jnp.pad(is_real(x), ((0, 0), (1, 0)), constant_values=True)[:, :-1]
        return -jnp.sum(jnp.where(with_end, log_prob, 0.0), axis=1)

    def sample(self, params: Params, key: Key, output: Array) -> Array:
        """Sample ids, int32 [B, L], in order, each given those before it; -1 where the output is not finite."""
        options, (batch, length, _) = self.options, output.shape
        empty = jnp.zeros((batch, length, options.heads, options.width // options.heads))
        cache = [KeysValues(empty, empty) for _ in range(options.causal_depth)]

        def step(state: tuple, position: Array) -> tuple[tuple, Array]:
            previous, ended, cache = state
            logits, cache = self.decoder.apply(
                {"params": params["decoder"]}, output, previous, position, cache, method="step"
            )
            chosen = jnp.where(ended, 0, choose(jax.random.fold_in(key, position), logits, options.temperature))
            return (chosen, ended | (chosen == 0), cache), chosen

        start = (jnp.zeros(batch, jnp.int32), jnp.zeros(batch, bool), cache)
        _, ids = jax.lax.scan(step, start, jnp.arange(length))
        finite = jnp.isfinite(output).all(axis=(1, 2))
        return jnp.where(finite[:, None], ids.T, -1)


def choose(key: Key, logits: Array, temperature: float) -> Array:
    """Draw an id for each row of logits [B, V], int32 [B]; at temperature 0, choose the most probable one.

    A row's draw does not depend on the number of rows.
    """
    if not temperature:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(len(logits)))
    return jax.vmap(jax.random.categorical)(keys, logits / temperature).astype(jnp.int32)
