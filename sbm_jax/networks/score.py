"""Score networks over the joint latents, and the conversion of their output to noise and scores.

`base.ScoreNetwork` describes the inputs and outputs of networks; `ScoreModel` determines what an output means.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, require
from sbm_jax.networks.base import ScoreNetwork
from sbm_jax.networks.mlp import ResidualMLP
from sbm_jax.networks.mlp_unet import MlpUNet
from sbm_jax.networks.transformer import TokenTransformer
from sbm_jax.networks.unet import UNet
from sbm_jax.parameterization import Parameterization, scaled
from sbm_jax.registry import find
from sbm_jax.sde import SDE
from sbm_jax.tokens import Owner
from sbm_jax.types import Array, Context, Key, Params, ScoreFn


@checked_dataclass
class ScoreNetworkConfig:
    """Configures the score network.

    Attributes:
      name: a key of `NETWORKS`, or ``"package.module:ATTRIBUTE"`` for another factory with the same signature.
      width: units per layer (mlp, mlp_unet; should exceed the size of the joint latent), token size (transformer), or
        base channels (unet).
      depth: number of residual blocks (mlp, transformer), or of blocks on the way down (mlp_unet).
      dropout: rate in the residual branches (all but unet).
      dtype: type of the matrix products' operands, ``"float32"`` or ``"bfloat16"``.
      multipliers: width of each level as a multiple of `width` (unet).
      paper_unet: whether to use the paper's UNet, with raw times in [0, 1] and no mask channels.
    """

    name: str = "transformer"
    width: int = 256
    depth: int = 4
    dropout: float = 0.0
    dtype: str = "float32"
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    paper_unet: bool = False

    def __post_init__(self):
        where = "score network:"
        require(self.width >= 1, f"{where} width", self.width, "at least 1")
        require(self.depth >= 1, f"{where} depth", self.depth, "at least 1")
        require(0 <= self.dropout < 1, f"{where} dropout", self.dropout, "0 to less than 1")
        require(self.dtype in ("float32", "bfloat16"), f"{where} dtype", self.dtype, "'float32' or 'bfloat16'")
        positive = bool(self.multipliers) and min(self.multipliers) >= 1
        require(positive, f"{where} multipliers", self.multipliers, "one or more, each at least 1")


def _transformer(config: ScoreNetworkConfig, **tokens) -> ScoreNetwork:
    if config.width % 32:
        raise SbmError(f"score network: width of the transformer must be a multiple of 32, not {config.width}.")
    return TokenTransformer(config.width, config.depth, config.dropout, dtype=jnp.dtype(config.dtype), **tokens)


def _mlp(config: ScoreNetworkConfig, **tokens) -> ScoreNetwork:
    return ResidualMLP(config.width, config.depth, config.dropout, dtype=jnp.dtype(config.dtype), **tokens)


def _mlp_unet(config: ScoreNetworkConfig, **tokens) -> ScoreNetwork:
    return MlpUNet(config.width, config.depth, config.dropout, dtype=jnp.dtype(config.dtype), **tokens)


def _unet(config: ScoreNetworkConfig, **tokens) -> ScoreNetwork:
    return UNet(
        config.width,
        config.multipliers,
        dtype=jnp.dtype(config.dtype),
        mask_channels=not config.paper_unet,
        time_scale=1.0 if config.paper_unet else 1000.0,
        **tokens,
    )


NETWORKS: dict[str, Callable[..., ScoreNetwork]] = {
    "transformer": _transformer,
    "mlp": _mlp,
    "mlp_unet": _mlp_unet,
    "unet": _unet,
}
"""Factories of networks, called with the config and the keywords `sizes` and `owner` (see `base.ScoreNetwork`)."""


@dataclasses.dataclass(frozen=True)
class ScoreModel:
    """A score network over standardised latents, with its process and parameterization.

    Attributes:
      network: see `base.ScoreNetwork`.
      sde: the process.
      parameterization: what the network predicts.
    """

    network: ScoreNetwork
    sde: SDE
    parameterization: Parameterization = Parameterization()

    def init(self, key: Key, context: Context) -> Params:
        """Return fresh parameters for batches like the context's."""
        z, t = jnp.zeros((len(context.observed), *context.valid.shape)), jnp.zeros(context.observed.shape)
        return self.network.init(key, z, t, context.observed, context.present, context.embedding)["params"]

    def noise(self, params: Params, z: Array, t: Array, context: Context, dropout_key: Key | None = None) -> Array:
        """Predict the noise ε̂ [B, N, D], float32; meaningless at observed and padded entries.

        Args:
          params: the network's parameters.
          z: diffused latents [B, N, D], clean where observed.
          t: times [B, M], 0 where observed.
          context: see `Context`.
          dropout_key: key for dropout; None for no dropout (sampling, validation).
        """
        alpha, sigma = (context.spread(value) for value in self.sde.marginal(t))
        # Observed latents are clean and need no rescaling.
        given = jnp.where(context.spread(context.observed), z, scaled(z, alpha, sigma))
        output: Any = self.network.apply(
            {"params": params},
            given,
            t,
            context.observed,
            context.present,
            context.embedding,
            train=dropout_key is not None,
            rngs=None if dropout_key is None else {"dropout": dropout_key},
        )
        return self.parameterization.noise(output, given, alpha, sigma)

    def bind(self, params: Params, context: Context, z_observed: Array, num_free: int | None = None) -> ScoreFn:
        """Return the score function of one sampling call: s = -ε̂ / σ on free entries, 0 elsewhere.

        Work that all steps share is done here, once. The score function assumes that all unobserved
        modalities share one time, as in a sampling step: the largest of the times it receives.

        Args:
          params: the network's parameters.
          context: see `Context`.
          z_observed: clean latents [B, N, D] to hold fixed; only observed entries are read. The score function ignores
            observed entries of its own argument.
          num_free: static upper bound on the unobserved modalities in a row, which lets some networks skip the others;
            None for M.
        """
        apply = functools.partial(self.network.apply, {"params": params})
        arguments = (context.observed, context.present, context.embedding, num_free)
        prepared = apply(z_observed, *arguments, method="prepare")

        def score_fn(key: Key, z: Array, t: Array) -> Array:
            del key
            time = jnp.max(t)
            alpha, sigma = self.sde.marginal(time)
            given = scaled(z, alpha, sigma)
            output: Any = apply(prepared, given, time, method="denoise")
            return jnp.where(context.free, self.parameterization.score(output, given, alpha, sigma), 0.0)

        return score_fn


def make_score_model(
    config: ScoreNetworkConfig, sde: SDE, prediction: str, sizes: tuple[int, ...] = (), owner: Owner = ()
) -> ScoreModel:
    """Return the score model that a config names.

    Args:
      config: options of the network.
      sde: the process.
      prediction: what the network predicts, one of `parameterization.PREDICTIONS`.
      sizes: number of valid entries of each token; the others are padding. () for all D.
      owner: the modality of each token; () for one token each.

    Raises:
      SbmError: on an unknown network or prediction, or a width that the network does not support.
    """
    make = find("score network:", config.name, NETWORKS, Callable)
    return ScoreModel(make(config, sizes=sizes, owner=owner), sde, Parameterization(prediction))
