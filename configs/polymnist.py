"""Extended PolyMNIST of the SBM paper, on real MNIST and photographs.

    python -m sbm_jax.main --config=configs/polymnist.py \\
        --config.data.polymnist.digits_directory=MNIST --config.data.polymnist.backgrounds_directory=PHOTOS

MNIST holds the four canonical files, PHOTOS at least as many images as there are modalities. The official PolyMNIST
archive is read with `--config.data.polymnist.archive=MMNIST`.

The paper's settings (A.2, Table 4; where its code differs, the code's in brackets) and ours:

| setting                    | paper                               | here                                              |
|----------------------------|-------------------------------------|---------------------------------------------------|
| autoencoders               | residual conv 64-128-256, BatchNorm | the same with GroupNorm: no hidden state           |
| latent size, likelihood    | 64, Gaussian (squared error)        | the same                                          |
| beta of the VAE            | 0.1 (script: 0.5)                   | 0.1                                               |
| RAE: weight of z^2, noise  | 1e-5, variance 0.01 (code: std 0.01)| 1e-5, std 0.01                                    |
| stage I                    | Adam 1e-3, batch 256, 200 epochs    | 200 epochs, cosine instead of decay on plateaus    |
| score network              | UNet, 8x8 maps, width 128 (64 for M <= 5) | transformer over modalities; `paper`: UNet   |
| objective                  | one time, lambda = 1 (code: sigma^2)| per-modality times; `paper`: one time, sigma^2    |
| process                    | VP (0.1, 5); (1, 5) for M < 10      | VP (0.1, 20), whose end is N(0, I); `paper`: theirs|
| stage II                   | Adam 2e-4, batch 256, 500 epochs    | EMA 0.999, cosine, 5e-4; `paper`: 2e-4, no EMA    |
| sampler                    | predictor-corrector, N = 100, snr 0.16, 200 evaluations | SDE-DPM-Solver++ 2M, 20 evaluations |

Variants, joined by commas: `five` (five modalities), `paper` (the paper's network, objective, process and sampler),
`cpu` (small networks and few steps), `smoke` (a minute on a CPU: proves the path, learns little).
"""

from ml_collections import ConfigDict

NUM_TRAIN, BATCH = 50_000, 256


def get_config(variants: str = "") -> ConfigDict:
    """Return the experiment with the given variants."""
    chosen = [variant for variant in variants.split(",") if variant]
    known = {"five": _five, "paper": _paper, "cpu": _cpu, "smoke": _smoke}
    for variant in chosen:
        if variant not in known:
            raise ValueError(f"unknown variant {variant!r} of configs/polymnist.py; known: {', '.join(known)}.")
    config = _base()
    for variant in known:  # in this order, whatever the order on the command line
        if variant in chosen:
            known[variant](config)
    config.name = "_".join(["polymnist", *sorted(chosen)])
    return config


def _modalities(number: int, kind: str, latent_size: int) -> tuple:
    return tuple(
        {"name": f"m{i}", "shape": (28, 28, 3), "latent_size": latent_size, "kind": kind} for i in range(number)
    )


