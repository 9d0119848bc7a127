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
"""The weight of the bound, λ = g²."""


@checked_dataclass
class PictureSampler(SamplerOptions):
    """`SamplerOptions` with defaults for images: few evaluations, nothing observed."""

    solver: str = "dpm_solver_pp_2m"
    num_steps: int = 4
    grid: str = "uniform"  # log_snr would spend two of four steps at almost pure noise and almost clean data
    conditioning: str = "clean"
    end_time: float = 1e-3


def check_sampler(options: SamplerOptions) -> None:
    """Raise `SbmError` for options that only make sense with observed entries."""
    for name, value in {"start": "prior", "conditioning": "clean", "resampling": 1}.items():
        found, where = getattr(options, name), f"diffusion decoder: sampler.{name}"
        require(
            found == value,
            where,
            found,
            f"{value!r}: a diffusion decoder draws whole pictures, of which no part is observed",
        )


@checked_dataclass
class DiffusionDecoderConfig:
    """How images are diffused, denoised and sampled.

    Attributes:
      network: the denoiser.
      sde: the forward process, of images in [-1, 1].
      prediction: what the network's output means, one of `parameterization.PREDICTIONS`.
      weighting: λ(t), a key of `losses.score_matching.WEIGHTINGS`; "" for the squared error of the prediction.
        ``"likelihood"``, λ = g², is the bound on the likelihood (Diff-MVAE); ``"noise"`` is the squared error of ε̂
        (Diff-MVAE*, DDPM).
      num_times: 0 for continuous times in [0, 1]; N > 0 for the times k / N (DDPM: 1,000).
      condition_dropout: probability that training drops the condition, as guidance requires.
      guidance: w of `sampling.guidance.classifier_free`, on the condition; 0 for none.
      likelihood_steps: steps of the probability-flow ODE that evaluates the likelihood; 0 evaluates the bound instead.
      sampler: sampler options. With a `start_time` below 1 it starts from the image in the condition, noised.
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
                f"{where} prediction {self.prediction!r} under the process 'cosine', whose α is 0.002 at time 1: an "
                "error of the noise would be 600 times as large in the picture. Set prediction to 'velocity', or "
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
                f"{where} num_times is {self.num_times}, and the weighting 'likelihood' is an integral over all times. "
                "Set it to 0, or choose another weighting."
            )
        make_sde(self.sde)
        make_denoiser(self.network)
        check_sampler(self.sampler)

    @staticmethod
    def needs_dropout(guidance: float) -> SbmError:
        """Return the error for guidance without condition dropout."""
        return SbmError(
            f"diffusion decoder: guidance {guidance} needs a network that was also trained without its condition; "
            "set condition_dropout, to 0.1 for example."
        )

    def training_settings(self) -> dict[str, Any]:
        """Return what training depends on, as JSON values: all but the sampler, and the end time of the bound."""
        settings = plain(self)
        for name in ("sampler", "guidance", "likelihood_steps"):
            del settings[name]
        return settings | ({"end_time": self.sampler.end_time} if self.weighting == LIKELIHOOD else {})


def check_conditions(condition: Sequence[str], known: Sequence[str], where: str) -> None:
    """Raise `SbmError` if `condition`, the field `where` of a config, is empty or has an unknown entry."""
    require(bool(condition), where, condition, f"one or more of {', '.join(known)}")
    for name in condition:
        if name not in known:
            raise unknown(f"choice in {where}:", name, known)
