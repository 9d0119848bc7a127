"""Waveforms and their pictures: what the analysis measures, what the synthesis gives back, and what is refused."""

import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.formats import make_format
from sbm_jax.formats.spectrogram import SCALES, mel_filters, spread_bands
from sbm_jax.types import FormatConfig, Modality

RATE, LENGTH = 8000, 4000
OPTIONS = {"rate": RATE, "length": LENGTH, "num_mels": 24, "window": 512, "hop": 125, "decibels": (-70.0, 0.0)}
TIME = np.arange(LENGTH) / RATE
to_mel, from_mel, _ = SCALES["htk"]


def spectrogram(shape=(32, 24, 1), bounds=(0.0, 1.0), **options):
    form = FormatConfig("spectrogram", OPTIONS | options)
    return make_format(Modality("sound", shape, 8, bounds=bounds, format=form))


def tone(frequency, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * frequency * TIME)


def chirp(start, end):
    return 0.5 * np.sin(2 * np.pi * (start * TIME + (end - start) * TIME**2 / (2 * TIME[-1])))


# MARK: Analysis


def test_bands_are_triangles_that_share_the_frequencies_between_them():
    frequencies = np.linspace(0, 4000, 4001)
    filters = mel_filters(frequencies, 24, 4000)
    centres = from_mel(np.linspace(0, to_mel(4000), 26))
    np.testing.assert_allclose(np.diff(to_mel(centres)), to_mel(4000) / 25)
    np.testing.assert_allclose(frequencies[filters.argmax(axis=1)], centres[1:-1], atol=0.5)
    np.testing.assert_allclose(mel_filters(centres[1:-1], 24, 4000), np.eye(24), atol=1e-9)
    inside = (frequencies >= centres[1]) & (frequencies <= centres[-2])
    np.testing.assert_allclose(filters[:, inside].sum(axis=0), 1)
    assert ((filters > 0).sum(axis=0) <= 2).all()
    for low, high, row in zip(centres, centres[2:], filters, strict=False):
        assert not row[(frequencies < low) | (frequencies > high)].any()
        middle = (low + frequencies[row.argmax()]) / 2
        assert np.interp(middle, frequencies, row) == pytest.approx(0.5, abs=0.01)


def test_the_mel_scale_has_1000_mels_at_1000_hertz():
    assert to_mel(1000) == pytest.approx(1000, abs=0.1)
    assert SCALES["slaney"].to_mel(1000) == pytest.approx(15)
    assert SCALES["slaney"].to_mel(6400) == pytest.approx(42)
    assert SCALES["slaney"].to_mel(200) == pytest.approx(3)
    for scale in SCALES.values():
        np.testing.assert_allclose(scale.from_mel(scale.to_mel(np.array([0.0, 440, 4000]))), [0, 440, 4000], atol=1e-9)


def test_slaneys_bands_have_area_1():
    frequencies = np.linspace(0, 8000, 80_001)
    filters = mel_filters(frequencies, 40, 8000, "slaney")
    np.testing.assert_allclose(np.trapezoid(filters, frequencies), 1, rtol=1e-4)
    assert filters[0].max() > 3 * filters[-1].max()  # wide bands are low


@pytest.mark.peer
def test_slaneys_bands_are_librosas_defaults():
    librosa = pytest.importorskip("librosa")
    options = {"rate": 16_000, "length": 16_000, "num_mels": 128, "window": 2048, "hop": 512, "bands": "slaney"}
    low, high = -150.0, 0.0
    form = spectrogram((32, 128, 1), **options, decibels=(low, high))
    wave = 0.1 * np.random.default_rng(0).normal(size=16_000).clip(-3, 3) * np.linspace(0, 1, 16_000)
    power = librosa.feature.melspectrogram(y=wave, sr=16_000)  # [mels, frames], of spectra that are not divided by 512
    expected = 10 * np.log10(power.T / 512**2)
    np.testing.assert_allclose(low + (high - low) * form.to_array(wave[None], "x")[0, ..., 0], expected, atol=1e-3)


