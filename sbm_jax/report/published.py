"""Published numbers, to be set beside ours. Curves of figures are not printed as numbers anywhere, and not guessed."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Published(NamedTuple):
    """A published number and its standard deviation, where it is given."""

    value: float
    std: float | None = None


class ConditionalRow(NamedTuple):
    """A line of Table 5: each modality given the rest, a mean over modalities."""

    name: str
    coherence: Published
    fid: Published


class DirectionsRow(NamedTuple):
    """A line of Table 8: coherence of images given sounds, of sounds given images, and of both from nothing."""

    name: str
    cells: tuple[Published, Published, Published]


class Choice(NamedTuple):
    """A choice of a paper.

    Attributes:
      text: how it is shown.
      values: the values of our field that mean the same.
    """

    text: str
    values: tuple = ()


def _same(value: Any) -> Choice:
    return Choice(json.dumps(value), (value,))


class Paper(NamedTuple):
    """The choices and the numbers of a paper.

    Attributes:
      title: authors and title.
      settings: its choices, by the field of our config; a number in a path is an index.
      further: (what, ours, the paper's) of what no field of the config says.
      conditional: Table 5, by system.
      all_agree: share of unconditional samples in which all ten modalities agree, and in which nine do (4.1).
      beta: Table 6, coherence and FID by the weight of the KL divergence; two modalities.
      cosine: Table 7, by modality.
      classifier: accuracy of its classifier on test data (A.2).
      directions: Table 8, by system.
      priors: Table 4 of Diff-MVAE, FID of what is generated from nothing, by system, with N(0, I) and with a score
        model as prior.
    """

    title: str
    settings: dict[str, Choice]
    further: tuple[tuple[str, str, str], ...]
    conditional: Mapping[str, ConditionalRow] = MappingProxyType({})
    all_agree: tuple[Published, Published] | None = None
    beta: Mapping[str, tuple[Published, Published]] = MappingProxyType({})
    cosine: tuple[float, ...] = ()
    classifier: Published | None = None
    directions: Mapping[str, DirectionsRow] = MappingProxyType({})
    priors: Mapping[str, tuple[Published, Published]] = MappingProxyType({})


def _row(name: str, coherence: float, coherence_std: float, fid: float, fid_std: float) -> ConditionalRow:
    return ConditionalRow(name, Published(coherence, coherence_std), Published(fid, fid_std))


SBM = Paper(
    title="D. Wesego and P. Rooshenas, Score-Based Multimodal Autoencoder",
    conditional={
        "mvae": _row("MVAE", 0.751, 0.001, 139.47, 0.055),
        "mmvae": _row("MMVAE", 0.969, 0.055, 176.49, 0.135),
        "mopoe": _row("MoPoE", 0.982, 0.001, 163.31, 0.590),
        "mvtcae": _row("MVTCAE", 0.983, 0.001, 77.69, 0.200),
        "mmvae_plus": _row("MMVAE+", 0.937, 0.130, 110.65, 0.0005),
        "sbm_vae": _row("SBM-VAE", 0.967, 0.001, 73.29, 0.080),
        "sbm_vae_c": _row("SBM-VAE-C", 0.989, 0.001, 72.96, 0.06),
        "sbm_vae_t": _row("SBM-VAE-T", 0.894, 0.001, 77.33, 0.05),
        "sbm_rae": _row("SBM-RAE", 0.968, 0.001, 81.70, 0.120),
        "sbm_rae_c": _row("SBM-RAE-C", 0.988, 0.001, 83.52, 0.10),
        "sbm_rae_t": _row("SBM-RAE-T", 0.940, 0.001, 86.48, 0.09),
    },
    all_agree=(Published(0.71), Published(0.925)),
    beta={
        "0.1": (Published(0.905, 0.001), Published(52.12, 0.045)),
        "0.5": (Published(0.780, 0.001), Published(102.85, 0.050)),
        "1.0": (Published(0.714, 0.003), Published(108.35, 0.295)),
    },
    cosine=(0.157, 0.164, 0.165, 0.180, 0.187, 0.229, 0.078, 0.107, 0.183, 0.192),
    classifier=Published(0.987),
    settings={
        "data.polymnist.num_modalities": _same(10),
        "data.polymnist.backgrounds": Choice("ten photographs of its own"),
        "modalities.0.codec.name": _same("residual_conv"),
        "modalities.0.latent_size": _same(64),
        "modalities.0.scale": Choice("0.71: the squared error", (0.5**0.5,)),
        "autoencoder.beta": _same(0.1),
        "autoencoder.alignment": _same(0.0),
        "autoencoder.network.widths": _same([64, 128, 256]),
        "autoencoder.training.num_steps": Choice("200 epochs (RAE: 100)"),
        "autoencoder.training.batch_size": _same(256),
        "autoencoder.training.optimizer.learning_rate": _same(1e-3),
        "autoencoder.training.optimizer.schedule": Choice("lower on plateaus"),
        "autoencoder.training.optimizer.ema_decay": _same(0.0),
        "score.network.name": _same("unet"),
        "score.network.width": Choice("128; 64 below six modalities", (64, 128)),
        "score.prediction": _same("score"),
        "score.weighting": _same("noise"),
        "score.probability_none": _same(1.0),
        "score.sde.beta_min": Choice("0.1; 1 below ten modalities", (0.1, 1.0)),
        "score.sde.beta_max": _same(5.0),
        "score.training.num_steps": Choice("500 epochs", (97_656,)),
        "score.probability_alone": _same(0.0),
        "score.training.batch_size": _same(256),
        "score.training.optimizer.learning_rate": Choice("2e-4", (2e-4,)),
        "score.training.optimizer.schedule": _same("constant"),
        "score.training.optimizer.ema_decay": _same(0.0),
        "score.training.optimizer.clip_norm": _same(0.0),
        "methods.sbm_c.pairs": _same("random"),
        "methods.sbm_c.probability_clean": _same(0.0),
        "methods.sbm_c.strength": Choice("1000 on the gradient of a batch mean: 3.9 for a sample", (3.9,)),
        "methods.sbm_t.strength": Choice("the embedding only", (0.0,)),
        "sampler.solver": _same("predictor_corrector"),
        "sampler.num_steps": _same(100),
        "sampler.conditioning": _same("clean"),
        "sampler.snr": _same(0.16),
        "methods.mvae.prior_beside_one": _same(False),
        "methods.mmvae.estimator": _same("elbo"),
        "methods.mopoe.given": _same("mixture"),
        "methods.mvtcae.beta": _same(0.1),
        "methods.mmvae_plus.beta": _same(5.0),
        "methods.joint_posterior.training.num_steps": Choice("200 epochs", (19_531,)),
        "methods.joint_posterior.training.batch_size": Choice("512; MMVAE+ 256", (512,)),
        "evaluation.num_examples": _same(10_000),
        "evaluation.num_unconditional": _same(10_000),
        "evaluation.metrics.frechet.num_examples": _same(10_000),
        "evaluation.metrics.frechet.num_real": Choice("10000", (0, 10_000)),
        "evaluation.metrics.frechet.modalities": Choice("all", ([],)),
    },
    further=(
        ("normalisation in autoencoders", "GroupNorm", "BatchNorm"),
        ("latents that the score model sees", "standardised", "as they are"),
        ("size of images for FID", "28x28", "32x32, with a black border"),
        ("± of a coherence", "over samplings with other seeds", "over runs"),
        ("networks of MMVAE+", "those of all systems", "its authors'"),
        ("batch of MMVAE+", "methods.joint_posterior.training.batch_size", "256"),
    ),
)

EB_MVAE = Paper(
    title="Energy-Based Multimodal VAEs, NeurIPS workshop on score-based methods, 2022",
    settings={
        "data.polymnist.num_modalities": _same(5),
        "data.polymnist.backgrounds": Choice("five photographs of its own"),
        "modalities.0.codec.name": _same("residual_conv"),
        "modalities.0.latent_size": _same(512),
        "modalities.0.scale": Choice("0.71: the squared error", (0.5**0.5,)),
        "autoencoder.beta": _same(0.1),
        "autoencoder.alignment": _same(0.0),
        "autoencoder.training.num_steps": Choice("300 epochs", (58_593,)),
        "autoencoder.training.optimizer.learning_rate": _same(1e-3),
        "autoencoder.training.optimizer.schedule": _same("constant"),
        "methods.eb_mvae.form": _same("field"),
        "methods.eb_mvae.trace": _same("exact"),
        "methods.eb_mvae.num_steps": _same(40),
        "methods.eb_mvae.training.optimizer.learning_rate": _same(1e-3),
        "methods.eb_mvae.training.optimizer.schedule": _same("constant"),
        "evaluation.metrics.frechet.num_examples": _same(10_000),
    },
    further=(
        ("weight of the KL divergence", "constant", "on a schedule that is not given"),
        ("latents that the energy sees", "standardised", "as they are"),
        ("given modalities", "by their posterior means", "by posterior samples"),
        ("step size of the Langevin dynamics", "0.3 standard deviations of the latents", "not given"),
        ("perceptron", "layers of one width, SiLU", "not given (its code: several widths, Softplus)"),
        ("pictures", "Figure 1 without training data, Figure 3 with true images in place of the VAE's", ""),
    ),
)

SBM_MHD = Paper(
    title="D. Wesego and P. Rooshenas, Score-Based Multimodal Autoencoder, A.6: MHD",
    directions={
        "sbm_vae": DirectionsRow(
            "SBM-VAE", (Published(0.853, 0.001), Published(0.861, 0.004), Published(0.839, 0.004))
        ),
        "mvtcae": DirectionsRow("MVTCAE", (Published(0.654, 0.004), Published(0.817, 0.004), Published(0.365, 0.002))),
        "mmvae_plus": DirectionsRow(
            "MMVAE+", (Published(0.451, 0.004), Published(0.442, 0.002), Published(0.248, 0.003))
        ),
    },
    settings={
        "data.name": _same("mhd"),
        "modalities.0.codec.name": _same("nexus_image"),
        "modalities.1.codec.name": _same("nexus_sound"),
        "modalities.0.latent_size": _same(64),
        "modalities.1.latent_size": _same(64),
        "autoencoder.training.num_steps": Choice("100 epochs (of the networks' authors)", (70_312,)),
        "autoencoder.training.batch_size": Choice("64 (of the networks' authors)", (64,)),
        "autoencoder.training.optimizer.learning_rate": Choice("0.001 (of the networks' authors)", (1e-3,)),
        "score.network.name": Choice("not given; elsewhere a UNet", ("unet",)),
    },
    further=(
        ("normalisation of the sound's networks", "GroupNorm, LayerNorm", "BatchNorm"),
        ("latents that the score model sees", "standardised", "as they are"),
        ("classifiers that judge", "trained in this run", "not given"),
        ("± of a coherence", "over samplings with other seeds", "not given"),
    ),
)

DIFF_MVAE = Paper(
    title="D. Wesego and P. Rooshenas, Multimodal ELBO with Diffusion Decoders, 6.2: PolyMNIST",
    priors={"mopoe": (Published(139.8), Published(95.2))},
    settings={
        "data.polymnist.num_modalities": _same(5),
        "data.polymnist.backgrounds": Choice("five photographs of its own"),
    },
    further=(
        ("networks, training and likelihoods", "see the config", "not given for this experiment"),
        ("how a latent enters the denoiser", "as a learned map beside the noisy picture", "not given"),
        ("process of the diffusion decoders", "see the config", "not given"),
        ("data of Table 4", "these", "CelebAMask-HQ"),
        ("classifiers that judge", "trained in this run", "not given"),
    ),
)

PAPERS = {"sbm": SBM, "eb_mvae": EB_MVAE, "sbm_mhd": SBM_MHD, "diff_mvae": DIFF_MVAE}
