"""Work that needs no training: what it generates is the number of calls, the row that is given, or an error."""

import threading

import numpy as np

from sbm_jax.errors import SbmError
from sbm_jax.explore.settings import Choices, Settings
from sbm_jax.explore.work import Drawn
from tests.data.test_row_files import CAPTION, COLOR, FILM, LEVEL, MASK, PHOTO, ROWS, WAVE

MODALITIES = (PHOTO, MASK, CAPTION, WAVE, COLOR, LEVEL, FILM)


class Work:
    """What `explore.work.Work` is to the page."""

    name, lacks_rows, modalities = "tried", "", MODALITIES
    choices = Choices(("first", "second"), tuple(m.name for m in MODALITIES), ("heun", "euler_maruyama"), 3)
    defaults = Settings("first", 0, ("photo",), ("mask", "wave", "film"), "heun", 10, None, samples=2, seed=0)

    def __init__(self):
        self.calls, self._lock = [], threading.Lock()

    def row(self, number):
        if number is not None and not 0 <= number < 3:
            raise SbmError(f"row is {number}; expected 0 to 2.")
        return {} if number is None else {modality.name: ROWS[modality][1] for modality in MODALITIES}

    def draw(self, settings, own):
        self.choices.check(settings)
        with self._lock:
            self.calls.append((settings, own))
        given = {name: {**self.row(settings.row), **own}[name] for name in settings.given}
        rows = {m.name: np.stack([ROWS[m][1]] * settings.samples) for m in MODALITIES if m.name in settings.targets}
        return Drawn(given, rows, {"network_evaluations": settings.steps, "diverged": 0}, 0.5, compiled=False)
