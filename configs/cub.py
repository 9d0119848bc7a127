"""CUB-200-2011: birds and captions, the image-text experiment of the Diff-MVAE paper (4.1).

    python -m sbm_jax.main --config=configs/cub.py --config.data.cub.directory=CUB_200_2011

The directory is the unpacked official archive, with the captions in `text` or in `config.data.cub.captions`. The
vocabulary is the words that occur at least twice in the training captions.

The paper's settings (4.1, 6.3) and ours:

| setting           | paper                                         | here                                             |
|-------------------|-----------------------------------------------|--------------------------------------------------|
| images            | 64x64                                         | the same                                         |
| captions          | BERT and GPT-2 as in Optimus, pretrained      | words, from scratch; `optimus`: as the paper     |
| latents           | 768                                           | 256 of images, 64 of captions, cut into tokens   |
| training          | Adam, 500 epochs                              | `cpu`: see the steps below                       |
| Diff-MVAE         | UNet; lambda 1e-5 of averaged losses          | the same; `cpu`: a network of patches            |
| decoders' sampler | DDIM 50; Euler-Maruyama 1,000                 | DPM-Solver++ 2M, 10 steps                        |
| MoPoE, MVTCAE     | beta 5, 1                                     | the same                                         |
| agreement         | CLIP score, FID of 10,000 samples             | the same, and in a space trained here            |

The CLIP score needs `--config.evaluation.clip.weights=FILE --config.evaluation.clip.tokenizer=FILE`; see
`networks.pretrained.clip`, which says how to get both.

Variants, joined by commas: `cpu` (small networks, on two cores; made for the first ten species), `smoke` (minutes on a
CPU: tests the pipeline, learns little), `optimus` (captions by BERT and GPT-2, with weights and tokenizers in
`data/weights`: `bert.safetensors`, `bert.json`, `gpt2.safetensors` and `gpt2.json`; `networks.pretrained` says how to
get them). Only `smoke` has been run so far, on the first ten species; nothing has been measured.
"""

from typing import Any

from ml_collections import ConfigDict

import sbm_jax
from sbm_jax.presets import latent_training, training

NUM_TRAIN, BATCH = 52_000, 128  # images with captions, without those for validation

WEIGHTS = "data/weights"
TEXT_NETWORKS = {"encoder": "bert", "decoder": "gpt2"}

DIFF_MVAE = ("diff_mvae", "diff_mvae_star", "diff_mvae_star_score")


def get_config(variants: str = "") -> ConfigDict:
    """Return the experiment with the given variants."""
    chosen = [variant for variant in variants.split(",") if variant]
    known = {"cpu": _cpu, "smoke": _smoke, "optimus": _optimus}
    for variant in chosen:
        if variant not in known:
            raise ValueError(f"unknown variant {variant!r} of configs/cub.py; known: {', '.join(known)}.")
    config = sbm_jax.default_config()
    config.systems = ("sbm_vae_m", "sbm_vae_m_diffusion", "sbm_vae", "mld", "mopoe", "mvtcae", *DIFF_MVAE)
    config.published = "diff_mvae_cub"
    config.data.name = "cub"
    config.data.cub.directory = "data/CUB_200_2011"
    for part in (_modalities, _autoencoder, _score, _methods, _judges):
        part(config)
    for variant in known:  # always in this order
        if variant in chosen:
            known[variant](config)
    config.name = "_".join(["cub", *sorted(chosen)])
    return config


IMAGE = {"widths": (64, 128, 256, 512)}


def _modalities(config: ConfigDict) -> None:
    image = {"name": "residual_conv", "network": IMAGE}
    caption = {"name": "tokens", "network": {"width": 256, "depth": 2, "causal_depth": 2, "heads": 8}}
    text = {"name": "text", "options": {"least": 2, "cut": True}}
    config.modalities = (
        {
            "name": "image",
            "shape": (64, 64, 3),
            "latent_size": 256,
            "num_tokens": 4,
            "bounds": (0.0, 1.0),
            "codec": image,
        },
        {
            "name": "caption",
            "shape": (24,),
            "latent_size": 64,
            "likelihood": "categorical",
            "codec": caption,
            "format": text,
        },
    )


