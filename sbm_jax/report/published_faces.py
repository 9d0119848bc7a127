"""Published numbers on CelebAMask-HQ, for comparison with ours."""

from sbm_jax.report.paper import Choice, Paper, Published, numbers, same

SBM_CELEBAMASK_HQ = Paper(
    title="D. Wesego and P. Rooshenas, Score-Based Multimodal Autoencoder, 4.2: CelebAMask-HQ",
    tables={
        "Table 1": {
            "sbm_rae": numbers(
                (0.62, 0.003), (0.6, 0.004), (84.9, 0.19), (86.4, 0.02), (85.6, 0.48), (0.83, 0.001), (0.82, 0.001)
            ),
            "sbm_rae_c": numbers(
                (0.66, 0.003), (0.64, 0.004), (83.6, 0.05), (82.8, 0.05), (83.1, 0.14), (0.83, 0.004), (0.82, 0.004)
            ),
            "sbm_rae_t": numbers(
                (0.77, 0.001), (0.77, 0.001), (83.1, 0.09), (82.6, 0.45), (80.2, 0.34), (0.84, 0.001), (0.84, 0.001)
            ),
            "sbm_vae": numbers(
                (0.62, 0.003), (0.58, 0.005), (81.6, 0.10), (81.9, 0.03), (78.7, 0.25), (0.83, 0.001), (0.83, 0.001)
            ),
            "sbm_vae_c": numbers(
                (0.69, 0.005), (0.66, 0.001), (82.4, 0.1), (81.7, 0.29), (76.3, 0.7), (0.84, 0.02), (0.84, 0.001)
            ),
            "sbm_vae_t": numbers(
                (0.74, 0.001), (0.74, 0.003), (80.9, 0.14), (83.0, 0.22), (73.8, 0.12), (0.84, 0.001), (0.84, 0.001)
            ),
            "mld": numbers(
                (0.71, 0.005), (0.67, 0.006), (81.7, 0.25), (82.4, 0.15), (80.29, 0.6), (0.86, 0.001), (0.86, 0.001)
            ),
            "mopoe": numbers(
                (0.68, 0.002), (0.71, 0.004), (114.9, 0.32), (101.1, 0.16), (186.7, 0.28), (0.85, 0.002), (0.92, 0.001)
            ),
            "mvtcae": numbers(
                (0.71, 0.001), (0.69, 0.004), (94.0, 0.45), (84.2, 0.32), (87.2, 0.08), (0.89, 0.001), (0.89, 0.003)
            ),
            "mmvae_plus": numbers(
                (0.64, 0.003), (0.61, 0.002), (133.0, 14.28), (97.3, 0.04), (153.0, 0.49), (0.82, 0.003), (0.89, 0.002)
            ),
            "supervised": numbers(None, (0.79, 0.001), None, None, None, None, (0.94, 0.001)),
        },
        "Table 2": {
            "sbm_vae": numbers((79.1, 0.07)),
            "sbm_rae": numbers((84.2, 0.25)),
            "mld": numbers((82.8, 0.08)),
            "mopoe": numbers((164.8, 0.62)),
            "mvtcae": numbers((162.2, 1.08)),
            "mmvae_plus": numbers((103.7, 0.61)),
        },
        "Table 3": {
            "mopoe": (Published(0.574, 0.001), Published(0.191)),
            "mvtcae": (Published(0.595, 0.002), Published(0.137)),
            "mmvae_plus": (Published(0.576, 0.001), Published(0.056)),
            "sbm_rae_t": (Published(0.490, 0.001), Published(0.363)),
            "sbm_vae_c": (Published(0.634, 0.002), Published(0.039)),
        },
        "Table 11": {
            "sbm_vae": numbers((0.837, 0.02), (0.627, 0.01), (80.96, 0.2)),
            "mopoe": numbers((0.853, 0.001), (0.680, 0.02), (116.5, 0.5)),
            "mvtcae": numbers((0.895, 0.04), (0.695, 0.03), (99.49, 0.4)),
        },
    },
    settings={
        "data.celebamask_hq.size": same(128),
        "modalities.0.latent_size": same(256),
        "modalities.0.scale": Choice("0.71: the squared error", (0.5**0.5,)),
        "modalities.0.codec.beta": same(0.1),
        "modalities.1.codec.beta": same(1.0),
        "modalities.2.codec.beta": same(0.1),
        "modalities.0.codec.rae_beta": same(1e-4),
        "modalities.0.codec.rae_noise": Choice("0.001 (called a variance)", (1e-3,)),
        "autoencoder.alignment": same(0.0),
        "score.network.name": same("unet"),
        "score.network.width": Choice("256 (its code)", (256,)),
        "score.sde.beta_min": same(0.1),
        "score.sde.beta_max": same(20.0),
        "score.posterior": same("mean"),
        "score.training.batch_size": same(256),
        "score.training.optimizer.learning_rate": Choice("5e-5 (its code)", (5e-5,)),
        "score.training.optimizer.schedule": same("constant"),
        "score.training.optimizer.warmup_steps": Choice("0 (its code)", (0,)),
        "score.training.optimizer.ema_decay": Choice("0 (its code)", (0.0,)),
        "methods.sbm_c.separate": same(True),
        "methods.sbm_c.strength": Choice("2000 on the gradient of a batch mean: 7.8 for a sample", (7.8,)),
        "methods.joint_posterior.latent_size": same(1024),
        "methods.mopoe.beta": same(0.1),
        "methods.mopoe.given": same("mixture"),
        "methods.mvtcae.beta": same(0.5),
        "methods.mmvae_plus.beta": same(5.0),
        "sampler.solver": same("predictor_corrector"),
        "sampler.num_steps": same(1000),
        "evaluation.num_examples": same(2824),
        "evaluation.metrics.frechet.num_examples": same(2824),
    },
    further=(
        ("normalisation in autoencoders", "GroupNorm", "BatchNorm"),
        ("latents that the score model sees", "standardised", "as they are"),
        ("shrinking of images and masks", "means of the pixels that are covered", "bilinear, without them"),
        ("attacked images", "inside [0, 1]", "not clipped (its code)"),
    ),
)

