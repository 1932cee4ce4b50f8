"""`trnn score`: how surprising each character of a text is to a model."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .arguments import AsJson, Checkpoint, Unknown, Which, unit_of
from .given import read_given
from .runs import Run, find_checkpoint
from .terminal import reader_may_leave, say_if_compiling

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from tinygrad_rnn.text import Vocabulary
    from tinygrad_rnn.text.reading import EncodedText
    from tinygrad_rnn.text.scoring import Scored
    from tinygrad_rnn.training.evaluation import Tally

EXAMPLES = """Try:

trnn score runs/first "To be, or not to be"

trnn score runs/first @letter.txt

trnn score runs/first @letter.txt --json"""

EXPECTED = 3  # likeliest symbols named in a place
PLACES, APART = 5, 10  # the most surprising ones; symbols from one to the next
CONTEXT = 24  # symbols shown before and after a place
# From so many bits on, black on this of the 256 colours: legible whatever the terminal's own background is.
LEVELS = ((2, 229), (4, 221), (6, 215), (8, 203), (10, 196))


def score(
    run: Run,
    text: Annotated[
        str | None,
        typer.Argument(
            help="A text; @file reads it from a file, - from standard input, and @@ stands for an @.",
            show_default="standard input",
        ),
    ] = None,
    checkpoint: Checkpoint = Which.best,
    unknown: Unknown = "error",
    as_json: AsJson = False,
) -> None:
    """How surprising each character of a text is to a model: -log2 of its probability, in bits.

    On a terminal with colours the text itself is coloured. Elsewhere each character has a line: the character
    (a control character escaped as in C), a tab, its bits; the summary then goes to standard error.

    The first character has nothing before it: it is shown and not counted, as trnn eval does not count it.
    """
    from rich.console import Console

    from tinygrad_rnn import models
    from tinygrad_rnn.errors import DataError, UsageError
    from tinygrad_rnn.text.scoring import score
    from tinygrad_rnn.training.evaluation import one_thread

    if text is None and sys.stdin is not None and sys.stdin.isatty():
        raise UsageError("nothing to score; give a text, @file, or - to type one")
    path = find_checkpoint(run, checkpoint.value)
    model, vocabulary, _ = models.load(path)
    say_if_compiling(f"{model.kind}_forward")
    encoded, symbols = read_given(
        "@-" if text in (None, "-") else text, "the text", path, vocabulary, unknown
    )
    if len(symbols) < 2:
        raise DataError(f"{encoded.text.shown} is too short: the first {unit_of(vocabulary)} is not counted")
    with reader_may_leave(), one_thread():
        scored = score(model, [symbols], EXPECTED)
        console = Console(highlight=False)
        if as_json:
            print(json.dumps(_record(path, encoded, symbols, [*scored])))
        elif console.is_terminal and console.color_system and not console.no_color:
            windows = [*_coloured(scored, symbols[0], vocabulary, console)]
            _print_summary(symbols, windows, encoded)
        else:
            windows = [*_table(scored, symbols[0], vocabulary)]
            sys.stdout.flush()
            with redirect_stdout(sys.stderr):
                _print_summary(symbols, windows, encoded)


# --- the text -----------------------------------------------------------------------------------------


def _coloured(
    scored: Iterable[Scored], first: int, vocabulary: Vocabulary, console: Console
) -> Iterator[Scored]:
    """Print the text as it is scored. Bytes come as the characters that they make up, their bits added up."""
    from rich.text import Text

    decoder, waiting = vocabulary.decoder(), 0.0
    ended = True

    def show(symbols: list[int], bits: list[float], final: bool = False) -> None:
        nonlocal waiting, ended
        line = Text()
        for symbol, surprise in zip(symbols, bits, strict=True):
            waiting += surprise
            if characters := decoder.feed([symbol]):
                line.append("".join(map(_drawn, characters)), _style(waiting))
                waiting = 0.0
        if final:
            line.append("".join(map(_drawn, decoder.feed([], final=True))), _style(waiting))
        if line:
            ended = line.plain.endswith("\n")
            console.print(line, end="", soft_wrap=True)

    show([first], [0.0])
    for window in scored:
        show(window.symbols.tolist(), window.bits.tolist())
        yield window
    show([], [], final=True)
    if not ended:
        console.print()
    bounds = [0, *(bound for bound, _ in LEVELS)]
    legend = Text("bits")
    for bound, above in zip(bounds, [*bounds[1:], None], strict=True):
        legend.append(" ").append(f"{bound}-{above}" if above else f"{bound}+", _style(bound))
    console.print(legend)


def _style(bits: float) -> str:
    reached = [colour for bound, colour in LEVELS if bits >= bound]
    return f"color(16) on color({reached[-1]})" if reached else ""


def _drawn(character: str) -> str:
    """As it looks in a text: line ends and tabs are seen, and what a terminal would obey is escaped."""
    return {"\n": "⏎\n", "\t": "→"}.get(character) or _escaped(character)


def _table(scored: Iterable[Scored], first: int, vocabulary: Vocabulary) -> Iterator[Scored]:
    """Print a line a symbol as it is scored."""
    names = [_escaped(name) if name != "\\" else "\\\\" for name in _names(vocabulary)]
    print(f"{names[first]}\t-")
    for window in scored:
        lines = zip(window.symbols.tolist(), window.bits.tolist(), strict=True)
        print("\n".join(f"{names[symbol]}\t{bits:.2f}" for symbol, bits in lines))
        yield window


def _names(vocabulary: Vocabulary) -> list[str]:
    """What each symbol stands for; a byte that is no character by itself as \\xNN."""
    names = [vocabulary.decode([symbol]) for symbol in range(len(vocabulary))]
    if vocabulary.encoding == "bytes":
        names[: len(vocabulary.codes)] = [
            chr(code) if code < 128 else f"\\x{code:02x}" for code in vocabulary.codes.tolist()
        ]
    return names


def _escaped(name: str) -> str:
    return name if name.isprintable() else name.encode("unicode_escape").decode()


# --- what it comes to ---------------------------------------------------------------------------------


def _tally(windows: Iterable[Scored], vocabulary: Vocabulary) -> Tally:
    from tinygrad_rnn.training.evaluation import Tally

    tally = Tally(len(vocabulary))
    for scored in windows:
        tally.add(scored)
    return tally


def _print_summary(symbols: np.ndarray, windows: list[Scored], encoded: EncodedText) -> None:
    from .layout import print_facts

    vocabulary, tally = encoded.vocabulary, _tally(windows, encoded.vocabulary)
    unit = unit_of(vocabulary)
    mean = f"{tally.bits:.4f} bits = {tally.nats:.4f} nats/{unit}, perplexity {tally.perplexity:.3f}"
    facts = [("mean", f"{mean}, of {tally.symbols:,} {unit}s after the first")]
    if encoded.lacking:
        facts.append(("", f"{encoded.lacking:,} that the model does not know were skipped or replaced"))
    print_facts([*facts, *_surprises(symbols, windows, vocabulary)])


def _surprises(
    symbols: np.ndarray, windows: list[Scored], vocabulary: Vocabulary
) -> Iterator[tuple[str, str]]:
    """The most surprising places: how much, where, and what was expected there."""
    import numpy as np

    from tinygrad_rnn.text.scoring import most_surprising

    names = [_escaped(name) for name in _names(vocabulary)]
    bits = np.concatenate([scored.bits for scored in windows])
    likeliest = np.concatenate([scored.likeliest for scored in windows])
    probabilities = np.concatenate([scored.probabilities for scored in windows])
    for place in most_surprising(bits, PLACES, APART):
        best = zip(likeliest[place].tolist(), probabilities[place].tolist(), strict=True)
        expected = ", ".join(f"'{names[symbol]}' {p:.0%}" for symbol, p in best)
        at = place + 1  # the first symbol is not counted
        before, [symbol], after = (
            [names[symbol] for symbol in symbols[max(start, 0) : end].tolist()]
            for start, end in ((at - CONTEXT, at), (at, at + 1), (at + 1, at + 1 + CONTEXT))
        )
        shown = f"{''.join(before)}[{symbol}]{''.join(after)}"
        yield f"{bits[place]:.1f} bits", f"at {at:,}: {shown} (expected {expected})"


def _record(path: Path, encoded: EncodedText, symbols: np.ndarray, windows: list[Scored]) -> dict[str, Any]:
    """For machines. `bits` is null where there is nothing before the symbol."""
    names = _names(encoded.vocabulary)
    listed: list[dict[str, Any]] = [{"text": names[symbols[0]], "bits": None, "expected": []}]
    for scored in windows:
        columns = (scored.symbols, scored.bits, scored.likeliest, scored.probabilities)
        for symbol, bits, likeliest, probabilities in zip(*(c.tolist() for c in columns), strict=True):
            expected = [[names[other], p] for other, p in zip(likeliest, probabilities, strict=True)]
            listed.append({"text": names[symbol], "bits": bits, "expected": expected})
    tally = _tally(windows, encoded.vocabulary)
    return {
        "checkpoint": str(path),
        "text": encoded.text.shown,
        "counted": tally.symbols,
        "unknown": encoded.lacking,
        "mean_nats": tally.nats,
        "mean_bits": tally.bits,
        "symbols": listed,
    }
