"""Samplers as PyTorch users run them: Python loops over a network `(z [B, M, D], t [B], observed [B, M])`."""

from collections.abc import Callable

import diffusers
import torch
from torch import Tensor

Network = Callable[[Tensor, Tensor, Tensor], Tensor]


def predictor_corrector(
    network: Network,
    z_observed: Tensor,
    observed: Tensor,
    num_steps: int,
    beta: tuple[float, float] = (0.1, 5.0),
    snr: float = 0.16,
    end_time: float = 1e-3,
) -> Tensor:
    """Sample with the multimodal paper's predictor-corrector: 2 · num_steps network evaluations, in float32.

    Every step replaces the observed latents, and makes an Euler-Maruyama step with Δt = 1 / num_steps, then a Langevin
    step at the same time, whose size comes from norms averaged over the batch. The network predicts the score.

    Args:
      network: score network with a single time, which ignores the observed set.
      z_observed: clean latents [B, M, D]; only observed ones are read.
      observed: bool [B, M].
      num_steps: steps from time 1 to `end_time`.
      beta: β at times 0 and 1.
      snr: ratio of step to noise in the corrector.
      end_time: the last time.

    Returns:
      [B, M, D].

    Reference:
      Wesego and Rooshenas, "Score-Based Multimodal Autoencoder", 2023, section 2.1 and appendix A.
    """
    given, none = observed[:, :, None], torch.zeros_like(observed)
    dt = 1.0 / num_steps
    z = mean = torch.randn_like(z_observed)
    for time in torch.linspace(1.0, end_time, num_steps):
        t = time.expand(len(z))
        beta_t = beta[0] + time * (beta[1] - beta[0])
        z = torch.where(given, z_observed, z)
        mean = z + beta_t * dt * (0.5 * z + network(z, t, none))
        z = mean + (beta_t * dt).sqrt() * torch.randn_like(z)

        score, noise = network(z, t, none), torch.randn_like(z)
        ratio = noise.flatten(1).norm(dim=1).mean() / score.flatten(1).norm(dim=1).mean()
        size = 2 * (1 - beta_t * dt) * (snr * ratio) ** 2
        mean = z + size * score
        z = mean + (2 * size).sqrt() * noise
    return torch.where(given, z_observed, mean)


def dpm_solver_pp_2m(network: Network, z_observed: Tensor, observed: Tensor, num_steps: int) -> Tensor:
    """Sample with diffusers' DPM-Solver++ 2M, on its grid uniform in log-SNR, for a network that predicts v.

    Args:
      network: network with a single time.
      z_observed: clean latents [B, M, D]; observed ones are read and held fixed.
      observed: bool [B, M].
      num_steps: network evaluations.

    Returns:
      [B, M, D].
    """
    scheduler = diffusers.DPMSolverMultistepScheduler(
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        algorithm_type="dpmsolver++",
        solver_order=2,
        prediction_type="v_prediction",
        use_lu_lambdas=True,
    )
    scheduler.set_timesteps(num_steps)
    given = observed[:, :, None]
    z = torch.randn_like(z_observed)
    for timestep in scheduler.timesteps:
        z = torch.where(given, z_observed, z)
        velocity = network(z, (timestep / 1000.0).expand(len(z)), observed)
        z = scheduler.step(velocity, timestep, z).prev_sample
    return torch.where(given, z_observed, z)
