"""The experiment of video files, from files that are written here to a report that plays them."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import sbm_jax
from sbm_jax import experiment
from sbm_jax.data.video_files import VideoFilesConfig, _split
from sbm_jax.experiment_config import parse_config
from sbm_jax.networks.pretrained.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from sbm_jax.networks.pretrained.vggish import Vggish, VggishConfig
from tests.data.video_clips import write_video
from tests.networks.pretrained.files import tensors_of, write
from tests.test_configs import load_config

pytestmark = pytest.mark.slow

VGGISH = {"widths": (2, 2, 3, 3), "hidden": 8, "embedding_size": 6}
FILES = {"train": 2, "validation": 1, "test": 4}  # of ten clips each


def write_files(directory: Path, config: VideoFilesConfig) -> None:
    left, number = dict(FILES), 0
    while any(left.values()):
        name = f"{number}.mkv"
        number += 1
        if left[_split(name, config)]:
            left[_split(name, config)] -= 1
            write_video(directory / name, 5.0, 200.0 + 100 * number)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the results and the work directory; the autoencoder of frames is pretrained and stays as it is."""
    path = tmp_path_factory.mktemp("videos")
    config = load_config("video_audio.py:smoke")
    config.data.video_files.directory = str(path)
    vggish = tensors_of(Vggish(VggishConfig(**VGGISH)), jnp.zeros((1, 96, 64)))
    config.evaluation.vggish.weights = write(path / "vggish.safetensors", vggish)
    config.evaluation.vggish.network = VGGISH
    video, sound = config.modalities
    sizes = video["codec"]["network"]["sizes"]
    tensors = tensors_of(AutoencoderKL(AutoencoderKLConfig(**sizes)), jnp.zeros((1, 32, 32, 3)))
    network = {"sizes": sizes, "weights": write(path / "kl.safetensors", tensors), "frozen": True}
    config.modalities = ({**video, "codec": {**video["codec"], "network": network}}, sound)
    parsed = parse_config(config)
    write_files(path, parsed.data.video_files)
    return experiment.run(parsed, path / "work"), path / "work", tensors


def test_sounds_are_judged(run):
    found = run[0]["systems"]["sbm_vae"]
    for ask in ("given_rest", "unconditional"):
        fad = found["metrics"][f"sound/vggish/fad/{ask}/sound"]
        assert np.isfinite(fad["value"])
        assert fad["n"] == 40
    assert found["not_available"]["inception/fid"].startswith("not asked for")
    page = (run[1] / "report" / "index.html").read_text(encoding="utf-8")
    assert "Table 9" in page
    assert "data:audio/wav" in page


def test_pretrained_weights_stay_as_they_are(run):
    _, workdir, tensors = run
    model = sbm_jax.load(workdir)
    own = model.products["autoencoder_vae_video"]["video"]["encoder"]["network"]
    kernel = np.asarray(own["encoder"]["conv_in"]["kernel"][0])
    np.testing.assert_array_equal(kernel.transpose(3, 2, 0, 1), tensors["encoder.conv_in.weight"])


def test_videos_make_sounds(run):
    model = sbm_jax.load(run[1])
    frames = np.zeros((2, 4, 32, 32, 3), np.uint8)
    frames[1] = 200
    sounds = model.generate({"video": frames}, ["sound"]).data["sound"]
    assert sounds.shape == (2, 1, 4096)
    assert np.abs(sounds).max() <= 1
    videos = model.generate({"sound": sounds[:, 0]}, ["video"]).data["video"]
    assert videos.shape == (2, 1, 4, 32, 32, 3)
    assert videos.min() >= 0
    assert videos.max() <= 1


def test_the_config_refuses_other_variants():
    with pytest.raises(ValueError, match=r"unknown variant 'cpu' of configs/video_audio\.py; known: smoke"):
        load_config("video_audio.py:cpu")
