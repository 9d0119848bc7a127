"""Network sizes and training lengths, chosen by the modalities and the number of rows."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.evaluation.features import FEWEST
from sbm_jax.experiment_config import default_config
from sbm_jax.kinds import Guess


@dataclasses.dataclass(frozen=True)
class Preset:
    """A compute budget.

    Attributes:
      image_codec: codec of images.
      widths: widths of the codecs, by codec.
      latent: largest latent size of a modality.
      score: width and depth of the score network.
      codec_steps: steps of stage I with `full` rows or more.
      score_steps: steps of stage II with `full` rows or more.
      batch: batch size of stage I.
      learning_rate: learning rates of stage I and stage II.
      passes: most epochs of stage II; with more, it would memorise the rows.
      denoiser: options of the network of diffusion decoders, which are trained if a system has them.
      decoder: their steps, batch size and learning rate.
      full: number of rows from which on the number of steps no longer grows.
      dtype: dtype of the operands of matrix products.
    """

    image_codec: str
    widths: Mapping[str, tuple[int, ...]]
    latent: int
    score: tuple[int, int]
    codec_steps: int
    score_steps: int
    batch: int
    learning_rate: tuple[float, float]
    passes: int
    denoiser: Mapping[str, Any]
    decoder: tuple[int, int, float]
    full: int
    dtype: str = "float32"


SMALL = Preset(
    image_codec="patch",
    widths={"patch": (64, 64), "mlp": (128, 128), "video": (48, 48)},
    latent=128,
    score=(128, 4),
    codec_steps=2000,
    score_steps=6000,
    batch=64,
    learning_rate=(4e-3, 2e-3),
    passes=100,
    denoiser={"name": "patch", "width": 64},
    decoder=(2000, 8, 4e-3),
    full=10_000,
)
"""Minutes on two CPU cores."""

BASE = Preset(
    image_codec="residual_conv",
    widths={"residual_conv": (64, 128, 256), "mlp": (512, 512), "video": (128, 128, 128)},
    latent=256,
    score=(512, 8),
    codec_steps=40_000,
    score_steps=100_000,
    batch=256,
    learning_rate=(1e-3, 5e-4),
    passes=200,
    denoiser={"name": "unet", "width": 64, "depth": 2, "dtype": "bfloat16"},
    decoder=(40_000, 64, 5e-4),
    full=50_000,
    dtype="bfloat16",
)
"""For one accelerator; its training time has not been measured."""

TOKENS_RATE, LATENT_OF_IDS = 3e-3, 256
"""Learning rate and latent size of codecs of token ids."""

CODEC_CLIP = 1.0
"""Gradient clipping norm of stage I. Gradients of thousands of pixels far exceed it, and are all clipped to it: a bad
batch then cannot derail training, however large the data are."""

BETA = 4.0
"""Weight of the KL divergence of images, whose likelihood has a learned scale."""

PRESETS = ("small", "base", "paper")
"""Minutes on two CPU cores; one accelerator; the networks and the training of the SBM paper."""

PAPER_SCALE = 0.5**0.5
"""The scale of the paper's likelihoods, at which a Gaussian's negative log is the squared error, up to a constant."""

PAPER_SCORE = {
    "score.network.name": "unet",
    "score.network.paper_unet": True,
    "score.sde.beta_min": 1.0,
    "score.sde.beta_max": 5.0,
    "score.prediction": "score",
    "score.weighting": "noise",
    "score.probability_none": 1.0,
    "score.probability_alone": 0.0,
    "score.training.optimizer.learning_rate": 2e-4,
    "score.training.optimizer.schedule": "constant",
    "score.training.optimizer.warmup_steps": 0,
    "score.training.optimizer.ema_decay": 0.0,
    "score.training.optimizer.clip_norm": 0.0,
    "sampler.solver": "predictor_corrector",
    "sampler.num_steps": 100,
    "sampler.grid": "uniform",
    "sampler.conditioning": "clean",
    "sampler.end_time": 1e-3,
}
"""The paper's score network, objective, process, optimiser and sampler, for fewer than ten modalities."""


WANT_LABELS = ("coherence", "class_shares", "diversity", "classifier")
"""Metrics that need labels."""


class Rows(NamedTuple):
    """Numbers of rows of the training and the test split."""

    train: int
    test: int


