"""The compiled loop writes what sampling step by step writes, symbol for symbol."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.engine.ops.fused import use_kernels
from tinygrad_rnn.errors import CheckpointError
from tinygrad_rnn.models import CharLM
from tinygrad_rnn.text import sample

pytest.importorskip("numba")
V = 9


def model_of(kind, layers):
    tg.manual_seed(layers)
    model = CharLM(V, kind, embedding_size=5, hidden_size=7, num_layers=layers)
    with tg.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter * 4)  # predictions that differ
    return model


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
@given(
    prime=st.lists(st.integers(0, V - 1), min_size=1, max_size=4),
    length=st.sampled_from([0, 1, 2, 5, 700]),
    temperature=st.sampled_from([0, 0.5, 1, 3]),
    top_k=st.sampled_from([None, 1, 4, V, 99]),
    top_p=st.sampled_from([None, 0.4, 1.0]),
    seed=st.integers(0, 99),
    until=st.none() | st.lists(st.integers(0, V - 1), min_size=1, max_size=2),
    exclude=st.sampled_from([None, 0, V - 1]),
)
def test_the_compiled_loop_writes_the_same(kind, layers, prime, until, **options):
    model, texts = model_of(kind, layers), []
    ending = None if until is None else np.array(until)
    for name in ("numpy", "numba"):
        with use_kernels(name):
            texts.append(list(sample(model, np.array(prime), until=ending, **options)))
    assert texts[0] == texts[1]


def test_predictions_that_are_not_finite():
    model = model_of("gru", 1)
    model.output.bias.array[2] = np.nan
    with use_kernels("numba"), pytest.raises(CheckpointError, match="not finite"):
        list(sample(model, np.array([1]), 5))
