"""A config whose stages of every kind take seconds: two vectors and a picture that show one of four classes."""

from ml_collections import ConfigDict


def _training(num_steps: int) -> dict:
    return {
        "num_steps": num_steps,
        "batch_size": 16,
        "steps_per_dispatch": 5,
        "checkpoint_every": 10,
        "validate_every": 20,
        "optimizer": {"learning_rate": 3e-3, "ema_decay": 0.9},
    }


def get_config(directory: str = "") -> ConfigDict:
    """Return the experiment on the arrays in a directory."""
    sizes = {"a": ((5,), 4), "b": ((6,), 3), "c": ((4, 4, 1), 4)}
    autoencoder = {"widths": (32,), "dtype": "float32"}
    network = {"name": "transformer", "width": 32, "depth": 1}
    denoiser = {"name": "patch", "width": 16, "depth": 1}
    return ConfigDict(
        {
            "name": "tiny",
            "seed": 0,
            "systems": ("sbm_vae_c", "mopoe_mixture"),
            "data": {"name": "arrays", "arrays": {"directory": directory}},
            "modalities": tuple(
                {"name": name, "shape": shape, "latent_size": latent, "codec": "mlp"}
                for name, (shape, latent) in sizes.items()
            ),
            "autoencoder": {"training": _training(60), "network": autoencoder},
            "score": {"training": _training(60), "network": network},
            "methods": {
                "sbm_c": {"training": _training(40), "width": 16, "depth": 2},
                "joint_posterior": {
                    "training": _training(60),
                    "latent_size": 4,
                    "network": autoencoder,
                    "score_prior": {"training": _training(40), "network": network},
                    "mixture_components": 3,
                },
                "sbm_t": {"training": _training(40), "network": autoencoder, "embedding_size": 4},
                "sbm_f": {"training": _training(20)},
                "eb_mvae": {"training": _training(40), "width": 16, "depth": 1, "num_steps": 4},
                "diffusion_decoder": {"training": _training(20), "decoder": {"network": denoiser}},
                "diff_mvae": {"codec": {"decoder": {"network": denoiser}}},
                "diff_mvae_star": {"codec": {"decoder": {"network": denoiser}}},
                "mld": {"training": _training(40), "network": {"name": "mlp_unet", "width": 16, "depth": 1}},
            },
            "classifier": {"training": _training(60), "hidden": 16},
            "sampler": {"num_steps": 4},
            "evaluation": {
                "num_examples": 30,
                "num_unconditional": 30,
                "batch_size": 30,
                "num_repeats": 1,
                "metrics": {
                    "coherence": {"sets": ("given_rest", "unconditional")},
                    "class_shares": {},
                    "reconstruction": {},
                    "classifier": {},
                    "sampling": {},
                },
            },
        }
    )
