"""Clips of video files: which frames and samples they have, and what is said of files that have none."""

import numpy as np
import pytest

from sbm_jax.data import video_files
from sbm_jax.data.video_files import VideoFilesConfig, load_video_files
from sbm_jax.errors import SbmError
from tests.data.video_clips import level, write_video

OPTIONS = {"seconds": 0.5, "frame_rate": 10.0, "size": 16, "sound_rate": 4000, "validation_fraction": 0.3}
OPTIONS |= {"test_fraction": 0.3}


def load(root, names=None, **options):
    return load_video_files(VideoFilesConfig(str(root), **{**OPTIONS, **options}), root, names)


def files_of(config, directory):
    """Return names of three files in each split."""
    names: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    number = 0
    while min(map(len, names.values())) < 3:
        name = f"{directory}clip {number}.mkv"
        names[video_files._split(name, config)].append(name)
        number += 1
    return {split: own[:3] for split, own in names.items()}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three files of 1.3 s in each split, in a directory of their own."""
    path = tmp_path_factory.mktemp("videos")
    (path / "inside").mkdir()
    for names in files_of(VideoFilesConfig(**OPTIONS), "inside/").values():
        for name in names:
            write_video(path / name, 1.3)
    (path / ".hidden.mkv").write_bytes(b"not read")
    (path / "notes.txt").write_text("not read")
    return path


def test_files_are_cut_into_clips(root, caplog):
    dataset = load(root)
    assert not caplog.records
    assert [len(split) for split in dataset[:3]] == [6, 6, 6]  # two clips of each file, and 0.3 s are left
    data = dataset.train.data
    assert data["video"].shape == (6, 5, 16, 16, 3)
    assert data["video"].dtype == np.uint8
    assert data["sound"].shape == (6, 2000)
    assert data["sound"].dtype == np.float32
    brightness = data["video"].mean(axis=(2, 3, 4))  # without the black sides
    np.testing.assert_allclose(brightness[0], [level(i) for i in range(5)], atol=4)
    np.testing.assert_allclose(brightness[1], [level(i) for i in range(5, 10)], atol=4)
    times = np.arange(2000) / 4000
    for clip, start in ((0, 0.0), (1, 0.5)):
        expected = 0.5 * np.sin(2 * np.pi * 440 * (times + start))
        np.testing.assert_allclose(data["sound"][clip, 100:-100], expected[100:-100], atol=2e-2)


def test_frames_are_resampled(root):
    slower = load(root, frame_rate=4.0).train.data["video"]
    assert slower.shape == (6, 2, 16, 16, 3)
    np.testing.assert_allclose(slower[0].mean(axis=(1, 2, 3)), [level(0), level(2)], atol=4)  # at 0 and 0.25 s
    faster = load(root, frame_rate=20.0, most_clips=1).train.data["video"]
    assert faster.shape == (3, 10, 16, 16, 3)
    np.testing.assert_allclose(faster[0].mean(axis=(1, 2, 3)), [level(i // 2) for i in range(10)], atol=4)


def test_splits_and_settings_tell_the_files(root):
    first, again, other = load(root), load(root), load(root, seconds=0.4)
    np.testing.assert_array_equal(first.test.data["video"], again.test.data["video"])
    assert first.settings == again.settings
    assert first.settings != other.settings
    assert str(root) not in str(first.settings)


def test_only_what_is_asked_for_is_decoded(root, tmp_path):
    assert load(root, ["sound"]).train.data.keys() == {"sound"}
    for names in files_of(VideoFilesConfig(**OPTIONS), "").values():
        write_video(tmp_path / names[0], sound=False)
    assert load(tmp_path, ["video"]).train.data["video"].shape == (2, 5, 16, 16, 3)
    with pytest.raises(SbmError, match=r"no clip of 0\.5 s for the train split, of 3 files; left out: .* has no sound"):
        load(tmp_path)
    with pytest.raises(SbmError, match="unknown modality of video files: 'words'"):
        load(root, ["video", "words"])


def test_files_without_a_clip_are_named_and_counted(tmp_path, caplog):
    names = files_of(VideoFilesConfig(**OPTIONS), "")
    for own in names.values():
        write_video(tmp_path / own[0])
    write_video(tmp_path / names["train"][1], 0.4)
    (tmp_path / names["test"][1]).write_bytes(b"\x1aE\xdf\xa3 damaged")
    write_video(tmp_path / names["test"][2], frames=False)
    dataset = load(tmp_path)
    assert [len(split) for split in dataset[:3]] == [2, 2, 2]
    (record,) = caplog.records
    told = record.getMessage()
    assert "3 of 6 files are left out" in told
    assert f"{names['train'][1]} (it is shorter than a clip: 4 of 5 of video" in told
    assert f"{names['test'][1]} (it cannot be decoded" in told
    assert f"{names['test'][2]} (it has no frames)" in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0.0}, r"seconds is 0\.0; expected more than 0"),
        ({"seconds": 0.55}, r"frame_rate is 10\.0; expected a rate with a whole number .* clip of 0\.55 s"),
        ({"sound_rate": 4001}, r"sound_rate is 4001; expected a rate with a whole number"),
        ({"most_clips": 0}, "most_clips is 0"),
        ({"test_fraction": 0.8}, r"test_fraction is 0\.8"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(SbmError, match=message):
        VideoFilesConfig(**{**OPTIONS, **options})


def test_there_must_be_files(tmp_path):
    with pytest.raises(SbmError, match=r"no clip of 0\.5 s for the train split, of 0 files"):
        load(tmp_path)
    with pytest.raises(SbmError, match=r"data\.video_files\.directory is empty"):
        load("")
