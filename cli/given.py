"""A text given as an argument: the text itself, or @file, which stands for what is in the file."""

from __future__ import annotations

from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from tinygrad_rnn.text import Vocabulary
    from tinygrad_rnn.text.reading import EncodedText


def read_given(
    given: str, name: str, checkpoint: Path, vocabulary: Vocabulary, unknown: str
) -> tuple[EncodedText, np.ndarray]:
    """The text as the model of the checkpoint reads it, and its symbols.

    given    the text; or @ and what find_sources() takes, with "@-" for standard input; @@ stands for an @
    name     what an error calls a text that stands in the argument
    unknown  what becomes of characters that the vocabulary lacks: see Vocabulary.encode()
    """
    import numpy as np

    from tinygrad_rnn.text.cache import user_folder
    from tinygrad_rnn.text.reading import EncodedText
    from tinygrad_rnn.text.sources import Source, find_sources
    from tinygrad_rnn.training.origin import normal_form

    with ExitStack() as spools:
        if given.startswith("@") and not given.startswith("@@"):
            sources = find_sources([given[1:]], spools, user_folder())
        else:
            # An argument that is not UTF-8 holds its bytes as surrogates.
            content = given.removeprefix("@").encode("utf-8", "surrogateescape")
            sources = [Source(name, BytesIO(content))]
        encoded = EncodedText(sources, vocabulary, normal_form(checkpoint), unknown)
        return encoded, np.concatenate([np.zeros(0, vocabulary.dtype), *encoded])