@pytest.mark.parametrize("amplitude", [1.0, 0.1, 0.01])
def test_a_tone_has_its_level_in_its_band(amplitude):
    form = spectrogram(window=1024)
    centre = from_mel(to_mel(RATE / 2) * 16 / 25)  # of band 15, wide enough for all of a tone
    picture = form.to_array(tone(centre, amplitude)[None], "x")[0, 8:-8, :, 0]
    decibels = -70 + 70 * picture
    assert (picture.argmax(axis=1) == 15).all()
    # A Hann window spreads a tone over three frequencies: 10 log10 1.5 = 1.8 dB more; some goes to the neighbours.
    expected = min(0, 20 * np.log10(amplitude) + 1.8)
    np.testing.assert_allclose(decibels[:, 15], expected, atol=1.0)


def test_a_chirp_rises():
    picture = spectrogram().to_array(chirp(300, 3500)[None], "x")[0, ..., 0]
    bands = picture.argmax(axis=1)
    assert (np.diff(bands) >= 0).all()
    assert bands[0] <= 4
    assert bands[-1] >= 21


def test_types_pictures_and_parts_of_rows():
    form = spectrogram()
    waves = np.stack([tone(frequency) for frequency in np.linspace(200, 3000, 70)])  # more than are converted at once
    pictures = form.to_array(waves, "x")
    assert pictures.shape == (70, 32, 24, 1)
    assert pictures.dtype == np.float32
    assert form.to_array(pictures, "x") is pictures
    np.testing.assert_allclose(form.to_array(waves[66:67], "x"), pictures[66:67], atol=1e-6)
    as_int16 = np.round(waves[:2] * 2**15).astype(np.int16)
    np.testing.assert_allclose(form.to_array(as_int16, "x"), pictures[:2], atol=0.05)
    assert form.to_array(np.zeros((0, LENGTH)), "x").shape == (0, 32, 24, 1)


def test_shorter_waveforms_are_lengthened_where_that_is_asked_for():
    form = spectrogram(pad=True)
    short = tone(500)[:1500]
    padded = form.to_array(np.pad(short, (0, LENGTH - 1500))[None], "x")
    np.testing.assert_array_equal(form.to_array(short[None], "x"), padded)
    ragged = np.empty(2, object)
    ragged[:] = [short, tone(500)[:1000]]
    found = form.to_array(ragged, "x")
    np.testing.assert_array_equal(found[:1], padded)
    assert not found[1, 12:].any()


# MARK: Synthesis


@pytest.mark.parametrize("bands", ["htk", "slaney"])
def test_synthesis_gives_waveforms_of_the_same_picture(bands):
    low = -70 - (20 if bands == "slaney" else 0)  # its bands have heights of about a hundredth
    options = {"bands": bands, "decibels": (low, low + 70.0)}
    form = spectrogram(**options)
    harmonics = sum(tone(220 * k, 0.5 / k) * np.exp(-8 * TIME) for k in range(1, 12)) / 2
    waves = np.stack([tone(440), chirp(300, 3500), chirp(2000, 200), harmonics])
    pictures = form.to_array(waves, "x")
    made = form.to_raw(pictures)
    assert made.shape == (4, LENGTH)
    assert made.dtype == np.float32
    again = form.to_array(made, "x")
    amplitudes, found = (10 ** ((70 * rows - 70) / 20) for rows in (pictures, again))
    error = np.sqrt(((found - amplitudes) ** 2).sum((1, 2, 3)) / (amplitudes**2).sum((1, 2, 3)))
    # Spectral convergence of 0.05 to 0.12.
    assert error.max() < 0.14
    assert np.abs(again - pictures)[pictures > 0.3].mean() * 70 < 1.5  # decibels
    unsearched = spectrogram(iterations=1, **options)
    worse = 10 ** ((70 * unsearched.to_array(unsearched.to_raw(pictures), "x") - 70) / 20)
    assert np.square(worse - amplitudes).sum() > 3 * np.square(found - amplitudes).sum()


