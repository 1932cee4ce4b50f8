"""`lesson`: guided tours. Each is a text in lessons/, with commands between the paragraphs that are run.

    Why the gradient of an RNN vanishes              the title
    session kind=rnn layers=1 scale=1.5 seed=1       the model that it is about; left out: a small LSTM
                                                     (blank)
    A paragraph, wrapped anew when it is shown.
        an indented line, a formula, stays as it is
    > flow --from 49                                 a command
    >>> x = tg.tensor(2.0)                           Python on the names of the prompt; `... ` goes on
    ---                                              here a part ends

While a lesson is given the session is the lesson's, so that its model can be looked at between the parts.
Before each part all that it builds on is put back as the part before has left it, whatever was changed in
between; a part that fails leaves nothing behind. When the lesson ends everything is as it was before.
"""

from __future__ import annotations

import argparse
import ast
import copy
import linecache
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from ..engine.annotate import annotate
from ..engine.node import Node
from ..engine.tensor import Tensor, no_grad
from ..errors import TinygradError, UsageError
from .command import command, option, run
from .session import Session
from .view import Block, Facts, Line, Lines, Span, Text, View

SETTINGS = {
    "kind": str,
    "layers": int,
    "hidden_size": int,
    "seed": int,
    "length": int,
    "at": int,  # where in the text the window begins
    "scale": float,  # what the recurrent weights are multiplied by
}
_NOTHING = object()


@dataclass(frozen=True)
class Piece:
    """Of a part of a lesson. kind: "text", "formula", "command" or "python"."""

    kind: str
    text: str


@dataclass(frozen=True)
class Lesson:
    """settings: of the session that it is given in, see SETTINGS."""

    number: int
    title: str
    settings: dict[str, Any]
    parts: list[list[Piece]]


@dataclass(frozen=True)
class Point:
    """What the next part builds on.

    session    what is looked at
    weights    of its model
    names      that the lesson has given
    gradients  of the tensors among them
    saved      node, inputs, out, residuals: what the graph that is looked at keeps until backward() frees it
    """

    session: Session
    weights: dict[str, np.ndarray]
    names: dict[str, Any]
    gradients: dict[str, Tensor | None]
    saved: list[tuple[Node, Any, Any, Any]]


@dataclass
class Given:
    """A lesson that is being given.

    part    how many were shown
    before  the session as it was before the lesson
    theirs  what the names that the lesson gave stand for at the prompt without it
    names   what the lesson gave them
    point   where the next part begins
    lines   of the Python that was run
    """

    lesson: Lesson
    before: Session
    part: int = 0
    theirs: dict[str, Any] = field(default_factory=dict)
    names: dict[str, Any] = field(default_factory=dict)
    point: Point | None = None
    lines: list[str] = field(default_factory=list)


def _words(session: Session) -> list[str]:
    return [*(str(one.number) for one in lessons()), "next", "end"]


@command(
    "Do",
    "lesson 1",
    option(
        "which",
        nargs="?",
        metavar="N",
        complete=_words,
        help="its number; next: its next part; end: back to your own model",
    ),
    option("--all", action="store_true", dest="whole", help="all parts at once"),
)
def lesson(session: Session, arguments: argparse.Namespace) -> View:
    """Guided tours: short lessons on gradients in recurrent networks, made of these very commands.

    A lesson comes in parts. Between them you may look around: the session is the lesson's, with a small model
    of its own, until it ends. What you change there holds until the next part, which goes on from where the
    lesson was. At the end everything is as it was before, your names and your model too.

        lesson             the lessons there are; or the next part, while one is given
        lesson 2           begin with the second
        lesson next        go on
        lesson end         leave it
        lesson 2 --all     all of it at once
    """
    which, given = arguments.which, session.lesson
    if which is None:
        which = "next" if given is not None else "list"
    if arguments.whole and not which.isdecimal():
        raise UsageError("lesson: say which: --all stands behind a number, as in lesson 2 --all")
    if which == "list":
        return _contents()
    if which == "end" and given is not None:
        end(session)
        return View(
            f"lesson {given.lesson.number} has ended: you are back at {session.name}", [], {"ended": True}
        )
    if which == "next" and given is not None:
        if given.part < len(given.lesson.parts):
            return _shown(session, *_part(session), _onward(session))
        return lesson(session, argparse.Namespace(which="end", whole=False))
    if which in ("next", "end"):
        raise UsageError("lesson: none is being given; `lesson` lists them, `lesson 1` begins the first")
    chosen = _find(which)
    if given is not None:
        end(session)
    begin(session, chosen)
    if not arguments.whole:
        return _shown(session, *_part(session), _onward(session))
    try:
        parts = [_part(session) for _ in chosen.parts]
        blocks = [block for part, _ in parts for block in part]
        return _shown(session, blocks, [one for _, part in parts for one in part])
    finally:
        end(session)


