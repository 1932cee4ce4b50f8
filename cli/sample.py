"""`trnn sample`: a trained model writes to standard output, character by character."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

import typer

from .arguments import WHICH, Which
from .given import read_given
from .runs import RUNS, complete_run, find_checkpoint
from .terminal import one_line, printable, reader_may_leave, say_if_compiling

if TYPE_CHECKING:
    import numpy as np

    from tinygrad_rnn.text import Corpus, Vocabulary

EXAMPLES = """Try:

trnn sample

trnn sample runs/first --temperature 0.5 --prime "Once upon a time"

trnn sample runs/first --prime @letter.txt --output more.txt"""

TEXT, CHOICE, MODEL, OUTPUT = "The text", "The choice of each symbol", "The model", "The output"
SHOWN_OF_PRIME = 200  # symbols, on a terminal
SHOWN_STRETCHES, SHOWN_OF_STRETCH = 3, 60


def _option(panel: str, help: str, default: str | bool = True, **checks: Any) -> Any:
    return typer.Option(help=help, show_default=default, rich_help_panel=panel, **checks)


def sample(
    context: typer.Context,
    run: Annotated[
        Path | None,
        typer.Argument(
            help=f"A run folder, the name of a run in {RUNS}/, or a checkpoint file.",
            show_default=f"the newest run in {RUNS}/",
            autocompletion=complete_run,
        ),
    ] = None,
    length: Annotated[int, _option(TEXT, "Characters (or bytes) to write, at most.", min=1)] = 1000,
    num: Annotated[
        int, _option(TEXT, "Texts to write. Lines --- 2 ---, --- 3 --- and so on part them.", min=1)
    ] = 1,
    prime: Annotated[
        str,
        _option(
            TEXT,
            "Text to continue; @file reads it from a file, @@ stands for an @. Of a long one "
            "a terminal shows only the end; elsewhere all of it is written.",
            False,
        ),
    ] = "",
    unknown: Annotated[
        Literal["skip", "replace", "error"],
        _option(TEXT, "What to do with characters of the prime that the model does not know."),
    ] = "error",
    until: Annotated[
        str | None,
        _option(
            TEXT, r"Stop after this text, which is still written; \n, \t, \r and \\ mean what they do in C."
        ),
    ] = None,
    temperature: Annotated[
        float, _option(CHOICE, "Below 1 safer, above 1 wilder, 0 always the likeliest.")
    ] = 0.8,
    top_k: Annotated[int | None, _option(CHOICE, "Draw from the K likeliest symbols only.")] = None,
    top_p: Annotated[
        float | None, _option(CHOICE, "Draw from the fewest symbols that make up this probability.")
    ] = None,
    seed: Annotated[int | None, _option(CHOICE, "Of the draws.", "another text each time", min=0)] = None,
    beam: Annotated[
        int | None,
        _option(CHOICE, "Draw nothing: search for the likeliest text, this many beginnings at a time."),
    ] = None,
    checkpoint: Annotated[Which, _option(MODEL, WHICH)] = Which.best,
    output: Annotated[
        Path | None, _option(OUTPUT, "A new file to write to; - for standard output.", "standard output")
    ] = None,
    novelty: Annotated[
        bool,
        typer.Option(
            "--novelty",
            help="Also say which stretches occur literally in the training text.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
) -> None:
    """Let a trained model write.

    On a terminal the text comes as it is written; in a pipe there is the text alone.
    """
    from io import BytesIO

    import numpy as np

    from tinygrad_rnn import models
    from tinygrad_rnn.atomic import write_atomically
    from tinygrad_rnn.errors import UsageError
    from tinygrad_rnn.text.beam import beam_search
    from tinygrad_rnn.text.sampling import opening, sample_streams
    from tinygrad_rnn.text.sources import STDIN
    from tinygrad_rnn.training import newest
    from tinygrad_rnn.training.origin import normal_form, training_corpus

    if beam is not None:
        by_hand = context.get_parameter_source("beam")
        draws = ("temperature", "top_k", "top_p", "seed", "num")
        given = [name for name in draws if context.get_parameter_source(name) == by_hand]
        if given:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise UsageError(f"--beam searches for one text and draws nothing; leave out {options}")
    if str(output) == STDIN:
        output = None
    if output is not None:
        check_new(output)
    path = find_checkpoint(run if run is not None else newest(RUNS), checkpoint.value)
    model, vocabulary, meta = models.load(path)
    say_if_compiling("write" if beam is None else f"{model.kind}_forward")
    start = read_given(prime, "the prime", path, vocabulary, unknown)[1] if prime else np.zeros(0, int)
    first = start if len(start) else opening(vocabulary)
    ending = None if until is None else _until(until, normal_form(path), vocabulary)
    never = vocabulary.unknown
    corpus = training_corpus(path) if novelty else None
    steps: Iterable[np.ndarray]
    if beam is not None:
        steps = beam_search(model, first, length, beam, ending, never).symbols[:, None]
    else:
        steps = sample_streams(model, first, length, num, temperature, top_k, top_p, seed, ending, never)

    terminal = output is None and sys.stdout.isatty()
    if terminal:
        print(one_line(f"{path}, step {meta.get('step')}"), file=sys.stderr)
    with reader_may_leave():
        file = BytesIO()
        writer = _Writer(vocabulary, sys.stdout.buffer if output is None else file, terminal)
        try:
            texts = _write(writer, start, steps, num)
        except KeyboardInterrupt:
            if terminal:
                writer.end_text()  # what comes next begins a line
            raise
        if output is not None:
            write_atomically(output, file.getvalue())
            if sys.stderr.isatty():
                print(one_line(f"{output}: {len(file.getvalue()):,} bytes"), file=sys.stderr)
        if corpus is not None:
            _print_novelty(texts, corpus)


def check_new(output: Path) -> None:
    """UsageError unless this names a new file in a folder that is there."""
    from tinygrad_rnn.errors import UsageError

    if output.exists():
        raise UsageError(f"{output} exists already; choose another --output")
    if not output.parent.is_dir():
        raise UsageError(f"there is no folder {output.parent} for --output {output}")


def _write(writer: _Writer, start: np.ndarray, steps: Iterable[np.ndarray], num: int) -> list[list[int]]:
    """Write the texts, each beginning with `start`; what the model added to it."""
    from tinygrad_rnn.text.sampling import ENDED

    texts: list[list[int]] = [[] for _ in range(num)]
    writer.begin(start)
    for symbols in steps:  # the first text as it comes, the others when it is done
        for text, symbol in zip(texts, symbols.tolist(), strict=True):
            if symbol != ENDED:
                text.append(symbol)
        if symbols[0] != ENDED:
            writer.write(symbols[:1])
    writer.end_text()
    for number, text in enumerate(texts[1:], 2):
        writer.line(f"--- {number} ---")
        writer.begin(start)
        writer.write(text)
        writer.end_text()
    return texts


class _Writer:
    """Symbols to text: for a terminal what can be printed, ending a line; otherwise every byte as it is."""

    def __init__(self, vocabulary: Vocabulary, file: BinaryIO, terminal: bool) -> None:
        import numpy as np

        self._file, self._terminal = file, terminal
        self._decoder = vocabulary.decoder()
        # The byte of each symbol; that of the unknown one, which comes last, is never part of UTF-8.
        in_bytes = vocabulary.encoding == "bytes" and not terminal
        self._bytes = np.append(vocabulary.codes, 0xFF).astype(np.uint8) if in_bytes else None
        self._line_ended = True

    def begin(self, prime: np.ndarray) -> None:
        """Write what the text begins with: of a long prime a terminal gets the end."""
        if self._terminal and len(prime) > SHOWN_OF_PRIME:
            self._put(b"...")
            prime = prime[-SHOWN_OF_PRIME:]
        self.write(prime)

    def write(self, symbols: Sequence[int] | np.ndarray) -> None:
        if self._bytes is not None:
            self._put(self._bytes[symbols].tobytes())
        else:
            self._put_text(self._decoder.feed(symbols))

    def end_text(self) -> None:
        if self._bytes is None:
            self._put_text(self._decoder.feed([], final=True))
        if self._terminal and not self._line_ended:
            self._put(b"\n")

    def line(self, text: str) -> None:
        self._put(b"\n" * (not self._line_ended) + text.encode() + b"\n")

    def _put_text(self, text: str) -> None:
        if self._terminal:
            self._put(printable(text).encode(sys.stdout.encoding, "replace"))
        else:
            self._put(text.encode("utf-8", "replace"))

    def _put(self, data: bytes) -> None:
        if data:
            self._file.write(data)
            self._file.flush()
            self._line_ended = data.endswith(b"\n")


def _until(given: str, normalize: str | None, vocabulary: Vocabulary) -> np.ndarray:
    """The symbols that end a text, out of the option's value."""
    from tinygrad_rnn.errors import DataError

    meant = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
    ending = re.sub(r"\\([ntr\\])", lambda escape: meant[escape[1]], given)
    if normalize == "nfc":
        ending = unicodedata.normalize("NFC", ending)
    try:
        return vocabulary.encode(ending)
    except DataError as error:
        raise DataError(f"--until would never be met: it has {error}") from None


