"""What changes something: `window`, `focus`, `train`, `sample`, `load`, `save`."""

from __future__ import annotations

import argparse
import linecache
import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..engine import random
from ..engine.annotate import annotate
from ..engine.ops.fused import use_kernels
from ..engine.tensor import Tensor
from ..errors import StorageError, TinygradError, UsageError
from ..models import files
from ..text import sample as write
from ..text.sampling import opening
from .address import label
from .command import command, option
from .session import Session
from .tape import Tape
from .view import Block, Chart, Facts, Heat, Line, Span, View, number, shown_character, shown_text

GROUP = "Do"
STREAMS, LR = 16, 3e-3  # of a model that nobody has trained before
TEMPERATURE = 0.8  # as of `trnn sample`
FILE = "<focus>"  # where the nodes of an expression are said to be made


# --- what is looked at ----------------------------------------------------------------------------


@command(
    GROUP,
    "window --at 100 --length 40",
    option("--at", type=int, metavar="POSITION", help="where in the text it begins"),
    option("--length", type=int, metavar="T", help="how many symbols it reads"),
    option("--truncate", type=int, metavar="K", help="cut the gradient off every K steps; 0: nowhere"),
)
def window(session: Session, arguments: argparse.Namespace) -> View:
    """The piece of text that every view is about, or another one.

    The model reads T characters and predicts the one after each; the loss is the mean of -log p of those
    that did come, in nats. It comes to the window with the state that the text before has left, but no
    gradient goes back to there. The map is the loss at each character: guessing costs log(number of symbols).

        window                          where one is, run again by the weights as they are now
        window --at 1000 --length 80    80 characters from the 1000th on (the first is 0)
        window --truncate 10            truncated back-propagation: the state is cut off every 10 steps
    """
    left = left_focus(session)
    recording = session.show(
        session.position if arguments.at is None else arguments.at,
        session.length if arguments.length is None else arguments.length,
        session.truncate if arguments.truncate is None else arguments.truncate or None,
    )
    losses, guessing = recording.losses, math.log(len(session.vocabulary))
    low, high = _ends(losses)
    end = session.position + session.length
    facts = [
        ("model", f"{session.name}, {session.model.num_parameters():,} parameters"),
        ("text", f"{session.position:,} to {end:,} of {len(session.symbols):,}"),
        ("state", "zeros" if recording.state is None else "as the text before has left it"),
        ("loss", f"{number(float(losses.mean()))} nats; guessing costs {number(guessing)}"),
        ("gradient", _cut(session)),
        *left,
    ]
    if kept := len(session.changes) + len(session.cuts):
        facts.append(("changed", f"{kept} of `what-if --keep` stay; `what-if --clear` ends them"))
    return View(
        f"window: {session.length} characters from {session.position:,} on",
        [
            Heat({"loss": losses}, session.text, scale="unit", low=low, high=high, cuts=recording.cuts[1:]),
            Facts(facts),
        ],
        {
            "position": session.position,
            "length": session.length,
            "truncate": session.truncate,
            "cuts": recording.cuts,
            "text": session.text,
            "targets": session.targets,
            "losses": losses,
            "loss": float(losses.mean()),
            "guessing": guessing,
        },
    )


def _cut(session: Session) -> str:
    inner = session.recording.cuts[1:]
    if not inner:
        return "goes back to the beginning of the window"
    places = ", ".join(map(str, inner)) if len(inner) < 8 else f"{inner[0]}, {inner[1]} .. {inner[-1]}"
    return f"is cut off before step {places}"


