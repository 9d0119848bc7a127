"""SBM-VAE on images and sounds of digits: MNIST and spoken digits, paired by label.

    python -m sbm_jax.main --config=configs/digits.py --config.data.digits.directory=DIR

DIR holds `mnist/` (the four canonical files), `spoken_digits/fsdd_8khz_int16.npz` (the Free Spoken Digit Dataset) and,
for `strokes`, `pendigits/pendigits.tra` (UCI); see `data.paired_digits`. Chance is 0.10 for every coherence. It is the
experiment of the SBM paper's Table 8 (A.6) on other data; the report shows the paper's numbers beside ours.

Variants, joined by commas: `tags` (a third modality, the digit as a one-hot vector), `strokes` (another one, the path
of a pen), `table` (adds MVTCAE and MMVAE+, trained as long), `smoke` (minutes; tests the pipeline, learns little).
"""

from ml_collections import ConfigDict

import sbm_jax
from sbm_jax.presets import latent_training, training


def get_config(variants: str = "") -> ConfigDict:
    """Return the experiment with the given variants."""
    chosen = [variant for variant in variants.split(",") if variant]
    known = {"tags": _tags, "strokes": _strokes, "table": _table, "smoke": _smoke}
    for variant in chosen:
        if variant not in known:
            raise ValueError(f"unknown variant {variant!r} of configs/digits.py; known: {', '.join(known)}.")
    config = sbm_jax.default_config()
    config.systems = ("sbm_vae_m", "sbm_vae")
    config.published = "sbm_mhd"
    config.data.name = "digits"
    for part in (_modalities, _autoencoder, _score, _methods, _judges):
        part(config)
    for variant in known:  # always in this order
        if variant in chosen:
            known[variant](config)
    config.name = "_".join(["digits", *sorted(chosen)])
    return config


# A second of sound at 8 kHz as 32 windows of 64 ms, in 32 bands.
SPECTROGRAM = {"rate": 8000, "length": 8000, "num_mels": 32, "window": 512, "hop": 250, "decibels": (-50.0, 0.0)}


def _modalities(config: ConfigDict) -> None:
    picture = {"latent_size": 32, "codec": {"name": "patch", "network": {"widths": (64, 64)}}, "bounds": (0.0, 1.0)}
    sound = {"name": "spectrogram", "options": SPECTROGRAM}
    config.modalities = (
        {"name": "image", "shape": (28, 28, 1), **picture},
        {"name": "sound", "shape": (32, 32, 1), "format": sound, **picture},
    )


def _autoencoder(config: ConfigDict) -> None:
    config.autoencoder.update(beta=4.0, alignment=150.0)  # for learned scales and many pixels
    config.autoencoder.training.update(training(2000, learning_rate=4e-3, ema_decay=0.99))


def _score(config: ConfigDict) -> None:
    config.score.probability_alone = 0.15
    config.score.network.width = 128
    config.score.training.update(latent_training(6000))
    config.sampler.num_steps = 10


def _methods(config: ConfigDict) -> None:
    methods = config.methods
    methods.joint_posterior.training.update(training(4000, learning_rate=2e-3, ema_decay=0.99, clip_norm=500.0))
    # Chosen by coherence and diversity on validation rows, after 1,500 steps.
    methods.mvtcae.update(likelihood="", beta=20.0, alpha=0.9)
    methods.mmvae_plus.update(likelihood="", beta=5.0)


def _judges(config: ConfigDict) -> None:
    judge = training(1500, batch_size=128, learning_rate=2e-3, weight_decay=1e-2, clip_norm=1.0)
    config.classifier = ConfigDict({"hidden": 256, "dropout": 0.3, "training": judge})
    config.evaluation.update(num_examples=1000, num_unconditional=1000, batch_size=250)
    config.evaluation.metrics.frechet.num_examples = 1000


def _tags(config: ConfigDict) -> None:
    codec = {"name": "mlp", "network": {"widths": (64,)}, "beta": 0.1}  # a class has only 2.3 nats
    tags = {"name": "tags", "shape": (10,), "latent_size": 16, "codec": codec, "likelihood": "categorical"}
    config.modalities = (*config.modalities, tags)


def _strokes(config: ConfigDict) -> None:
    codec = {"name": "mlp", "network": {"widths": (256, 256)}, "beta": 0.1}
    units = {"name": "standardized", "options": {"mean": (50.0,), "std": (50.0,)}}
    strokes = {"name": "strokes", "shape": (16,), "latent_size": 16, "codec": codec, "bounds": (-1.0, 1.0)}
    config.modalities = (*config.modalities, {**strokes, "format": units})


def _table(config: ConfigDict) -> None:
    config.systems = (*config.systems, "mvtcae", "mmvae_plus")


def _smoke(config: ConfigDict) -> None:
    config.data.digits.update(num_train=1000, num_validation=200, num_test=200)
    for stage in (config.autoencoder, config.classifier):
        stage.training.update(num_steps=60, checkpoint_every=30, validate_every=30)
    config.score.training.update(num_steps=200, checkpoint_every=100, validate_every=100)
    config.methods.joint_posterior.training.update(num_steps=20, checkpoint_every=20, validate_every=20)
    config.evaluation.update(num_examples=50, num_unconditional=50, batch_size=50, num_repeats=2)
    metrics = config.evaluation.metrics
    metrics.frechet.num_examples = min(50, metrics.frechet.num_examples)
    metrics.likelihood.num_examples = min(20, metrics.likelihood.num_examples)
