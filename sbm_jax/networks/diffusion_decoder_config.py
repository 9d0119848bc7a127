"""Options of diffusion decoders, and their checks."""

from collections.abc import Sequence
from typing import Any

from sbm_jax.config import checked_dataclass, plain
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.losses.score_matching import WEIGHTINGS
from sbm_jax.networks.denoisers import DenoiserConfig, make_denoiser
from sbm_jax.parameterization import Parameterization
from sbm_jax.sampling import SamplerOptions
from sbm_jax.sde import SDEConfig, make_sde

LIKELIHOOD = "likelihood"
"""The weighting λ = g², for which the loss is a bound on the likelihood."""


@checked_dataclass
class PictureSampler(SamplerOptions):
    """`SamplerOptions` with defaults for sampling images, where nothing is observed, in few evaluations."""

    solver: str = "dpm_solver_pp_2m"
    num_steps: int = 4
    grid: str = "uniform"  # log_snr would spend two of four steps at almost pure noise, or almost none
    conditioning: str = "clean"
    end_time: float = 1e-3


def check_sampler(options: SamplerOptions) -> None:
    """Raise `SbmError` for options that apply only if something is observed."""
    for name, value in {"start": "prior", "conditioning": "clean", "resampling": 1}.items():
        found, where = getattr(options, name), f"diffusion decoder: sampler.{name}"
        require(
            found == value,
            where,
            found,
            f"{value!r}: a diffusion decoder samples whole images, of which no part is observed",
        )


@checked_dataclass
class DiffusionDecoderConfig:
    """Configures a diffusion decoder of images.

    Attributes:
      network: the denoiser.
      sde: the forward process, for images in [-1, 1].
      prediction: what the network predicts, one of `parameterization.PREDICTIONS`.
      weighting: λ(t), a key of `losses.score_matching.WEIGHTINGS`; "" for the squared error of the prediction.
        ``"likelihood"``, λ = g², trains with the bound on the likelihood (Diff-MVAE), ``"noise"`` with the squared
        error of ε̂ (Diff-MVAE*, DDPM).
      num_times: 0 to train at all times in [0, 1]; N > 0 for the times k / N (DDPM: 1,000).
      condition_dropout: probability of dropping the condition in training, as guidance requires.
      guidance: w of `sampling.guidance.classifier_free` on the condition; 0 for none.
      likelihood_steps: steps of the probability flow that computes the likelihood of small images; 0 to use its bound.
      sampler: options of the sampler. With a `start_time` below 1, it starts from the condition's picture with noise.
    """

    network: DenoiserConfig = DenoiserConfig()
    sde: SDEConfig = SDEConfig("cosine")
    prediction: str = "velocity"
    weighting: str = ""
    num_times: int = 0
    condition_dropout: float = 0.0
    guidance: float = 0.0
    likelihood_steps: int = 0
    sampler: PictureSampler = PictureSampler()

    def __post_init__(self):
        where = "diffusion decoder:"
        Parameterization(self.prediction)
        if not self.weighting:
            object.__setattr__(self, "weighting", "noise" if self.prediction == "score" else self.prediction)
        if self.sde.name == "cosine" and self.prediction in ("noise", "score"):
            raise SbmError(
                f"{where} prediction {self.prediction!r} does not suit the process 'cosine', whose α is 0.002 at time "
                "1: an error in the noise would be 600 times as large in the image. Set prediction to 'velocity', or "
                "sde.name to 'vp'."
            )
        if self.weighting not in WEIGHTINGS:
            raise unknown(f"{where} weighting", self.weighting, WEIGHTINGS)
        require(self.num_times >= 0, f"{where} num_times", self.num_times, "0 (all of [0, 1]) or more")
        for name in ("condition_dropout", "guidance", "likelihood_steps"):
            require(getattr(self, name) >= 0, f"{where} {name}", getattr(self, name), "0 or more")
        require(self.condition_dropout < 1, f"{where} condition_dropout", self.condition_dropout, "less than 1")
        if self.guidance and not self.condition_dropout:
            raise self.needs_dropout(self.guidance)
        if self.weighting == LIKELIHOOD and self.num_times:
            raise SbmError(
                f"{where} num_times is {self.num_times}, but the weighting 'likelihood' integrates over all times. Set "
                "num_times to 0, or choose another weighting."
            )
        make_sde(self.sde)
        make_denoiser(self.network)
        check_sampler(self.sampler)

    @staticmethod
    def needs_dropout(guidance: float) -> SbmError:
        """Return the error for guidance of a network trained without condition dropout."""
        return SbmError(
            f"diffusion decoder: guidance {guidance} needs a network that was also trained without its condition; "
            "set condition_dropout, to 0.1 for example."
        )

    def training_settings(self) -> dict[str, Any]:
        """Return the options that training depends on, as JSON values; of the sampler, only where the bound ends."""
        settings = plain(self)
        for name in ("sampler", "guidance", "likelihood_steps"):
            del settings[name]
        return settings | ({"end_time": self.sampler.end_time} if self.weighting == LIKELIHOOD else {})


def check_conditions(condition: Sequence[str], known: Sequence[str], where: str) -> None:
    """Raise `SbmError` if a decoder's conditions, the value of the field `where`, are empty or not all in `known`."""
    require(bool(condition), where, condition, f"one or more of {', '.join(known)}")
    for name in condition:
        if name not in known:
            raise unknown(f"choice in {where}:", name, known)
