"""Options shared by the multimodal variational autoencoders; for their own options, see `joinings`."""

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import require
from sbm_jax.networks.codecs import AutoencoderNetworkConfig
from sbm_jax.systems.score_stage import ScoreConfig
from sbm_jax.types import TrainingConfig


@checked_dataclass
class JointPosteriorConfig:
    """Shared options of the multimodal variational autoencoders.

    Attributes:
      training: see `types.TrainingConfig`.
      network: sizes of the encoders and decoders.
      latent_size: D, size of the joint latent, unless a method sets its own.
      score_prior: score model of the ``_score`` systems.
      mixture_components: components of the Gaussian mixture of the ``_mixture`` systems.
    """

    training: TrainingConfig = TrainingConfig()
    network: AutoencoderNetworkConfig = AutoencoderNetworkConfig()
    latent_size: int = 64
    score_prior: ScoreConfig = ScoreConfig()
    mixture_components: int = 10

    def __post_init__(self):
        for name in ("latent_size", "mixture_components"):
            require(getattr(self, name) >= 1, f"methods.joint_posterior.{name}", getattr(self, name), "at least 1")
