"""The default score network: a transformer over the tokens of all modalities."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from sbm_jax.networks.base import IntoTokens, ScoreNetwork, dense, fourier_features, modulated_norm
from sbm_jax.tokens import by_token, most_tokens, one_each
from sbm_jax.types import Array

CONDITION = 128
"""Size of the vector that modulates the layer norms."""


class KeysValues(NamedTuple):
    """Keys and values of N tokens, [B, N, heads, head_size] each."""

    key: Array
    value: Array


class Prepared(NamedTuple):
    """The results that all evaluations of one sampling call share.

    Attributes:
      cache: keys and values of all tokens for each block, computed as if all were observed.
      sees: bool [B, 1, 1 or F, N + F], the keys that a free token attends to: observed ones in the cache, then free
        ones.
      order: int [B, N], the tokens of each row, those to sample first; None if all N tokens run, in order.
      num_free: F, the number of tokens that run.
      embedding: [B, E] or None.
    """

    cache: list[KeysValues]
    sees: Array
    order: Array | None
    num_free: int
    embedding: Array | None


class Block(nn.Module):
    """A transformer block whose attention and MLP are modulated by a condition (adaptive layer norm)."""

    width: int
    head_size: int
    dropout: float
    dtype: DTypeLike

    def setup(self):
        """Make the layers."""
        small = nn.initializers.normal(1e-2)
        self.attention_norm = dense(2 * self.width, kernel_init=nn.initializers.zeros)
        self.qkv = dense(3 * self.width, self.dtype, use_bias=False)
        self.attention_out = dense(self.width, self.dtype, kernel_init=small)
        self.hidden_norm = dense(2 * self.width, kernel_init=nn.initializers.zeros)
        self.hidden = dense(4 * self.width, self.dtype)
        self.hidden_out = dense(self.width, self.dtype, kernel_init=small)
        self.drop = nn.Dropout(self.dropout)

    def project(self, x: Array, condition: Array) -> tuple[Array, KeysValues]:
        """Project tokens [B, N, width] to queries, and to keys and values."""
        qkv = self.qkv(modulated_norm(x, self.attention_norm(condition)))
        query, key, value = (part.reshape(*x.shape[:2], -1, self.head_size) for part in jnp.split(qkv, 3, axis=-1))
        return query, KeysValues(key, value)

    def update(self, x: Array, query: Array, seen: KeysValues, sees: Array, condition: Array, train: bool) -> Array:
        """Return the tokens [B, N, width] after the block; `sees` is bool [B, 1, N or 1, keys]."""
        attended = jax.nn.dot_product_attention(query, seen.key, seen.value, mask=sees)
        x = x + self.drop(self.attention_out(attended.reshape(x.shape)), deterministic=not train)
        hidden = nn.gelu(self.hidden(modulated_norm(x, self.hidden_norm(condition))))
        return x + self.drop(self.hidden_out(hidden), deterministic=not train)


class OutOfTokens(nn.Module):
    """A separate projection for each token, initialised with 0."""

    @nn.compact
    def __call__(self, x: Array, size: int) -> Array:
        """Map tokens [B, N, width] to [B, N, size]."""
        kernel = self.param("kernel", nn.initializers.zeros, (x.shape[1], x.shape[2], size))
        return jnp.einsum("bnw,nwd->bnd", x, kernel)


class TokenTransformer(ScoreNetwork):
    """A transformer over the tokens of the latents.

    Observed tokens attend only to observed tokens, so that their features do not depend on the sampling step; all
    others attend to every present token and to those of their own modality. A sampling call computes the keys and
    values of observed tokens once; its steps run only unobserved tokens, with the condition for their shared time.

    Attributes:
      width: size of a token, a multiple of `head_size`.
      depth: number of blocks.
      dropout: rate in the residual branches.
      head_size: features per attention head.
      dtype: type of the operands of the blocks' products; sums are float32.
    """

    width: int
    depth: int
    dropout: float = 0.0
    head_size: int = 32
    dtype: DTypeLike = jnp.float32

    gives_marginals = True

    def setup(self):
        """Make the layers."""
        self.into_tokens, self.out_of_tokens = IntoTokens(self.width, self.sizes), OutOfTokens()
        self.condition_layers = [dense(CONDITION), dense(CONDITION)]
        self.blocks = [Block(self.width, self.head_size, self.dropout, self.dtype) for _ in range(self.depth)]
        self.final_norm = dense(2 * self.width, kernel_init=nn.initializers.zeros)

    def __call__(
        self,
        z: Array,
        t: Array,
        observed: Array,
        present: Array | None = None,
        embedding: Array | None = None,
        *,
        train: bool = False,
    ) -> Array:
        """Return the network's output, float32 [B, N, D]; see `ScoreNetwork`."""
        condition = by_token(self._condition(t, observed.astype(jnp.float32), embedding), self.owner)
        observed = by_token(observed, self.owner)
        sees = observed[:, None, :] | ~observed[:, :, None]  # [B, query, key]
        if present is not None:
            sees = (sees & by_token(present, self.owner)[:, None, :]) | self._same_owner(z.shape[1])[None]
        x = self.into_tokens(z)
        for block in self.blocks:
            query, own = block.project(x, condition)
            x = block.update(x, query, own, sees[:, None], condition, train)
        return self.out_of_tokens(modulated_norm(x, self.final_norm(condition)), z.shape[-1])

    def prepare(
        self, z: Array, observed: Array, present: Array | None, embedding: Array | None, num_free: int | None
    ) -> Prepared:
        """Compute the keys and values of the observed tokens, and select the tokens to run."""
        all_present, num_tokens = present is None, z.shape[1]
        if num_free is not None:
            num_free = most_tokens(self.owner, num_free)
        observed = by_token(observed, self.owner)
        present = jnp.ones_like(observed) if all_present else by_token(present, self.owner)
        given, free = observed & present, ~observed & present
        # All tokens run as if observed; the mask hides those that are not.
        condition = self._condition(jnp.zeros((1, 1)), jnp.ones((1, 1)), embedding)
        x, cache = self.into_tokens(z), []
        for block in self.blocks:
            query, own = block.project(x, condition)
            cache.append(own)
            x = block.update(x, query, own, given[:, None, None, :], condition, train=False)
        order, together = None, self._same_owner(num_tokens)[None]
        if num_free is not None and num_free < num_tokens:
            # Free tokens that are present come first, then absent ones, which run in a row where nothing is present.
            order = jnp.argsort(jnp.where(observed, 2, jnp.where(present, 0, 1)), axis=1, stable=True)
            running = order[:, :num_free]
            free, together = jnp.take_along_axis(free, running, axis=1), self._same_owner_of(running)
        num_free = free.shape[1]
        sees = jnp.concatenate([given, free], axis=1)[:, None, None, :]
        if not all_present:
            sees = sees | jnp.pad(together, ((0, 0), (0, 0), (num_tokens, 0)))[:, None]
        return Prepared(cache, sees, order, num_free, embedding)

    def _same_owner(self, num_tokens: int) -> Array:
        """Return which pairs of all tokens belong to the same modality, bool [N, N]."""
        owner = np.array(self.owner or range(num_tokens))
        return jnp.asarray(owner[:, None] == owner[None])

    def _same_owner_of(self, tokens: Array) -> Array:
        """Return which pairs of the given tokens, int [B, F], belong to the same modality, bool [B or 1, F, F]."""
        if one_each(self.owner):
            return jnp.eye(tokens.shape[1], dtype=bool)[None]
        owner = jnp.array(self.owner)[tokens]
        return owner[:, :, None] == owner[:, None, :]

    def denoise(self, prepared: Prepared, z: Array, t: Array) -> Array:
        """Compute the network's output [B, N, D] from the unobserved tokens and the prepared keys and values."""
        order, num_free = prepared.order, prepared.num_free
        condition = self._condition(t.reshape(1, 1), jnp.zeros((1, 1)), prepared.embedding)
        x = self.into_tokens(z)
        if order is not None:
            x = jnp.take_along_axis(x, order[:, :num_free, None], axis=1)
        for block, cached in zip(self.blocks, prepared.cache, strict=True):
            query, own = block.project(x, condition)
            seen = KeysValues(*(jnp.concatenate(pair, axis=1) for pair in zip(cached, own, strict=True)))
            x = block.update(x, query, seen, prepared.sees, condition, train=False)
        x = modulated_norm(x, self.final_norm(condition))
        if order is not None:  # restore the original order, with arbitrary values for tokens that did not run
            place = jnp.minimum(jnp.argsort(order, axis=1), num_free - 1)
            x = jnp.take_along_axis(x, place[:, :, None], axis=1)
        return self.out_of_tokens(x, z.shape[-1])

    def _condition(self, t: Array, observed: Array, embedding: Array | None) -> Array:
        """Embed times and observed flags, [B or 1, M or 1], and an embedding [B, E] as [B or 1, M or 1, C]."""
        parts = [fourier_features(t, 32), observed[:, :, None]]
        if embedding is not None:
            rows, modalities = max(len(t), len(embedding)), t.shape[1]
            parts = [jnp.broadcast_to(part, (rows, *part.shape[1:])) for part in parts]
            parts.append(jnp.broadcast_to(embedding[:, None], (rows, modalities, embedding.shape[-1])))
        condition = jnp.concatenate(parts, axis=-1)
        for layer in self.condition_layers:
            condition = nn.silu(layer(condition))
        return condition