def _base() -> ConfigDict:
    config = ConfigDict()
    config.name = "polymnist"
    config.seed = 0
    config.systems = ("sbm_vae", "sbm_rae")
    config.data = ConfigDict(
        {
            "name": "polymnist",
            "polymnist": {
                "num_modalities": 10,
                "digits": "mnist",
                "digits_directory": "data/mnist",
                "backgrounds": "directory",
                "backgrounds_directory": "data/backgrounds",
                "archive": "",
            },
        }
    )
    config.modalities = _modalities(10, "residual_conv", 64)
    steps = 200 * NUM_TRAIN // BATCH
    config.autoencoder = ConfigDict(
        {
            "beta": 0.1,
            "rae_beta": 1e-5,
            "rae_noise": 0.01,
            "network": {"widths": (64, 128, 256), "dtype": "bfloat16"},
            "training": {
                "num_steps": steps,
                "batch_size": BATCH,
                "steps_per_dispatch": 50,
                "checkpoint_every": 2000,
                "validate_every": 2000,
                "optimizer": {"learning_rate": 1e-3, "warmup_steps": 500, "ema_decay": 0.999},
            },
        }
    )
    config.score = ConfigDict(
        {
            "prediction": "velocity",
            "weighting": "noise",
            "probability_none": 0.2,
            "posterior": "sample",
            "network": {"name": "transformer", "width": 512, "depth": 8, "dtype": "bfloat16"},
            "sde": {"name": "vp", "beta_min": 0.1, "beta_max": 20.0},
            "training": {
                "num_steps": 100_000,
                "batch_size": BATCH,
                "steps_per_dispatch": 100,
                "checkpoint_every": 5000,
                "validate_every": 5000,
                "optimizer": {
                    "learning_rate": 5e-4,
                    "schedule": "cosine",
                    "warmup_steps": 1000,
                    "ema_decay": 0.999,
                    "clip_norm": 1.0,
                },
            },
        }
    )
    config.classifier = ConfigDict(
        {
            "widths": (32, 64, 128),
            "hidden": 512,
            "training": {
                "num_steps": 6000,
                "batch_size": BATCH,
                "steps_per_dispatch": 50,
                "validate_every": 1000,
            },
        }
    )
    config.sampler = ConfigDict(
        {
            "solver": "sde_dpm_solver_pp_2m",
            "num_steps": 20,
            "grid": "log_snr",
            "conditioning": "per_modality",
        }
    )
    config.evaluation = ConfigDict(
        {
            "num_examples": 10_000,
            "num_unconditional": 10_000,
            "batch_size": 500,
            "num_repeats": 3,
        }
    )
    return config


def _five(config: ConfigDict) -> None:
    config.data.polymnist.num_modalities = 5
    config.modalities = config.modalities[:5]


def _paper(config: ConfigDict) -> None:
    many = len(config.modalities) == 10
    config.score.network = ConfigDict({"name": "unet", "width": 128 if many else 64, "paper_unet": True})
    config.score.sde.beta_min = 0.1 if many else 1.0
    config.score.sde.beta_max = 5.0
    config.score.prediction = "score"
    config.score.probability_none = 1.0
    optimizer = config.score.training.optimizer
    optimizer.update(learning_rate=2e-4, schedule="constant", warmup_steps=0, ema_decay=0.0, clip_norm=0.0)
    config.sampler = ConfigDict(
        {
            "solver": "predictor_corrector",
            "num_steps": 100,
            "grid": "uniform",
            "conditioning": "clean",
        }
    )


def _cpu(config: ConfigDict) -> None:
    config.modalities = _modalities(len(config.modalities), "conv", 64)
    config.systems = ("sbm_vae",)
    config.autoencoder.beta = 0.3
    config.autoencoder.network = ConfigDict({"widths": (16, 32, 64)})
    config.autoencoder.training.update(num_steps=4000, batch_size=64, steps_per_dispatch=1, checkpoint_every=500)
    config.score.network.dtype = "float32"
    if config.score.network.name == "transformer":
        config.score.network.update(width=256, depth=4)
    config.score.training.update(num_steps=20_000, batch_size=128, steps_per_dispatch=50)
    config.classifier.training.update(num_steps=1500, batch_size=128, steps_per_dispatch=1, validate_every=500)
    config.evaluation.update(num_examples=1000, num_unconditional=1000, batch_size=250)


def _smoke(config: ConfigDict) -> None:
    _cpu(config)
    config.data.polymnist.max_train = 2000
    config.data.polymnist.max_test = 200
    config.autoencoder.training.update(num_steps=60, checkpoint_every=30, validate_every=30)
    config.autoencoder.training.optimizer.warmup_steps = 10
    config.score.training.update(num_steps=100, steps_per_dispatch=25, checkpoint_every=50, validate_every=50)
    config.score.training.optimizer.warmup_steps = 10
    if config.score.network.name == "transformer":
        config.score.network.update(width=64, depth=2)
    config.classifier.training.update(num_steps=100, validate_every=50)
    config.evaluation.update(num_examples=50, num_unconditional=50, batch_size=50, num_repeats=2)