def _autoencoder(config: ConfigDict) -> None:
    config.autoencoder.alignment = 50.0
    config.autoencoder.network.dtype = "bfloat16"
    config.autoencoder.training.update(_epochs(100, 5e-4, ema_decay=0.999, clip_norm=1e3))


def _score(config: ConfigDict) -> None:
    config.score.probability_alone = 0.15
    config.score.network.update(width=512, depth=8, dtype="bfloat16")
    config.score.training.update(_epochs(300, 5e-4, ema_decay=0.999, clip_norm=1.0))
    config.sampler.num_steps = 10


def _methods(config: ConfigDict) -> None:
    methods, joint = config.methods, config.methods.joint_posterior
    methods.mld.network.update(width=1536, dtype="bfloat16")
    methods.mld.training.update(_epochs(300, 5e-4, ema_decay=0.999, clip_norm=1.0))
    joint.latent_size = 768
    joint.network.dtype = "bfloat16"
    joint.training.update(_epochs(200, 5e-4, ema_decay=0.999))
    joint.score_prior.update(config.score.to_dict())
    methods.mopoe.beta = 5.0
    methods.mvtcae.beta = 1.0
    denoiser = {"name": "unet", "width": 128, "depth": 2, "multipliers": (1, 2, 3, 4), "attention": (2, 3), "heads": 8}
    denoiser |= {"dtype": "bfloat16"}
    methods.diffusion_decoder.decoder.network.update(denoiser)
    methods.diffusion_decoder.training.update(_epochs(200, 2e-4, ema_decay=0.9999, clip_norm=1.0))
    trunk = {"name": "residual_conv", "network": {**IMAGE, "dtype": "bfloat16"}}
    _diff_mvae(config, trunk, denoiser)


def _diff_mvae(config: ConfigDict, trunk: dict, denoiser: dict) -> None:
    # The papers' process, with which Euler-Maruyama is stable at their 1,000 steps.
    decoder = {"network": denoiser, "sde": {"name": "vp"}, "sampler": {"num_steps": 10}}
    for method in (config.methods.diff_mvae, config.methods.diff_mvae_star):
        method.latent_size = config.methods.joint_posterior.latent_size
        method.codec = {"trunk": trunk, "decoder": decoder}


def _judges(config: ConfigDict) -> None:
    config.classifier = None
    config.matcher = ConfigDict({"embedding_size": 128, "training": _epochs(30, 5e-4, weight_decay=1e-2)})
    config.evaluation.update(num_examples=5000, num_unconditional=5000, batch_size=250)
    metrics = config.evaluation.metrics
    for name in ("coherence", "class_shares", "diversity", "classifier", "likelihood"):
        metrics[name] = None
    pair = {"name": "agreement", "source": "image", "target": "caption"}
    metrics.image_to_caption = ConfigDict(pair)
    metrics.caption_to_image = ConfigDict({**pair, "source": "caption", "target": "image"})
    metrics.from_nothing = ConfigDict({**pair, "from_nothing": True})
    metrics.clip_score = ConfigDict({"image": "image", "text": "caption"})
    metrics.frechet.update(num_examples=5000, modalities=("image",), sets=("given_rest", "unconditional"))
    metrics.frechet.reference = "train"


