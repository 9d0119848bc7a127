"""Extended PolyMNIST of the SBM paper, on real MNIST and photographs.

    python -m sbm_jax.main --config=configs/polymnist.py --config.data.polymnist.digits_directory=MNIST
        --config.data.polymnist.backgrounds_directory=PHOTOS

MNIST holds the four canonical files, PHOTOS at least as many images as there are modalities. The official PolyMNIST
archive is read with `--config.data.polymnist.archive=MMNIST`.

The paper's settings (A.2, Table 4; where its code differs, the code's in brackets) and ours:

| setting         | paper                                       | here                                                |
|-----------------|---------------------------------------------|-----------------------------------------------------|
| autoencoders    | residual conv 64-128-256, BatchNorm         | the same with GroupNorm, which has no hidden state  |
| latents         | 64, Gaussian likelihood (squared error)     | the same                                            |
| VAE             | beta 0.1 (script: 0.5)                      | beta 0.1                                            |
| RAE             | weight 1e-5, noise variance 0.01 (std 0.01) | weight 1e-5, noise std 0.01                         |
| stage I         | Adam 1e-3, batch 256, 200 epochs, plateaus  | 200 epochs, cosine decay; RAE too (paper: 100)      |
| score network   | UNet on 8x8 maps, width 128 (64 for M < 6)  | transformer; `paper`: the UNet                      |
| objective       | one time, weight 1 (sigma^2)                | a time for each modality; `paper`: one, sigma^2     |
| process         | VP (0.1, 5); (1, 5) for M < 10              | VP (0.1, 20), which ends at N(0, I); `paper`: its   |
| stage II        | Adam 2e-4 (5e-4), batch 256, 500 epochs     | 5e-4, cosine, EMA; `paper`: 2e-4, constant, no EMA  |
| training latents| posterior samples (means)                   | samples, observed ones by their means               |
| sampler         | predictor-corrector, N = 100, snr 0.16      | SDE-DPM-Solver++ 2M, 20 steps; `paper`: its         |
| energy (-C)     | one random pair, both members at one time;  | all pairs, observed clean in half of them, strength |
|                 | strength 1000 on a batch mean (3.9 a sample)| 1 a sample; `paper`: its, with Gaussian negatives   |
| contrastive (-T)| non-empty sets, embedding only              | all sets, with strength (1 + w) cond - w uncond     |

Latents are standardised, which the paper does not do. Variants, joined by commas: `five` (five modalities), `paper`
(the paper's network, objective, process and sampler), `cpu` (small networks and few steps), `smoke` (minutes on a CPU:
proves the path, learns little).
"""

from ml_collections import ConfigDict, config_dict

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
        {"name": f"m{i}", "shape": (28, 28, 3), "latent_size": latent_size, "kind": kind, "bounds": (0.0, 1.0)}
        for i in range(number)
    )


def _training(num_steps: int, learning_rate: float, every: int, **optimizer) -> dict:
    return {
        "num_steps": num_steps,
        "batch_size": BATCH,
        "steps_per_dispatch": 50,
        "checkpoint_every": every,
        "validate_every": every,
        "optimizer": {
            "learning_rate": learning_rate,
            "schedule": "cosine",
            "warmup_steps": 500,
            "weight_decay": 0.0,
            "clip_norm": 0.0,
            "ema_decay": 0.0,
            **optimizer,
        },
    }


