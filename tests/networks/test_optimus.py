"""The codec of pretrained text networks: its law, its samples, and where its weights come from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.networks.codecs import AutoencoderNetworkConfig, Codecs, check_codec, make_codec
from sbm_jax.networks.pretrained.bert import Bert, BertConfig
from sbm_jax.networks.pretrained.gpt2 import GPT2 as Decoder
from sbm_jax.networks.pretrained.gpt2 import GPT2Config
from sbm_jax.systems.codec_training import AutoencoderConfig, CodecTraining
from sbm_jax.types import CodecConfig, Dataset, OptimizerConfig, TrainingConfig
from tests.networks.optimus_files import BERT, GPT2, SMALL, caption
from tests.networks.pretrained.files import tensors_of, write

NETWORK = AutoencoderNetworkConfig()


def codec_of(directory, **options):
    return make_codec(caption(directory, **options), NETWORK)


def rows_of(*texts, length=6):
    """Return rows whose decoder's half is given, as ids from 1, and whose encoder's half is that of one text."""
    rows = np.zeros((len(texts), 2 * length), np.int32)
    for row, ids in zip(rows, texts, strict=True):
        row[: len(ids)] = ids
        row[length : length + 3] = 7, 1, 8
    return jnp.asarray(rows)


def init(codec):
    return jax.jit(codec.init)(jax.random.key(0))


def encode(codec, params, x):
    return jax.jit(codec.encode)(params, x)


def loss_of(codec, params, x, z):
    return jax.jit(codec.loss)(params, jax.random.key(0), x, z)


@pytest.fixture
def codec(tmp_path):
    return codec_of(tmp_path)


def test_it_is_a_codec(codec):
    check_codec(codec)


def test_bert_reads_its_half_and_gpt2_the_other(codec):
    params = init(codec)
    x = rows_of([1, 2], [3])
    mean, log_variance = encode(codec, params, x)
    assert mean.shape == log_variance.shape == (2, 6)
    np.testing.assert_allclose(mean[0], mean[1], rtol=1e-5)
    loss = loss_of(codec, params, x, mean)
    other = loss_of(codec, params, x.at[:, 6:].set(0), mean)
    np.testing.assert_array_equal(loss, other)
    assert abs(loss[0] - loss[1]) > 1e-3
    moved = encode(codec, params, x.at[0, 7].set(2))[0]
    assert np.abs(moved[0] - mean[0]).max() > 1e-4
    assert np.isfinite(encode(codec, params, jnp.zeros_like(x))[0]).all()  # what was generated, and not filled


def test_padding_changes_nothing(tmp_path):
    codec, longer = codec_of(tmp_path, length=4), codec_of(tmp_path, length=6)
    params, z = init(codec), jnp.ones((1, 6))
    for found, expected in (
        (encode(codec, params, rows_of([1, 2], length=4)), encode(longer, params, rows_of([1, 2]))),
        (
            loss_of(codec, params, rows_of([1, 2], length=4), z),
            loss_of(longer, params, rows_of([1, 2]), z),
        ),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_samples_have_the_law_that_the_loss_tells(tmp_path):
    codec = codec_of(tmp_path, length=3, temperature=1.0)
    params, number = init(codec), 4000
    # Embeddings that make some words likely.
    table = params["decoder"]["transformer.wte"]
    params["decoder"]["transformer.wte"] = jax.tree.map(lambda e: 0.6 * e / e.std(), table)
    z = jnp.broadcast_to(jax.random.normal(jax.random.key(1), (6,)), (number, 6))
    drawn = np.asarray(jax.jit(codec.sample)(params, jax.random.key(2), codec.decode(params, z)))
    assert (drawn[:, 2:] == 0).all()
    texts = [[], *([i] for i in range(1, 9))]
    loss = loss_of(codec, params, rows_of(*texts, length=3), z[:9])
    for ids, one in zip(texts, loss, strict=True):
        share = np.mean((drawn[:, :3] == [*ids, 0, 0, 0][:3]).all(axis=1))
        expected = np.exp(-float(one))
        assert share == pytest.approx(expected, abs=4 * np.sqrt(expected / number) + 1e-3)


def test_no_token_is_outside_of_the_vocabulary(tmp_path):
    """The network has two tokens that no text has, one of which begins texts; they are the most likely ones here."""
    codec = codec_of(tmp_path, temperature=1.0)
    params = init(codec)
    kernel = jnp.zeros((11, 16)).at[jnp.array([9, 10]), 0].set(50.0)
    params["decoder"]["transformer.wte"] = {"embedding": kernel + 0.1}
    params["decoder"]["transformer.ln_f"]["bias"] = jnp.ones(16)
    drawn = np.asarray(jax.jit(codec.sample)(params, jax.random.key(0), jnp.ones((200, 6))))
    np.testing.assert_array_equal(drawn != 0, np.pad(drawn[:, :6] != 0, ((0, 0), (0, 6))))
    assert {*np.unique(drawn)} == {*range(9)}  # the token 8 ends
    loss = loss_of(codec, params, rows_of([1]), jnp.ones((1, 6)))
    assert loss[0] < 2 * np.log(9) + 0.1  # as if they were not there


def test_greedy_samples_do_not_depend_on_the_key_and_divergence_is_told(codec):
    params = init(codec)
    z = jnp.ones((3, 6)).at[1, 2].set(jnp.nan)
    sample = jax.jit(codec.sample)
    first, second = (np.asarray(sample(params, jax.random.key(i), z)) for i in range(2))
    np.testing.assert_array_equal(first, second)
    assert (first[1] == -1).all()
    assert (first[[0, 2]] >= 0).all()


# MARK: Weights


def files_of(directory, with_latent=False, size=6):
    """Return files of BERT and GPT-2, or one of both as Optimus has them, and the tensors."""
    bert = tensors_of(Bert(BertConfig(**BERT)), jnp.zeros((1, 2), jnp.int32), seed=5)
    config = GPT2Config(**GPT2, latent_size=size if with_latent else 0)
    z = jnp.zeros((1, size)) if with_latent else None
    gpt2 = tensors_of(Decoder(config), jnp.zeros((1, 2), jnp.int32), z, seed=6)
    for name in gpt2:  # which are [in, out] in the files too
        if ".c_" in name and name.endswith(".weight"):
            assert gpt2[name].ndim == 2
    if not with_latent:
        return write(directory / "bert.safetensors", bert), write(directory / "gpt2.safetensors", gpt2), bert, gpt2
    linear = {"encoder.linear.weight": np.random.default_rng(0).normal(size=(2 * size, 16)).astype(np.float32)}
    both = {f"encoder.{name}": value for name, value in bert.items()}
    both |= {f"decoder.{name}": value for name, value in gpt2.items()} | linear
    path = write(directory / "optimus.safetensors", both)
    return path, path, bert, gpt2


@pytest.mark.parametrize("with_latent", [False, True])
def test_weights_are_read(tmp_path, with_latent):
    encoder, decoder, bert, gpt2 = files_of(tmp_path, with_latent)
    codec = codec_of(tmp_path, encoder_weights=encoder, decoder_weights=decoder)
    read = codec.read()
    table = read["encoder"]["bert"]["embeddings.word_embeddings"]["embedding"]
    np.testing.assert_array_equal(table, bert["embeddings.word_embeddings.weight"])
    weight = read["decoder"]["transformer.h.1"]["attn.c_attn"]["weight"]
    np.testing.assert_array_equal(weight, gpt2["transformer.h.1.attn.c_attn.weight"])
    assert ("linear" in read["encoder"]) == with_latent
    assert ("transformer.linear_emb" in read["decoder"]) == with_latent


def test_files_that_do_not_fit_are_named(tmp_path):
    encoder, decoder, _, _ = files_of(tmp_path)
    with pytest.raises(SbmError, match=r"codec\.network\.encoder_weights: the file has no tensor 'embeddings\."):
        codec_of(tmp_path, encoder_weights=decoder).read()
    with pytest.raises(SbmError, match=r"codec\.network\.decoder_weights: no file"):
        codec_of(tmp_path, decoder_weights=encoder + "x").read()
    path, _, _, _ = files_of(tmp_path, True, size=4)
    with pytest.raises(SbmError, match=r"codec\.network\.encoder_weights: tensor 'weight' has the shape \(8, 16\)"):
        codec_of(tmp_path, encoder_weights=path).read()


def test_frozen_parts_have_no_gradient(tmp_path):
    codec = codec_of(tmp_path, frozen=("encoder", "decoder"))
    params, x = init(codec), rows_of([1, 2])

    def loss(params):
        return codec.loss(params, jax.random.key(0), x, codec.encode(params, x)[0]).sum()

    gradient = jax.jit(jax.grad(loss))(params)
    moved = {jax.tree_util.keystr(path) for path, g in jax.tree_util.tree_leaves_with_path(gradient) if (g != 0).any()}
    assert moved == {
        "['encoder']['linear']['kernel']",
        "['decoder']['transformer.linear']['kernel']",
        "['decoder']['transformer.linear_emb']['kernel']",
    }


def training_of(modality, **optimizer):
    config = AutoencoderConfig(TrainingConfig(1, 4, OptimizerConfig(**optimizer)))
    return CodecTraining("a", (modality,), config, 0, False, False)


NOTHING = Dataset(None, None, None, {}, {})


def test_training_starts_from_files(tmp_path):
    encoder, decoder, bert, _ = files_of(tmp_path)
    modality = caption(tmp_path, encoder_weights=encoder, decoder_weights=decoder)
    start, stage = training_of(modality).stages(NOTHING)
    assert (start.name, stage.requires) == ("a_start", ("a_start",))
    read = start.init(jax.random.key(0), {})
    params = Codecs((modality,), NETWORK, False).per_modality.own(
        jax.jit(stage.init)(jax.random.key(0), {"a_start": read}), "caption"
    )
    np.testing.assert_array_equal(params["encoder"]["bert"]["pooler.dense"]["kernel"], bert["pooler.dense.weight"].T)
    fresh = init(make_codec(modality, NETWORK))
    assert jax.tree.structure(fresh) == jax.tree.structure(params)
    other = write(tmp_path / "other.safetensors", {name: value + 1 for name, value in bert.items()})
    again, _ = training_of(caption(tmp_path, encoder_weights=other, decoder_weights=decoder)).stages(NOTHING)
    assert again.settings != start.settings


def test_what_is_frozen_as_a_whole_is_not_trained(tmp_path):
    path, _, _, gpt2 = files_of(tmp_path, True)
    frozen = {"encoder_weights": path, "decoder_weights": path, "frozen": ("encoder", "decoder", "latent")}
    training = training_of(caption(tmp_path, **frozen))
    assert training.is_loaded
    (stage,) = training.stages(NOTHING)
    assert stage.training is None
    params = stage.init(jax.random.key(0), {})["caption"]["decoder"]
    np.testing.assert_array_equal(params["transformer.linear"]["kernel"][0].T, gpt2["transformer.linear.weight"])
    lacking = training_of(caption(tmp_path, **{**frozen, "decoder_weights": ""}))
    with pytest.raises(SbmError, match=r"all of the codec is frozen .* lack decoder/transformer.* parameters"):
        lacking.load()


def test_what_is_frozen_does_not_decay(tmp_path):
    encoder, decoder, _, _ = files_of(tmp_path)
    modality = caption(tmp_path, encoder_weights=encoder, decoder_weights=decoder, frozen=("encoder",))
    training_of(modality).check_start()
    with pytest.raises(SbmError, match=r"freezes encoder, but optimizer\.weight_decay \(0\.1\)"):
        training_of(modality, weight_decay=0.1).check_start()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (7,)}, r"shape is \(7,\); expected \(2 L,\)"),
        ({"shape": (40,)}, r"shape is \(40,\); expected at most \(22,\)"),
        ({"vocabulary_size": 13}, "vocabulary_size is 13; expected at most 12"),
        ({"vocabulary_size": 0, "likelihood": "gaussian"}, "the codec 'optimus' encodes ids"),
        ({"codec": CodecConfig("optimus", {**SMALL, "frozen": ("bert",)})}, "unknown part in codec.network.frozen"),
        ({"codec": CodecConfig("optimus", {**SMALL, "end": 11})}, r"codec\.network\.end is 11; expected an id of gpt2"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, message):
    with pytest.raises(SbmError, match=message):
        make_codec(dataclasses.replace(caption(tmp_path), **change), NETWORK)
