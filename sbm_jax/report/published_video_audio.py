"""Published numbers on video and sound, for comparison with ours."""

from sbm_jax.report.paper import Choice, Paper, Published, same

SBM_VIDEO_AUDIO = Paper(
    title="D. Wesego and P. Rooshenas, Score-Based Multimodal Autoencoder, A.8: video and audio",
    tables={
        "Table 9": {
            "sbm_vae": (Published(99.02), Published(3.31), Published(101.19), Published(8.23)),
            "CoDi, on these data": (None, None, Published(100.4), Published(14.9)),
            "CoDi, on COCO and AudioCaps": (None, None, Published(11.26), Published(1.80)),
        },
    },
    settings={
        "data.video_files.seconds": same(2.0),
        "data.video_files.frame_rate": same(8.0),
        "data.video_files.size": same(256),
        "modalities.0.codec.name": Choice("a pretrained autoencoder of images", ("autoencoder_kl",)),
        "modalities.1.codec.name": Choice("a pretrained autoencoder of mel spectrograms", ("autoencoder_kl",)),
        "score.network.name": same("unet"),
        "evaluation.num_examples": same(2000),
    },
    further=(
        ("data", "see the config", "about 100,000 clips of SoundNet"),
        ("sizes, training and sampling of the score model", "see the config", "not given"),
        ("which modality is given", "the other one", "not given"),
        ("sounds that FAD compares", "both made from spectrograms", "not given"),
    ),
)
