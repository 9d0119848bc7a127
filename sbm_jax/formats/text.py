"""Text as ids of words or bytes."""

import collections
import dataclasses
import logging
import re
import unicodedata
from collections.abc import Iterable

import numpy as np

from sbm_jax.config import checked_dataclass, plain
from sbm_jax.errors import SbmError, require
from sbm_jax.formats.base import Format
from sbm_jax.types import FormatConfig, Modality

logger = logging.getLogger(__name__)

UNKNOWN = "<unk>"
"""Stands for a word outside the vocabulary in texts decoded from ids."""

UNKNOWN_ID, FIRST_WORD, FIRST_BYTE = 1, 2, 1
"""The ids of unknown words, of a vocabulary's first word, and of the byte 0; the id 0 ends and pads."""

_MARKS = "".join(chr(code) for code in range(0x300, 0x3000) if unicodedata.category(chr(code)).startswith("M"))
"""Accents and vowel signs, which belong to words but do not match `\\w`."""

_WORDS = re.compile(rf"{UNKNOWN}|\d+(?:[.,]\d+)+|[\w{_MARKS}]+|[^\w\s]")
_NO_SPACE_BEFORE, _NO_SPACE_AFTER = {*".,;:!?)]}%'’-/"}, {*"([{'’-/"}


def words_of(text: str) -> list[str]:
    """Split a text into words and punctuation marks, in lower case and composed (NFC).

    A word is a run of letters, digits, accents and underscores, or a number such as "3.14"; every other character
    except white space is a word of its own, so "long-billed" gives three. Spacing and capitals are lost; `text_of`
    returns a text with the same words.
    """
    return _WORDS.findall(unicodedata.normalize("NFC", text.lower()))


def text_of(words: Iterable[str]) -> str:
    """Join words into a text with the usual spacing; `words_of` recovers the same words."""
    text, before = "", ""
    for word in words:
        glued = not text or word in _NO_SPACE_BEFORE or before in _NO_SPACE_AFTER
        text += word if glued else f" {word}"
        before = word
    return text


def build_vocabulary(texts: Iterable[str], least: int = 1) -> tuple[str, ...]:
    """Return the distinct words of texts, most frequent first: the option ``words`` of the format "text".

    Args:
      texts: the texts, such as the training data.
      least: minimum number of occurrences; rarer words get the id of unknown words.
    """
    counts = collections.Counter(word for text in texts for word in words_of(text) if word != UNKNOWN)
    return tuple(sorted((word for word, count in counts.items() if count >= least), key=lambda w: (-counts[w], w)))


@checked_dataclass
class TextOptions:
    """The meaning of the ids of a text.

    Attributes:
      words: the vocabulary, as returned by `build_vocabulary`. The id 0 ends and pads, 1 stands for unknown words, and
        the words follow. If (), ids are UTF-8 bytes, and the byte b has the id b + 1; but if the modality's
        vocabulary_size is 0, an experiment replaces () with the words of the training data.
      least: minimum number of occurrences of those words.
      allow_unknown: replace words outside the vocabulary with the unknown word, and warn of their number; False to
        refuse them.
      cut: truncate texts that are too long, and warn of their number; False to refuse them.
    """

    words: tuple[str, ...] = ()
    least: int = 1
    allow_unknown: bool = True
    cut: bool = False

    def __post_init__(self):
        for word in self.words:
            whole = words_of(word) == [word] and word != UNKNOWN
            require(whole, "format.options.words", word, "single words in lower case, as build_vocabulary returns them")
        different = len({*self.words}) == len(self.words)
        require(different, "format.options.words", f"{len(self.words)} words", "all different")
        require(self.least >= 1, "format.options.least", self.least, "at least 1")

    @property
    def vocabulary_size(self) -> int:
        """The number of ids, including 0."""
        return FIRST_WORD + len(self.words) if self.words else FIRST_BYTE + 256


