"""CelebAMask-HQ: faces, masks and attributes, with the tables of the SBM and the Diff-MVAE paper.

    python -m sbm_jax.main --config=configs/celebamask_hq.py:table --config.data.celebamask_hq.directory=CelebAMask-HQ

The directory is the unpacked official archive. `--config.data.celebamask_hq.images=IMAGES.zip` reads the images from
an archive, or from another directory, instead of the official ones. Rows without a mask or image file lack it.

The paper's settings (4.2, A.9, Table 10; in brackets those of its code, where it differs) and ours:

| setting           | paper                                         | here                                            |
|-------------------|-----------------------------------------------|-------------------------------------------------|
| images and masks  | 128x128; mask: union of all parts but skin    | the same                                        |
| autoencoders      | residual conv, /16 (mask: /32), GELU; an MLP  | the same with GroupNorm                         |
| latents           | 256, one 16x16 map each; joint VAEs 1024      | the same; ours cut into 4 tokens                |
| likelihoods       | squared error; Bernoulli for attributes       | learned scales; `paper`: squared error          |
| VAE               | beta 0.1, 1 (mask), 0.1                       | 4, 4, 1 against learned scales; `paper`: its    |
| RAE               | 1e-4, 1e-5, 1e-4; noise 1e-3, 1e-3, 0.1       | the same                                        |
| alignment         | none                                          | 150 on 16 entries; `paper`: none                |
| stage I           | Adam 2e-4, 300, 200 and 300 epochs            | 300 epochs, cosine decay                        |
| score network     | UNet 256, (1, 2, 2, 2, 2), on 16x16 maps      | transformer 512 x 8; `paper`: the UNet          |
| process           | VP (0.1, 20)                                  | the same                                        |
| stage II          | Adam (5e-5, 1000 epochs), batch 256, means    | 5e-4, cosine, EMA, samples; `paper`: its        |
| sampler           | predictor-corrector, N = 1000, snr 0.16       | SDE-DPM-Solver++ 2M, 10 steps; `paper`: its     |
| energy (-C)       | three pair networks; 2000 on a batch mean     | one network, 1 per sample; `paper`: its         |
| contrastive (-T)  | encoders and heads to 512 entries             | the same                                        |
| MoPoE, MVTCAE     | beta 0.1, 0.5                                 | the same                                        |
| MMVAE+            | beta 5, 128 shared and 128 private entries    | the same                                        |
| Diff-MVAE         | latent 256; lambda 1e-5 of averaged losses    | the same; it gives no size of its UNets         |

A step of the score network on 256 rows: `paper` has 223 million parameters, 2.7 GB with Adam's moments, and takes 6.0
TFLOP; ours has 28 million, 0.45 GB with the moments and the moving average, and takes 0.5 TFLOP. `paper` splits its
parameters over the devices (`score.training.split_parameters`).

`paper` keeps our schedule of stage I, our training of the joint VAEs, and our sampler for Diff-MVAE's decoders (10
steps of DPM-Solver++, where the paper takes 1,000 of Euler-Maruyama or 50 of DDIM).

The Diff-MVAE paper's lambda, and what it averages over, are interpreted as beta (as 6.4 states for MoPoE*).

Variants, joined by commas:

| variant       | what                                                                                                 |
|---------------|------------------------------------------------------------------------------------------------------|
| `paper`       | the paper's likelihoods, networks, objective, process, guidance and sampler                          |
| `best`        | only our best row, with and without a diffusion decoder, and the supervised networks                 |
| `diffusion`   | Diff-MVAE, Diff-MVAE*, MoPoE* and diffusion decoders over our best row, beside the Diff-MVAE paper   |
| `table`       | every row of the SBM paper's Table 1 and of the Diff-MVAE paper's Table 3, including ours            |
| `missing`     | Table 11: a fifth of each modality hidden in training; with few masks, also without the other rows   |
| `cpu`         | 64x64, small networks and few steps, on two cores                                                    |
| `smoke`       | minutes on a CPU: tests the pipeline, learns little                                                  |
"""

from typing import Any

from ml_collections import ConfigDict

