"""SBM-VAE on five PolyMNIST-style modalities, from scratch, on two CPU cores in about ten minutes.

    python -m sbm_jax.main --config=configs/quickstart.py

Digits: scikit-learn's 1,797 real handwritten ones (1,400 for training, 97 for validation, 300 for test), and small
shifts, rotations and scalings of the training digits. Backgrounds: textures drawn by the code. Chance is 0.10 for every
coherence. Variants, joined by commas: `all` (systems of every kind but diffusion decoders in one table, with less
training: 27 minutes), `square` (latents of 64 entries, which make the 8x8 maps that the paper's score network needs),
`evaluations` (the effect of the number of evaluations of the diffusion decoders), `smoke` (a minute; tests the
pipeline, learns little).
"""

from ml_collections import ConfigDict

import sbm_jax
from sbm_jax.presets import latent_training, training

NUM_MODALITIES = 5


def get_config(variants: str = "") -> ConfigDict:
    """Return the experiment with the given variants."""
    chosen = [variant for variant in variants.split(",") if variant]
    known = {"all": _all, "square": _square, "evaluations": _evaluations, "smoke": _smoke}
    for variant in chosen:
        if variant not in known:
            raise ValueError(f"unknown variant {variant!r} of configs/quickstart.py; known: {', '.join(known)}.")
    config = sbm_jax.default_config()
    config.systems = ("sbm_vae_m_diffusion", "sbm_vae_m")
    for part in (_data, _modalities, _autoencoder, _score, _methods, _judges):
        part(config)
    for variant in known:  # always in this order
        if variant in chosen:
            known[variant](config)
    config.name = "_".join(["quickstart", *sorted(chosen)])
    return config


def _data(config: ConfigDict) -> None:
    config.data.polymnist.update(num_modalities=NUM_MODALITIES, rounds=16, augment=1.0)


def _modalities(config: ConfigDict, latent_size: int = 32) -> None:
    config.modalities = tuple(
        {"name": f"m{i}", "shape": (28, 28, 3), "latent_size": latent_size, "codec": "patch", "bounds": (0.0, 1.0)}
        for i in range(NUM_MODALITIES)
    )


def _autoencoder(config: ConfigDict) -> None:
    config.autoencoder.beta = 4.0  # for a learned scale; chosen on the validation digits
    config.autoencoder.network.widths = (64,)
    config.autoencoder.training.update(training(650, learning_rate=4e-3, ema_decay=0.99))


def _score(config: ConfigDict) -> None:
    config.score.probability_alone = 0.15
    config.score.network.width = 128
    config.score.training.update(latent_training(3200))
    config.sampler.num_steps = 10


def _methods(config: ConfigDict) -> None:
    methods = config.methods
    methods.sbm_c.update(width=128, depth=3)
    methods.sbm_c.training.update(
        training(4000, batch_size=256, learning_rate=2e-3, ema_decay=0.999, steps_per_dispatch=50)
    )
    methods.sbm_t.embedding_size = 32
    methods.sbm_t.network.widths = (64,)
    methods.sbm_t.training.update(training(600, learning_rate=2e-3, ema_decay=0.99, weight_decay=1e-2))
    methods.sbm_f.training.update(training(300, learning_rate=5e-4))
    methods.eb_mvae.width = 256
    methods.eb_mvae.training.update(
        training(6000, batch_size=256, learning_rate=1e-3, ema_decay=0.999, steps_per_dispatch=50)
    )
    methods.mld.training.update(latent_training(4000))
    methods.diffusion_decoder.decoder.network.width = 64
    methods.diffusion_decoder.decoder.sampler.num_steps = 5
    # Many small steps learn more from as many images than few large ones.
    methods.diffusion_decoder.training.update(training(1700, batch_size=8, learning_rate=4e-3, ema_decay=0.998))
    methods.joint_posterior.network.widths = (64,)
    methods.joint_posterior.training.update(training(900, learning_rate=4e-3, ema_decay=0.99, clip_norm=500.0))
    methods.joint_posterior.score_prior.update(config.score.to_dict())
    methods.joint_posterior.score_prior.training.num_steps = 3000
    # As in the tables of the SBM paper.
    methods.mvae.update(likelihood="", prior_beside_one=False)
    methods.mmvae.update(likelihood="", posterior="normal", estimator="elbo", beta=2.5)
    methods.mopoe.update(likelihood="", given="mixture")
    methods.mvtcae.update(likelihood="", beta=0.1, alpha=0.9)
    methods.mmvae_plus.beta = 5.0