def _contents() -> View:
    facts = [(str(one.number), one.title) for one in lessons()]
    return View(
        "The lessons",
        [Facts(facts), Text(""), Text("`lesson 1` begins the first; each takes some minutes.")],
        {"lessons": {one.number: one.title for one in lessons()}},
    )


def _find(which: str) -> Lesson:
    known = lessons()
    if not which.isdecimal() or not 1 <= int(which) <= len(known):
        raise UsageError(f"lesson: there is no {which!r}; say 1 to {len(known)}, next or end")
    return known[int(which) - 1]


# --- giving one -----------------------------------------------------------------------------------


def begin(session: Session, chosen: Lesson) -> None:
    """Make the session the lesson's."""
    before = copy.copy(session)
    settings = dict(chosen.settings)
    scale, position = settings.pop("scale", 1.0), settings.pop("at", 0)
    if "layers" in settings:
        settings["num_layers"] = settings.pop("layers")
    own = Session.small(**settings)
    with no_grad():
        for layer in range(own.model.rnn.num_layers):
            weight = getattr(own.model.rnn, f"weight_hh_l{layer}")
            weight.copy_(weight * scale)
    own.show(position, own.length, None)
    session.become(own)
    session.lesson = Given(chosen, before)
    _name(session, {"session": session, "model": session.model})
    session.lesson.point = _point(session)


def end(session: Session) -> None:
    """Make the session what it was before."""
    given: Given = session.lesson
    session.become(given.before)
    session.lesson = None
    _give_back(session, given, given.names)


def _name(session: Session, values: dict[str, Any]) -> None:
    """Give names at the prompt, and note what they stood for."""
    given: Given = session.lesson
    for name, value in values.items():
        given.theirs.setdefault(name, session.namespace.get(name, _NOTHING))
        given.names[name] = session.namespace[name] = value


def _give_back(session: Session, given: Given, names: Iterable[str]) -> None:
    """Let names stand for what they do without the lesson, except those that the user has given anew."""
    for name in names:
        now, before = session.namespace.get(name, _NOTHING), given.theirs[name]
        if now is not _NOTHING and now is not given.names[name]:
            continue
        if before is _NOTHING:
            session.namespace.pop(name, None)
        else:
            session.namespace[name] = before


def _point(session: Session) -> Point:
    """How things are now."""
    kept, names = copy.copy(session), dict(session.lesson.names)
    kept.changes, kept.cuts = [*session.changes], [*session.cuts]
    tensors = {name: value for name, value in names.items() if isinstance(value, Tensor)}
    gradients = {name: x.grad for name, x in tensors.items() if x.requires_grad and x.is_leaf}
    nodes = [] if session.at_window else session.focus.nodes
    saved = [(node, node.inputs, node.out, node.residuals) for node in nodes]
    return Point(kept, session.model.state_dict(), names, gradients, saved)


def _put_back(session: Session) -> None:
    """Make everything as it was when the last part had ended. What the user calls by a name of the lesson
    comes back at its end."""
    given: Given = session.lesson
    point = given.point
    assert point is not None
    kept, memory = point.session, session.memory
    session.become(kept)
    session.memory = memory  # the user's breakpoints, say
    session.changes, session.cuts = [*kept.changes], [*kept.cuts]
    session.model.load_state_dict(point.weights)
    session.record()
    if not kept.at_window:
        session.focus = kept.focus
    for node, *held in point.saved:
        node.inputs, node.out, node.residuals = held
    for name, value in given.names.items():
        now = session.namespace.get(name, _NOTHING)
        if now is not _NOTHING and now is not value:
            given.theirs[name] = now
    begun = given.names.keys() - point.names.keys()  # by a part that failed
    _give_back(session, given, begun)
    for name in begun:
        del given.theirs[name]
    given.names = dict(point.names)
    session.namespace |= given.names
    for name, gradient in point.gradients.items():
        given.names[name].grad = gradient


def _part(session: Session) -> tuple[list[Block], list[dict[str, Any]]]:
    """The next part, as _pieces() has it, all or nothing."""
    given: Given = session.lesson
    _put_back(session)
    ran = len(given.lines)
    try:
        seen = _pieces(session)
    except BaseException as error:
        _put_back(session)
        del given.lines[ran:]
        if isinstance(error, TinygradError):
            raise UsageError(
                f"lesson {given.lesson.number}: {error}; nothing of this part was kept: "
                "`lesson next` tries it again, `lesson end` leaves the lesson"
            ) from None
        raise
    given.part += 1
    given.point = _point(session)
    return seen


