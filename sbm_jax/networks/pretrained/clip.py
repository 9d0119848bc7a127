"""CLIP, which embeds images and texts as vectors whose cosine similarity measures how well they match.

Reference: A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.
  https://arxiv.org/abs/2103.00020. Equivalent to `transformers.CLIPModel`.

    hf download openai/clip-vit-base-patch32 model.safetensors tokenizer.json
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import require
from sbm_jax.networks.pretrained.weights import Tensors, as_params, check_length
from sbm_jax.types import Array, Params

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation of the pixels of CLIP's training images, by channel, in [0, 1]."""


@checked_dataclass
class TowerConfig:
    """Sizes of the transformer of one modality.

    Attributes:
      width: size of a token.
      depth: number of layers.
      heads: attention heads, a divisor of `width`.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12

    def __post_init__(self):
        for name in ("width", "depth", "heads"):
            require(getattr(self, name) >= 1, f"clip: {name}", getattr(self, name), "at least 1")
        require(self.width % self.heads == 0, "clip: heads", self.heads, f"a divisor of width ({self.width})")


@checked_dataclass
class ClipConfig:
    """Sizes of CLIP; ViT-B/32's by default.

    Attributes:
      embedding_size: E, the size of the embeddings.
      image: the image tower.
      image_size: side of an image in pixels, a multiple of `patch`.
      patch: side of a patch in pixels.
      text: the text tower.
      vocabulary_size: size of the tokenizer's vocabulary, whose last id ends a text.
      most_tokens: maximum number of tokens of a text.
    """

    embedding_size: int = 512
    image: TowerConfig = TowerConfig()
    image_size: int = 224
    patch: int = 32
    text: TowerConfig = TowerConfig(512, 12, 8)
    vocabulary_size: int = 49_408
    most_tokens: int = 77

    def __post_init__(self):
        for name in ("embedding_size", "image_size", "patch", "vocabulary_size", "most_tokens"):
            require(getattr(self, name) >= 1, f"clip: {name}", getattr(self, name), "at least 1")
        whole = self.image_size % self.patch == 0
        require(whole, "clip: patch", self.patch, f"a divisor of image_size ({self.image_size})")


class Clip(nn.Module):
    """CLIP's image and text towers.

    Attributes:
      config: their sizes.
    """

    config: ClipConfig

    def setup(self):
        """Make the towers and their projections."""
        config = self.config
        self.image_tower = _ImageTower(config, name="vision_model")
        self.text_tower = _TextTower(config, name="text_model")
        self.of_image = nn.Dense(config.embedding_size, use_bias=False, name="visual_projection")
        self.of_text = nn.Dense(config.embedding_size, use_bias=False, name="text_projection")

    def __call__(self, images: Array, ids: Array) -> tuple[Array, Array]:
        """Return the embeddings of images and of texts; initialises all parameters."""
        return self.embed_images(images), self.embed_texts(ids)

    def embed_images(self, images: Array) -> Array:
        """Embed images [B, H, W, 3] from `as_clip_input` as vectors [B, E].

        Raises:
          SbmError: if an image has another shape than (image_size, image_size, 3).
        """
        size = self.config.image_size
        require(
            images.shape[1:] == (size, size, 3), "clip: the shape of an image", images.shape[1:], f"{size, size, 3}"
        )
        return self.of_image(self.image_tower(images))

    def embed_texts(self, ids: Array) -> Array:
        """Embed texts, int [B, T], as vectors [B, E]; each has a begin and an end token; ids after the end are ignored.

        Raises:
          SbmError: on more tokens than `most_tokens`.
        """
        return self.of_text(self.text_tower(ids))


class _ImageTower(nn.Module):
    config: ClipConfig

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Return the final state of the class token, [B, width]."""
        tower, patch = self.config.image, (self.config.patch,) * 2
        x = nn.Conv(tower.width, patch, patch, "VALID", use_bias=False, name="embeddings.patch_embedding")(images)
        x = x.reshape(len(x), -1, tower.width)
        first = self.param("embeddings.class_embedding", nn.initializers.normal(0.02), (tower.width,))
        x = jnp.concatenate([jnp.broadcast_to(first[None, None], (len(x), 1, tower.width)), x], axis=1)
        x = x + nn.Embed(x.shape[1], tower.width, name="embeddings.position_embedding")(jnp.arange(x.shape[1]))[None]
        x = _norm("pre_layrnorm")(x)  # sic, as in the files
        for number in range(tower.depth):
            x = _Layer(tower, name=f"encoder.layers.{number}")(x, None)
        return _norm("post_layernorm")(x[:, 0])


class _TextTower(nn.Module):
    config: ClipConfig

    @nn.compact
    def __call__(self, ids: Array) -> Array:
        """Return the final state of the first end token, [B, width]."""
        tower, config = self.config.text, self.config
        check_length(ids.shape[1], config.most_tokens, "clip")
        x = nn.Embed(config.vocabulary_size, tower.width, name="embeddings.token_embedding")(ids)
        places = jnp.arange(ids.shape[1])
        x = x + nn.Embed(config.most_tokens, tower.width, name="embeddings.position_embedding")(places)[None]
        causal = (places[None] <= places[:, None])[None, None]
        for number in range(tower.depth):
            x = _Layer(tower, name=f"encoder.layers.{number}")(x, causal)
        end = jnp.argmax(ids == config.vocabulary_size - 1, axis=1)
        return _norm("final_layer_norm")(jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0])


class _Layer(nn.Module):
    config: TowerConfig

    @nn.compact
    def __call__(self, x: Array, mask: Array | None) -> Array:
        width, heads = self.config.width, (*x.shape[:2], self.config.heads, -1)
        h = _norm("layer_norm1")(x)
        query, key, value = (nn.Dense(width, name=f"self_attn.{part}_proj")(h).reshape(heads) for part in "qkv")
        attended = jax.nn.dot_product_attention(query, key, value, mask=mask).reshape(x.shape)
        x = x + nn.Dense(width, name="self_attn.out_proj")(attended)
        h = nn.Dense(4 * width, name="mlp.fc1")(_norm("layer_norm2")(x))
        return x + nn.Dense(width, name="mlp.fc2")(h * nn.sigmoid(1.702 * h))


def _norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(1e-5, name=name)


def as_clip_input(images: Array, size: int) -> Array:
    """Convert images [B, H, W, 1 or 3] in [0, 1] to the network's input, [B, size, size, 3], standardised.

    As in the reference, resizes the shorter side to `size` by cubic interpolation, and crops the centre.
    """
    height, width, channels = images.shape[1:]
    shorter = min(height, width)
    shape = (round(size * height / shorter), round(size * width / shorter))
    resized = jax.image.resize(images, (len(images), *shape, channels), "cubic")
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    whole = jnp.clip(resized[:, top : top + size, left : left + size], 0.0, 1.0)
    return (jnp.broadcast_to(whole, (*whole.shape[:3], 3)) - _by_channel(MEAN)) / _by_channel(DEVIATION)


def _by_channel(values: tuple[float, ...]) -> Array:
    return jnp.array(values)[None, None, None]


def read_clip(config: ClipConfig, tensors: Tensors, option: str) -> Params:
    """Convert tensors to the parameters of `Clip`.

    Raises:
      SbmError: see `as_params`.
    """
    images = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, 3), jnp.float32)
    return as_params(Clip(config), (images, jax.ShapeDtypeStruct((1, 2), jnp.int32)), tensors, option)
