"""Forward diffusion processes: dz = f(t) z dt + g(t) dw on t in [0, 1], with Gaussian marginals.

Each process defines q(z_t | z_0) = N(α_t z_0, σ_t² I) and its drift and diffusion coefficients. All functions are
elementwise in t, so t may be a scalar or hold one time per modality. All times are float32.

Reference: Y. Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2020, section
3.4 and appendix B. https://arxiv.org/abs/2011.13456
"""

import dataclasses
import math
from typing import ClassVar, Protocol, runtime_checkable

import jax.numpy as jnp

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import SbmError, unknown
from sbm_jax.types import Array


@runtime_checkable
class SDE(Protocol):
    """A linear diffusion process."""

    def marginal(self, t: Array) -> tuple[Array, Array]:
        """Return (α_t, σ_t)."""

    def drift(self, t: Array) -> Array:
        """Return f(t), the coefficient of z in the drift."""

    def diffusion_squared(self, t: Array) -> Array:
        """Return g(t)²."""

    def time_of_half_log_snr(self, half_log_snr: Array) -> Array:
        """Return the time at which half the log signal-to-noise ratio, log(α_t / σ_t), has the given value."""


def _linear_beta_time(integral: Array, beta_min: float, beta_max: float) -> Array:
    """Return t with ∫₀ᵗ β(s) ds = integral, for β linear in time."""
    slope = beta_max - beta_min
    # The numerically stable root of slope/2 t² + beta_min t = integral; also valid for slope = 0.
    return 2 * integral / (beta_min + jnp.sqrt(beta_min**2 + 2 * slope * integral))


@dataclasses.dataclass(frozen=True)
class VP:
    """Variance preserving: β(t) = β_min + t (β_max - β_min), α_t = exp(-½ ∫β), σ_t² = 1 - α_t²."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def beta(self, t: Array) -> Array:
        """Return β(t)."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def integral(self, t: Array) -> Array:
        """Return ∫₀ᵗ β(s) ds."""
        return t * self.beta_min + 0.5 * t**2 * (self.beta_max - self.beta_min)

    def marginal(self, t: Array) -> tuple[Array, Array]:
        """Return (α_t, σ_t)."""
        integral = self.integral(t)
        return jnp.exp(-0.5 * integral), jnp.sqrt(-jnp.expm1(-integral))

    def drift(self, t: Array) -> Array:
        """Return f(t) = -½ β(t)."""
        return -0.5 * self.beta(t)

    def diffusion_squared(self, t: Array) -> Array:
        """Return g(t)² = β(t)."""
        return self.beta(t)

    def time_of_half_log_snr(self, half_log_snr: Array) -> Array:
        """Return t with log(α/σ) = half_log_snr: ∫β = log(1 + exp(-2 half_log_snr))."""
        return _linear_beta_time(jnp.logaddexp(0.0, -2.0 * half_log_snr), self.beta_min, self.beta_max)