class Text(Format):
    """Strings [N] that networks see as sequences of ids [N, L], padded with 0."""

    Options = TextOptions
    passes_arrays = True
    is_text = True

    def __init__(self, modality: Modality, options: TextOptions):
        """Check that the modality's vocabulary size matches the vocabulary."""
        super().__init__(modality, options)
        size, where = options.vocabulary_size, f"modality {modality.name!r}: vocabulary_size"
        what = f"{len(options.words)} words, an end and an unknown word" if options.words else "256 bytes and an end"
        require(modality.vocabulary_size == size, where, modality.vocabulary_size, f"{size}, for {what}")
        self.length = modality.shape[0]
        self.id_of = {word: FIRST_WORD + number for number, word in enumerate(options.words)}

    @classmethod
    def is_complete(cls, modality: Modality, options: TextOptions) -> bool:
        """Return whether the vocabulary is known."""
        return bool(modality.vocabulary_size or options.words)

    @classmethod
    def completed(cls, modality: Modality, options: TextOptions, rows: np.ndarray) -> Modality:
        """Return the modality with the words of the strings `rows` [N] as its vocabulary."""
        where = f"modality {modality.name!r}"
        if rows.ndim != 1 or rows.dtype.kind != "U":
            raise SbmError(
                f"{where} has rows of {rows.dtype} {list(rows.shape)}; expected strings, whose words make the "
                "vocabulary. Set its vocabulary_size, or change its format."
            )
        words = build_vocabulary(rows.tolist(), options.least)
        least = f"{where}: format.options.least"
        require(bool(words), least, options.least, "a number of times that some word occurs in the training data")
        options = dataclasses.replace(options, words=words, least=1)
        return dataclasses.replace(
            modality,
            vocabulary_size=options.vocabulary_size,
            format=FormatConfig(modality.format.name, plain(options)),
        )

    def to_array(self, values: np.ndarray, where: str) -> np.ndarray:
        """Convert strings [N] to ids, int32 [N, L]; integers [N, L] are returned unchanged.

        Raises:
          SbmError: if the values are neither, or a text is longer than L or has unknown words and these are refused.
        """
        values = np.asarray(values)
        if values.ndim == 2 and values.dtype.kind in "ui":
            return values
        if values.ndim != 1 or values.dtype.kind != "U":
            expected = f"a string for each row, or ids [N, {self.length}]"
            raise self.refuse(where, f"is {values.dtype} {list(values.shape)}", expected)
        ids = np.zeros((len(values), self.length), np.int32)
        unknown: collections.Counter[str] = collections.Counter()
        num_cut = 0
        for row, text in enumerate(values.tolist()):
            parts = words_of(text) if self.options.words else self._bytes(text, where, row)
            if len(parts) > self.length and not self.options.cut:
                raise SbmError(
                    f"{where} has a text of {len(parts)} {self._unit} in row {row}; modality {self.modality.name!r} "
                    f"holds {self.length} at most. Raise its shape to ({len(parts)},) or more, shorten the text, or "
                    "set format.options.cut."
                )
            num_cut += len(parts) > self.length
            parts = parts[: self.length]
            found = (
                [FIRST_BYTE + b for b in parts] if isinstance(parts, bytes) else self._ids(parts, unknown, where, row)
            )
            ids[row, : len(found)] = found
        if num_cut:
            logger.warning(
                "%s: %d of %d texts have more than %d %s and are truncated (format.options.cut).",
                *(where, num_cut, len(values), self.length, self._unit),
            )
        if unknown:
            logger.warning(
                "%s: %d words (%d different, such as %r) are not in the vocabulary; they become the unknown word.",
                *(where, unknown.total(), len(unknown), unknown.most_common(1)[0][0]),
            )
        return ids

    @property
    def _unit(self) -> str:
        return "words" if self.options.words else "bytes"

    def _ids(self, words: list[str], unknown: collections.Counter, where: str, row: int) -> list[int]:
        """Return the ids of words, and count the unknown ones in `unknown`."""
        lacking = [word for word in words if word not in self.id_of and word != UNKNOWN]
        if lacking and not self.options.allow_unknown:
            raise SbmError(
                f"{where} has the word {lacking[0]!r} in row {row}, which is not in the vocabulary of modality "
                f"{self.modality.name!r}. Add it to format.options.words, or set format.options.allow_unknown."
            )
        unknown.update(lacking)
        return [self.id_of.get(word, UNKNOWN_ID) for word in words]

    def _bytes(self, text: str, where: str, row: int) -> bytes:
        """Return the UTF-8 bytes of a text."""
        try:
            return text.encode()
        except UnicodeEncodeError as error:
            raise SbmError(f"{where} has a text in row {row} that is not Unicode ({error}). Fix the data.") from error

    def to_raw(self, array: np.ndarray) -> np.ndarray:
        """Decode ids [R, L] to texts [R]; a diverged sample, with ids -1, gives an empty text.

        Bytes that are not UTF-8 are left out.
        """
        texts = []
        for row in np.asarray(array):
            ids = [int(i) for i in row[: _length(row)]]
            if self.options.words:
                texts.append(text_of(UNKNOWN if i == UNKNOWN_ID else self.options.words[i - FIRST_WORD] for i in ids))
            else:
                texts.append(bytes(i - FIRST_BYTE for i in ids).decode(errors="ignore"))
        return np.array(texts, dtype=str)


def _length(row: np.ndarray) -> int:
    """Return the number of ids before the first that is not part of the text."""
    ends = np.flatnonzero(row <= 0)
    return int(ends[0]) if len(ends) else len(row)