import sbm_jax
from sbm_jax.data.celebamask_hq import ATTRIBUTES
from sbm_jax.presets import PAPER_SCALE, PAPER_SCORE, latent_training, training

NUM_TRAIN, BATCH = 24_183, 256

SCORED = tuple(f"sbm_{autoencoder}{suffix}" for autoencoder in ("vae", "rae") for suffix in ("", "_c", "_t", "_m"))
BASELINES = ("mld", "mopoe", "mvtcae", "mmvae_plus")
DIFF_MVAE = ("diff_mvae", "diff_mvae_star", "mopoe_star")


def get_config(variants: str = "") -> ConfigDict:
    """Return the experiment with the given variants."""
    chosen = [variant for variant in variants.split(",") if variant]
    # Always in this order, regardless of the command line.
    known = {
        "diffusion": _diffusion,
        "table": _table,
        "best": _best,
        "cpu": _cpu,
        "smoke": _smoke,
        "paper": _paper,
        "missing": _missing,
    }
    for variant in chosen:
        if variant not in known:
            raise ValueError(f"unknown variant {variant!r} of configs/celebamask_hq.py; known: {', '.join(known)}.")
    if len(some := {"best", "paper", "table", "diffusion"} & {*chosen}) > 1 and some != {"paper", "table"}:
        raise ValueError(f"{', '.join(sorted(some))} exclude each other; 'table' has the rows of all.")
    config = sbm_jax.default_config()
    config.systems = (*SCORED, "supervised")
    config.published = "sbm_celebamask_hq"
    config.data.name = "celebamask_hq"
    config.data.celebamask_hq.directory = "data/CelebAMask-HQ"
    for part in (_modalities, _autoencoder, _score, _methods, _judges):
        part(config)
    for variant in known:
        if variant in chosen:
            known[variant](config)
    config.name = "_".join(["celebamask_hq", *sorted(chosen)])
    return config


# The reductions of both encoders follow a first convolution and a halving.
IMAGE = {"widths": (128, 256, 512), "stem": 64, "smooth": True}
MASK = {"widths": (128, 256), "factors": (4, 4), "stem": 64, "smooth": True}
ATTRIBUTE = {"widths": (128, 256, 512, 512)}


def _modalities(config: ConfigDict) -> None:
    common = {"latent_size": 256, "num_tokens": 4}
    image = {"name": "residual_conv", "network": IMAGE, "beta": 4.0, "rae_beta": 1e-4, "rae_noise": 1e-3}
    mask = {"name": "residual_conv", "network": MASK, "beta": 4.0, "rae_beta": 1e-5, "rae_noise": 1e-3}
    attributes = {"name": "mlp", "network": ATTRIBUTE, "beta": 1.0, "rae_beta": 1e-4, "rae_noise": 0.1}
    unit = {"bounds": (0.0, 1.0)}
    words = {"name": "binary", "options": {"dtype": "float32", "names": ATTRIBUTES}}
    config.modalities = (
        {"name": "image", "shape": (128, 128, 3), "codec": image, **unit, **common},
        {"name": "mask", "shape": (128, 128, 1), "codec": mask, **unit, **common},
        {
            "name": "attributes",
            "shape": (18,),
            "likelihood": "bernoulli",
            "format": words,
            "codec": attributes,
            **common,
        },
    )


def _autoencoder(config: ConfigDict) -> None:
    config.autoencoder.alignment = 150.0
    config.autoencoder.network.dtype = "bfloat16"
    config.autoencoder.training.update(_epochs(300, 2e-4, ema_decay=0.999, clip_norm=1e3))


def _score(config: ConfigDict) -> None:
    config.score.probability_alone = 0.15
    config.score.network.update(width=512, depth=8, dtype="bfloat16")
    config.score.training.update(_epochs(500, 5e-4, ema_decay=0.999, clip_norm=1.0))
    config.sampler.num_steps = 10


