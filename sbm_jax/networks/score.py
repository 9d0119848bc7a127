"""Score networks over the joint latents, and the one place where their output becomes a score.

Every network maps `(z [B, M, D], t [B, M], observed [B, M], present, embedding)` to [B, M, D]. Each modality has its
own time; an observed latent is clean and has time 0. What the output means is the business of `ScoreModel`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.networks.unet import UNet
from sbm_jax.sde import SDE
from sbm_jax.types import Array, Context, Key, Params, ScoreFn


@dataclasses.dataclass(frozen=True)
class ScoreNetworkConfig:
    """The choice and size of the score network.

    Attributes:
      name: a key of `NETWORKS`.
      width: units of each layer (mlp; wider than the joint latent), token size (transformer), or base channels (unet).
      depth: number of residual blocks (mlp, transformer).
      dropout: rate of the residual branches (mlp, transformer).
      dtype: type of the matrix products' operands, ``"float32"`` or ``"bfloat16"``.
      paper_unet: unet as the paper has it: raw time in [0, 1] and no mask channels.
    """

    name: str = "transformer"
    width: int = 256
    depth: int = 4
    dropout: float = 0.0
    dtype: str = "float32"
    paper_unet: bool = False

    def __post_init__(self):
        require(self.width >= 1, "score.network.width", self.width, "at least 1")
        require(self.depth >= 1, "score.network.depth", self.depth, "at least 1")
        require(0 <= self.dropout < 1, "score.network.dropout", self.dropout, "0 to less than 1")
        require(self.dtype in ("float32", "bfloat16"), "score.network.dtype", self.dtype, "'float32' or 'bfloat16'")


def fourier_features(t: Array, size: int) -> Array:
    """Return sin and cos of 2π f t for `size // 2` frequencies f from 1/4 to 64, geometric: [...] -> [..., size]."""
    frequencies = jnp.geomspace(0.25, 64.0, size // 2)
    angles = 2 * jnp.pi * t[..., None] * frequencies.reshape((1,) * t.ndim + (-1,))
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class ResidualMLP(nn.Module):
    """A residual MLP over the concatenated latents, all modalities' times and the observed mask."""

    width: int
    depth: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
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
        """Return the network's output, float32 [B, M, D]."""
        batch = z.shape[0]
        if present is not None:
            z = jnp.where(present[:, :, None], z, 0.0)
        condition = [fourier_features(t, 32).reshape(batch, -1), observed.astype(jnp.float32)]
        condition += [] if present is None else [present.astype(jnp.float32)]
        condition += [] if embedding is None else [embedding]
        condition = nn.silu(nn.Dense(128, dtype=self.dtype)(jnp.concatenate(condition, axis=-1)))
        x = nn.Dense(self.width, dtype=self.dtype)(z.reshape(batch, -1)).astype(jnp.float32)
        for _ in range(self.depth):
            hidden = nn.LayerNorm()(x)
            scale, shift = jnp.split(nn.Dense(2 * self.width, dtype=self.dtype)(condition), 2, axis=-1)
            hidden = nn.silu(nn.Dense(self.width, dtype=self.dtype)(hidden * (1 + scale) + shift))
            hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
            hidden = nn.Dense(self.width, dtype=self.dtype, kernel_init=nn.initializers.zeros)(hidden)
            x = x + hidden.astype(jnp.float32)
        output = nn.Dense(z.shape[1] * z.shape[2], kernel_init=nn.initializers.zeros)(nn.LayerNorm()(x))
        return output.reshape(z.shape)