def make_config(guesses: Mapping[str, Guess], rows: Rows, preset: str, judged: bool, seed: int) -> ConfigDict:
    """Return the config of an experiment on the user's own data.

    Args:
      guesses: the guess about each modality, in mask order.
      rows: numbers of rows.
      preset: one of `PRESETS`.
      judged: whether there are labels, and so a classifier.
      seed: seed of the experiment.

    Raises:
      SbmError: on an unknown preset, or ``"paper"`` with videos.
    """
    if preset not in PRESETS:
        raise unknown("preset:", preset, PRESETS)
    videos = [name for name, guess in guesses.items() if guess.is_video]
    if preset == "paper" and videos:
        raise SbmError(
            f"the preset 'paper' has no networks for videos, such as modality {videos[0]!r}. Choose 'small' or 'base'."
        )
    sizes = SMALL if preset == "small" else BASE
    config = default_config()
    config.name, config.seed = "fit", seed
    config.modalities = tuple(_modality(name, guess, sizes) for name, guess in guesses.items())
    config.systems = ("sbm_vae_m", "sbm_vae") if len(guesses) > 1 else ("sbm_vae",)
    batch, share = _batch(sizes.batch, rows.train), min(1.0, max(0.3, math.sqrt(rows.train / sizes.full)))
    config.autoencoder.beta = BETA
    config.autoencoder.network.dtype = sizes.dtype
    rates, latent_batch = sizes.learning_rate, _batch(2 * sizes.batch, rows.train)
    most = sizes.passes * rows.train / latent_batch
    steps = _rounded(share * sizes.codec_steps), _rounded(min(share * sizes.score_steps, most))
    own, latent = map(_own_training, steps)
    config.autoencoder.training.update(
        training(steps[0], batch, **own, learning_rate=rates[0], clip_norm=CODEC_CLIP, ema_decay=0.99)
    )
    config.score.training.update(latent_training(steps[1], latent_batch, **latent, learning_rate=rates[1]))
    config.score.network.update(width=sizes.score[0], depth=sizes.score[1], dtype=sizes.dtype)
    config.score.probability_alone = 0.15 if len(guesses) > 1 else 0.0
    config.sampler.num_steps = 10
    _diffusion_decoder(config, sizes, rows.train, share)
    if judged:
        half = _rounded(0.5 * steps[0])
        judge = training(half, batch, **_own_training(half), learning_rate=2e-3, weight_decay=1e-2, clip_norm=1.0)
        config.classifier = ConfigDict({"hidden": 256, "dropout": 0.3, "training": judge})
    few = min(300 if preset == "small" else 1000, rows.test)
    config.evaluation.update(num_examples=few, num_unconditional=max(few, 100), batch_size=min(250, few))
    if not judged:
        for name in WANT_LABELS:
            config.evaluation.metrics[name] = None
        config.evaluation.metrics.update(_beside_the_truth(guesses))
    config.evaluation.metrics.frechet.num_examples = few if judged and few >= FEWEST else 0
    if preset == "paper":
        _as_in_the_paper(config, rows)
    return config


def _diffusion_decoder(config: ConfigDict, sizes: Preset, num_rows: int, share: float) -> None:
    decoder, (most, batch, rate) = config.methods.diffusion_decoder, sizes.decoder
    steps = _rounded(share * most)
    decoder.decoder.network.update(sizes.denoiser)
    decoder.training.update(
        training(
            steps, _batch(batch, num_rows), **_own_training(steps), learning_rate=rate, clip_norm=1.0, ema_decay=0.998
        )
    )


def _beside_the_truth(guesses: Mapping[str, Guess]) -> dict[str, Any]:
    """Return metrics that need no labels: they compare each modality given the rest with the true one."""
    if len(guesses) < 2:
        return {}
    metrics = {"mse": ConfigDict()}  # of every modality
    for name, guess in guesses.items():
        if guess.kind == "binary" and not guess.is_picture and not guess.is_class:
            metrics[f"f1 of {name}"] = ConfigDict({"name": "f1", "modality": name})
    return metrics


def _modality(name: str, guess: Guess, sizes: Preset) -> dict[str, Any]:
    """Return the fields of a modality, with a codec and a latent size unless the user sets them."""
    shape, ids = guess.fields["shape"], bool(guess.fields.get("vocabulary_size"))
    codec = "tokens" if ids else sizes.image_codec if guess.is_picture else "video" if guess.is_video else "mlp"
    network = {"widths": sizes.widths[codec]} if codec in sizes.widths else {}
    if codec == "patch":
        network["patch"] = _patch(shape)
    if codec == "video":
        network |= {"patch": max(8, _patch(shape[1:3])), "frames": _frames(shape[0])}
    own = {"name": codec, "network": network, "beta": _beta(guess)}
    if ids:
        own["training"] = {"optimizer": {"learning_rate": TOKENS_RATE}}
    given = guess.fields.get("codec", {})
    named = isinstance(given, (str, Mapping))
    require(named, f"modality {name!r}: codec", given, "the name of a codec, or its settings, such as {'name': 'mlp'}")
    given = {"name": given} if isinstance(given, str) else dict(given)
    if given.get("name", codec) != codec:
        widths = SMALL.widths.get(given["name"])
        own = {"beta": own["beta"], **({"network": {"widths": widths}} if widths and "network" not in given else {})}
    latent = LATENT_OF_IDS if ids else min(sizes.latent, _latent_size(guess))
    return {"name": name, "latent_size": latent, **guess.fields, "codec": {**own, **given}}