def _print_novelty(texts: list[list[int]], corpus: Corpus) -> None:
    """Is it just copying? Beside the model's texts, as much text that it has not seen shows what is usual."""
    import numpy as np

    from tinygrad_rnn.text.novelty import copied, half_covered, longest_stretches

    unseen = corpus.held_out[: sum(map(len, texts))]
    unit = "characters" if corpus.vocabulary.encoding == "utf-8" else "bytes"
    *matched, of_unseen = copied([*(np.array(text, np.intp) for text in texts), unseen], corpus.train)
    found = longest_stretches(matched, SHOWN_STRETCHES)
    longest = f"{found[0].length if found else 0:,} {unit}"
    lines = [
        f"novelty: longest stretch copied from the training text: {longest}; "
        f"half of the text lies in stretches of {half_covered(matched):,} or more"
    ]
    if len(unseen):
        lines.append(
            f"novelty: {len(unseen):,} {unit} held out from training: longest {of_unseen.max():,}; "
            f"half of them lies in stretches of {half_covered([of_unseen]):,} or more"
        )
    for text, start, length in found:
        shown = corpus.vocabulary.decode(texts[text][start : start + min(length, SHOWN_OF_STRETCH)])
        where = f" of text {text + 1}" if len(texts) > 1 else ""
        more = "..." if length > SHOWN_OF_STRETCH else ""
        lines.append(f"novelty: {length:,} {unit} at {start:,}{where}: {shown!r}{more}")
    print("\n".join(lines), file=sys.stderr)
