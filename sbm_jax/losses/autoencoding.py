"""Objectives of the unimodal autoencoders, as per-row terms."""

import flax.struct
import jax.numpy as jnp

from sbm_jax.distributions import LIKELIHOODS, standard_normal_kl, sum_over_entries
from sbm_jax.types import Array, Modality


@flax.struct.dataclass
class AutoencodingTerms:
    """Per-row terms of one modality: reconstruction -log p(x | z) [B], and the regulariser, without its weight, [B]."""

    reconstruction: Array
    regulariser: Array


def elbo_terms(modality: Modality, x: Array, output: Array, mean: Array, log_variance: Array) -> AutoencodingTerms:
    """Return -log p(x | z) and KL(q(z | x) ‖ N(0, I)), the two terms of the negative evidence lower bound (Eq. 1).

    Args:
      modality: names the likelihood and its scale.
      x: data [B, *shape].
      output: the decoder's raw output for z = mean + exp(log_variance / 2) ε.
      mean: posterior means [B, D_m].
      log_variance: posterior log variances [B, D_m].
    """
    return AutoencodingTerms(reconstruction(modality, x, output), standard_normal_kl(mean, log_variance))


def rae_terms(modality: Modality, x: Array, output: Array, z: Array) -> AutoencodingTerms:
    """Return -log p(x | z + noise) and ‖z‖² (Eq. 10, without a decoder regulariser).

    Args:
      modality: names the likelihood and its scale.
      x: data [B, *shape].
      output: the decoder's raw output for the noisy latent.
      z: the noiseless latent [B, D_m].
    """
    return AutoencodingTerms(reconstruction(modality, x, output), jnp.sum(jnp.square(z), axis=-1))


def reconstruction(modality: Modality, x: Array, output: Array) -> Array:
    """Return -log p(x | z) [B] of data x [B, *shape], given the decoder's raw output."""
    return -sum_over_entries(LIKELIHOODS[modality.likelihood].log_prob(x, output, modality.scale))