def _judges(config: ConfigDict) -> None:
    judge = training(600, batch_size=128, learning_rate=2e-3, weight_decay=1e-2, clip_norm=1.0)
    config.classifier = ConfigDict({"hidden": 256, "dropout": 0.3, "training": judge})
    config.evaluation.update(num_examples=300, num_unconditional=500, batch_size=250)
    metrics = config.evaluation.metrics
    # Without "from_one", which takes a third more samples, because all modalities are of one kind.
    metrics.coherence.sets = ("given_rest", "random", "unconditional")
    metrics.frechet.update(num_examples=900, all_repeats=True, num_real=3000, reference="train", sets=("given_rest",))
    metrics.frechet.space = "classifier_features"  # Inception takes an hour for this many images


def _all(config: ConfigDict) -> None:
    methods = config.methods
    scored = tuple(f"sbm_{autoencoder}{suffix}" for autoencoder in ("vae", "rae") for suffix in ("", "_c", "_t", "_m"))
    joint = ("mvae", "mmvae", "mopoe", "mopoe_score", "mopoe_mixture", "mvtcae", "mmvae_plus")
    config.systems = (*scored, "mld", "eb_mvae", *joint)
    # Less training, and one repeat: the whole run takes less than half an hour.
    for stage in (config.autoencoder, methods.joint_posterior, methods.sbm_t):
        stage.training.num_steps = 250
    for stage in (config.score, methods.mld, methods.joint_posterior.score_prior):
        stage.training.num_steps = 1200
    methods.eb_mvae.training.num_steps = 2500
    methods.sbm_c.training.num_steps = 1000
    config.evaluation.update(num_examples=150, num_repeats=1, num_unconditional=300, batch_size=150)
    metrics = config.evaluation.metrics
    metrics.coherence.sets = ("given_rest", "random", "unconditional")
    metrics.diversity = None
    metrics.frechet.update(num_examples=150, all_repeats=False)
    metrics.likelihood.num_examples = 50


def _square(config: ConfigDict) -> None:
    _modalities(config, latent_size=64)


def _evaluations(config: ConfigDict) -> None:
    """Set a study of samples against the evaluations of the diffusion decoders; nothing is trained again."""
    config.variations = tuple(
        {
            "study": "decoder evaluations",
            "value": str(number),
            "changes": {
                "systems": ("sbm_vae_m_diffusion",),
                "methods.diffusion_decoder.decoder.sampler.num_steps": number,
            },
        }
        for number in (1, 2, 3, 8, 16)
    )


def _smoke(config: ConfigDict) -> None:
    methods = config.methods
    config.data.polymnist.rounds = 1
    config.autoencoder.training.update(num_steps=60, checkpoint_every=30, validate_every=30)
    config.score.training.update(num_steps=200, checkpoint_every=100, validate_every=100)
    config.classifier.training.update(num_steps=60, checkpoint_every=30, validate_every=30)
    methods.joint_posterior.training.update(num_steps=20, checkpoint_every=20, validate_every=20)
    methods.joint_posterior.score_prior.training.update(num_steps=100, checkpoint_every=100, validate_every=100)
    methods.mld.training.update(num_steps=100, checkpoint_every=100, validate_every=100)
    methods.mld.network.width = 64
    methods.eb_mvae.training.update(num_steps=100, checkpoint_every=50, validate_every=50)
    methods.sbm_c.training.update(num_steps=100, checkpoint_every=50, validate_every=50)
    methods.sbm_t.training.update(num_steps=20, checkpoint_every=20, validate_every=20)
    methods.sbm_f.training.update(num_steps=20, checkpoint_every=20, validate_every=20)
    methods.diffusion_decoder.training.update(num_steps=20, checkpoint_every=20, validate_every=20)
    config.evaluation.update(num_examples=50, num_unconditional=50, batch_size=50, num_repeats=2)
    metrics = config.evaluation.metrics
    metrics.frechet.num_examples = min(50, metrics.frechet.num_examples)
    metrics.likelihood.num_examples = min(20, metrics.likelihood.num_examples)
