"""Video and sound of any video files: the largest experiment of the SBM paper (A.8).

    python -m sbm_jax.main --config=configs/video_audio.py --config.data.video_files.directory=DIR

Frames and spectrograms are encoded by frozen pretrained autoencoders; one UNet is trained over both latents; a
pretrained vocoder synthesises the sound. The weights are expected in `data/weights`:

| file                          | network                           | where `networks.pretrained` says how to get it   |
|-------------------------------|-----------------------------------|--------------------------------------------------|
| `image_autoencoder`           | Stable Diffusion's AutoencoderKL  | `autoencoder_kl`                                 |
| `sound_autoencoder`           | AudioLDM's, of mel spectrograms   | `hifi_gan`, in `vae` beside `vocoder`            |
| `vocoder`                     | AudioLDM's HiFi-GAN               | `hifi_gan`                                       |
| `vggish`                      | VGGish, for FAD                   | `vggish`                                         |

all with the extension `.safetensors`; FID needs the weights of Inception-v3. The paper's settings and ours:

| setting              | paper                                      | here                                             |
|----------------------|--------------------------------------------|--------------------------------------------------|
| data                 | 100,000 clips of SoundNet                  | all clips of the files that fit in memory        |
| video                | 2 s, 8 frames a second, 256x256            | the same                                         |
| video's latent       | not given                                  | 16 maps of 32x32x4, a token for each cell        |
| sound                | mel spectrogram                            | 16 kHz, 64 bands, as AudioLDM; 2 s, then silence |
| sound's latent       | not given                                  | a map of 64x16x8, in two halves side by side     |
| score network        | UNet                                       | UNet of ConvNeXt blocks over maps of 32x32       |
| held out             | 2,000 clips                                | the same, where there are as many                |

The silence makes both latents maps of one size, which the UNet needs. The latents of all training clips are held in
memory, half a megabyte each. Nothing has been measured at these sizes.

Variants, joined by commas: `smoke` (small autoencoders from scratch, frames of 32x32 and half a second; minutes on a
CPU: tests the pipeline, learns little).
"""

from typing import Any

from ml_collections import ConfigDict

import sbm_jax
from sbm_jax.presets import training

WEIGHTS = "data/weights"
NUM_TRAIN, BATCH = 100_000, 64

# AudioLDM's autoencoder: one input channel, and latent maps of 8 channels at a quarter of the length and height.
OF_SOUND = {"channels": 1, "latent_channels": 8, "widths": (128, 256, 512), "scaling": 0.9227914214134216}
LOGARITHMS = (-11.5129, 2.5)


def get_config(variants: str = "") -> ConfigDict:
    """Return the experiment with the given variants."""
    chosen = [variant for variant in variants.split(",") if variant]
    known = {"smoke": _smoke}
    for variant in chosen:
        if variant not in known:
            raise ValueError(f"unknown variant {variant!r} of configs/video_audio.py; known: {', '.join(known)}.")
    config = sbm_jax.default_config()
    config.systems = ("sbm_vae",)
    config.published = "sbm_video_audio"
    config.data.name = "video_files"
    config.data.video_files.directory = "data/videos"
    for part in (_modalities, _score, _judges):
        part(config)
    for variant in chosen:
        known[variant](config)
    config.name = "_".join(["video_audio", *sorted(chosen)])
    return config


def _modalities(config: ConfigDict) -> None:
    of_frames = {"weights": f"{WEIGHTS}/image_autoencoder.safetensors", "frozen": True}
    of_sound = {"weights": f"{WEIGHTS}/sound_autoencoder.safetensors", "frozen": True}
    of_sound |= {"sizes": OF_SOUND, "values": LOGARITHMS}  # it takes the logarithms as they are
    mel = {"rate": 16_000, "length": 256 * 160, "hop": 160, "window": 1024, "num_mels": 64, "pad": True}
    mel |= {"logarithms": LOGARITHMS, "vocoder": f"{WEIGHTS}/vocoder.safetensors"}
    config.modalities = (
        _video((16, 256, 256, 3), 8.0, 16 * 32 * 32 * 4, 32 * 32, of_frames),
        _sound((256, 64, 1), mel, 64 * 16 * 8, 64 * 16, of_sound),
    )


def _video(shape: tuple, rate: float, latent_size: int, num_tokens: int, network: dict) -> dict[str, Any]:
    form = {"name": "video", "options": {"rate": rate}}
    return _modality("video", shape, latent_size, num_tokens, network, form)


def _sound(shape: tuple, mel: dict, latent_size: int, num_tokens: int, network: dict) -> dict[str, Any]:
    return _modality("sound", shape, latent_size, num_tokens, network, {"name": "log_mel", "options": mel})


def _modality(name: str, shape: tuple, latent_size: int, num_tokens: int, network: dict, form: dict) -> dict[str, Any]:
    codec = {"name": "autoencoder_kl", "network": network}
    sizes = {"shape": shape, "latent_size": latent_size, "num_tokens": num_tokens}
    return {"name": name, **sizes, "bounds": (0.0, 1.0), "codec": codec, "format": form}


def _score(config: ConfigDict) -> None:
    config.score.network.update(name="unet", width=256, multipliers=(1, 2, 3, 4), dtype="bfloat16")
    config.score.training.update(
        training(100 * NUM_TRAIN // BATCH, BATCH, 5000, 1, 2000, learning_rate=2e-4, ema_decay=0.9999, clip_norm=1.0)
    )
    config.sampler.num_steps = 50


def _judges(config: ConfigDict) -> None:
    config.classifier = None
    config.evaluation.vggish.weights = f"{WEIGHTS}/vggish.safetensors"
    config.evaluation.update(num_examples=2000, num_unconditional=2000, batch_size=20, num_repeats=1)
    metrics = config.evaluation.metrics
    for name in ("coherence", "class_shares", "diversity", "classifier", "likelihood", "sharpness"):
        metrics[name] = None
    metrics.frechet.update(num_examples=2000, modalities=("video",), space="inception")
    sound = {**metrics.frechet.to_dict(), "modalities": ("sound",), "space": "vggish"}
    metrics.sound = ConfigDict({"name": "frechet", **sound})


def _smoke(config: ConfigDict) -> None:
    small = {"widths": (8, 8, 8), "groups": 4, "depth": 1, "latent_channels": 2, "scaling": 1.0}
    mel = {"rate": 8000, "length": 64 * 64, "hop": 64, "window": 256, "num_mels": 16, "pad": True, "iterations": 4}
    sides = {"frame_rate": 8.0, "size": 32, "sound_rate": 8000}
    fractions = {"validation_fraction": 0.25, "test_fraction": 0.25}
    config.data.video_files.update(seconds=0.5, **sides, **fractions)
    config.modalities = (
        _video((4, 32, 32, 3), 8.0, 4 * 8 * 8 * 2, 8 * 8, {"sizes": small}),
        _sound((64, 16, 1), mel, 16 * 4 * 2, 16 * 4, {"sizes": {**small, "channels": 1}}),
    )
    config.autoencoder.training.update(training(4, 8, 4, 1, 2, learning_rate=1e-3, clip_norm=1e3))
    config.score.network.update(width=16, multipliers=(1, 2), dtype="float32")
    config.score.training.update(training(8, 8, 8, 1, 2, learning_rate=1e-3))
    config.sampler.num_steps = 4
    config.evaluation.vggish.weights = ""
    config.evaluation.update(num_examples=40, num_unconditional=40, batch_size=20)
    config.evaluation.metrics.frechet.num_examples = 0
    config.evaluation.metrics.sound.num_examples = 40