def _epochs(number: int, learning_rate: float, **optimizer: Any) -> dict:
    return training(number * NUM_TRAIN // BATCH, BATCH, 2000, 1, 500, learning_rate=learning_rate, **optimizer)


def _cpu(config: ConfigDict) -> None:
    methods, joint = config.methods, config.methods.joint_posterior
    config.data.cub.crop = "box"  # with few images, all birds at one size
    image, caption = config.modalities
    patch, words = {"widths": (96, 96), "patch": 8}, {"width": 128, "depth": 1, "causal_depth": 1}
    config.modalities = (
        {**image, "latent_size": 64, "num_tokens": 1, "codec": {"name": "patch", "network": patch}},
        {**caption, "latent_size": 32, "codec": {"name": "tokens", "network": words}},
    )
    config.autoencoder.network.dtype = "float32"
    config.autoencoder.training.update(_small(3000, 64, 3e-3, clip_norm=500.0, ema_decay=0.999))
    config.score.network.update(width=192, depth=4, dtype="float32")
    config.score.training.update(latent_training(6000, learning_rate=1.5e-3))
    methods.mld.network.update(width=512, dtype="float32")
    methods.mld.training.update(latent_training(6000, learning_rate=1e-3))
    joint.latent_size = 64
    joint.network.dtype = "float32"
    joint.training.update(_small(3000, 64, 2e-3, clip_norm=500.0, ema_decay=0.999))
    joint.score_prior.network.update(width=192, depth=4, dtype="float32")
    joint.score_prior.training.update(latent_training(4000, learning_rate=1.5e-3))
    denoiser = {"name": "patch", "width": 96, "depth": 4, "head": 384, "patch": 4, "dtype": "float32"}
    methods.diffusion_decoder.decoder.network.update(denoiser)
    methods.diffusion_decoder.training.update(_small(6000, 8, 3e-3, clip_norm=1.0, ema_decay=0.998))
    _diff_mvae(config, {"name": "patch", "network": patch}, denoiser)
    for method in (methods.diff_mvae, methods.diff_mvae_star):
        method.training = {"num_steps": 6000, "batch_size": 16}
    config.matcher.training.update(_small(1500, 64, 1e-3, weight_decay=1e-2))
    config.evaluation.update(num_examples=1000, num_unconditional=500, batch_size=250)
    config.evaluation.metrics.frechet.update(num_examples=500, num_real=500)


def _small(num_steps: int, batch: int, learning_rate: float, **optimizer: Any) -> dict:
    return training(num_steps, batch, 500, 1, 100, learning_rate=learning_rate, **optimizer)


def _smoke(config: ConfigDict) -> None:
    _cpu(config)
    methods = config.methods
    config.data.cub.update(size=32, max_images=30)
    image, caption = config.modalities
    config.modalities = ({**image, "shape": (32, 32, 3)}, caption)
    for stage in (config.autoencoder, methods.joint_posterior, methods.diffusion_decoder, config.matcher):
        stage.training.update(num_steps=20, batch_size=16, checkpoint_every=20, validate_every=20)
        stage.training.optimizer.warmup_steps = 5
    for method in (methods.diff_mvae, methods.diff_mvae_star):
        method.training = {"num_steps": 20, "batch_size": 8}
    for stage in (config.score, methods.mld, methods.joint_posterior.score_prior):
        stage.training.update(num_steps=50, batch_size=32, checkpoint_every=50, validate_every=50)
        stage.training.optimizer.warmup_steps = 5
    config.sampler.num_steps = 4
    config.evaluation.update(num_examples=20, num_unconditional=20, batch_size=20, num_repeats=2)
    config.evaluation.metrics.frechet.num_examples = 0


def _optimus(config: ConfigDict) -> None:
    image, caption = config.modalities
    files = {f"{part}_weights": f"{WEIGHTS}/{name}.safetensors" for part, name in TEXT_NETWORKS.items()}
    tokenizers = {part: f"{WEIGHTS}/{name}.json" for part, name in TEXT_NETWORKS.items()}
    text = {"name": "pretrained_text", "options": {**tokenizers, "cut": True}}
    # Rows of 2 x 64 tokens, with ids 1 to 50,257, the size of GPT-2's vocabulary.
    own = {"shape": (128,), "vocabulary_size": 50_258, "latent_size": 768, "num_tokens": 12, "format": text}
    config.modalities = (image, {**caption, **own, "codec": {"name": "optimus", "network": files}})
    for stage in (config.autoencoder, config.methods.joint_posterior):
        stage.training.optimizer.learning_rate = 5e-5  # as in Optimus
