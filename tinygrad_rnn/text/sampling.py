"""Sampling: a model writes, one symbol at a time, each drawn from its own prediction and fed back to it.

The likeliest text as a whole is searched for in beam.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.ops.fused import is_compiled
from ..engine.ops.language_model import Parts
from ..engine.tensor import no_grad
from ..errors import CheckpointError, DataError, SettingError, UsageError
from ..nn.module import evaluating
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from ..models import CharLM

ENDED = -1  # in the place of a symbol: this stream has written its last
NOT_FINITE = "the model's predictions are not finite; its weights are of no use"
_PIECE = 256  # symbols of a prime read at once


def sample(
    model: CharLM,
    prime: np.ndarray,
    length: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = 0,
    until: np.ndarray | None = None,
    exclude: int | None = None,
) -> Iterator[int]:
    """Generate at most `length` symbols that continue `prime`, an array of at least one symbol.

    temperature  divides the logits before the softmax: 1 is the model's own distribution, less makes what
                 is likely likelier still, 0 takes the likeliest symbol every time
    top_k        draw from the k likeliest symbols only
    top_p        draw from the fewest likeliest symbols whose probabilities, of those that temperature and
                 top_k leave, sum to at least p (nucleus sampling, Holtzman et al., 2020)
    seed         of the draws: the same seed, model and prime give the same symbols; None: others each time
    until        symbols that end the text: it stops after their first occurrence behind the prime
    exclude      a symbol that is never written, such as a vocabulary's unknown one
    """
    streams = sample_streams(
        model, prime, length, 1, temperature, top_k, top_p, seed=seed, until=until, exclude=exclude
    )
    return (int(symbols[0]) for symbols in streams)


def sample_streams(
    model: CharLM,
    prime: np.ndarray,
    length: int,
    count: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = 0,
    until: np.ndarray | None = None,
    exclude: int | None = None,
) -> Iterator[np.ndarray]:
    """`count` texts at once, as sample() writes them: at each step an array of `count` symbols.

    A text that `until` has ended has ENDED in its place. Each draws by a generator of its own, so that a text
    does not depend on how many there are (but for the last bits of NumPy's products of another size), and the
    first is that of sample().
    """
    check_start(model, prime, until, exclude)
    if count < 1:
        raise UsageError(f"the number of texts is {count}; it must be at least 1")
    check_draws(temperature, top_k, top_p)
    seeds = np.random.SeedSequence(seed)

    def symbols() -> Iterator[np.ndarray]:
        generators = [np.random.default_rng(stream) for stream in (seeds, *seeds.spawn(count - 1))]
        writer = _writer(model, prime, count)
        writing = np.arange(count)
        tails = np.full((count, 0 if until is None else len(until)), ENDED)
        left, piece = length, 1
        while left > 0 and len(writing):
            piece = min(2 * piece, writer.piece, left)
            points = np.column_stack([generator.random(piece) for generator in generators])
            written = writer.write(points, temperature, top_k, top_p, exclude)
            left -= piece
            if until is None:  # all go on, as far as they can
                broken = (written < 0).any(axis=1)
                yield from written[: broken.argmax() if broken.any() else piece]
                if broken.any():
                    raise CheckpointError(NOT_FINITE)
                continue
            going = np.full(len(writing), True)
            for latest in written:
                if latest[going].min() < 0:
                    raise CheckpointError(NOT_FINITE)
                everyone = np.full(count, ENDED)
                everyone[writing[going]] = latest[going]
                yield everyone
                tails = np.column_stack((tails[:, 1:], latest))
                going &= (tails != until).any(axis=1)
                if not going.any():
                    return
            if not going.all():
                writer.keep(np.flatnonzero(going))
                writing, tails = writing[going], tails[going]
                generators = [generators[stream] for stream in np.flatnonzero(going)]

    return symbols()


def _writer(model: CharLM, prime: np.ndarray, count: int) -> Any:
    """What writes `count` texts that continue the prime: a compiled loop, if that writes what the model
    would, or the model step by step."""
    kinds = {(weight.backend, weight.dtype) for weight in model.parameters()}
    if not (model.is_plain() and len(kinds) == 1 and all(is_compiled(one.xp, dtype) for one, dtype in kinds)):
        return _ByTheModel(model, prime, count)
    from ..engine.ops.fused.writing import Writer

    with no_grad():
        inputs = model.inputs(repeated(read(model, prime[:-1]), np.zeros(count, np.intp)), count)
    parts = Parts.of([tensor.array for tensor in inputs], model.kind)
    return Writer(model.kind, parts, np.repeat(prime[-1:], count))


class _ByTheModel:
    """Writes texts as Writer does, by calling the model for each symbol."""

    piece = 1

    def __init__(self, model: CharLM, prime: np.ndarray, count: int) -> None:
        self._model = model
        self._state = repeated(read(model, prime[:-1]), np.zeros(count, np.intp))
        self._latest = np.repeat(np.asarray(prime[-1:], np.intp), count)

    def write(
        self, points: np.ndarray, temperature: float, top_k: int | None, top_p: float | None,
        exclude: int | None,
    ) -> np.ndarray:  # fmt: skip
        """A symbol of each text, by its draw from 0 to 1 in `points` (1, B)."""
        with evaluating(self._model):
            logits, self._state = self._model(self._latest[None], self._state)
        scores = log_odds(logits.numpy()[-1], exclude)
        self._latest = choose(scores, points[0], temperature, top_k, top_p)
        return self._latest[None]

    def keep(self, texts: np.ndarray) -> None:
        """Go on with these texts only, given by their places."""
        self._latest, self._state = self._latest[texts], repeated(self._state, texts)


def check_start(
    model: CharLM, prime: np.ndarray, until: np.ndarray | None = None, exclude: int | None = None
) -> None:
    """Refuse what no text can be written from, or to."""
    if len(prime) == 0:
        raise UsageError("sampling needs at least one symbol to start from")
    if until is not None and len(until) == 0:
        raise SettingError("until", "needs at least one symbol: a text cannot end after nothing")
    if exclude is not None and model.vocab_size == 1:
        raise CheckpointError("the model knows no symbol but the unknown one; there is nothing to write")
    low, high = int(np.min(prime)), int(np.max(prime))
    if low < 0 or high >= model.vocab_size:
        raise DataError(f"symbol {low if low < 0 else high} is none of the model's {model.vocab_size}")
    if exclude is not None and not 0 <= exclude < model.vocab_size:
        raise SettingError("exclude", f"is {exclude}, none of the model's {model.vocab_size} symbols")


def check_draws(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Refuse what no symbol can be drawn by."""
    if not (np.isfinite(temperature) and temperature >= 0):
        raise SettingError("temperature", f"must be 0 or a positive number, not {temperature}")
    if top_k is not None and top_k < 1:
        raise SettingError("top_k", f"must be at least 1, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise SettingError("top_p", f"must be above 0 and at most 1, not {top_p}")


def read(model: CharLM, symbols: np.ndarray) -> Any:
    """The model's state after `symbols` (None, zeros, if there are none), in bounded memory."""
    state: Any = None
    for start in range(0, len(symbols), _PIECE):
        with evaluating(model):
            _, state = model(np.asarray(symbols[start : start + _PIECE, None], np.intp), state)
    return state


def repeated(state: Any, streams: np.ndarray) -> Any:
    """The state of a batch that has, in their order, the entries `streams` of this one."""
    if state is None:
        return None
    with no_grad():
        return tuple(s[:, streams] for s in state) if isinstance(state, tuple) else state[:, streams]


def log_odds(logits: np.ndarray, exclude: int | None = None) -> np.ndarray:
    """Logits (N, V) in float64, moved so that the largest of a row is 0 and nothing overflows later."""
    scores = logits.astype(np.float64)
    if exclude is not None:
        scores[:, exclude] = -np.inf
    highest = scores.max(axis=1)
    if not all(map(math.isfinite, highest.tolist())):
        raise CheckpointError(NOT_FINITE)
    scores -= highest[:, None]
    return scores


def choose(
    scores: np.ndarray,
    points: np.ndarray,
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
) -> np.ndarray:
    """For each row of log_odds (N, V) a symbol drawn from softmax(scores / temperature), filtered.

    points: for each row a draw from 0 to 1."""
    if temperature == 0:
        return scores.argmax(axis=1)
    with np.errstate(all="ignore"):  # a tiny temperature takes the others to -inf, and exp to 0
        weights = np.exp(scores / temperature)
    if top_k is not None or top_p is not None:
        weights = likeliest(weights, top_k, top_p)
    cumulative = weights.cumsum(axis=1)
    return (cumulative <= (points * cumulative[:, -1])[:, None]).sum(axis=1)


def likeliest(weights: np.ndarray, top_k: int | None, top_p: float | None) -> np.ndarray:
    """Weights (N, V), no row all 0, with 0 for what top_k and then top_p leave out.

    Of equally likely symbols the first ones count as likelier.
    """
    order = np.argsort(-weights, axis=1, kind="stable")
    ranked = np.take_along_axis(weights, order, axis=1)
    if top_k is not None:
        ranked[:, top_k:] = 0
    if top_p is not None:  # a symbol stays if those before it do not yet make up p
        cumulative = ranked.cumsum(axis=1)
        ranked[:, 1:][cumulative[:, :-1] >= top_p * cumulative[:, -1:]] = 0
    kept = np.empty_like(weights)
    np.put_along_axis(kept, order, ranked, axis=1)
    return kept


def opening(vocabulary: Vocabulary) -> np.ndarray:
    """A symbol to start from where there is no other: a line's end if there is one, after which anything
    may begin; else a space, else the first symbol."""
    for code in (ord("\n"), ord(" ")):
        found = np.flatnonzero(vocabulary.codes == code)
        if len(found):
            return found
    return np.zeros(1, np.intp)
