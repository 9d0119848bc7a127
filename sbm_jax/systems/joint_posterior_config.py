"""What the multimodal variational autoencoders share, as options; what each has of its own is in `joinings`."""

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import require
from sbm_jax.networks.codecs import AutoencoderNetworkConfig
from sbm_jax.systems.score_stage import ScoreConfig
from sbm_jax.types import TrainingConfig


@checked_dataclass
class JointPosteriorConfig:
    """The multimodal variational autoencoders.

    Attributes:
      training: see `types.TrainingConfig`.
      network: sizes of the encoders and decoders.
      latent_size: D, of the one latent, where a method has no size of its own.
      score_prior: the score model of the ``_score`` systems.
      mixture_components: of the Gaussian mixture of the ``_mixture`` systems.
    """

    training: TrainingConfig = TrainingConfig()
    network: AutoencoderNetworkConfig = AutoencoderNetworkConfig()
    latent_size: int = 64
    score_prior: ScoreConfig = ScoreConfig()
    mixture_components: int = 10

    def __post_init__(self):
        for name in ("latent_size", "mixture_components"):
            require(getattr(self, name) >= 1, f"methods.joint_posterior.{name}", getattr(self, name), "at least 1")
