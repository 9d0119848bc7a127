"""SBM-VAE on five PolyMNIST-style modalities, from nothing, on two CPU cores in ten to fifteen minutes.

    python -m sbm_jax.main --config=configs/quickstart.py

Digits: the 1,797 real handwritten ones of scikit-learn (1,400 for training, 97 for validation, 300 for test), small
shifts, rotations and scalings of the training ones. Backgrounds: textures that the code draws. Every coherence is 0.10
by chance. Variants, joined by commas: `all` (systems of every kind in one table, with less training: 27 minutes),
`square` (latents of 64 entries, which make the 8x8 maps that the paper's score network needs), `smoke` (a minute;
proves the path, learns little).
"""

from ml_collections import ConfigDict, config_dict

NUM_MODALITIES = 5


def get_config(variants: str = "") -> ConfigDict:
    """Return the experiment with the given variants."""
    chosen = [variant for variant in variants.split(",") if variant]
    known = {"all": _all, "square": _square, "smoke": _smoke}
    for variant in chosen:
        if variant not in known:
            raise ValueError(f"unknown variant {variant!r} of configs/quickstart.py; known: {', '.join(known)}.")
    config = ConfigDict()
    config.name = "quickstart"
    config.seed = 0
    config.systems = ("sbm_vae_m", "sbm_vae")
    config.data = _data()
    config.modalities = _modalities(latent_size=32)
    config.autoencoder = ConfigDict(
        {
            "beta": 0.5,
            "rae_beta": 1e-5,
            "rae_noise": 0.01,
            "alignment": 0.0,
            "aligned_size": 16,
            "network": {"widths": (64,), "dtype": "float32"},
            "training": _training(num_steps=900, batch_size=64, learning_rate=4e-3, ema_decay=0.99),
        }
    )
    config.score = ConfigDict(
        {
            "prediction": "velocity",
            "weighting": "velocity",
            "probability_none": 0.2,
            "probability_alone": 0.15,
            "posterior": "sample",
            "network": {
                "name": "transformer",
                "width": 128,
                "depth": 4,
                "dropout": 0.0,
                "dtype": "float32",
                "paper_unet": False,
            },
            "sde": {"name": "vp", "beta_min": 0.1, "beta_max": 20.0, "sigma_min": 0.01, "sigma_max": 50.0},
            "training": _latent_training(num_steps=6000),
        }
    )
    config.energy = ConfigDict(
        {
            "width": 128,
            "depth": 3,
            "probability_clean": 0.5,
            "gaussian_weight": 0.0,
            "strength": 1.0,
            "pairs": "all",
            "training": _training(
                num_steps=4000, batch_size=256, learning_rate=2e-3, ema_decay=0.999, steps_per_dispatch=50
            ),
        }
    )
    config.contrastive = ConfigDict(
        {
            "embedding_size": 32,
            "dropout": 0.1,
            "temperature": 0.07,
            "probability_none": 0.2,
            "probability_absent": 0.5,
            "strength": 1.0,
            "network": {"widths": (64,), "dtype": "float32"},
            "training": _training(num_steps=600, batch_size=64, learning_rate=2e-3, ema_decay=0.99, weight_decay=1e-2),
        }
    )
    config.marginal = ConfigDict({"strength": 1.0})
    config.finetuning = ConfigDict(
        {"probability_drop": 0.5, "training": _training(num_steps=300, batch_size=64, learning_rate=5e-4)}
    )
    config.eb_mvae = ConfigDict(
        {
            "width": 256,
            "depth": 3,
            "kind": "field",
            "trace": "hutchinson",
            "num_steps": 40,
            "step_size": 0.3,
            "training": _training(
                num_steps=6000, batch_size=256, learning_rate=1e-3, ema_decay=0.999, steps_per_dispatch=50
            ),
        }
    )
    config.joint_posterior = ConfigDict(
        {
            "latent_size": 64,
            "variant": "sbm_paper",
            "settings": {},
            "network": {"widths": (64,), "dtype": "float32"},
            "training": _training(num_steps=900, batch_size=64, learning_rate=4e-3, ema_decay=0.99, clip_norm=500.0),
            "score_prior": {**config.score.to_dict(), "training": _latent_training(num_steps=3000)},
            "mixture_components": 10,
        }
    )
    config.mld = ConfigDict(
        {
            "prediction": "velocity",
            "probability_observed": 0.5,
            "sampler": "shared",
            "network": {**config.score.network.to_dict(), "name": "mlp_unet", "width": 512, "depth": 2},
            "training": _latent_training(num_steps=4000),
        }
    )
    config.joint = ()
    config.variations = ()
    config.published = ""
    config.classifier = ConfigDict(
        {
            "widths": (32, 64, 128),
            "hidden": 256,
            "dropout": 0.3,
            "training": _training(num_steps=600, batch_size=128, learning_rate=2e-3, weight_decay=1e-2, clip_norm=1.0),
        }
    )
    config.sampler = ConfigDict(
        {
            "solver": "sde_dpm_solver_pp_2m",
            "num_steps": 10,
            "grid": "log_snr",
            "conditioning": "per_modality",
            "start_time": 1.0,
            "end_time": 3e-3,
            "snr": 0.16,
            "corrector_steps": 1,
            "resampling": 1,
            "resampling_length": 1,
            "num_particles": 16,
            "start": "prior",
            "unroll": 0,
            "chunk_size": 0,
            "divergence_bound": 100.0,
        }
    )
    config.evaluation = ConfigDict(
        {
            "num_examples": 300,
            "num_unconditional": 1000,
            "batch_size": 250,
            "num_repeats": 3,
            "num_figure_examples": 4,
            "sets": ("given_rest", "random", "fixed_order", "unconditional", "diversity"),
            "targets": (),
            "features": {
                "num_examples": 0,
                "num_real": 0,
                "sets": ("given_rest", "unconditional"),
                "modalities": (),
                "weights": "",
            },
            "likelihood": {"num_examples": 0, "num_samples": 64, "batch_size": 50, "samples_per_call": 8},
        }
    )
    for variant in known:  # in this order, whatever the order on the command line
        if variant in chosen:
            known[variant](config)
    config.name = "_".join(["quickstart", *sorted(chosen)])
    return config