def _base() -> ConfigDict:
    config = ConfigDict()
    config.name = "polymnist"
    config.seed = 0
    config.systems = ("sbm_vae", "sbm_vae_c", "sbm_vae_t", "sbm_rae", "sbm_rae_c", "sbm_rae_t")
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
                "seed": 0,
                "rounds": 1,
                "test_rounds": 1,
                "augment": 0.0,
                "max_train": config_dict.placeholder(int),
                "max_test": config_dict.placeholder(int),
            },
            "arrays": {"directory": "", "validation_fraction": 0.1, "seed": 0},
        }
    )
    config.modalities = _modalities(10, "residual_conv", 64)
    config.autoencoder = ConfigDict(
        {
            "beta": 0.1,
            "rae_beta": 1e-5,
            "rae_noise": 0.01,
            "network": {"widths": (64, 128, 256), "dtype": "bfloat16"},
            "training": _training(200 * NUM_TRAIN // BATCH, 1e-3, every=2000, ema_decay=0.999),
        }
    )
    config.score = ConfigDict(
        {
            "prediction": "velocity",
            "weighting": "velocity",
            "probability_none": 0.2,
            "posterior": "sample",
            "network": {
                "name": "transformer",
                "width": 512,
                "depth": 8,
                "dropout": 0.0,
                "dtype": "bfloat16",
                "paper_unet": False,
            },
            "sde": {"name": "vp", "beta_min": 0.1, "beta_max": 20.0, "sigma_min": 0.01, "sigma_max": 50.0},
            "training": _training(500 * NUM_TRAIN // BATCH, 5e-4, every=5000, ema_decay=0.999, clip_norm=1.0),
        }
    )
    config.energy = ConfigDict(
        {
            "width": 512,
            "depth": 4,
            "probability_clean": 0.5,
            "gaussian_weight": 0.0,
            "strength": 1.0,
            "pairs": "all",
            "training": _training(100 * NUM_TRAIN // BATCH, 5e-4, every=2000, ema_decay=0.999),
        }
    )
    config.contrastive = ConfigDict(
        {
            "embedding_size": 64,
            "dropout": 0.1,
            "temperature": 0.07,
            "probability_none": 0.2,
            "probability_absent": 0.5,
            "strength": 1.0,
            "network": {"widths": (64, 128, 256), "dtype": "bfloat16"},
            "training": _training(50 * NUM_TRAIN // BATCH, 1e-3, every=2000, ema_decay=0.999, weight_decay=1e-2),
        }
    )
    config.classifier = ConfigDict(
        {
            "widths": (32, 64, 128),
            "hidden": 512,
            "dropout": 0.3,
            "training": _training(6000, 1e-3, every=1000, weight_decay=1e-2),
        }
    )
    config.sampler = ConfigDict(
        {
            "solver": "sde_dpm_solver_pp_2m",
            "num_steps": 20,
            "grid": "log_snr",
            "conditioning": "per_modality",
            "start_time": 1.0,
            "end_time": 3e-3,
            "snr": 0.16,
            "corrector_steps": 1,
            "resampling": 1,
            "num_particles": 16,
            "start": "prior",
            "unroll": 0,
            "chunk_size": 0,
            "divergence_bound": 100.0,
        }
    )
    config.evaluation = ConfigDict(
        {
            "num_examples": 10_000,
            "num_unconditional": 10_000,
            "batch_size": 500,
            "num_repeats": 3,
            "num_figure_examples": 4,
            "sets": ("given_rest", "random", "fixed_order", "unconditional", "diversity"),
        }
    )
    return config


def _five(config: ConfigDict) -> None:
    config.data.polymnist.num_modalities = 5
    config.modalities = config.modalities[:5]


def _paper(config: ConfigDict) -> None:
    many = len(config.modalities) == 10
    config.score.network.update(name="unet", width=128 if many else 64, paper_unet=True)
    config.score.sde.update(beta_min=0.1 if many else 1.0, beta_max=5.0)
    config.score.update(prediction="score", weighting="noise", probability_none=1.0)
    config.score.training.optimizer.update(
        learning_rate=2e-4, schedule="constant", warmup_steps=0, ema_decay=0.0, clip_norm=0.0
    )
    # A strength of 1000 on the gradient of a mean over a batch of 256 is 3.9 per sample.
    config.energy.update(probability_clean=0.0, gaussian_weight=0.5, strength=3.9, pairs="random")
    config.sampler.update(
        solver="predictor_corrector", num_steps=100, grid="uniform", conditioning="clean", end_time=1e-3
    )


def _cpu(config: ConfigDict) -> None:
    config.modalities = _modalities(len(config.modalities), "patch", 64)
    config.systems = ("sbm_vae",)
    config.autoencoder.network = ConfigDict({"widths": (64, 64), "dtype": "float32"})
    config.autoencoder.beta = 0.4
    config.autoencoder.training.optimizer.learning_rate = 4e-3
    config.autoencoder.training.update(num_steps=4000, batch_size=64, steps_per_dispatch=1, checkpoint_every=500)
    config.score.network.dtype = "float32"
    if config.score.network.name == "transformer":
        config.score.network.update(width=256, depth=4)
    config.score.training.update(num_steps=20_000, batch_size=128, steps_per_dispatch=50)
    config.energy.training.update(num_steps=10_000)
    config.contrastive.network = ConfigDict({"widths": (64, 64), "dtype": "float32"})
    config.contrastive.training.update(num_steps=2000, batch_size=64, steps_per_dispatch=1, checkpoint_every=500)
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
    config.energy.training.update(num_steps=100, steps_per_dispatch=25, checkpoint_every=50, validate_every=50)
    config.contrastive.training.update(num_steps=30, checkpoint_every=30, validate_every=30)
    for stage in (config.energy, config.contrastive):
        stage.training.optimizer.warmup_steps = 10
    config.classifier.training.update(num_steps=100, validate_every=50)
    config.evaluation.update(num_examples=50, num_unconditional=50, batch_size=50, num_repeats=2)