def _methods(config: ConfigDict) -> None:
    methods, joint = config.methods, config.methods.joint_posterior
    methods.sbm_c.width = 512
    methods.sbm_c.training.update(_epochs(500, 5e-4, ema_decay=0.999))
    methods.sbm_t.embedding_size = 512
    methods.sbm_t.network.dtype = "bfloat16"
    methods.sbm_t.training.update(_epochs(50, 1e-3, ema_decay=0.999, weight_decay=1e-2))
    methods.mld.network.update(width=1536, dtype="bfloat16")
    methods.mld.training.update(_epochs(500, 5e-4, ema_decay=0.999, clip_norm=1.0))
    joint.latent_size = 1024
    joint.network.dtype = "bfloat16"
    joint.training.update(training(300 * NUM_TRAIN // 128, 128, 2000, 1, 500, learning_rate=2e-4, ema_decay=0.999))
    joint.score_prior.update(config.score.to_dict())
    methods.mopoe.update(likelihood="", beta=0.1)
    methods.mvtcae.update(likelihood="", beta=0.5)
    methods.mmvae_plus.update(beta=5.0, latent_size=128, private_size=128)
    denoiser = {"name": "unet", "width": 128, "depth": 2, "multipliers": (1, 2, 2, 3, 4), "attention": (3,), "heads": 8}
    denoiser |= {"dtype": "bfloat16"}
    methods.diffusion_decoder.modalities = ("image",)  # masks are decoded in one pass, as in the papers
    methods.diffusion_decoder.decoder.network.update(denoiser)
    refining = _epochs(300, 2e-4, ema_decay=0.9999, clip_norm=1.0)
    methods.diffusion_decoder.training.update({**refining, "split_parameters": True})
    trunk = {"name": "residual_conv", "network": {**IMAGE, "dtype": "bfloat16"}}
    decoder = {"network": denoiser, "sde": {"name": "vp"}, "sampler": {"num_steps": 10}}
    for method in (methods.diff_mvae, methods.diff_mvae_star):
        method.update(latent_size=256, diffused=("image",))
        method.codec = {"trunk": trunk, "decoder": decoder}
    methods.mopoe_star.latent_size = 256
    methods.supervised.source = "image"
    methods.supervised.pictures.update(width=64, depth=1, multipliers=(1, 2, 2, 4), dtype="bfloat16")
    methods.supervised.training.update(_epochs(30, 1e-3, weight_decay=1e-2))


def _judges(config: ConfigDict) -> None:
    config.classifier = None
    denoiser = config.methods.supervised.pictures.to_dict()
    training_of_readers = {"pictures": denoiser, "training": _epochs(10, 1e-3)}
    _readers(config, training_of_readers)
    config.evaluation.update(num_examples=2824, num_unconditional=2824, batch_size=256)
    metrics = config.evaluation.metrics
    for name in ("coherence", "class_shares", "diversity", "classifier", "likelihood"):
        metrics[name] = None
    for target in ("attributes", "mask"):
        metrics[f"{target}_f1_given_rest"] = ConfigDict({"name": "f1", "modality": target})
        metrics[f"{target}_f1_given_image"] = ConfigDict({"name": "f1", "modality": target, "given": ("image",)})
    metrics.iou = ConfigDict({"modality": "mask", "given": ("image",)})
    each = {"modality": "attributes", "given": ("image",), "names": ATTRIBUTES}
    metrics.per_attribute = ConfigDict(each)
    attack = {"modality": "attributes", "given": ("image",), "strengths": (0.01, 0.02, 0.05, 0.1)}
    metrics.robustness = ConfigDict(attack)
    for target in ("attributes", "mask"):
        read = {"name": "readings", "modality": "image", "target": target}
        metrics[f"{target}_read_given_rest"] = ConfigDict(read)
    metrics.frechet.update(num_examples=2824, modalities=("image",), space="inception")
    metrics.frechet.sets = ("given_rest", "from_one", "unconditional", "reconstruction")


def _readers(config: ConfigDict, options: dict) -> None:
    """Set the readers of attributes and masks from images, whose gradients also attack."""
    config.readers = tuple({"source": "image", "target": name, **options} for name in ("attributes", "mask"))


def _epochs(number: int, learning_rate: float, **optimizer: Any) -> dict:
    return training(number * NUM_TRAIN // BATCH, BATCH, 2000, 1, 500, learning_rate=learning_rate, **optimizer)


def _diffusion(config: ConfigDict) -> None:
    """Set the Diff-MVAE paper's own rows, with its score prior, beside our best row."""
    priors = tuple(f"{name}_score" for name in DIFF_MVAE)
    config.systems = (*DIFF_MVAE, *priors, "sbm_vae_m", "sbm_vae_m_diffusion", "supervised")
    config.published = "diff_mvae_celebamask_hq"


def _table(config: ConfigDict) -> None:
    config.systems = (*SCORED, *BASELINES, *DIFF_MVAE, "sbm_vae_m_diffusion", "supervised")


def _best(config: ConfigDict) -> None:
    config.systems = ("sbm_vae_m_diffusion", "sbm_vae_m", "supervised")


def _on_cpu(config: ConfigDict) -> bool:
    return config.score.network.dtype == "float32"


def _paper(config: ConfigDict) -> None:
    methods, small = config.methods, _on_cpu(config)
    # The paper refines the samples of SBM-VAE (A.10.2).
    refined = {"sbm_vae_m_diffusion": "sbm_vae_diffusion"}
    config.systems = tuple(refined.get(name, name) for name in config.systems if not name.endswith("_m"))
    betas = {"image": 0.1, "mask": 1.0, "attributes": 0.1}
    config.modalities = tuple(
        {**m, "codec": {**m["codec"], "beta": betas[m["name"]]}, "num_tokens": 1}
        | ({} if m["name"] == "attributes" else {"scale": PAPER_SCALE})
        for m in config.modalities
    )
    config.autoencoder.alignment = 0.0
    config.autoencoder.training.optimizer.ema_decay = 0.0
    config.update_from_flattened_dict(PAPER_SCORE)
    config.score.posterior = "mean"
    config.score.sde.update(beta_min=0.1, beta_max=20.0)
    if not small:
        config.score.network.update(width=256, multipliers=(1, 2, 2, 2, 2))
        config.score.training.update(_epochs(1000, 5e-5, schedule="constant"))
        config.score.training.optimizer.warmup_steps = 0
        config.score.training.split_parameters = True
        config.sampler.num_steps = 1000
    methods.sbm_c.update(separate=True, probability_clean=0.0, gaussian_weight=0.5, strength=7.8)
    methods.sbm_t.update(probability_none=0.0, strength=0.0)
    methods.mopoe.given = "mixture"


def _missing(config: ConfigDict) -> None:
    """Set Table 11, and a study of what rows without a mask contribute."""
    systems = tuple(name for name in ("sbm_vae", "sbm_vae_m", "mopoe", "mvtcae") if name in config.systems)
    changes = {"systems": systems, "evaluation.metrics.robustness": None}
    changes["evaluation.metrics.frechet.sets"] = ("given_rest",)
    hidden = {"study": "missing", "value": "0.2", "changes": {**changes, "data.missing": 0.2}}
    alone = {"study": "missing", "value": "complete rows only", "changes": {**changes, "data.complete": True}}
    config.variations = (*config.variations, hidden, alone)


def _cpu(config: ConfigDict) -> None:
    methods, joint = config.methods, config.methods.joint_posterior
    config.data.celebamask_hq.size = 64
    patch = {"image": {"widths": (96, 96), "patch": 8}, "mask": {"widths": (64,), "patch": 8}}
    config.modalities = tuple(
        {**m, "latent_size": 64, "num_tokens": 1, "codec": {**m["codec"], "network": {"widths": (128, 128)}}}
        if m["name"] == "attributes"
        else {
            **m,
            "shape": (64, 64, m["shape"][-1]),
            "codec": {**m["codec"], "name": "patch", "network": patch[m["name"]]},
        }
        for m in config.modalities
    )
    config.autoencoder.network.dtype = "float32"
    config.autoencoder.training.update(_small(4000, 64, 4e-3, clip_norm=500.0, ema_decay=0.999))
    config.score.network.update(width=192, depth=4, dtype="float32")
    config.score.training.update(latent_training(8000, learning_rate=1.5e-3))
    methods.sbm_c.width = 256
    methods.sbm_c.training.update(latent_training(6000, 256, learning_rate=1e-3))
    methods.sbm_t.embedding_size = 64
    methods.sbm_t.network.dtype = "float32"
    methods.sbm_t.training.update(_small(2000, 64, 1e-3, weight_decay=1e-2, ema_decay=0.999))
    methods.mld.network.update(width=768, dtype="float32")
    methods.mld.training.update(latent_training(8000, learning_rate=1e-3))
    joint.latent_size = 256
    joint.network.dtype = "float32"
    joint.training.update(_small(3000, 64, 2e-3, clip_norm=500.0, ema_decay=0.999))
    joint.score_prior.network.update(width=192, depth=4, dtype="float32")
    joint.score_prior.training.update(latent_training(4000, learning_rate=1.5e-3))
    denoiser = {"name": "patch", "width": 96, "depth": 4, "head": 384, "patch": 4, "dtype": "float32"}
    methods.diffusion_decoder.decoder.network.update(denoiser)
    methods.diffusion_decoder.training.update(_small(6000, 8, 3e-3, clip_norm=1.0, ema_decay=0.998))
    methods.diffusion_decoder.training.split_parameters = False
    trunk = {"name": "patch", "network": {"widths": (96, 96), "patch": 8}}
    decoder = {"network": denoiser, "sde": {"name": "vp"}, "sampler": {"num_steps": 10}}
    for method in (methods.diff_mvae, methods.diff_mvae_star):
        method.codec = {"trunk": trunk, "decoder": decoder}
        method.training = {"num_steps": 6000, "batch_size": 16}
    methods.mmvae_plus.update(latent_size=64, private_size=64)
    methods.supervised.pictures.update(name="patch", width=96, depth=4, patch=4, dtype="float32")
    methods.supervised.training.update(_small(3000, 64, 2e-3, weight_decay=1e-2, ema_decay=0.999))
    read = {"pictures": methods.supervised.pictures.to_dict(), "training": _small(1500, 64, 2e-3, weight_decay=1e-2)}
    _readers(config, read)
    config.evaluation.update(num_examples=1000, num_unconditional=500, batch_size=250)
    # 139 test rows have a mask; three samples of each.
    frechet = config.evaluation.metrics.frechet
    frechet.update(num_examples=417, num_real=1000, all_repeats=True, reference="train")
    frechet.sets = ("given_rest", "from_one", "unconditional")


def _small(num_steps: int, batch: int, learning_rate: float, **optimizer: Any) -> dict:
    return training(num_steps, batch, 500, 1, 100, learning_rate=learning_rate, **optimizer)


def _smoke(config: ConfigDict) -> None:
    methods = config.methods
    _cpu(config)
    config.data.celebamask_hq.update(size=32, max_train=300, max_test=60)
    config.modalities = tuple(
        m if m["name"] == "attributes" else {**m, "shape": (32, 32, m["shape"][-1])} for m in config.modalities
    )
    joint = (methods.joint_posterior, methods.supervised, methods.sbm_t, methods.diffusion_decoder)
    for stage in (config.autoencoder, *joint):
        stage.training.update(num_steps=20, batch_size=16, checkpoint_every=20, validate_every=20)
        stage.training.optimizer.warmup_steps = 5
    few = training(20, 16, 20, 1, 5, learning_rate=2e-3)
    _readers(config, {"pictures": methods.supervised.pictures.to_dict(), "training": few})
    for method in (methods.diff_mvae, methods.diff_mvae_star):
        method.training = {"num_steps": 20, "batch_size": 8}
    for stage in (config.score, methods.sbm_c, methods.mld, methods.joint_posterior.score_prior):
        stage.training.update(num_steps=50, batch_size=32, checkpoint_every=50, validate_every=50)
        stage.training.optimizer.warmup_steps = 5
    config.sampler.num_steps = 4
    config.evaluation.update(num_examples=20, num_unconditional=20, batch_size=20, num_repeats=2)
    config.evaluation.metrics.robustness.strengths = (0.05,)
    config.evaluation.metrics.frechet.num_examples = 0
