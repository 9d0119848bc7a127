"""Small networks and tokenizers like those of Optimus, for tests."""

from pathlib import Path

from sbm_jax.types import CodecConfig, FormatConfig, Modality
from tests.networks.pretrained.files import write_tokenizer

WORDS = ("a", "red", "green", "blue", "bird")
BERT = {"vocabulary_size": 8, "width": 16, "depth": 1, "heads": 2, "hidden": 16, "most_tokens": 12}
GPT2 = {"vocabulary_size": 11, "width": 16, "depth": 2, "heads": 2, "most_tokens": 12}
SMALL = {"bert": BERT, "gpt2": GPT2, "begin": 10, "end": 8}
"""Both vocabularies have other orders; the decoder's network has more tokens, 9 and 10, than its tokenizer."""


def caption(directory: Path, length: int = 6, **network) -> Modality:
    """Return a modality of captions of at most `length` tokens, with its tokenizers in a directory."""
    decoder = write_tokenizer(directory / "decoder.json", [*WORDS[::-1], "<none>", "dog", "cat"], unknown="<end>")
    encoder = write_tokenizer(directory / "encoder.json", [*WORDS], "[CLS]", "[SEP]")
    form = FormatConfig("pretrained_text", {"decoder": decoder, "encoder": encoder})
    codec = CodecConfig("optimus", {**SMALL, **network})
    return Modality("caption", (2 * length,), 6, codec, "categorical", vocabulary_size=10, format=form)
