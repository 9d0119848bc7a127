"""Small video files for tests."""

from fractions import Fraction
from pathlib import Path

import numpy as np

SIDE, RATE, SOUND_RATE = 32, 10, 8000


def write_video(path: Path, seconds: float = 1.0, tone: float = 440.0, *, frames: bool = True, sound: bool = True):
    """Write a file whose frames get brighter by the same step, with a tone of amplitude 0.5.

    The frames are 16 pixels wider than high, and black there on both sides.
    """
    import av

    with av.open(str(path), "w") as container:
        if frames:
            video = container.add_stream("mpeg4", rate=RATE)
            video.width, video.height, video.pix_fmt = SIDE + 16, SIDE, "yuv420p"
            video.bit_rate = 2_000_000
        if sound:
            audio = container.add_stream("pcm_s16le", rate=SOUND_RATE, layout="stereo")
        for number in range(round(seconds * RATE) if frames else 0):
            picture = np.zeros((SIDE, SIDE + 16, 3), np.uint8)
            picture[:, 8:-8] = level(number)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        if frames:
            container.mux(video.encode(None))
        if sound:
            wave = 0.5 * np.sin(2 * np.pi * tone * np.arange(round(seconds * SOUND_RATE)) / SOUND_RATE)
            both = np.repeat((2**15 * wave).astype(np.int16), 2)[None]
            frame = av.AudioFrame.from_ndarray(both, format="s16", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, 0, Fraction(1, SOUND_RATE)
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))


def level(number: int) -> int:
    """Return the brightness of a frame."""
    return 40 + 8 * (number % 26)
