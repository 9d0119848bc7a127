"""SBM-VAE on five PolyMNIST-style modalities, from nothing, on two CPU cores in under ten minutes.

    python -m sbm_jax.main --config=configs/quickstart.py

Digits: the 1,797 real handwritten ones of scikit-learn (1,400 for training, 97 for validation, 300 for test).
Backgrounds: textures that the code draws. Chance is 0.10 for every coherence.
"""

from ml_collections import ConfigDict


def get_config(variants: str = "") -> ConfigDict:
    """Return the experiment; variants: `smoke` (a minute, proves the path, learns little)."""
    config = ConfigDict()
    config.name = "quickstart"
    config.seed = 0
    config.systems = ("sbm_vae",)

    config.data = ConfigDict(
        {
            "name": "polymnist",
            "polymnist": {
                "num_modalities": 5,
                "digits": "sklearn",
                "backgrounds": "textures",
                "rounds": 16,
                "augment": 1.0,
            },
        }
    )
    config.modalities = tuple(
        {"name": f"m{i}", "shape": (28, 28, 3), "latent_size": 32, "kind": "conv"} for i in range(5)
    )
    config.autoencoder = ConfigDict(
        {
            "beta": 0.3,
            "network": {"widths": (16, 32, 64)},
            "training": {
                "num_steps": 1200,
                "batch_size": 64,
                "checkpoint_every": 400,
                "validate_every": 400,
                "optimizer": {"learning_rate": 2e-3, "warmup_steps": 50, "ema_decay": 0.99},
            },
        }
    )
    config.score = ConfigDict(
        {
            "network": {"name": "transformer", "width": 128, "depth": 4},
            "training": {
                "num_steps": 6000,
                "batch_size": 128,
                "steps_per_dispatch": 50,
                "checkpoint_every": 2000,
                "validate_every": 1000,
                "optimizer": {
                    "learning_rate": 2e-3,
                    "warmup_steps": 200,
                    "ema_decay": 0.999,
                    "clip_norm": 1.0,
                },
            },
        }
    )
    config.classifier = ConfigDict(
        {
            "widths": (16, 32, 64),
            "hidden": 128,
            "training": {
                "num_steps": 600,
                "batch_size": 128,
                "validate_every": 200,
                "optimizer": {"learning_rate": 2e-3},
            },
        }
    )
    config.sampler = ConfigDict({"solver": "sde_dpm_solver_pp_2m", "num_steps": 20})
    config.evaluation = ConfigDict(
        {"num_examples": 300, "num_unconditional": 1000, "batch_size": 250, "num_repeats": 3}
    )
    if variants not in ("", "smoke"):
        raise ValueError(f"unknown variant {variants!r} of configs/quickstart.py; known: smoke.")
    if variants == "smoke":
        _smoke(config)
    return config


def _smoke(config: ConfigDict) -> None:
    config.name = "quickstart_smoke"
    config.data.polymnist.rounds = 1
    config.autoencoder.training.update(num_steps=60, checkpoint_every=30, validate_every=30)
    config.score.training.update(num_steps=200, checkpoint_every=100, validate_every=100)
    config.classifier.training.update(num_steps=60, validate_every=30)
    config.evaluation.update(num_examples=50, num_unconditional=50, batch_size=50, num_repeats=2)
