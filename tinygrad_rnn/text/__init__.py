"""Text: corpora, their vocabularies, batches of parallel streams, and sampling."""

from .batches import Windows
from .corpus import Corpus, load_corpus, names, resolve
from .sampling import sample
from .vocabulary import Decoder, Vocabulary

__all__ = ["Corpus", "Decoder", "Vocabulary", "Windows", "load_corpus", "names", "resolve", "sample"]
