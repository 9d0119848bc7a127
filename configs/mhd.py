"""The SBM paper's experiment with sound (A.6, Table 8): the images and sounds of MHD.

    python -m sbm_jax.main --config=configs/mhd.py --config.data.mhd.directory=DIR

DIR holds MHD's official `mhd_train.pt` and `mhd_test.pt`, which are read without PyTorch. Its authors' page
(https://github.com/miguelsvasco/nexus_pytorch) links to them. The report shows all numbers beside the paper's.

The paper says only that it uses the encoders and decoders of MHD's authors (Nexus), with latents of 64:

| setting       | paper, or else Nexus                     | here                                          |
|---------------|------------------------------------------|-----------------------------------------------|
| autoencoders  | those of Nexus, with BatchNorm           | the same with GroupNorm and LayerNorm         |
| latents       | 64                                       | 64                                            |
| likelihood    | elsewhere the squared error, beta 0.1    | Gaussian, learned scale, beta 1; `paper`: its |
| stage I       | Adam 1e-3, batch 64, 100 epochs          | the same, cosine, EMA; `paper`: neither       |
| validation    | a tenth of the training rows             | the same                                      |
| score network | elsewhere a UNet on 8x8 maps, 500 epochs | transformer; `paper`: the UNet                |
| process       | elsewhere VP (1, 5)                      | VP (0.1, 20); `paper`: its                    |
| sampler       | elsewhere predictor-corrector, 100 steps | SDE-DPM-Solver++ 2M, 10 steps; `paper`: its   |

Variants, joined by commas: `trajectory` (the third modality of MHD, which the paper leaves out), `paper`, `smoke`
(minutes on a CPU; tests the pipeline, learns little). None of this has been measured, because MHD was not available.
"""

from ml_collections import ConfigDict

import sbm_jax
from sbm_jax.presets import PAPER_SCALE, PAPER_SCORE, latent_training, training

NUM_TRAIN, BATCH, EPOCHS = 45_000, 64, 100


def get_config(variants: str = "") -> ConfigDict:
    """Return the experiment with the given variants."""
    chosen = [variant for variant in variants.split(",") if variant]
    known = {"trajectory": _trajectory, "paper": _paper, "smoke": _smoke}
    for variant in chosen:
        if variant not in known:
            raise ValueError(f"unknown variant {variant!r} of configs/mhd.py; known: {', '.join(known)}.")
    config = sbm_jax.default_config()
    config.systems = ("sbm_vae_m", "sbm_vae", "mvtcae", "mmvae_plus")
    config.published = "sbm_mhd"
    config.data.name = "mhd"
    for part in (_modalities, _autoencoder, _score, _methods, _judges):
        part(config)
    for variant in known:  # always in this order
        if variant in chosen:
            known[variant](config)
    config.name = "_".join(["mhd", *sorted(chosen)])
    return config


# MHD's sounds are librosa's mel spectra, with its defaults, of one second at 16 kHz, from -200 to -47.563736 dB.
# librosa's 54.185 dB are 0 dB in the format. The other 90.309 dB are a factor of 2^15, by which MHD's speech seems to
# have been divided once too often (other speech treated in this way reaches -55 dB). The data are already spectrograms,
# so this affects only how loud the sounds made from them are.
LEVEL = -54.185 + 90.309
SPECTROGRAM = {
    **{"rate": 16_000, "length": 16_000, "num_mels": 128, "bands": "slaney", "window": 2048, "hop": 512},
    **{"decibels": (-200.0 + LEVEL, -47.563736 + LEVEL), "iterations": 60},
}


def _modalities(config: ConfigDict) -> None:
    picture = {"latent_size": 64, "bounds": (0.0, 1.0)}
    sound = {"name": "spectrogram", "options": SPECTROGRAM}
    config.modalities = (
        {"name": "image", "shape": (28, 28, 1), "codec": "nexus_image", **picture},
        {"name": "sound", "shape": (32, 128, 1), "codec": "nexus_sound", "format": sound, **picture},
    )


def _autoencoder(config: ConfigDict) -> None:
    config.autoencoder.beta = 1.0
    config.autoencoder.training.update(_epochs())


def _score(config: ConfigDict) -> None:
    config.score.probability_alone = 0.15
    config.score.network.width = 256
    config.score.training.update(latent_training(40_000, 256, learning_rate=5e-4, warmup_steps=1000))
    config.sampler.num_steps = 10


def _methods(config: ConfigDict) -> None:
    methods = config.methods
    methods.joint_posterior.latent_size = 64
    methods.joint_posterior.training.update(_epochs())
    methods.mvtcae.update(likelihood="", beta=0.1, alpha=0.9)
    methods.mmvae_plus.beta = 5.0


def _judges(config: ConfigDict) -> None:
    judge = training(5000, 128, 1000, 10, 0, learning_rate=1e-3, weight_decay=1e-2, clip_norm=1.0)
    config.classifier = ConfigDict({"hidden": 256, "dropout": 0.3, "training": judge})
    config.evaluation.update(num_examples=10_000, num_unconditional=10_000, batch_size=256)


def _epochs() -> dict:
    """Return the training of Nexus: epochs of small batches with a learning rate of 0.001."""
    return training(EPOCHS * NUM_TRAIN // BATCH, BATCH, 1000, 10, 0, learning_rate=1e-3, ema_decay=0.999)


def _trajectory(config: ConfigDict) -> None:
    codec = {"name": "mlp", "network": {"widths": (512, 512)}}
    trajectory = {"name": "trajectory", "shape": (200,), "latent_size": 64, "codec": codec, "bounds": (0.0, 1.0)}
    config.modalities = (*config.modalities, trajectory)


def _paper(config: ConfigDict) -> None:
    config.systems = tuple(name for name in config.systems if name != "sbm_vae_m")
    config.modalities = tuple({**modality, "scale": PAPER_SCALE} for modality in config.modalities)
    config.autoencoder.beta = 0.1
    for stage in (config.autoencoder, config.methods.joint_posterior):
        stage.training.optimizer.update(schedule="constant", ema_decay=0.0)
    config.update_from_flattened_dict(PAPER_SCORE)
    config.score.network.width = 64
    config.score.training.num_steps = 500 * NUM_TRAIN // 256


def _smoke(config: ConfigDict) -> None:
    for stage in (config.autoencoder, config.classifier, config.methods.joint_posterior):
        stage.training.update(num_steps=20, batch_size=16, checkpoint_every=20, validate_every=20)
    config.score.training.update(num_steps=100, batch_size=16, checkpoint_every=100, validate_every=100)
    config.sampler.num_steps = 5
    config.evaluation.update(num_examples=20, num_unconditional=20, batch_size=20, num_repeats=2)
    metrics = config.evaluation.metrics
    metrics.frechet.num_examples = min(20, metrics.frechet.num_examples)
    metrics.likelihood.num_examples = min(10, metrics.likelihood.num_examples)