class TokenTransformer(nn.Module):
    """A transformer with one token per modality.

    Observed tokens attend to observed ones only, so that what is computed from them does not depend on the step of a
    sampler; all others attend to every present token. Each token is modulated by its own time (adaptive layer norm).
    """

    width: int
    depth: int
    dropout: float = 0.0
    head_size: int = 32
    dtype: Any = jnp.float32

    @nn.compact
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
        """Return the network's output, float32 [B, M, D]."""
        _, num_modalities, size = z.shape
        # A matrix of its own for each modality on the way in and out: latent spaces have nothing in common.
        project_in = self.param(
            "project_in", nn.initializers.lecun_normal(batch_axis=0), (num_modalities, size, self.width)
        )
        project_out = self.param("project_out", nn.initializers.zeros, (num_modalities, self.width, size))
        identity = self.param("identity", nn.initializers.normal(0.5), (num_modalities, self.width))
        x = jnp.einsum("bmd,mdw->bmw", z, project_in) + identity[None]

        condition = [fourier_features(t, 32), observed[:, :, None].astype(jnp.float32)]
        if embedding is not None:
            condition.append(jnp.broadcast_to(embedding[:, None], (*t.shape, embedding.shape[-1])))
        condition = nn.silu(nn.Dense(128)(jnp.concatenate(condition, axis=-1)))
        condition = nn.silu(nn.Dense(128)(condition))

        sees = observed[:, None, :] | ~observed[:, :, None]  # [B, query, key]
        if present is not None:
            sees = sees & present[:, None, :]
        for _ in range(self.depth):
            x = self._block(x, condition, sees, train)
        x = _modulated_norm(x, condition)
        return jnp.einsum("bmw,mwd->bmd", x, project_out)

    def _block(self, x: Array, condition: Array, sees: Array, train: bool) -> Array:
        drop = nn.Dropout(self.dropout, deterministic=not train)
        dense = functools.partial(nn.Dense, dtype=self.dtype)
        small = nn.initializers.normal(1e-2)

        heads = (*x.shape[:2], self.width // self.head_size, self.head_size)
        qkv = dense(3 * self.width, use_bias=False)(_modulated_norm(x, condition))
        query, key, value = (part.reshape(heads) for part in jnp.split(qkv, 3, axis=-1))
        attended = jax.nn.dot_product_attention(query, key, value, mask=sees[:, None])
        x = x + drop(dense(self.width, kernel_init=small)(attended.reshape(x.shape)).astype(jnp.float32))

        hidden = nn.gelu(dense(4 * self.width)(_modulated_norm(x, condition)))
        return x + drop(dense(self.width, kernel_init=small)(hidden).astype(jnp.float32))


def _modulated_norm(x: Array, condition: Array) -> Array:
    """Layer norm whose scale and shift come from the condition; called inside a compact module."""
    width = x.shape[-1]
    scale, shift = jnp.split(nn.Dense(2 * width, kernel_init=nn.initializers.zeros)(condition), 2, axis=-1)
    return nn.LayerNorm(use_bias=False, use_scale=False)(x) * (1 + scale) + shift


def _transformer(config: ScoreNetworkConfig) -> nn.Module:
    if config.width % 32:
        raise SbmError(f"config.score.network.width of the transformer must be a multiple of 32, not {config.width}.")
    return TokenTransformer(config.width, config.depth, config.dropout, dtype=jnp.dtype(config.dtype))


def _mlp(config: ScoreNetworkConfig) -> nn.Module:
    return ResidualMLP(config.width, config.depth, config.dropout, dtype=jnp.dtype(config.dtype))


def _unet(config: ScoreNetworkConfig) -> nn.Module:
    return UNet(
        config.width,
        dtype=jnp.dtype(config.dtype),
        mask_channels=not config.paper_unet,
        time_scale=1.0 if config.paper_unet else 1000.0,
    )


NETWORKS: dict[str, Callable[[ScoreNetworkConfig], nn.Module]] = {
    "transformer": _transformer,
    "mlp": _mlp,
    "unet": _unet,
}

PREDICTIONS = ("noise", "velocity", "score")


@dataclasses.dataclass(frozen=True)
class ScoreModel:
    """A score network and the meaning of its output.

    With s = sqrt(α² + σ²) and standardised latents, the network is given z_t / s (of unit variance under every
    process). Its output is ε (``"noise"``), v = (α ε - σ z_0) / s (``"velocity"``, which keeps the first steps of
    few-step samplers accurate, where α is near 0), or the score itself (``"score"``, as in the authors' code).

    Reference: T. Salimans and J. Ho, "Progressive Distillation", 2022, appendix D. https://arxiv.org/abs/2202.00512
    """

    network: nn.Module
    sde: SDE
    prediction: str = "velocity"

    def __post_init__(self):
        if self.prediction not in PREDICTIONS:
            raise unknown("prediction (config.score.prediction)", self.prediction, PREDICTIONS)

    def init(self, key: Key, context: Context) -> Params:
        """Return fresh parameters for batches like the context's."""
        shape = (*context.observed.shape, context.valid.shape[-1])
        arguments = (context.observed, context.present, context.embedding)
        return self.network.init(key, jnp.zeros(shape), jnp.zeros(shape[:2]), *arguments)["params"]

    def noise(self, params: Params, z: Array, t: Array, context: Context, dropout_key: Key | None = None) -> Array:
        """Return the predicted noise ε̂ [B, M, D], float32; meaningless at observed and padded entries.

        Args:
          params: the network's parameters.
          z: diffused latents [B, M, D], clean where observed.
          t: times [B, M], 0 where observed.
          context: see `Context`.
          dropout_key: applies dropout with this key; None for none (sampling, validation).
        """
        alpha, sigma = (x[:, :, None] for x in self.sde.marginal(t))
        # An observed latent is clean: nothing is to be rescaled.
        norm = jnp.where(context.observed[:, :, None], 1.0, jnp.sqrt(alpha**2 + sigma**2))
        scaled = z / norm
        output = self.network.apply(
            {"params": params},
            scaled,
            t,
            context.observed,
            context.present,
            context.embedding,
            train=dropout_key is not None,
            rngs=None if dropout_key is None else {"dropout": dropout_key},
        ).astype(jnp.float32)
        if self.prediction == "velocity":
            return (sigma * scaled + alpha * output) / norm
        return -sigma * output if self.prediction == "score" else output

    def bind(self, params: Params, context: Context) -> ScoreFn:
        """Return the score function for one sampling call: s = -ε̂ / σ on free entries, 0 elsewhere."""

        def score_fn(key: Key, z: Array, t: Array) -> Array:
            del key
            free = context.free
            sigma = jnp.where(free, self.sde.marginal(t)[1][:, :, None], 1.0)
            return jnp.where(free, -self.noise(params, z, t, context) / sigma, 0.0)

        return score_fn


def make_score_model(config: ScoreNetworkConfig, sde: SDE, prediction: str) -> ScoreModel:
    """Return the score model that a config names.

    Raises:
      SbmError: on an unknown network or prediction, or a width that the network cannot have.
    """
    if config.name not in NETWORKS:
        raise unknown("network (config.score.network.name)", config.name, NETWORKS)
    return ScoreModel(NETWORKS[config.name](config), sde, prediction)
