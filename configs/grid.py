"""GRID: a speaker's face, voice and words, each generated from any others.

    python -m sbm_jax.main --config=configs/grid.py --config.data.grid.directory=DIR

DIR holds the three files that `data.grid` describes. A sentence has six words, each of which is a question: chance is
0.25, except 0.04 for the letter and 0.10 for the digit. Words to sound is speech synthesis, sound to words speech
recognition, and video to words lip reading; the report plays the videos with their sounds.

The latents of all three are sequences, with a part for each 160 ms moment of the video, each 125 ms moment of the
sound, and each word. The score model sees the parts as tokens, and learns which belong together.

Variants, joined by commas: `table` (adds the score model without guidance, MLD and MVTCAE), `smoke` (minutes; tests
the pipeline, learns little).
"""

from typing import Any

from ml_collections import ConfigDict

import sbm_jax
from sbm_jax.presets import latent_training, training


def get_config(variants: str = "") -> ConfigDict:
    """Return the experiment with the given variants."""
    chosen = [variant for variant in variants.split(",") if variant]
    known = {"table": _table, "smoke": _smoke}
    for variant in chosen:
        if variant not in known:
            raise ValueError(f"unknown variant {variant!r} of configs/grid.py; known: {', '.join(known)}.")
    config = sbm_jax.default_config()
    config.systems = ("sbm_vae_m",)
    config.data.name = "grid"
    config.data.grid.directory = "data/grid"
    for part in (_modalities, _autoencoder, _score, _methods, _judges):
        part(config)
    for variant in known:  # always in this order
        if variant in chosen:
            known[variant](config)
    config.name = "_".join(["grid", *sorted(chosen)])
    return config


# Three seconds of sound at 8 kHz as 96 windows of 64 ms, in 40 bands.
SPECTROGRAM = {"rate": 8000, "length": 24_000, "num_mels": 40, "window": 512, "hop": 250, "decibels": (-70.0, 0.0)}


def _modalities(config: ConfigDict) -> None:
    video = {"name": "video", "network": {"widths": (48, 48), "patch": 8, "frames": 2, "reach": 2}}
    sound = {"name": "series", "network": {"widths": (256, 256), "frames": 4, "reach": 2}}
    words = {"name": "tokens", "network": {"width": 64, "heads": 4, "word_dropout": 0.0}}
    unit, text, frames = {"bounds": (0.0, 1.0)}, {"name": "text"}, {"name": "video", "options": {"rate": 12.5}}
    spectrogram = {"name": "spectrogram", "options": SPECTROGRAM}
    config.modalities = (
        {"name": "video", "shape": (38, 64, 64, 1), "latent_size": 19 * 8, "num_tokens": 19, "codec": video, **unit}
        | {"format": frames},
        {"name": "sound", "shape": (96, 40, 1), "latent_size": 24 * 16, "num_tokens": 24, "codec": sound, **unit}
        | {"format": spectrogram},
        {"name": "words", "shape": (6,), "latent_size": 6 * 6, "num_tokens": 6, "codec": words, "format": text}
        | {"likelihood": "categorical"},
    )


def _autoencoder(config: ConfigDict) -> None:
    config.autoencoder.training.update(_rows(32, 2000, 2e-3, ema_decay=0.99, clip_norm=1e4))


def _score(config: ConfigDict) -> None:
    config.score.probability_alone = 0.15
    config.score.network.update(width=192, depth=4)
    config.score.training.update(latent_training(10_000, 64, learning_rate=1e-3))
    config.sampler.num_steps = 10


def _methods(config: ConfigDict) -> None:
    methods = config.methods
    methods.mld.training.update(latent_training(10_000, 64, learning_rate=1e-3))
    methods.joint_posterior.latent_size = 256
    methods.joint_posterior.training.update(_rows(32, 2000, 2e-3, ema_decay=0.99, clip_norm=1e4))


def _judges(config: ConfigDict) -> None:
    judge = _rows(32, 1500, 1e-3, weight_decay=1e-2, clip_norm=1.0)
    moved = {"video": 3, "sound": 6}
    config.classifier = ConfigDict({"widths": (16, 32, 64), "dropout": 0.3, "series": moved, "training": judge})
    config.evaluation.update(num_examples=120, num_unconditional=200, batch_size=40)
    config.evaluation.metrics.frechet.num_examples = 0
    config.evaluation.metrics.likelihood = None


def _rows(batch: int, num_steps: int, learning_rate: float, **optimizer: Any) -> dict:
    return training(num_steps, batch, 250, 1, 100, learning_rate=learning_rate, **optimizer)


def _table(config: ConfigDict) -> None:
    config.systems = (*config.systems, "sbm_vae", "mld", "mvtcae")


def _smoke(config: ConfigDict) -> None:
    config.data.grid.update(max_train=40, max_test=20)
    for stage in (config.autoencoder, config.classifier, config.methods.joint_posterior):
        stage.training.update(num_steps=4, batch_size=8, checkpoint_every=4, validate_every=4)
        stage.training.optimizer.warmup_steps = 2
    for stage in (config.score, config.methods.mld):
        stage.training.update(num_steps=20, batch_size=16, checkpoint_every=20, validate_every=20)
        stage.training.optimizer.warmup_steps = 5
    config.evaluation.update(num_examples=8, num_unconditional=8, batch_size=8, num_repeats=2)
