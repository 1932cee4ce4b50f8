"""Text: corpora, their vocabularies, batches of parallel streams, and sampling."""

from .batches import Windows
from .corpus import Corpus, load_cached, load_corpus
from .sampling import sample
from .sources import names, resolve
from .vocabulary import Decoder, Vocabulary

__all__ = [
    "Corpus",
    "Decoder",
    "Vocabulary",
    "Windows",
    "load_cached",
    "load_corpus",
    "names",
    "resolve",
    "sample",
]
