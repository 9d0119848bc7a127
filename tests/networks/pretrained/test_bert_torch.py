"""BERT against `transformers`, tiny and with random weights."""

import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.networks.pretrained.bert import Bert, BertConfig, read_bert
from sbm_jax.networks.pretrained.weights import read_tensors
from tests.networks.pretrained.peers import assert_close, saved

pytestmark = pytest.mark.peer

CONFIG = BertConfig(vocabulary_size=50, width=32, depth=3, heads=4, hidden=48, most_tokens=16)


def test_states_and_pooled(tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 48, "max_position_embeddings": 16, "attn_implementation": "eager"}
    peer = transformers.BertModel(transformers.BertConfig(**sizes)).eval()
    ids = np.random.default_rng(0).integers(0, 50, (3, 7))
    present = np.arange(7) < np.array([[7], [4], [1]])
    params = read_bert(CONFIG, read_tensors(saved(peer, tmp_path), "weights"), "weights")
    with torch.no_grad():
        expected = peer(torch.tensor(ids), attention_mask=torch.tensor(present, dtype=torch.long))
    states, pooled = Bert(CONFIG).apply({"params": params}, jnp.asarray(ids), jnp.asarray(present))
    assert_close(np.asarray(states)[present], expected.last_hidden_state.numpy()[present])
    assert_close(pooled, expected.pooler_output.numpy())
