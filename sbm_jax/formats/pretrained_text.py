"""Text as token ids of the tokenizers of two pretrained networks."""

import dataclasses
import hashlib
import logging
from typing import Any

import numpy as np

from sbm_jax.config import checked_dataclass, plain
from sbm_jax.errors import SbmError, require
from sbm_jax.formats.base import Format
from sbm_jax.formats.tokenizer_files import padded, read_tokenizer
from sbm_jax.storage import user_path
from sbm_jax.types import FormatConfig, Modality

logger = logging.getLogger(__name__)


@checked_dataclass
class PretrainedTextOptions:
    """The tokenizers.

    Attributes:
      decoder: `tokenizer.json` of the network that writes texts, such as GPT-2.
      encoder: `tokenizer.json` of the network that reads texts, such as BERT, which adds begin and end tokens.
      cut: truncate texts that are too long, and warn of their number; False to refuse them.
      digest: of both files, set when a run first reads them; afterwards files with other contents are refused.
    """

    decoder: str = ""
    encoder: str = ""
    cut: bool = False
    digest: str = ""

    def __post_init__(self):
        for name in ("decoder", "encoder"):
            require(bool(getattr(self, name)), f"format.options.{name}", "", "the file tokenizer.json of a network")


class PretrainedText(Format):
    """Strings [N] that networks see as rows of ids [N, 2 L]: the decoder's L ids, then the encoder's L ids.

    A text has two tokenisations, and neither can be computed from the other on a device, so both are made when texts
    are read and stay together. Ids start at 1; 0 ends and pads each half. The decoder's half has at least one 0, so
    that code that reads a row up to its first 0 sees the decoder's ids. Generated rows have only the decoder's half;
    `filled` adds the encoder's on the host. Thus the decoder's tokens define the text; if the encoder needs more than
    L tokens for it, it reads the first ones.
    """

    Options = PretrainedTextOptions
    passes_arrays = True
    is_text = True
    num_sequences = 2

    def __init__(self, modality: Modality, options: PretrainedTextOptions):
        """Read the tokenizers and check that the modality has the right vocabulary size."""
        super().__init__(modality, options)
        where = f"modality {modality.name!r}:"
        self.decoder, self.encoder = _tokenizers(options)
        if options.digest and options.digest != (found := _digest(options)):
            raise SbmError(
                f"{where} {options.decoder} and {options.encoder} have the digest {found}; expected {options.digest}, "
                "that of the tokenizers in training. Restore these files."
            )
        size = _vocabulary_size(options)
        require(modality.vocabulary_size == size, f"{where} vocabulary_size", modality.vocabulary_size, str(size))
        twice = modality.shape[0] % 2 == 0 and modality.shape[0] >= 4
        require(twice, f"{where} shape", modality.shape, "(2 L,), twice the most tokens that a text may have, L >= 2")
        self.length = modality.shape[0] // 2

    @classmethod
    def is_complete(cls, modality: Modality, options: PretrainedTextOptions) -> bool:
        """Return whether the vocabulary size and the digest of the files are known."""
        return bool(modality.vocabulary_size and options.digest)

    @classmethod
    def completed(cls, modality: Modality, options: PretrainedTextOptions, rows: np.ndarray) -> Modality:
        """Return the modality with the size of the larger vocabulary, and the digest of the files."""
        del rows
        found = _vocabulary_size(options)
        size = modality.vocabulary_size or found  # a given size is checked when the format is made
        read = plain(dataclasses.replace(options, digest=_digest(options)))
        return dataclasses.replace(modality, vocabulary_size=size, format=FormatConfig(modality.format.name, read))

    def to_array(self, values: np.ndarray, where: str) -> np.ndarray:
        """Convert strings [N] to rows of ids, int32 [N, 2 L]; integers [N, 2 L] are returned unchanged.

        Raises:
          SbmError: if the values are neither, or a text has too many tokens.
        """
        values = np.asarray(values)
        if values.ndim == 2 and values.dtype.kind in "ui":
            return values
        if values.ndim != 1 or values.dtype.kind != "U":
            expected = f"a string for each row, or ids [N, {2 * self.length}]"
            raise self.refuse(where, f"is {values.dtype} {list(values.shape)}", expected)
        written = [row.ids for row in self.decoder.encode_batch(values.tolist(), add_special_tokens=False)]
        read = [row.ids for row in self.encoder.encode_batch(values.tolist())]
        long = [i for i, ids in enumerate(written) if len(ids) >= self.length]
        if long and not self.options.cut:
            needed = len(written[long[0]]) + 1
            raise SbmError(
                f"{where} has a text of {needed} tokens, including its end, in row {long[0]}; modality "
                f"{self.modality.name!r} holds {self.length} at most. Raise its shape to ({2 * needed},) or more, "
                "shorten the text, or set format.options.cut."
            )
        if long:
            logger.warning(
                "%s: %d of %d texts have more than %d tokens and are truncated (format.options.cut).",
                *(where, len(long), len(values), self.length),
            )
        half_read = sum(len(ids) > self.length for ids in read)
        if half_read:
            logger.warning(
                "%s: %d of %d texts have more than %d encoder tokens; the encoder reads only the first ones.",
                *(where, half_read, len(values), self.length),
            )
        return np.concatenate([self._row([ids[: self.length - 1] for ids in written]), self._read(read)], axis=1)

    def _read(self, rows: list[list[int]]) -> np.ndarray:
        """Return the encoder's half [N, L]; a truncated text keeps its end token."""
        return self._row([ids if len(ids) <= self.length else [*ids[: self.length - 1], ids[-1]] for ids in rows])

    def _row(self, rows: list[list[int]]) -> np.ndarray:
        return padded([[i + 1 for i in ids] for ids in rows], self.length)

    def to_raw(self, array: np.ndarray) -> np.ndarray:
        """Decode rows [R, 2 L] to texts [R] from the decoder's half; a diverged sample gives an empty text."""
        texts = [self.decoder.decode(_ids(row), skip_special_tokens=False) for row in array[:, : self.length]]
        return np.array(texts, dtype=str)

    def filled(self, array: np.ndarray) -> np.ndarray:
        """Return rows [R, 2 L] with empty encoder halves filled in, truncated where they are too long."""
        rows = np.array(array)
        empty = np.flatnonzero((rows[:, self.length] == 0) & (rows[:, 0] >= 0))
        texts = self.to_raw(rows[empty]).tolist()
        rows[empty, self.length :] = self._read([row.ids for row in self.encoder.encode_batch(texts)])
        return rows


def _ids(row: np.ndarray) -> list[int]:
    """Return the tokenizer's ids of a row, up to its first id that is not part of the text."""
    ends = np.flatnonzero(row <= 0)
    return [int(i) - 1 for i in (row[: ends[0]] if len(ends) else row)]


def _tokenizers(options: PretrainedTextOptions) -> tuple[Any, Any]:
    decoder = read_tokenizer(options.decoder, "format.options.decoder")
    return decoder, read_tokenizer(options.encoder, "format.options.encoder")


def _digest(options: PretrainedTextOptions) -> str:
    paths = [user_path(path, "format.options") for path in (options.decoder, options.encoder)]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def _vocabulary_size(options: PretrainedTextOptions) -> int:
    return 1 + max(tokenizer.get_vocab_size(with_added_tokens=True) for tokenizer in _tokenizers(options))
