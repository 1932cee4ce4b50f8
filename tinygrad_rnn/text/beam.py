"""Beam search: the likeliest text as a whole, rather than the likeliest symbol each time."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import SettingError, UsageError
from ..nn.module import evaluating
from .sampling import ENDED, check_start, log_odds, read, repeated

if TYPE_CHECKING:
    from ..models import CharLM


class Found(NamedTuple):
    """symbols: one-dimensional. log_probability: of all of them together, in nats."""

    symbols: np.ndarray
    log_probability: float


def beam_search(
    model: CharLM,
    prime: np.ndarray,
    length: int,
    width: int,
    until: np.ndarray | None = None,
    exclude: int | None = None,
) -> Found:
    """The likeliest continuation of `prime` that is found by keeping the `width` likeliest beginnings.

    Without `until` it has `length` symbols. A beginning that ends with the symbols `until` is complete: it
    leaves the beam, which is narrower by one from then on. What is complete, or reached `length`, competes by
    its mean log-probability a symbol, and the search ends when none of the beginnings left can win.
    Width 1 takes the likeliest symbol each time; of equally likely continuations the first one counts.
    """
    check_start(model, prime, until, exclude)
    if width < 1:
        raise UsageError(f"the width of a beam must be at least 1, not {width}")
    if length < 1:
        raise SettingError("length", f"must be at least 1, not {length}")
    state = read(model, prime[:-1])
    latest = np.asarray(prime[-1:], np.intp)
    totals = np.zeros(1)  # log-probabilities of the beginnings in the beam
    tails = np.full((1, 0 if until is None else len(until)), ENDED)
    steps: list[tuple[np.ndarray, np.ndarray]] = []  # each beginning's parent in the beam before, its symbol
    best, best_mean = None, -np.inf
    for step in range(1, length + 1):
        with evaluating(model):
            logits, state = model(latest[None], state)
        scores = log_odds(logits.numpy()[-1], exclude)
        scores += (totals - np.log(np.exp(scores).sum(axis=1)))[:, None]
        chosen = _highest(scores.ravel(), width)
        parents, latest = np.divmod(chosen, scores.shape[1])
        totals = scores.ravel()[chosen]
        steps.append((parents, latest))
        if until is not None:
            tails = np.column_stack((tails[parents, 1:], latest))
            ended = (tails == until).all(axis=1)
            for beam in np.flatnonzero(ended).tolist():
                if totals[beam] / step > best_mean:
                    best, best_mean = Found(_path(steps, beam), float(totals[beam])), totals[beam] / step
            width -= int(ended.sum())
            going = np.flatnonzero(~ended)
            parents, latest, totals, tails = parents[going], latest[going], totals[going], tails[going]
            steps[-1] = parents, latest
            # A total only falls, so that its mean over `length` symbols is the highest it can come to.
            if len(going) == 0 or totals[0] / length <= best_mean:
                break
        state = repeated(state, parents)
    else:
        if totals[0] / length > best_mean:
            best = Found(_path(steps, 0), float(totals[0]))
    assert best is not None
    return best


def _highest(scores: np.ndarray, count: int) -> np.ndarray:
    """Where the `count` highest finite scores are, from the highest down; of equal ones the first."""
    candidates = np.flatnonzero(np.isfinite(scores))
    if count < len(candidates):  # so that few have to be sorted
        threshold = np.partition(scores[candidates], -count)[-count]
        candidates = candidates[scores[candidates] >= threshold]
    return candidates[np.argsort(-scores[candidates], kind="stable")][:count]


def _path(steps: list[tuple[np.ndarray, np.ndarray]], beam: int) -> np.ndarray:
    """The symbols that led to this entry of the last beam."""
    symbols = []
    for parents, latest in reversed(steps):
        symbols.append(latest[beam])
        beam = parents[beam]
    return np.array(symbols[::-1], np.intp)