def _beta(guess: Guess) -> float | None:
    """Return the weight of a modality's KL divergence; None for the config's, which is for images.

    A weight of 1 or more only suits data with a learned scale and many more entries than the latent: there one nat of
    information saves many nats of likelihood. In data that are discrete or have few entries it saves one nat at most,
    and they would not be encoded.
    """
    if guess.fields.get("vocabulary_size"):
        return 0.01
    if not (guess.is_picture or guess.is_video):
        return 0.1
    return None if guess.fields.get("likelihood", "gaussian") == "gaussian" else 1.0


def _patch(shape: Sequence[int]) -> int:
    """Return the side of patches that divide an image into a map of about 16 x 16 at most."""
    side = 4
    while math.prod(shape[:2]) > 16 * 16 * side * side:
        side *= 2
    return side


def _frames(length: int) -> int:
    """Return the number of frames in a moment of a video, so that there are at most 16 moments."""
    return max(2, math.ceil(length / 16))


def _latent_size(guess: Guess) -> int:
    """Return the latent size a modality may need: 32 for a digit, 128 for a photograph, few for a few tags."""
    shape = guess.fields["shape"]
    if guess.is_video:
        return 8 * math.ceil(shape[0] / _frames(shape[0]))
    if guess.is_picture:
        return 32 if math.prod(shape[:2]) <= 32 * 32 else 128
    return min(64, max(8, 1 << math.ceil(math.log2(math.prod(shape)))))


def _batch(most: int, num_rows: int) -> int:
    """Return the batch size: a power of two, which most numbers of devices divide."""
    return 1 << (min(most, num_rows).bit_length() - 1)


def _rounded(steps: float) -> int:
    """Round a number of steps to a multiple of 100, which dispatches and checkpoints divide."""
    return max(100, round(steps / 100) * 100)


def training(
    num_steps: int,
    batch_size: int = 64,
    every: int = 250,
    steps_per_dispatch: int = 1,
    warmup_steps: int = 50,
    **optimizer: Any,
) -> dict[str, Any]:
    """Return the training options of a stage, with a checkpoint and a validation every `every` steps.

    Args:
      num_steps: see `types.TrainingConfig`.
      batch_size: see `types.TrainingConfig`.
      every: steps between checkpoints, and between validations.
      steps_per_dispatch: see `types.TrainingConfig`.
      warmup_steps: see `types.OptimizerConfig`.
      **optimizer: further options of the optimizer.
    """
    return {
        "num_steps": num_steps,
        "batch_size": batch_size,
        "steps_per_dispatch": steps_per_dispatch,
        "checkpoint_every": every,
        "validate_every": every,
        "optimizer": {"warmup_steps": warmup_steps, **optimizer},
    }


def latent_training(num_steps: int, batch_size: int = 128, every: int = 1000, **optimizer: Any) -> dict[str, Any]:
    """Return the same for a small network over latents, with many steps per compiled call."""
    usual = {"learning_rate": 2e-3, "ema_decay": 0.999, "clip_norm": 1.0, "warmup_steps": 200}
    return training(num_steps, batch_size, every, steps_per_dispatch=50, **{**usual, **optimizer})


def _own_training(num_steps: int) -> dict[str, Any]:
    """Return the checkpoint interval and the warm-up of a stage, in steps."""
    return {"every": max(100, num_steps // 10 // 100 * 100), "warmup_steps": min(200, num_steps // 10)}


def _as_in_the_paper(config: ConfigDict, rows: Rows) -> None:
    """Set the networks, objectives and epochs of the SBM paper (Section 4.1, A.2), with its equal, square latents."""
    large = any(max(m["shape"][:2]) > 32 for m in config.modalities if len(m["shape"]) == 3)
    size = 256 if large else 64
    config.modalities = tuple(
        {**m, "latent_size": size, "scale": PAPER_SCALE, "codec": {**m["codec"], "beta": None}}
        for m in config.modalities
    )
    config.systems = ("sbm_vae",)
    config.autoencoder.beta = 0.1
    config.autoencoder.training.optimizer.clip_norm = 0.0
    config.score.network.update(width=128 if len(config.modalities) >= 6 else 64, dtype="float32")
    config.update_from_flattened_dict(PAPER_SCORE)
    batch = _batch(256, rows.train)
    for stage, epochs in ((config.autoencoder, 200), (config.score, 500)):
        stage.training.update(num_steps=_rounded(epochs * rows.train / batch), batch_size=batch)