DIFF_MVAE_CELEBAMASK_HQ = Paper(
    title="D. Wesego and P. Rooshenas, Multimodal ELBO with Diffusion Decoders, 4.2: CelebAMask-HQ",
    priors={"mopoe_star": (Published(139.8), Published(95.2))},
    tables={
        "Table 3": {
            "diff_mvae": numbers(
                *((0.76, 0.001), (0.75, 0.001), (42.3, 0.2), (41.9, 0.06), (45.1, 0.45), (43.5, 0.2)),
                *((0.90, 0.001), (0.90, 0.001)),
            ),
            "diff_mvae_star": numbers(
                *((0.76, 0.001), (0.76, 0.001), (28.3, 0.02), (28.5, 0.1), (32.3, 0.35), (28.4, 0.3)),
                *((0.90, 0.001), (0.90, 0.001)),
            ),
            "mopoe_star": numbers(
                *((0.74, 0.002), (0.75, 0.002), (104.8, 0.31), (105.8, 0.18), (182.3, 0.29), (139.8, 0.65)),
                *((0.90, 0.001), (0.90, 0.001)),
            ),
            "mopoe": numbers(
                *((0.68, 0.002), (0.71, 0.004), (114.9, 0.32), (101.1, 0.16), (186.7, 0.28), (164.8, 0.62)),
                *((0.85, 0.002), (0.92, 0.001)),
            ),
            "mvtcae": numbers(
                *((0.71, 0.001), (0.69, 0.004), (94.0, 0.45), (84.2, 0.32), (87.2, 0.08), (162.2, 1.08)),
                *((0.89, 0.001), (0.89, 0.003)),
            ),
            "mmvae_plus": numbers(
                *((0.64, 0.003), (0.61, 0.002), (133.0, 14.28), (97.3, 0.04), (153.0, 0.49), (103.7, 0.61)),
                *((0.82, 0.03), (0.89, 0.002)),
            ),
            "sbm_vae_c": numbers(
                *((0.69, 0.005), (0.66, 0.001), (82.4, 0.1), (81.7, 0.29), (76.3, 0.7), (79.1, 0.3)),
                *((0.84, 0.02), (0.84, 0.001)),
            ),
            "mld": numbers(
                *((0.71, 0.005), (0.67, 0.006), (81.7, 0.25), (82.4, 0.15), (80.29, 0.6), (82.8, 0.08)),
                *((0.86, 0.001), (0.86, 0.001)),
            ),
            "supervised": numbers(None, (0.79, 0.001), None, None, None, None, None, (0.94, 0.001)),
        },
    },
    settings={
        "data.celebamask_hq.size": same(128),
        "methods.diff_mvae.latent_size": same(256),
        "methods.mopoe_star.latent_size": same(256),
        "methods.mopoe_star.beta": Choice("1e-5, of losses averaged over entries", (1e-5,)),
        "methods.diff_mvae.codec.decoder.network.name": same("unet"),
        "methods.diff_mvae.codec.decoder.sampler.num_steps": Choice("1000, Euler-Maruyama", (1000,)),
        "methods.diff_mvae_star.codec.decoder.sampler.num_steps": Choice("50, DDIM", (50,)),
        "evaluation.num_examples": same(2824),
        "evaluation.metrics.frechet.num_examples": same(2824),
    },
    further=(
        ("how a latent enters the denoiser", "as a learned map beside the noisy picture", "not given"),
        ("size of the denoiser", "see the config", "not given"),
    ),
)