def _modalities(latent_size: int) -> tuple:
    return tuple(
        {
            "name": f"m{i}",
            "shape": (28, 28, 3),
            "latent_size": latent_size,
            "codec": "patch",
            "bounds": (0.0, 1.0),
        }
        for i in range(NUM_MODALITIES)
    )


def _data() -> ConfigDict:
    return ConfigDict(
        {
            "name": "polymnist",
            "polymnist": {
                "num_modalities": NUM_MODALITIES,
                "digits": "sklearn",
                "digits_directory": "",
                "backgrounds": "textures",
                "backgrounds_directory": "",
                "archive": "",
                "seed": 0,
                "rounds": 16,
                "test_rounds": 1,
                "augment": 1.0,
                "max_train": config_dict.placeholder(int),
                "max_test": config_dict.placeholder(int),
            },
            "arrays": {"directory": "", "validation_fraction": 0.1, "seed": 0},
            "missing": 0.0,
        }
    )


def _training(
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    ema_decay: float = 0.0,
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
    warmup_steps: int = 50,
    steps_per_dispatch: int = 1,
    checkpoint_every: int = 250,
    validate_every: int = 250,
) -> dict:
    return {
        "num_steps": num_steps,
        "batch_size": batch_size,
        "steps_per_dispatch": steps_per_dispatch,
        "checkpoint_every": checkpoint_every,
        "validate_every": validate_every,
        "split_parameters": False,
        "optimizer": {
            "learning_rate": learning_rate,
            "schedule": "cosine",
            "warmup_steps": warmup_steps,
            "weight_decay": weight_decay,
            "clip_norm": clip_norm,
            "ema_decay": ema_decay,
        },
    }


def _latent_training(num_steps: int) -> dict:
    return _training(
        num_steps=num_steps,
        batch_size=128,
        learning_rate=2e-3,
        ema_decay=0.999,
        clip_norm=1.0,
        warmup_steps=200,
        steps_per_dispatch=50,
        checkpoint_every=1000,
        validate_every=1000,
    )


def _all(config: ConfigDict) -> None:
    scored = tuple(f"sbm_{kind}{suffix}" for kind in ("vae", "rae") for suffix in ("", "_c", "_t", "_m"))
    joint = ("mvae", "mmvae", "mopoe", "mopoe_score", "mopoe_mixture", "mvtcae", "mmvae_plus")
    config.systems = (*scored, "mld", "eb_mvae", *joint)
    # Less training, and one repeat: all of it takes less than half an hour.
    for stage in (config.autoencoder, config.joint_posterior, config.contrastive):
        stage.training.num_steps = 250
    for stage in (config.score, config.mld, config.joint_posterior.score_prior):
        stage.training.num_steps = 1200
    config.eb_mvae.training.num_steps = 2500
    config.energy.training.num_steps = 1000
    config.evaluation.update(num_examples=150, num_repeats=1, num_unconditional=300, batch_size=150)
    config.evaluation.sets = ("given_rest", "random", "unconditional")
    config.evaluation.features.update(num_examples=150, sets=("given_rest",))
    config.evaluation.likelihood.num_examples = 50


def _square(config: ConfigDict) -> None:
    config.modalities = _modalities(latent_size=64)


def _smoke(config: ConfigDict) -> None:
    config.data.polymnist.rounds = 1
    config.autoencoder.training.update(num_steps=60, checkpoint_every=30, validate_every=30)
    config.score.training.update(num_steps=200, checkpoint_every=100, validate_every=100)
    config.classifier.training.update(num_steps=60, checkpoint_every=30, validate_every=30)
    config.joint_posterior.training.update(num_steps=20, checkpoint_every=20, validate_every=20)
    config.joint_posterior.score_prior.training.update(num_steps=100, checkpoint_every=100, validate_every=100)
    config.mld.training.update(num_steps=100, checkpoint_every=100, validate_every=100)
    config.mld.network.width = 64
    config.eb_mvae.training.update(num_steps=100, checkpoint_every=50, validate_every=50)
    config.energy.training.update(num_steps=100, checkpoint_every=50, validate_every=50)
    config.contrastive.training.update(num_steps=20, checkpoint_every=20, validate_every=20)
    config.finetuning.training.update(num_steps=20, checkpoint_every=20, validate_every=20)
    config.evaluation.update(num_examples=50, num_unconditional=50, batch_size=50, num_repeats=2)
    config.evaluation.features.num_examples = min(50, config.evaluation.features.num_examples)
    config.evaluation.likelihood.num_examples = min(20, config.evaluation.likelihood.num_examples)
