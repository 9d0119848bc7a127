"""Writes metrics as JSON lines and, if TensorFlow is installed, for TensorBoard."""

import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path

from sbm_jax import parallel
from sbm_jax.errors import SbmError
from sbm_jax.storage import write_atomically


class MetricWriter:
    """Appends one JSON object per line to `<directory>/<name>.jsonl`, in the first process only.

    With the ``tensorboard`` extra, it also writes to `<directory>/tensorboard/<name>` through `clu.metric_writers`.
    """

    def __init__(self, directory: Path, name: str, first_step: int):
        """Open the file, dropping lines after `first_step` that an interrupted run left behind."""
        self._file = self._tensorboard = None
        if not parallel.is_main():
            return
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / f"{name}.jsonl"
        kept = [row for row in read_metrics(self._path) if row["step"] <= first_step] if first_step else []
        write_atomically(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = self._path.open("a", encoding="utf-8")
        self._tensorboard = _tensorboard_writer(directory / "tensorboard" / name)

    def write(self, step: int, split: str, scalars: Mapping[str, float]) -> None:
        """Write scalars of one split (``"train"`` or ``"validation"``) at a step."""
        if self._file is None:
            return
        row = {"step": step, "split": split, **{name: float(value) for name, value in scalars.items()}}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._tensorboard is not None:
            self._tensorboard.write_scalars(step, {f"{split}/{name}": v for name, v in scalars.items()})

    def sync(self) -> None:
        """Flush to disk (`fsync`), so that what was written survives a crash of the machine."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close the files."""
        if self._file is not None:
            self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()


def _tensorboard_writer(directory: Path):
    if importlib.util.find_spec("tensorflow") is None or importlib.util.find_spec("tensorboard") is None:
        return None
    from clu import metric_writers  # imports TensorFlow, which takes seconds and is optional

    return metric_writers.SummaryWriter(str(directory))


def read_metrics(path: Path) -> list[dict]:
    """Return the rows of a JSON-lines file, without a truncated last line; [] if there is no file.

    Raises:
      SbmError: if any other line is damaged.
    """
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1] if line]
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SbmError(f"{path} is damaged ({error}). Fix or delete it: it only holds the training curves.") from error