def test_synthesis_of_a_row_depends_on_it_alone():
    form = spectrogram(iterations=5)
    pictures = form.to_array(np.stack([tone(440), chirp(300, 3500)]), "x")
    both = form.to_raw(pictures)
    np.testing.assert_array_equal(form.to_raw(pictures), both)
    np.testing.assert_allclose(form.to_raw(pictures[1:]), both[1:], atol=1e-6)


def test_silence_stays_silent():
    form = spectrogram()
    picture = form.to_array(np.zeros((1, LENGTH)), "x")
    assert not picture.any()
    assert not form.to_raw(picture).any()


def test_any_picture_is_synthesised_within_the_range():
    form = spectrogram(iterations=3)
    pictures = np.random.default_rng(0).random((3, 32, 24, 1)).astype(np.float32)
    pictures[2] = 1.0
    waves = form.to_raw(pictures)
    assert np.abs(waves).max() <= 1
    assert form.to_array(waves, "x").shape == pictures.shape


def test_spread_power_has_the_power_of_the_bands():
    filters = mel_filters(np.linspace(0, 4000, 257), 24, 4000)
    spectrum = np.random.default_rng(0).random((2, 257)) ** 4
    power = spectrum @ filters.T
    power[1, 10] = 0.0
    found = spread_bands(power, filters, iterations=200)
    assert (found >= 0).all()
    np.testing.assert_allclose(found[0] @ filters.T, power[0], rtol=0.02)
    assert (found[1] @ filters.T)[10] == pytest.approx(0, abs=1e-9)


# MARK: Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"shape": (31, 24, 1)},
            r"modality 'sound': shape is \(31, 24, 1\); expected \(32, 24, 1\): \(frames, mels, 1\)",
        ),
        ({"num_mels": 25}, r"expected \(32, 25, 1\)"),
        ({"bounds": ()}, r"modality 'sound': bounds is \(\); expected \(0, 1\)"),
        ({"hop": 300}, r"format.options.window is 512; expected at least two hops \(600\)"),
        ({"length": 400}, r"at most the length \(400\)"),
        ({"decibels": (0.0, -70.0)}, r"format.options.decibels is \(0.0, -70.0\); expected \(low, high\)"),
        ({"rate": 0}, "format.options.rate is 0; expected at least 1"),
        ({"bands": "slanei"}, r"unknown format.options.bands: 'slanei'\. Did you mean 'slaney'"),
        ({"shape": (32, 200, 1), "num_mels": 200}, "band . of 200 contains no frequency of a window of 512"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(SbmError, match=message):
        spectrogram(**options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.zeros((2, 3999)),
            "row 0, has 3999 samples; .* expects waveforms of 4000 samples at 8000 Hz.*format.options.pad",
        ),
        (np.zeros((2, 4001)), "row 0, has 4001 samples; .* Cut it, or declare another length"),
        (np.zeros((2, 4000), np.int32), r"row 0, is int32 \[4000\]; .*'spectrogram' expects waveforms of 4000 samples"),
        (np.zeros((2, 4000, 2)), r"row 0, is float64 \[4000, 2\]"),
        (np.zeros((2, 16, 24, 1)), r"row 0, is float64 \[16, 24, 1\]"),
        (np.stack([tone(400), 3 * tone(400)]), r"row 1, reaches 1\.5; "),
        (np.stack([tone(400), np.full(LENGTH, np.nan)]), "row 1, reaches nan; "),
    ],
)
def test_other_values_are_refused(values, message):
    with pytest.raises(SbmError, match=f"data 'x', {message}"):
        spectrogram().to_array(values, "data 'x'")
