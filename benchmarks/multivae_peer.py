"""Training steps of MultiVae's models, with the same networks, likelihoods and settings as ours."""

import itertools
from collections.abc import Callable

import numpy as np
import torch
from multivae.data.datasets.base import MultimodalBaseDataset
from multivae.models import (
    MMVAE,
    MVAE,
    MVTCAE,
    MMVAEConfig,
    MMVAEPlus,
    MMVAEPlusConfig,
    MoPoE,
    MoPoEConfig,
    MVAEConfig,
    MVTCAEConfig,
)
from multivae.models.base import BaseDecoder, BaseEncoder, ModelOutput
from torch import Tensor, nn

from sbm_jax.systems.joint_posterior import JointPosterior

MODELS = {
    "mvae": (MVAE, MVAEConfig),
    "mmvae": (MMVAE, MMVAEConfig),
    "mopoe": (MoPoE, MoPoEConfig),
    "mvtcae": (MVTCAE, MVTCAEConfig),
    "mmvae_plus": (MMVAEPlus, MMVAEPlusConfig),
}


def make_step(system: JointPosterior, data: dict[str, np.ndarray]) -> Callable[[], float]:
    """Return a function that makes one training step on a batch and returns the loss.

    Args:
      system: our system, whose settings and networks are copied; its modalities have the codec ``"mlp"``.
      data: {modality: float [B, *shape]}.
    """
    model_class, config_class = MODELS[system.name]
    torch.manual_seed(0)
    encoders = {m.name: _Encoder(m.shape, system.config.network.widths, system.sizes) for m in system.modalities}
    decoders = {m.name: _Decoder(m.shape, system.config.network.widths, system.sizes) for m in system.modalities}
    model = model_class(config_class(**_options(system)), encoders, decoders).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batch = MultimodalBaseDataset({name: torch.from_numpy(array) for name, array in data.items()})

    def step() -> float:
        optimizer.zero_grad()
        loss = model(batch, epoch=100).loss
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _options(system: JointPosterior) -> dict:
    joining, names = system.joining, [modality.name for modality in system.modalities]
    options = {
        "n_modalities": len(names),
        "latent_dim": system.sizes[0],
        "input_dims": {modality.name: modality.shape for modality in system.modalities},
        "decoders_dist": dict.fromkeys(names, joining.likelihood),
        "decoder_dist_params": {name: {"scale": joining.scale} for name in names},
        "beta": joining.beta,
    }
    if system.name == "mvae":
        options |= {"k": joining.num_subsets}
    if system.name == "mvtcae":
        options |= {"alpha": joining.alpha}
    if joining.is_mixture:
        options |= {"K": joining.num_samples, "loss": f"{joining.estimator}_looser"}
        options |= {"prior_and_posterior_dist": joining.posterior}
    if system.name == "mmvae_plus":
        options |= {"modalities_specific_dim": system.sizes[1]}
    return options


def _layers(sizes: list[int]) -> nn.Sequential:
    parts = []
    for inputs, outputs in itertools.pairwise(sizes):
        parts += [nn.Linear(inputs, outputs), nn.LayerNorm(outputs, eps=1e-6), nn.SiLU()]
    return nn.Sequential(*parts)


class _Encoder(BaseEncoder):
    """See `sbm_jax.networks.codecs.mlp.MLPEncoder`."""

    def __init__(self, shape: tuple[int, ...], widths: tuple[int, ...], sizes: tuple[int, int]):
        super().__init__()
        self.latent_dim, self.style_dim = sizes
        self.layers = _layers([int(np.prod(shape)), *widths])
        self.heads = nn.ModuleList([nn.Linear(widths[-1], sum(sizes)) for _ in range(2)])

    def forward(self, x: Tensor) -> ModelOutput:
        features = self.layers(x.flatten(1))
        mean, log_variance = (head(features) for head in self.heads)
        log_variance = log_variance.clamp(-12.0, 6.0)
        cut = self.latent_dim
        output = ModelOutput(embedding=mean[:, :cut], log_covariance=log_variance[:, :cut])
        if self.style_dim:
            output["style_embedding"], output["style_log_covariance"] = mean[:, cut:], log_variance[:, cut:]
        return output


class _Decoder(BaseDecoder):
    """See `sbm_jax.networks.codecs.mlp.MLPDecoder`."""

    def __init__(self, shape: tuple[int, ...], widths: tuple[int, ...], sizes: tuple[int, int]):
        super().__init__()
        self.latent_dim, self.shape = sum(sizes), shape
        self.layers = _layers([sum(sizes), *widths[::-1]])
        self.last = nn.Linear(widths[0], int(np.prod(shape)))

    def forward(self, z: Tensor) -> ModelOutput:
        output = self.last(self.layers(z.reshape(-1, z.shape[-1])))
        return ModelOutput(reconstruction=output.reshape(*z.shape[:-1], *self.shape))
