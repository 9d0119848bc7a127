import struct

import numpy as np
import pytest
from scipy.io import wavfile

from sbm_jax.data.sound_files import read_wav
from sbm_jax.errors import SbmError

WAVE = 0.9 * np.sin(np.arange(400) / 7)


def write_24_bits(path, wave):
    values = np.round(wave * 2**23).astype("<i4")
    data = values.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        36 + len(data),
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        8000,
        24000,
        3,
        24,
        b"data",
        len(data),
    )
    path.write_bytes(header + data)


@pytest.mark.parametrize(
    ("dtype", "scale", "offset", "bits"),
    [
        (np.uint8, 128, 128, 8),
        (np.int16, 2**15, 0, 16),
        (np.int32, 2**31, 0, 24),
        (np.float32, 1, 0, 24),
        (np.float64, 1, 0, 24),
    ],
)
def test_every_type_is_scaled_to_one(tmp_path, dtype, scale, offset, bits):
    values = WAVE * scale + offset
    wavfile.write(tmp_path / "a.wav", 8000, (values if scale == 1 else np.round(values)).astype(dtype))
    found = read_wav(tmp_path / "a.wav", 8000)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, WAVE, atol=2.0**-bits)


def test_24_bits_are_scaled_to_one(tmp_path):
    write_24_bits(tmp_path / "a.wav", WAVE)
    np.testing.assert_allclose(read_wav(tmp_path / "a.wav", 8000), WAVE, atol=2.0**-23)


def test_texts_beside_the_sound_do_not_matter(tmp_path):
    wavfile.write(tmp_path / "a.wav", 8000, WAVE.astype(np.float32))
    content = (tmp_path / "a.wav").read_bytes() + b"note" + struct.pack("<I", 4) + b"abcd"
    (tmp_path / "a.wav").write_bytes(content[:4] + struct.pack("<I", len(content) - 8) + content[8:])
    np.testing.assert_allclose(read_wav(tmp_path / "a.wav", 8000), WAVE, atol=1e-7)


def written(values, rate=8000):
    def write(path):
        wavfile.write(path, rate, values)

    return write


def cut(path):
    wavfile.write(path, 8000, WAVE.astype(np.float32))
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (written(WAVE, rate=44_100), "has 44100 samples per second; expected 8000. Resample it"),
        (written(np.stack([WAVE, WAVE], axis=1)), "has 2 channels; expected one"),
        (written(np.zeros(0, np.int16)), "has no samples"),
        (written(np.full(9, np.nan)), "has NaN or infinite values"),
        (written(np.zeros(9, np.int64)), "has samples of the type int64; expected PCM"),
        (cut, "cannot be read as a WAV file: Reached EOF prematurely"),
        (lambda path: path.write_bytes(b""), "cannot be read as a WAV file"),
        (lambda path: path.write_bytes(b"RIFF"), "cannot be read as a WAV file"),
        (lambda path: path.write_bytes(b"ID3\x04 not a WAV file"), "cannot be read as a WAV file"),
        (lambda path: None, "cannot be read as a WAV file: .*No such file"),
    ],
)
def test_other_files_are_refused(tmp_path, write, message):
    write(tmp_path / "a.wav")
    with pytest.raises(SbmError, match=rf"a\.wav {message}"):
        read_wav(tmp_path / "a.wav", 8000)


def test_damaged_files_raise_one_kind_of_error(tmp_path):
    path = tmp_path / "a.wav"
    wavfile.write(path, 8000, np.round(WAVE * 2**15).astype(np.int16))
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        for place in rng.integers(0, 44, 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(bytes(damaged[: rng.integers(20, len(content))]))
        with pytest.raises(SbmError):
            read_wav(path, 8000)
