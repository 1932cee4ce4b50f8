"""`Session`: what the commands look at and change: a model, a text, a window of it, and where one stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine import random
from ..engine.node import Node, writes
from ..engine.ops.fused import use_kernels
from ..engine.tensor import Tensor, no_grad
from ..errors import TinygradError, UsageError
from ..models import CharLM, files
from ..text import Corpus, Vocabulary, load_corpus
from .recording import Change, Observer, Recording
from .tape import Tape

if TYPE_CHECKING:
    from ..training import CharTrainer, TrainConfig

CORPUS = "harbour"
SMALL: dict[str, Any] = {"kind": "lstm", "embedding_size": 16, "hidden_size": 32, "num_layers": 2}
LENGTH = 50
LONGEST = 1000  # symbols of a window: each keeps every gradient that it sends
READ_BEFORE = 200  # symbols before a window that its first state comes from


class Session:
    """A model (in evaluation mode), a text as symbols, and a window of it that was run both ways.

    name        what the model is called
    symbols     the text, (N,)
    corpus, config   what the model is, or was, trained on and how; None where nobody noted it
    recording   the window, run forward and backward
    focus       the tape that graph, cd, step and the like look at: the window's, or one of a tensor of the
                user's
    namespace   the names that a user gave to tensors; the prompt's own
    here        the node that one stands at, for cd, up and down; None: at the loss
    memory      what commands keep from one call to the next, by command: where the debugger stands, say. Of
                what has a method `anew` that much stays when another graph is looked at, all else goes
    trainer     what `train` goes on with: it keeps the optimiser; None before the first step
    lesson      the lesson that is being given, None between lessons
    progress    is called while something takes long: with steps done, of how many, and the loss
    """

    recording: Recording
    focus: Tape

    OF_THE_PROMPT = ("namespace", "observer", "progress", "lesson")  # and not of what it looks at

    def __init__(
        self,
        model: CharLM,
        vocabulary: Vocabulary,
        symbols: np.ndarray,
        name: str = "model",
        corpus: Corpus | None = None,
        config: TrainConfig | None = None,
        length: int = LENGTH,
    ) -> None:
        self.name, self.corpus, self.config = name, corpus, config
        self.symbols = np.asarray(symbols, np.intp)
        self.vocabulary = vocabulary
        self.namespace: dict[str, Any] = {}
        self.memory: dict[str, Any] = {}
        self.trainer: CharTrainer | None = None
        self.lesson: Any = None
        self.progress: Callable[[int, int, float], None] = lambda step, steps, loss: None
        self.here: Node | None = None
        self.changes: list[Change] = []
        self.cuts: list[int] = []
        self.observer = Observer()  # of what the user computes at the prompt
        if not 1 <= length <= LONGEST:
            raise UsageError(f"a window has 1 to {LONGEST:,} symbols, not {length:,}")
        self.position, self.length = 0, min(length, len(symbols) - 1)
        self.truncate: int | None = None
        self.model = model.eval()
        self.record()

    @classmethod
    def small(cls, corpus: str = CORPUS, seed: int = 0, length: int = LENGTH, **sizes: Any) -> Session:
        """A small model that has learnt nothing yet, and the beginning of a text that comes along.

        sizes: as CharLM takes them; see SMALL.
        """
        text = load_corpus(corpus)
        if len(text.train) < 2:
            raise UsageError(f"{corpus}: a window takes two symbols or more, and one of each ten is held out")
        random.manual_seed(seed)
        model = CharLM(len(text.vocabulary), **(SMALL | sizes))
        name = f"a new {model.kind} {model.rnn.num_layers}x{model.rnn.hidden_size}"
        return cls(model, text.vocabulary, text.train, name, text, None, length)

    @classmethod
    def load(cls, path: Path, text: str | None = None, length: int = LENGTH) -> Session:
        """A trained model, and what was held out from its training, or another text.

        CheckpointError for what is no checkpoint; DataError for a text that cannot be read.
        """
        from ..training.origin import noted, training_corpus

        file = files.find_checkpoint(path)
        model, vocabulary, _ = files.load(file)
        corpus, config = None, None
        with suppress(TinygradError):  # a model only, or its text is gone: another one will do
            config, corpus = noted(file)[0], training_corpus(file)
        if text is not None or corpus is None:
            other = load_corpus(text or CORPUS, encoding=vocabulary.encoding)
            read = other.vocabulary.decode(other.train[:20_000])
            symbols = vocabulary.encode(read, unknown="skip")
        else:
            symbols = corpus.held_out if len(corpus.held_out) > length else corpus.train
        if len(symbols) < 2:
            raise UsageError(f"{text or CORPUS}: the model knows fewer than two of its characters")
        return cls(model, vocabulary, symbols, str(path), corpus, config, length)

    def become(self, other: Session) -> None:
        """Take over all that another session looks at: model, text, window. What is the prompt's stays."""
        kept = {name: vars(self)[name] for name in self.OF_THE_PROMPT}
        vars(self).update(vars(other) | kept)

    # --- the window ------------------------------------------------------------------------------

    def record(self) -> Recording:
        """Run the window again, forward and backward; its gradients become those of the parameters."""
        self.recording = self.run()
        found = self.recording.tape.gradients
        for parameter in self.model.parameters():
            node = parameter.node
            if node is not None:
                gradient = found.get(node)
                parameter.grad = None if gradient is None else _tensor_like(parameter, gradient)
        self.focus, self.here = self.recording.tape, None
        self._begin_anew()
        return self.recording

    def run(
        self, changes: Sequence[Change] = (), cuts: Sequence[int] = (), model: CharLM | None = None
    ) -> Recording:
        """The window with further interventions; nothing of the session changes. Of another model it is read
        without those that are kept."""
        kept = self.changes if model is None else []
        model = model or self.model
        place = slice(self.position, self.position + self.length + 1)
        symbols = self.symbols[place]
        return Recording(
            model,
            symbols[:-1],
            symbols[1:],
            self.state_before(self.position, model),
            self.truncate,
            [*kept, *changes],
            [*self.cuts, *cuts],
        )

    def renew(self) -> bool:
        """Run the window again if a weight was written to since, and say whether. The focus stays."""
        made = self.recording.loss.node
        assert made is not None
        if not any(writes.written_since(p.array, made.seq) for p in self.model.parameters()):
            return False
        focus, here = self.focus, self.here
        own = self.at_window
        self.record()
        if not own:
            self.focus, self.here = focus, here
        return True

    @np.errstate(all="ignore")  # what is not finite is there to be looked at
    def state_before(self, position: int, model: CharLM | None = None) -> Any:
        """The state that the model comes to a place in the text with; None at its beginning."""
        model = model or self.model
        before = self.symbols[max(position - READ_BEFORE, 0) : position]
        if not len(before):
            return None
        with no_grad(), use_kernels("numpy"):  # so few symbols are not worth loading compiled ones
            return model(before[:, None])[1]

    def show(self, position: int, length: int, truncate: int | None) -> Recording:
        """Another window. UsageError where the text has none there."""
        targets = len(self.symbols) - 1
        if not 1 <= length <= min(targets, LONGEST):
            raise UsageError(f"a window has 1 to {min(targets, LONGEST):,} symbols here, not {length:,}")
        if not 0 <= position <= targets - length:
            raise UsageError(
                f"a window of {length:,} begins at 0 to {targets - length:,}, not at {position:,}"
            )
        if truncate is not None and truncate < 1:
            raise UsageError(f"the state is cut off every 1 or more steps, not every {truncate}")
        self.position, self.length, self.truncate = position, length, truncate
        return self.record()

    @property
    def text(self) -> str:
        """What the window reads: a character a time step."""
        return self.decode(self.recording.symbols)

    @property
    def targets(self) -> str:
        """What the window should predict: a character a time step."""
        return self.decode(self.recording.targets)

    def decode(self, symbols: np.ndarray) -> str:
        """A character for each symbol, whatever the encoding; of bytes beyond ASCII a dot."""
        if self.vocabulary.encoding == "bytes":
            codes = np.append(self.vocabulary.codes, 0xB7)
            return "".join(chr(c) if c < 128 else "·" for c in codes[symbols])
        return "".join(self.vocabulary.decode([symbol]) or "·" for symbol in symbols)

    # --- the tape --------------------------------------------------------------------------------

    def look_at(self, root: Tensor | None) -> Tape:
        """Make the graph behind a tensor of the user's the one that is looked at; None: the window's."""
        self.focus = self.recording.tape if root is None else Tape(root, self.observer.values)
        self.here = None
        self._begin_anew()
        return self.focus

    def _begin_anew(self) -> None:
        """Another graph: of what commands keep, what is about the nodes of the last one goes."""
        kept = {key: value.anew() for key, value in self.memory.items() if hasattr(value, "anew")}
        self.memory = kept

    @property
    def at_window(self) -> bool:
        """Whether the window's tape is the one that is looked at."""
        return self.focus is self.recording.tape


def _tensor_like(parameter: Tensor, gradient: np.ndarray) -> Tensor:
    return Tensor(parameter.backend.from_host(gradient), None, 0, parameter.backend)