def _ends(losses: np.ndarray) -> tuple[float, float]:
    """Of the scale: the least and the greatest finite loss. On a scale from 0 all those of a model that has
    learnt nothing would look alike."""
    finite = losses[np.isfinite(losses)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def left_focus(session: Session) -> list[tuple[str, str]]:
    """A fact for what is about to look at the window again, unless it is the window that is looked at."""
    if session.at_window:
        return []
    return [("focus", f"back at the window; it was on {_looked_at(session)}")]


def _looked_at(session: Session) -> str:
    if session.at_window:
        return "the window"
    name = label(session, session.focus.nodes[-1])
    if name.startswith("#") and "focus" in session.memory:  # nothing is called so, or no longer
        return f"{session.memory['focus']}, as it was then"
    return name


@command(GROUP, "focus", rest="[EXPRESSION]")
def focus(session: Session, arguments: argparse.Namespace) -> View:
    """Look at the graph behind a tensor of your own: `graph`, `cd`, `step`, `derive` and the like go there.

    The expression is Python on the names of the prompt. Of one number the gradient is looked at; of a tensor
    of several elements that of their sum, which is to say that the upstream gradient is ones. `focus` alone
    goes back to the window.

        focus (x * w).sum()
        focus
    """
    expression = arguments.rest
    if not expression:
        tape = session.look_at(None)
        loss = session.recording.loss.item()
        facts = [("root", f"loss = {number(loss)}, of the window"), *_size(tape)]
        return View("focus: the window", [Facts(facts)], {"root": "loss", "nodes": len(tape.nodes)})
    try:
        root = _evaluated(session, expression)
        tape = session.look_at(root)
    except TinygradError as error:
        raise UsageError(f"{error}; still at {_looked_at(session)}") from None
    session.memory["focus"] = expression
    # So that a view can show the line that a node was made on.
    linecache.cache[FILE] = (len(expression), None, [f"{expression}\n"], FILE)
    if root.size == 1:
        upstream, shown = "1", f" = {number(float(root.item()))}"
    else:
        upstream = f"ones: the gradient is that of the sum of its {root.size:,} elements"
        shown = f", of shape {root.shape}"
    facts = [("root", expression + shown), ("upstream", upstream), *_size(tape)]
    return View(
        f"focus: {expression}",
        [Facts(facts)],
        {"root": expression, "shape": list(root.shape), "nodes": len(tape.nodes), "summed": root.size != 1},
    )


def _evaluated(session: Session, expression: str) -> Tensor:
    try:
        with annotate(session.observer):
            value = eval(compile(expression, FILE, "eval"), session.namespace)
    except TinygradError:
        raise
    except Exception as error:
        raise UsageError(f"focus: {type(error).__name__}: {' '.join(str(error).split())}") from None
    if not isinstance(value, Tensor):
        raise UsageError(
            f"focus: {expression} gives no tensor but {type(value).__name__}; say one such as (x * w).sum()"
        )
    if value.node is None:
        raise UsageError(
            f"focus: {expression} needs no gradient: nothing that it was computed from has requires_grad=True"
        )
    return value


def _size(tape: Tape) -> list[tuple[str, str]]:
    leaves = sum(node.op is None for node in tape.nodes)
    return [("graph", f"{len(tape.nodes):,} nodes, {leaves:,} of them leaves")]


# --- learning and writing -------------------------------------------------------------------------


@command(
    GROUP,
    "train 5",
    option("steps", nargs="?", type=int, default=100, metavar="STEPS"),
    option("--lr", type=float, metavar="LR", help="the learning rate from here on"),
)
def train(session: Session, arguments: argparse.Namespace) -> View:
    """Let the model learn for so many steps more, here, and look at the window again.

    It reads the training text in parallel streams, a window at a time, and after each takes a step of the
    optimiser: truncated back-propagation through time, as `trnn train` does it, by the same fast kernels.
    The optimiser goes on where it was at the last `train`. A model that was loaded learns by its own
    settings, but at a constant rate and with an optimiser that begins anew. Ctrl-C ends it after the step
    that is running; what was learnt stays.

        train                another 100 steps
        train 500 --lr 1e-3  at another learning rate
    """
    from ..training.divergence import DivergenceError
    from ..training.threads import limited_threads

    steps, lr = arguments.steps, arguments.lr
    if steps < 1:
        raise UsageError(f"train: say 1 step or more, not {steps}")
    if lr is not None and not (math.isfinite(lr) and lr > 0):
        raise UsageError(f"train: the learning rate is a positive number, not {lr:g}")
    begins, left = session.trainer is None, left_focus(session)
    trainer = session.trainer = session.trainer or _trainer(session)
    if lr is not None:
        trainer.config = replace(trainer.config, lr=lr)
    before, losses, ended = session.recording.loss.item(), [], ""
    # The trainer's model is its own; a weight that was changed at the prompt counts all the same.
    trainer.model.load_state_dict(session.model.state_dict())
    try:
        with (
            np.errstate(all="ignore"),
            use_kernels(trainer.config.kernels),
            limited_threads(trainer.config),
            random.replay(random.snapshot()),
        ):
            for step in range(1, steps + 1):
                with _finished_first():
                    losses.append(trainer.train_step().loss)
                session.progress(step, steps, losses[-1])
    except KeyboardInterrupt:
        ended = f"interrupted after {len(losses):,} of {steps:,} steps; what was learnt stays"
    except DivergenceError as error:
        advice = "a smaller --lr may help" if losses else "`why nan` looks for where that begins"
        ended = f"{error} at step {len(losses) + 1:,}; the weights are those before it; {advice}"
    finally:
        with _finished_first():
            session.model.load_state_dict(trainer.model.state_dict())
            session.record()
    after = session.recording.loss.item()
    config = trainer.config
    facts = [
        ("window", f"loss {number(before)} -> {number(after)} nats"),
        ("steps", f"{len(losses):,} now, {trainer.step:,} in all, of {trainer.windows.batch_size} streams"),
        ("optimiser", f"{config.optimizer}, lr {config.lr:g}, clip {config.clip:g}" + _anew(session, begins)),
    ]
    if ended:
        facts.append(("ended", ended))
    facts += left
    blocks: list[Block] = [Chart({"loss": losses})] if losses else []
    return View(
        f"train: {len(losses):,} step{'s' * (len(losses) != 1)}",
        [*blocks, Facts(facts)],
        {
            "losses": losses,
            "before": before,
            "after": after,
            "steps": trainer.step,
            "lr": config.lr,
            "optimizer": config.optimizer,
            "ended": ended or None,
        },
    )


def _anew(session: Session, begins: bool) -> str:
    return "; it begins anew, at a constant rate" if begins and session.config is not None else ""


def _trainer(session: Session) -> Any:
    """What trains a model like that of the session on its text, ready for the first step."""
    from ..training import CharTrainer, TrainConfig

    corpus = session.corpus
    if corpus is None:
        raise UsageError(
            "train: the text that this model learnt from is not at hand; `load` a run whose text still is, "
            "or begin with a new model"
        )
    sizes = session.model.config()
    sizes["layers"] = sizes.pop("num_layers")
    del sizes["vocab_size"]
    if session.config is not None:
        anew: dict[str, Any] = {"schedule": "constant", "warmup": 0, "average": 0.0}
        config = replace(session.config, backend="numpy", kernels=None, **anew, **sizes)
    else:
        length = min(50, len(corpus.train) - 1)
        config = TrainConfig(
            corpus=(corpus.name,),
            batch_size=STREAMS,
            seq_length=length,
            optimizer="adam",
            lr=LR,
            clip=5.0,
            schedule="constant",
            **sizes,
        )
    with random.replay(random.snapshot()):
        return CharTrainer(config, corpus)


@contextmanager
def _finished_first() -> Iterator[None]:
    """In this block Ctrl-C waits until its end: half a step would leave weights that no step leads to."""
    if threading.current_thread() is not threading.main_thread():  # nor does Ctrl-C go to another
        yield
        return
    came = False

    def wait(*signal: object) -> None:
        nonlocal came
        came = True

    before = signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


@command(
    GROUP,
    "sample 100 --temperature 0.5",
    option("length", nargs="?", type=int, default=200, metavar="N"),
    option("--prime", default="", metavar="TEXT", help="text that it goes on from"),
    option(
        "--temperature", type=float, default=TEMPERATURE, metavar="X", help="below 1 safer, above 1 wilder"
    ),
    option("--seed", type=int, default=0, metavar="S", help="of the draws"),
)
def sample(session: Session, arguments: argparse.Namespace) -> View:
    """Let the model write N characters, each drawn from its own prediction.

    The scores are divided by the temperature before the softmax: 0 takes the likeliest character every time,
    1 is the model's own distribution. The same seed writes the same text. Without a prime it begins as after
    the end of a line.

        sample 300 --prime "The harbour"
        sample --temperature 1.2 --seed 7
    """
    length, seed, prime = arguments.length, arguments.seed, arguments.prime
    if length < 1:
        raise UsageError(f"sample: say 1 character or more, not {length}")
    if seed < 0:
        raise UsageError(f"sample: a seed is 0 or more, not {seed}")
    vocabulary = session.vocabulary
    start = vocabulary.encode(prime) if prime else opening(vocabulary)
    written = write(
        session.model, start, length, arguments.temperature, seed=seed, exclude=vocabulary.unknown
    )
    text = vocabulary.decode(list(written))
    return View(
        f"sample: {length:,} characters at temperature {arguments.temperature:g}",
        [Written(prime, text)],
        {"prime": prime, "text": text, "temperature": arguments.temperature, "seed": seed},
    )


@dataclass(frozen=True)
class Written:
    """A text as it is, spaces and line ends too, broken where the width ends; the prime is marked."""

    prime: str
    text: str

    def lines(self, width: int) -> Iterator[Line]:
        line: Line = []
        used = 0
        for piece, style in ((self.prime, "mark"), (self.text, "")):
            for place, part in enumerate(piece.split("\n")):
                if place:
                    yield line
                    line, used = [], 0
                shown = "".join(map(shown_character, part))
                while shown:
                    if used == width:
                        yield line
                        line, used = [], 0
                    head, shown = shown[: width - used], shown[width - used :]
                    line.append(Span(head, style))
                    used += len(head)
        yield line


# --- files ----------------------------------------------------------------------------------------


@command(GROUP, "save second.safetensors; load second.safetensors", option("run", metavar="RUN"))
def load(session: Session, arguments: argparse.Namespace) -> View:
    """Look at another model: a run folder, the best model of which is taken, or a checkpoint.

    The text is what was held out from its training. A file that holds a model only, as `save` writes it, is
    looked at on the text that is here already if both know the same characters, and can go on learning from
    it. If the model cannot be read everything stays as it is.

        load runs/first
    """
    path = Path(arguments.run).expanduser()
    loaded = Session.load(path, length=session.length)
    if loaded.corpus is None and loaded.vocabulary == session.vocabulary:
        loaded = Session(
            loaded.model,
            loaded.vocabulary,
            session.symbols,
            loaded.name,
            session.corpus,
            None,
            session.length,
        )
    session.become(loaded)
    model = session.model
    shape = f"{model.rnn.num_layers}x{model.rnn.hidden_size}"
    trained = session.config is not None and session.corpus is not None
    facts = [
        ("model", f"{model.kind} {shape}, {model.num_parameters():,} parameters"),
        ("text", shown_text(session.text[:60]) + ("…" if session.length > 60 else "")),
        ("loss", f"{number(session.recording.loss.item())} nats, of this window"),
        (
            "trained on",
            session.corpus.name if trained and session.corpus is not None else "not known, or gone",
        ),
    ]
    return View(
        f"load: {session.name}",
        [Facts(facts)],
        {"name": session.name, "config": model.config(), "loss": session.recording.loss.item()},
    )


@command(GROUP, "save first.safetensors", option("file", metavar="FILE"))
def save(session: Session, arguments: argparse.Namespace) -> View:
    """Write the model into a new file, which `load`, `trnn sample` and `trnn inspect` read.

    It holds the weights and the vocabulary, without what a training would need to go on. What is there
    already is never written over.

        save first.safetensors
    """
    path = Path(arguments.file).expanduser()
    if path.exists():
        raise UsageError(f"save: {path} exists already; choose another name")
    if not path.parent.is_dir():
        raise UsageError(f"save: there is no folder {path.parent}")
    meta: dict[str, Any] = {} if session.trainer is None else {"step": session.trainer.step}
    if session.corpus is not None:
        meta["corpus"] = session.corpus.name
    try:
        files.save(path, session.model, session.vocabulary, meta)
    except OSError as error:
        raise StorageError(f"save: cannot write {path}: {error.strerror or error}") from None
    size = path.stat().st_size
    return View(f"save: {path}, {size:,} bytes", [], {"file": str(path), "bytes": size})
