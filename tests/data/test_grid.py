"""GRID from its three files, made by hand."""

import io
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from sbm_jax.data.grid import WORDS, GridConfig, load_grid
from sbm_jax.errors import SbmError

NUMBER = 40


def _words(number) -> list[str]:
    return [known[number % len(known)] for known in WORDS.values()]


@pytest.fixture
def root(tmp_path) -> pathlib.Path:
    names = [f"clip{number:02}" for number in range(NUMBER)]
    files, offsets = [], [0]
    for number in range(NUMBER):
        pixels = np.full((38, 64, 64), number, np.uint8)
        pixels[20:] += 100
        content = io.BytesIO()
        Image.fromarray(pixels.reshape(-1, 64)).save(content, "JPEG", quality=95)
        files.append(np.frombuffer(content.getvalue(), np.uint8))
        offsets.append(offsets[-1] + len(files[-1]))
    np.savez(tmp_path / "video_64_grey_12.5fps.npz", jpeg=np.concatenate(files), offsets=np.array(offsets), names=names)
    mulaw = np.repeat(np.arange(NUMBER, dtype=np.uint8)[:, None] * 6, 24_000, axis=1)
    np.savez(tmp_path / "audio_8khz_mulaw.npz", mulaw=mulaw, names=names)
    alignments = [[[0, 1000, "sil"], *([0, 1, word] for word in _words(n)), [9, 10, "sil"]] for n in range(NUMBER)]
    write(tmp_path, names=names, alignments=alignments)
    return tmp_path


def write(root, **content) -> None:
    """Change what the alignments hold."""
    path = root / "alignments.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | content))


def load(root, names=None, **options):
    return load_grid(GridConfig(str(root), **options), root / "cache", names)


def test_rows_have_video_sound_words_and_six_labels(root):
    dataset = load(root)
    assert sum(map(len, dataset[:3])) == NUMBER
    assert dataset.num_classes == {
        "command": 4,
        "colour": 4,
        "preposition": 4,
        "letter": 25,
        "digit": 10,
        "adverb": 4,
    }
    for split in dataset[:3]:
        numbers = np.round(split.data["video"][:, 0, 0, 0, 0]).astype(int)
        assert split.data["words"].tolist() == [" ".join(_words(number)) for number in numbers]
        assert split.labels["letter"].tolist() == [number % 25 for number in numbers]
        assert split.data["video"].shape[1:] == (38, 64, 64, 1)
        np.testing.assert_allclose(split.data["video"][:, 30].mean(axis=(1, 2, 3)), numbers + 100, atol=2)
        y = 6 * numbers / 127.5 - 1
        expected = np.sign(y) * (256 ** np.abs(y) - 1) / 255
        np.testing.assert_allclose(split.data["sound"][:, 5], expected, rtol=1e-4, atol=1e-6)


def test_the_split_is_that_of_the_names(root):
    """By `int(sha1(name)[:8], 16) % 10`, worked out once."""
    dataset = load(root)
    assert dataset.test.data["words"].tolist() == [" ".join(_words(number)) for number in (6, 13, 16, 18, 28)]
    assert dataset.validation.data["words"].tolist() == [" ".join(_words(number)) for number in (0, 10, 36)]


def test_one_modality_and_fewer_rows(root):
    dataset = load(root, ["words"], max_train=5, max_test=1)
    assert set(dataset.train.data) == {"words"}
    assert [len(split) for split in dataset[:3]] == [5, 1, 1]
    (root / "audio_8khz_mulaw.npz").write_bytes(b"damaged, and not asked for")
    assert len(load(root, ["words", "video"]).train) > 0


def _other_names(root):
    write(root, names=[f"other{number}" for number in range(NUMBER)])


def _no_sentence(root):
    content = json.loads((root / "alignments.json").read_text())["alignments"]
    content[3][1][2] = "bring"
    write(root, alignments=content)


def _cut_image(root):
    with np.load(root / "video_64_grey_12.5fps.npz") as arrays:
        found = dict(arrays)
    found["jpeg"][:] = 0
    np.savez(root / "video_64_grey_12.5fps.npz", **found)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "alignments.json").unlink(), r"alignments\.json does not exist"),
        (lambda root: (root / "alignments.json").write_text("{"), "does not hold names and alignments"),
        (lambda root: write(root, names=["a"]), "1 names and 40 alignments"),
        (_other_names, "has other clips than"),
        (_no_sentence, r"clip 'clip03' has the words 'bring .*', not a sentence"),
        (lambda root: (root / "audio_8khz_mulaw.npz").write_bytes(b"no archive"), "cannot be read"),
        (lambda root: (root / "video_64_grey_12.5fps.npz").unlink(), r"fps\.npz does not exist"),
        (_cut_image, r"\.jpg cannot be read as an image"),
    ],
)
def test_what_is_missing_or_damaged_is_named(root, damage, message):
    damage(root)
    with pytest.raises(SbmError, match=message):
        load(root)


def test_bad_options(root):
    with pytest.raises(SbmError, match=r"data\.grid\.max_train"):
        GridConfig(max_train=0)
    with pytest.raises(SbmError, match="unknown modality of GRID: 'face'"):
        load(root, ["face"])