def _pieces(session: Session) -> tuple[list[Block], list[dict[str, Any]]]:
    """The next part: what is seen of it, and the same as plain data."""
    given: Given = session.lesson
    blocks: list[Block] = []
    shown: list[dict[str, Any]] = []
    before = ""
    for piece in given.lesson.parts[given.part]:
        if (before, piece.kind) != ("python", "python"):
            blocks.append(Text(""))
        before = piece.kind
        if piece.kind == "text":
            blocks.append(Text(piece.text))
            shown.append({"text": piece.text})
        elif piece.kind == "formula":
            blocks.append(Lines(piece.text.split("\n")))
            shown.append({"formula": piece.text})
        elif piece.kind == "command":
            view = run(session, piece.text)
            blocks += [Lines([[Span("> ", "dim"), Span(piece.text, "mark")]]), view]
            shown.append({"command": piece.text, "view": view.to_dict()})
        else:
            result = _python(session, piece.text)
            blocks.append(Lines(_prompted(piece.text)))
            if result is not None:
                blocks += map(Text, repr(result).split("\n"))
            shown.append({"python": piece.text, "result": None if result is None else repr(result)})
    return blocks, shown


def _onward(session: Session) -> str:
    """How to go on from here."""
    given: Given = session.lesson
    if given.part < len(given.lesson.parts):
        return f"Part {given.part} of {len(given.lesson.parts)}. Look around, or go on: `lesson next`"
    return "This was the last part. Its model is here to play with, until `lesson end`"


def _shown(session: Session, blocks: list[Block], shown: list[dict[str, Any]], onward: str = "") -> View:
    given: Given = session.lesson
    return View(
        f"Lesson {given.lesson.number}: {given.lesson.title}",
        [*blocks, *([Text(""), Text(onward, "dim")] if onward else [])],
        {
            "lesson": given.lesson.number,
            "part": given.part,
            "parts": len(given.lesson.parts),
            "shown": shown,
        },
    )


def _prompted(code: str) -> list[Line]:
    lines = code.split("\n")
    return [
        [Span("... " if number else ">>> ", "dim"), Span(line, "mark")] for number, line in enumerate(lines)
    ]


def _python(session: Session, code: str) -> Any:
    """Run it as a prompt does: what its last expression is, None for a statement."""
    given: Given = session.lesson
    file = f"<lesson {given.lesson.number}>"
    tree = ast.parse(code)
    ast.increment_lineno(tree, len(given.lines))
    given.lines += code.split("\n")
    # So that a view can show the line that a node was made on.
    linecache.cache[file] = (0, None, [f"{line}\n" for line in given.lines], file)
    last = tree.body[-1]
    before = dict(session.namespace)
    try:
        with annotate(session.observer):
            if not isinstance(last, ast.Expr):
                exec(compile(tree, file, "exec"), session.namespace)
                return None
            exec(compile(ast.Module(tree.body[:-1], []), file, "exec"), session.namespace)
            return eval(compile(ast.Expression(last.value), file, "eval"), session.namespace)
    except TinygradError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise UsageError(f"{code.splitlines()[0]}: {type(error).__name__}: {said}") from None
    finally:
        for name, value in [*session.namespace.items()]:
            if name not in before or before[name] is not value:
                given.theirs.setdefault(name, before.get(name, _NOTHING))
                given.names[name] = value


# --- reading them ---------------------------------------------------------------------------------


@cache
def lessons() -> list[Lesson]:
    """All of them, in the order of their files' names."""
    folder = files(__package__) / "lessons"
    found = sorted((file for file in folder.iterdir() if file.name.endswith(".txt")), key=lambda f: f.name)
    return [read(number, file.read_text("utf-8")) for number, file in enumerate(found, 1)]


def read(number: int, text: str) -> Lesson:
    """A lesson as it is written; see above."""
    title, *lines = text.rstrip("\n").split("\n")
    settings: dict[str, Any] = {}
    if lines and lines[0].startswith("session "):
        pairs = (setting.split("=") for setting in lines.pop(0).split()[1:])
        settings = {name: SETTINGS[name](value) for name, value in pairs}
    parts: list[list[Piece]] = [[]]
    fresh = True  # whether the next line begins a piece of its own
    for line in lines:
        part = parts[-1]
        if line == "---":
            parts.append([])
        elif line.startswith("> "):
            part.append(Piece("command", line[2:]))
        elif line.startswith(">>> "):
            part.append(Piece("python", line[4:]))
        elif line.startswith("... "):
            part[-1] = Piece("python", f"{part[-1].text}\n{line[4:]}")
        elif line:
            kind = "formula" if line.startswith(" ") else "text"
            if not fresh and part and part[-1].kind == kind:
                part[-1] = Piece(kind, part[-1].text + ("\n" if kind == "formula" else " ") + line)
            else:
                part.append(Piece(kind, line))
        fresh = not line
    return Lesson(number, title, settings, parts)