@dataclasses.dataclass(frozen=True)
class SubVP(VP):
    """Sub-variance-preserving: the VP mean with σ_t = 1 - exp(-∫β), g² = β (1 - exp(-2 ∫β))."""

    def marginal(self, t: Array) -> tuple[Array, Array]:
        """Return (α_t, σ_t)."""
        integral = self.integral(t)
        return jnp.exp(-0.5 * integral), -jnp.expm1(-integral)

    def diffusion_squared(self, t: Array) -> Array:
        """Return g(t)² = β(t) (1 - exp(-2 ∫β))."""
        return self.beta(t) * -jnp.expm1(-2.0 * self.integral(t))

    def time_of_half_log_snr(self, half_log_snr: Array) -> Array:
        """Return t with α/(1 - α²) = r, r = exp(half_log_snr): α = 2r / (1 + sqrt(1 + 4r²)), ∫β = -2 log α."""
        # Written as log α = log 2 - log(1/r + sqrt(1/r² + 4)), which does not overflow for large r.
        inverse = jnp.exp(-half_log_snr)
        log_alpha = jnp.log(2.0) - jnp.log(inverse + jnp.sqrt(inverse**2 + 4.0))
        return _linear_beta_time(jnp.maximum(-2.0 * log_alpha, 0.0), self.beta_min, self.beta_max)


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Variance preserving, with α_t = cos(c t), σ_t = sin(c t): spends more of [0, 1] at low noise than `VP`.

    c is slightly less than π/2, so that α_1 = 0.0016 is not 0.

    Reference: A. Nichol and P. Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, section 3.2,
      without its offset. https://arxiv.org/abs/2102.09672
    """

    rate: ClassVar[float] = 0.999 * math.pi / 2

    def marginal(self, t: Array) -> tuple[Array, Array]:
        """Return (α_t, σ_t)."""
        angle = self.rate * jnp.asarray(t)
        return jnp.cos(angle), jnp.sin(angle)

    def drift(self, t: Array) -> Array:
        """Return f(t) = d log α / dt = -c tan(c t)."""
        return -self.rate * jnp.tan(self.rate * jnp.asarray(t))

    def diffusion_squared(self, t: Array) -> Array:
        """Return g(t)² = 2 c tan(c t)."""
        return -2.0 * self.drift(t)

    def time_of_half_log_snr(self, half_log_snr: Array) -> Array:
        """Return t with tan(c t) = exp(-half_log_snr)."""
        return jnp.arctan(jnp.exp(-half_log_snr)) / self.rate


@dataclasses.dataclass(frozen=True)
class VE:
    """Variance exploding: α_t = 1, σ_t = σ_min (σ_max / σ_min)^t; noise of σ_min remains at t = 0."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def marginal(self, t: Array) -> tuple[Array, Array]:
        """Return (1, σ_t)."""
        t = jnp.asarray(t)
        return jnp.ones_like(t), self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def drift(self, t: Array) -> Array:
        """Return f(t) = 0."""
        return jnp.zeros_like(jnp.asarray(t))

    def diffusion_squared(self, t: Array) -> Array:
        """Return g(t)² = dσ²/dt = 2 σ_t² log(σ_max / σ_min)."""
        return 2.0 * jnp.log(self.sigma_max / self.sigma_min) * self.marginal(t)[1] ** 2

    def time_of_half_log_snr(self, half_log_snr: Array) -> Array:
        """Return t with -log σ_t = half_log_snr."""
        return (-half_log_snr - jnp.log(self.sigma_min)) / jnp.log(self.sigma_max / self.sigma_min)


@checked_dataclass
class SDEConfig:
    """Configures the forward process.

    Attributes:
      name: a key of `SDES`.
      beta_min: β at t = 0 (vp, sub_vp).
      beta_max: β at t = 1 (vp, sub_vp). With 20, α_1 = 0.007 and N(0, I) is the right initial distribution; with the
        paper's 5, α_1 = 0.28 and probability-flow ODE solvers converge to the wrong distribution.
      sigma_min: σ at t = 0 (ve).
      sigma_max: σ at t = 1 (ve).
    """

    name: str = "vp"
    beta_min: float = 0.1
    beta_max: float = 20.0
    sigma_min: float = 0.01
    sigma_max: float = 50.0


SDES = {"vp": VP, "sub_vp": SubVP, "ve": VE, "cosine": Cosine}


def make_sde(config: SDEConfig) -> SDE:
    """Return the process that a config names.

    Raises:
      SbmError: on an unknown name, or unless 0 < min < max.
    """
    if config.name not in SDES:
        raise unknown("process (sde.name)", config.name, SDES)
    if config.name == "cosine":
        return Cosine()
    low, high = (config.sigma_min, config.sigma_max) if config.name == "ve" else (config.beta_min, config.beta_max)
    if not 0 < low < high:
        raise SbmError(f"sde: the range of {config.name!r} must satisfy 0 < min < max, not ({low}, {high}).")
    return SDES[config.name](low, high)
