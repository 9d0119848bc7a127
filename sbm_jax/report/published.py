"""Published numbers, for comparison with ours. Curves that are printed only as figures are not read off."""

from sbm_jax.report.paper import Choice, ConditionalRow, DirectionsRow, Paper, Published, same
from sbm_jax.report.published_birds import DIFF_MVAE_CUB
from sbm_jax.report.published_faces import DIFF_MVAE_CELEBAMASK_HQ, SBM_CELEBAMASK_HQ
from sbm_jax.report.published_video_audio import SBM_VIDEO_AUDIO


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
        "data.polymnist.num_modalities": same(10),
        "data.polymnist.backgrounds": Choice("ten photographs of its own"),
        "modalities.0.codec.name": same("residual_conv"),
        "modalities.0.latent_size": same(64),
        "modalities.0.scale": Choice("0.71: the squared error", (0.5**0.5,)),
        "autoencoder.beta": same(0.1),
        "autoencoder.alignment": same(0.0),
        "autoencoder.network.widths": same([64, 128, 256]),
        "autoencoder.training.num_steps": Choice("200 epochs (RAE: 100)"),
        "autoencoder.training.batch_size": same(256),
        "autoencoder.training.optimizer.learning_rate": same(1e-3),
        "autoencoder.training.optimizer.schedule": Choice("lower on plateaus"),
        "autoencoder.training.optimizer.ema_decay": same(0.0),
        "score.network.name": same("unet"),
        "score.network.width": Choice("128; 64 below six modalities", (64, 128)),
        "score.prediction": same("score"),
        "score.weighting": same("noise"),
        "score.probability_none": same(1.0),
        "score.sde.beta_min": Choice("0.1; 1 below ten modalities", (0.1, 1.0)),
        "score.sde.beta_max": same(5.0),
        "score.training.num_steps": Choice("500 epochs", (97_656,)),
        "score.probability_alone": same(0.0),
        "score.training.batch_size": same(256),
        "score.training.optimizer.learning_rate": Choice("2e-4", (2e-4,)),
        "score.training.optimizer.schedule": same("constant"),
        "score.training.optimizer.ema_decay": same(0.0),
        "score.training.optimizer.clip_norm": same(0.0),
        "methods.sbm_c.pairs": same("random"),
        "methods.sbm_c.probability_clean": same(0.0),
        "methods.sbm_c.strength": Choice("1000 on the gradient of a batch mean: 3.9 for a sample", (3.9,)),
        "methods.sbm_t.strength": Choice("the embedding only", (0.0,)),
        "sampler.solver": same("predictor_corrector"),
        "sampler.num_steps": same(100),
        "sampler.conditioning": same("clean"),
        "sampler.snr": same(0.16),
        "methods.mvae.prior_beside_one": same(False),
        "methods.mmvae.estimator": same("elbo"),
        "methods.mopoe.given": same("mixture"),
        "methods.mvtcae.beta": same(0.1),
        "methods.mmvae_plus.beta": same(5.0),
        "methods.joint_posterior.training.num_steps": Choice("200 epochs", (19_531,)),
        "methods.joint_posterior.training.batch_size": Choice("512; MMVAE+ 256", (512,)),
        "evaluation.num_examples": same(10_000),
        "evaluation.num_unconditional": same(10_000),
        "evaluation.metrics.frechet.num_examples": same(10_000),
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
        "data.polymnist.num_modalities": same(5),
        "data.polymnist.backgrounds": Choice("five photographs of its own"),
        "modalities.0.codec.name": same("residual_conv"),
        "modalities.0.latent_size": same(512),
        "modalities.0.scale": Choice("0.71: the squared error", (0.5**0.5,)),
        "autoencoder.beta": same(0.1),
        "autoencoder.alignment": same(0.0),
        "autoencoder.training.num_steps": Choice("300 epochs", (58_593,)),
        "autoencoder.training.optimizer.learning_rate": same(1e-3),
        "autoencoder.training.optimizer.schedule": same("constant"),
        "methods.eb_mvae.form": same("field"),
        "methods.eb_mvae.trace": same("exact"),
        "methods.eb_mvae.num_steps": same(40),
        "methods.eb_mvae.training.optimizer.learning_rate": same(1e-3),
        "methods.eb_mvae.training.optimizer.schedule": same("constant"),
        "evaluation.metrics.frechet.num_examples": same(10_000),
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
        "data.name": same("mhd"),
        "modalities.0.codec.name": same("nexus_image"),
        "modalities.1.codec.name": same("nexus_sound"),
        "modalities.0.latent_size": same(64),
        "modalities.1.latent_size": same(64),
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
    priors={"mopoe_star": (Published(139.8), Published(95.2))},
    settings={
        "data.polymnist.num_modalities": same(5),
        "data.polymnist.backgrounds": Choice("five photographs of its own"),
    },
    further=(
        ("networks, training and likelihoods", "see the config", "not given for this experiment"),
        ("how a latent enters the denoiser", "as a learned map beside the noisy picture", "not given"),
        ("process of the diffusion decoders", "see the config", "not given"),
        ("data of Table 4", "these", "CelebAMask-HQ"),
        ("numbers of Figure 7", "drawn here", "shown as curves, without a table"),
        ("classifiers that judge", "trained in this run", "not given"),
    ),
)

PAPERS = {
    "sbm": SBM,
    "eb_mvae": EB_MVAE,
    "sbm_mhd": SBM_MHD,
    "diff_mvae": DIFF_MVAE,
    "sbm_celebamask_hq": SBM_CELEBAMASK_HQ,
    "diff_mvae_celebamask_hq": DIFF_MVAE_CELEBAMASK_HQ,
    "diff_mvae_cub": DIFF_MVAE_CUB,
    "sbm_video_audio": SBM_VIDEO_AUDIO,
}
