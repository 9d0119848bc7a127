"""Checkpoints that are verified on reading. The only module that uses orbax.

A checkpoint is valid once its manifest (the size and SHA-256 of each of its files) is written, after orbax has
committed it. Reading first compares the files with the manifest: a truncated or altered checkpoint is reported and
deleted, and the one before it is used.
"""

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import absl.logging
import jax
import orbax.checkpoint as ocp

from sbm_jax import parallel
from sbm_jax.errors import SbmError
from sbm_jax.storage import write_atomically
from sbm_jax.types import Params

logger = logging.getLogger(__name__)


def _digests(directory: Path) -> dict[str, list[Any]]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        str(path.relative_to(directory)): [path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()]
        for path in files
    }


class Checkpoints:
    """The checkpoints of one stage.

    Saving is asynchronous: `save` returns while files are being written, and the next `save` or `close` settles it,
    that is, writes its manifest. All processes of a job call the same methods; the first process writes the manifests,
    decides which checkpoint is intact, and deletes newer ones before the others read the directory.
    """

    def __init__(self, directory: Path, keep: int = 2, read_only: bool = False):
        """Open the checkpoints under `directory`.

        Args:
          directory: created if it does not exist, unless `read_only`.
          keep: number of checkpoints to keep, the newest ones.
          read_only: delete nothing, because another process may be writing.
        """
        self._directory = directory / "checkpoints"
        self._manifests = directory / "manifests"
        self._unsettled: int | None = None
        self._known_intact: int | None = None  # avoids reading gigabytes twice
        if not read_only:
            with parallel.main_first(f"checkpoints in {directory.name}"):
                if parallel.is_main():
                    self._drop_damaged()
        verbosity = absl.logging.get_verbosity()
        if read_only:  # orbax warns about it
            absl.logging.set_verbosity(absl.logging.ERROR)
        try:
            options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=not read_only, read_only=read_only)
            self._manager = ocp.CheckpointManager(
                self._directory.absolute(), options=options, item_handlers={"state": ocp.StandardCheckpointHandler()}
            )
        finally:
            absl.logging.set_verbosity(verbosity)

    def save(self, step: int, state: Params) -> None:
        """Start saving `state` under `step`.

        Raises:
          SbmError: if the disk is full or cannot be written to; earlier checkpoints are kept.
        """
        self.settle()
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        free = shutil.disk_usage(self._directory).free
        if free < 1.1 * size + 2**20:
            raise SbmError(
                f"the disk of {self._directory} is full: a checkpoint needs {size / 2**20:.1f} MiB and "
                f"{free / 2**20:.1f} MiB are free. Earlier checkpoints are intact: make room and run the command again."
            )
        try:
            self._manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state)))
        except TimeoutError:  # another process failed to save its part
            raise
        except OSError as error:
            raise self._not_written(step, error) from error
        self._unsettled = step

    def poll(self) -> None:
        """Settle the last save if its files are written; do not wait for them."""
        # Processes may see it finished at different steps, and settling waits for all of them.
        alone = jax.process_count() == 1
        if alone and self._unsettled is not None and not self._manager.is_saving_in_progress():
            self.settle()

    def _not_written(self, step: int, error: Exception) -> SbmError:
        return SbmError(
            f"checkpoint {step} could not be written to {self._directory} ({error}). Earlier ones are intact: make "
            "room or fix the permissions, and run the command again."
        )

    def settle(self) -> None:
        """Wait until the last save is written, then write its manifest.

        Raises:
          SbmError: if it could not be written; earlier checkpoints are kept.
        """
        if self._unsettled is None:
            return
        step = self._unsettled
        try:
            self._manager.wait_until_finished()
        except TimeoutError:  # another process failed to save its part
            self._unsettled = None
            raise
        except (OSError, ValueError) as error:  # tensorstore reports a full disk as a ValueError
            self._unsettled = None
            raise self._not_written(step, error) from error
        if parallel.is_main():
            self._write_manifest(step)
        self._unsettled = None

    def _write_manifest(self, step: int) -> None:
        digests = _digests(self._directory / str(step))
        write_atomically(self._manifests / f"{step}.json", json.dumps(digests, indent=1))
        kept = {str(step) for step in self._manager.all_steps()}
        for path in self._manifests.glob("*.json"):
            if path.stem not in kept:
                path.unlink()

    def _damage(self, step: int) -> str | None:
        manifest = self._manifests / f"{step}.json"
        if not manifest.is_file():
            return "it was not finished"
        try:
            expected = json.loads(manifest.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError):
            return "its manifest is unreadable"
        found = _digests(self._directory / str(step))
        wrong = [name for name in expected if found.get(name) != expected[name]]
        return f"the file {wrong[0]} is missing, truncated or altered" if wrong else None

    def _steps(self) -> list[int]:
        """Return the steps that have a checkpoint directory, newest first."""
        return sorted((int(path.name) for path in self._directory.glob("*") if path.name.isdecimal()), reverse=True)

    def _drop_damaged(self) -> None:
        """Report and delete all checkpoints newer than the newest intact one."""
        for step in self._steps():
            damage = self._damage(step)
            if damage is None:
                self._known_intact = step
                return
            logger.warning(
                "checkpoint %s/%d cannot be used (%s): falling back to the one before it.",
                self._directory,
                step,
                damage,
            )
            (self._manifests / f"{step}.json").unlink(missing_ok=True)
            shutil.rmtree(self._directory / str(step))

    def latest(self) -> int | None:
        """Return the step of the newest intact checkpoint, None if there is none."""

        def newest_intact() -> int:
            intact = (s for s in self._steps() if s == self._known_intact or self._damage(s) is None)
            return next(intact, -1)

        found = parallel.from_main(newest_intact)
        return found if found >= 0 else None

    def restore(self, step: int, like: Params | None = None) -> Params:
        """Return the state saved under `step`.

        Args:
          step: as returned by `latest`.
          like: a pytree of arrays or `ShapeDtypeStruct` leaves, whose structure and shardings the result takes; None
            restores the saved structure as nested dictionaries, replicated on all devices.
        """
        if like is None:
            like = self._on_all_devices(step)
        restored = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like)))
        return restored["state"]

    def _on_all_devices(self, step: int) -> Params:
        """Return the saved structure with replicated shardings, whatever devices it was saved from."""
        sharding = parallel.replicated(parallel.data_mesh())
        saved = self._manager.item_metadata(step)["state"].tree
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), saved)

    def close(self) -> None:
        """Settle the last save and release the directory."""
        self.settle()
        self._manager.close()
