"""The compiled loop writes what sampling step by step writes, symbol for symbol."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.engine.ops.fused import use_kernels
from tinygrad_rnn.errors import CheckpointError, TinygradError
from tinygrad_rnn.models import CharLM
from tinygrad_rnn.text.sampling import sample, sample_streams

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
            streams = sample_streams(model, np.array(prime), count=1, until=ending, **options)
            texts.append([symbol for symbols in streams for symbol in symbols.tolist()])
    assert texts[0] == texts[1] == texts[2] == texts[3]


def test_predictions_that_are_not_finite():
    model = model_of("gru", 1)
    model.output.bias.array[2] = np.nan
    with use_kernels("numba"), pytest.raises(CheckpointError, match="not finite"):
        list(sample(model, np.array([1]), 5))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_what_follows_the_end_of_a_text_harms_nobody(count, seed):
    model, texts = model_of("rnn", 1), []
    model.embedding.weight.array[5] = np.nan  # the symbol that ends a text
    for name in ("numpy", "numba"):
        with use_kernels(name):
            found = sample_streams(model, np.array([0]), 200, count, seed=seed, until=np.array([5]))
            texts.append(np.array(list(found)).tolist())
    assert texts[0] == texts[1] and len(texts[0]) > 0


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize(
    ("prime", "exclude", "message"),
    [
        ([V], None, f"symbol {V} is none of the model's {V}"),
        ([0, -1], None, f"symbol -1 is none of the model's {V}"),
        ([0], V, f"exclude is {V}, none of the model's {V} symbols"),
        ([0], -1, f"exclude is -1, none of the model's {V} symbols"),
    ],
)
def test_symbols_that_the_model_does_not_know(kernels, prime, exclude, message):
    with use_kernels(kernels), pytest.raises(TinygradError, match=message):
        sample(model_of("rnn", 1), np.array(prime), 3, exclude=exclude)


@pytest.mark.parametrize("change", ["float16", "another forward", "step by step"])
def test_a_model_that_the_loop_does_not_fit_writes_by_itself(change):
    class Louder(CharLM):
        def forward(self, symbols, state=None):
            scores, state = super().forward(symbols, state)
            return scores * 3, state

    tg.manual_seed(0)
    model = (Louder if change == "another forward" else CharLM)(V, "gru", 5, 7, 1)
    model.rnn.fused = change != "step by step"
    if change == "float16":
        for weight in model.parameters():
            weight.array = weight.array.astype("float16")
    texts = []
    for name in ("numpy", "numba"):
        with use_kernels(name):
            texts.append(list(sample(model, np.array([1]), 50)))
    assert texts[0] == texts[1]
