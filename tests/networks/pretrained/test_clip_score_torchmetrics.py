"""The CLIP score against torchmetrics, with a tiny network of `transformers` and a tokenizer of its own."""

import numpy as np
import pytest

from sbm_jax import pretrained_judges
from sbm_jax.evaluation.config import ClipConfig
from sbm_jax.types import FormatConfig, Modality
from tests.networks.pretrained.files import write_tokenizer
from tests.networks.pretrained.peers import saved

pytestmark = pytest.mark.peer


class Vectors:
    """A network of `transformers` whose functions return vectors, as torchmetrics expects of earlier versions."""

    def __init__(self, network):
        self.network, self.config = network, network.config

    def to(self, device):
        return self

    def get_image_features(self, pixels):
        return self._of(self.network.get_image_features(pixels))

    def get_text_features(self, ids, mask):
        return self._of(self.network.get_text_features(ids, mask))

    def _of(self, found):
        return getattr(found, "pooler_output", found).detach()


WORDS = ("a", "red", "blue", "bird")
IMAGE = Modality("image", (24, 24, 3), 4, bounds=(0.0, 1.0))
TEXT = FormatConfig("text", {"words": WORDS})
CAPTION = Modality("caption", (4,), 4, "tokens", "categorical", vocabulary_size=6, format=TEXT)


def test_scores(tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    score = pytest.importorskip("torchmetrics.multimodal.clip_score")
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": 7, "hidden_size": 16, "max_position_embeddings": 8, "bos_token_id": 5, "eos_token_id": 6}
    image = {"hidden_size": 16, "image_size": 24, "patch_size": 8}
    config = transformers.CLIPConfig(
        text_config=text | sizes | {"intermediate_size": 64},
        vision_config=image | sizes | {"intermediate_size": 64},
        projection_dim=12,
    )
    peer = transformers.CLIPModel(config).eval()
    weights = str(saved(peer, tmp_path))
    tokenizer = write_tokenizer(tmp_path / "tokenizer.json", [*WORDS], "<start>", "<end>")
    size = {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}}
    images_of = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)(**size)
    texts_of = transformers.PreTrainedTokenizerFast(tokenizer_file=tokenizer, pad_token="<end>", eos_token="<end>")

    def processor(text=None, images=None, return_tensors="pt", padding=True):
        if images is not None:
            return images_of(images, return_tensors=return_tensors)
        return texts_of(text, return_tensors=return_tensors, padding=padding)

    texts = ["a red bird", "blue", "a bird"]
    pixels = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    metric = score.CLIPScore(model_name_or_path=lambda: (Vectors(peer), processor))
    expected = []
    for picture, caption in zip(pixels, texts, strict=True):
        metric.reset()
        metric.update(torch.tensor(picture).permute(2, 0, 1), caption)
        expected.append(float(metric.compute().detach()))
    tower = {"width": 16, "depth": 1, "heads": 2}
    own = {"embedding_size": 12, "image": tower, "image_size": 24, "patch": 8, "text": tower}
    own |= {"vocabulary_size": 7, "most_tokens": 8}
    embed = pretrained_judges.clip_fn(ClipConfig(weights, tokenizer, own), (IMAGE, CAPTION))
    ids = np.array([[2, 3, 5, 0], [4, 0, 0, 0], [2, 5, 0, 0]], np.int32)
    vectors = embed({"image": pixels / np.float32(255), "caption": ids})
    found = 100 * np.maximum(np.sum(vectors["image"] * vectors["caption"], axis=1), 0)
    assert max(expected) > 1
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-2)
