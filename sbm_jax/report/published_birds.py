"""Published numbers on CUB-200-2011, for comparison with ours."""

from sbm_jax.report.paper import Choice, Paper, Published, numbers, same

DIFF_MVAE_CUB = Paper(
    title="D. Wesego and P. Rooshenas, Multimodal ELBO with Diffusion Decoders, 4.1: Caltech Birds",
    tables={
        "Table 1": {
            "diff_mvae": numbers((57.4, 0.2), (70.4, 0.05)),
            "diff_mvae_star": numbers((35.5, 0.5), (37.5, 0.1)),
            "mopoe": numbers((290.6, 0.5), (199.6, 0.75)),
            "mvtcae": numbers((176.3, 0.05), (168.9, 0.2)),
            "mld": (Published(62.6), Published(63.4)),
            "mmvae_plus": (Published(164.9), None),
        },
        "Table 2": {
            "diff_mvae": numbers((27.7, 0.01), (28.8, 0.02), (28.23, 0.01)),
            "diff_mvae_star": numbers((28.1, 0.001), (28.52, 0.02), (28.12, 0.005)),
            "mopoe": numbers((26.8, 0.03), (22.0, 0.03), (24.8, 0.05)),
            "mvtcae": numbers((27.1, 0.03), (26.6, 0.004), (28.08, 0.02)),
        },
    },
    settings={
        "data.cub.size": same(64),
        "methods.joint_posterior.latent_size": same(768),
        "methods.mopoe.beta": same(5.0),
        "methods.mvtcae.beta": same(1.0),
        "methods.diff_mvae.codec.decoder.network.name": same("unet"),
        "methods.diff_mvae.codec.decoder.sampler.num_steps": Choice("1000, Euler-Maruyama", (1000,)),
        "methods.diff_mvae_star.codec.decoder.sampler.num_steps": Choice("50, DDIM", (50,)),
        "evaluation.num_examples": same(10_000),
    },
    further=(
        ("captions", "words from scratch", "BERT and GPT-2 as in Optimus, pretrained"),
        ("training", "see the config", "500 epochs; 150 hours on two A100"),
    ),
)
