"""Contrastive encoders, which embed all modalities in one space."""

import flax.linen as nn
import jax.numpy as jnp

from sbm_jax.networks.codecs import AutoencoderNetworkConfig, make_codec
from sbm_jax.types import Array, Modality


class ContrastiveEncoder(nn.Module):
    """Embeds a modality as a unit vector, by its codec's encoder and a residual projection head.

    Attributes:
      modality: the modality; its latent size is the size of the embedding.
      config: sizes of the encoder.
      dropout: rate in the head.

    Reference: D. Wesego and P. Rooshenas, 2023, section 2.2.2; the head follows the authors' code.
    """

    modality: Modality
    config: AutoencoderNetworkConfig
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        """Map [B, *shape] to unit vectors [B, E]."""
        features, _ = make_codec(self.modality, self.config).encoder(x)
        hidden = nn.Dense(self.modality.latent_size)(nn.gelu(features))
        hidden = nn.LayerNorm()(features + nn.Dropout(self.dropout, deterministic=not train)(hidden))
        return hidden / jnp.linalg.norm(hidden, axis=-1, keepdims=True)
