"""The codec of sequences of ids."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.networks.codecs import AutoencoderNetworkConfig, Codecs, check_codec, make_codec
from sbm_jax.networks.codecs.tokens import Slots
from sbm_jax.networks.transformer import KeysValues
from sbm_jax.types import CodecConfig, Modality

SMALL = {"width": 16, "depth": 1, "heads": 2, "word_dropout": 0.0}
WORDS = Modality("words", (7,), 20, CodecConfig("tokens", SMALL), "categorical", vocabulary_size=6)
X = np.array([[1, 2, 3, 0, 0, 0, 0], [5, 4, 5, 4, 5, 4, 3], [0, 0, 0, 0, 0, 0, 0]], np.int32)


def _codec(**network):
    return make_codec(
        dataclasses.replace(WORDS, codec=CodecConfig("tokens", SMALL | network)), AutoencoderNetworkConfig()
    )


@pytest.fixture(scope="module")
def trained():
    """Return a codec and parameters that know a few sequences by heart."""
    codec = _codec(causal_depth=2)
    params, optimizer = jax.jit(codec.init)(jax.random.key(0)), optax.adam(1e-2)

    def loss(params):
        return codec.loss(params, jax.random.key(0), X, codec.decode(params, codec.encode(params, X)[0])).mean()

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(60):
        params, state = step(params, state)
    return codec, params


@pytest.mark.parametrize("latent_size", [1, 3, 20, 56, 100])
def test_the_codec_is_one_for_latents_of_any_size(latent_size):
    check_codec(make_codec(dataclasses.replace(WORDS, latent_size=latent_size), AutoencoderNetworkConfig()))


@pytest.mark.parametrize("latent_size", [1, 17, 56])
def test_slots_hold_every_position_once(latent_size):
    slots = Slots(7, latent_size, 8)
    x = jax.random.normal(jax.random.key(0), (2, 7, 3))
    held = slots.gather(x)
    assert held.shape == (2, slots.number, 3 * slots.turns)
    np.testing.assert_array_equal(slots.scatter(held), x)
    assert slots.number * slots.size + slots.left == latent_size


def test_sequences_come_back_from_their_latents(trained):
    codec, params = trained
    sampled = codec.sample(params, jax.random.key(0), codec.decode(params, codec.encode(params, X)[0]))
    np.testing.assert_array_equal(sampled, X)
    assert sampled.dtype == jnp.int32


def test_the_loss_is_that_of_the_ids_in_order_up_to_the_end(trained):
    codec, params = trained
    memory = codec.decode(params, jax.random.normal(jax.random.key(1), (3, 20)))
    losses = codec.loss(params, jax.random.key(0), X, memory)
    step = jax.jit(lambda *given: codec.decoder.apply({"params": params["decoder"]}, *given, method="step"))
    for row, length in ((0, 3), (1, 7), (2, 0)):
        total, previous, empty = 0.0, 0, jnp.zeros((1, 7, 2, 8))
        cache = [KeysValues(empty, empty) for _ in range(2)]
        for position in range(min(length + 1, 7)):
            logits, cache = step(memory[row : row + 1], jnp.array([previous]), position, cache)
            total -= jax.nn.log_softmax(logits)[0, X[row, position]]
            previous = int(X[row, position])
        np.testing.assert_allclose(losses[row], total, rtol=1e-4)


def test_what_pads_changes_nothing(trained):
    codec, params = trained
    other = X.copy()
    other[0, 4:] = 5  # after the end
    for before, after in zip(codec.encode(params, X), codec.encode(params, other), strict=True):
        np.testing.assert_allclose(before, after, atol=1e-6)
    memory = codec.decode(params, codec.encode(params, X)[0])
    np.testing.assert_allclose(*(codec.loss(params, jax.random.key(0), x, memory) for x in (X, other)), rtol=1e-5)


def test_samples_end_once_and_diverged_ones_are_minus_one():
    codec = _codec(temperature=3.0)
    params = codec.init(jax.random.key(0))
    z = jnp.zeros((200, 20)).at[3, 1].set(jnp.nan)
    drawn = np.asarray(codec.sample(params, jax.random.key(1), codec.decode(params, z)))
    np.testing.assert_array_equal(drawn[3], -1)
    rest = np.delete(drawn, 3, axis=0)
    assert ((rest >= 0) & (rest < 6)).all()
    assert not ((rest[:, :-1] == 0) & (rest[:, 1:] != 0)).any()
    assert len(np.unique(rest, axis=0)) > 50
    again = np.asarray(codec.sample(params, jax.random.key(2), codec.decode(params, z)))
    assert (again != drawn).any()
    few = np.asarray(codec.sample(params, jax.random.key(1), codec.decode(params, z[:50])))
    np.testing.assert_array_equal(few, drawn[:50])  # no row depends on its companions


def test_hidden_ids_leave_no_trace_in_the_loss():
    codec = _codec(word_dropout=1.0)
    params = codec.init(jax.random.key(0))
    memory = codec.decode(params, jnp.ones((3, 20)))
    logits = codec.decoder.apply({"params": params["decoder"]}, memory, jnp.zeros_like(X), method="logits")
    log_prob = np.asarray(jax.nn.log_softmax(logits))
    expected = -sum(log_prob[0, position, X[0, position]] for position in range(4))
    np.testing.assert_allclose(codec.loss(params, jax.random.key(0), X, memory)[0], expected, rtol=1e-5)


def test_batched_equals_unrolled():
    modalities = (WORDS, dataclasses.replace(WORDS, name="others"))
    one, other = (Codecs(modalities, AutoencoderNetworkConfig(), batched) for batched in (False, True))
    params, data = jax.jit(one.init)(jax.random.key(0)), {"words": X, "others": X[::-1]}

    def used(codecs):
        outputs = codecs.decode(params, {name: mean for name, (mean, _) in codecs.encode(params, data).items()})
        losses = codecs.loss(params, jax.random.key(1), data, outputs)
        return losses, codecs.sample(params, jax.random.key(2), outputs)

    results = [jax.jit(used, static_argnums=0)(codecs) for codecs in (one, other)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *results)


def test_numbers_need_another_codec_and_ids_this_one():
    with pytest.raises(SbmError, match=r"encodes ids\. Set its vocabulary_size"):
        make_codec(Modality("numbers", (7,), 4, "tokens"), AutoencoderNetworkConfig())
    with pytest.raises(SbmError, match="Use the codec 'tokens'"):
        make_codec(dataclasses.replace(WORDS, codec=CodecConfig("mlp")), AutoencoderNetworkConfig())
    with pytest.raises(SbmError, match=r"heads.*divisor of width"):
        _codec(heads=3)
