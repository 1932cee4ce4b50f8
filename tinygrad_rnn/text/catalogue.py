"""Well-known corpora that do not come along but can be fetched: `CATALOGUE`, `fetch`, `cached`.

A fetched text is kept in the user's cache folder, and counts as there only while its SHA-256 is that of the
catalogue: what was cut short or has changed, whoever did it, is fetched again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import DataError, FetchError, UsageError
from .cache import user_folder

TIMEOUT = (10.0, 30.0)  # seconds: to connect, and between two packets


@dataclass(frozen=True)
class Entry:
    """about: one line on the text. size: in bytes. sha256: in hexadecimal. licence: and who holds it."""

    about: str
    address: str
    size: int
    sha256: str
    licence: str


CATALOGUE = {
    "tinyshakespeare": Entry(
        about="40,000 lines of Shakespeare's plays, the usual test text of character models",
        address="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        size=1_115_394,
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        licence="public domain; compiled by A. Karpathy for char-rnn",
    ),
}


def cached(name: str) -> Path | None:
    """The file of a text of the catalogue if it has been fetched and is intact, else None."""
    path = _path(name)
    return path if path.is_file() and _sha256(path) == CATALOGUE[name].sha256 else None


def fetch(name: str) -> Path:
    """The file of a text of the catalogue, fetched unless it is there.

    Raises UsageError for a name that the catalogue lacks, FetchError if no whole file came, and DataError if
    what came is not the text. What was there before is then there still, and nothing else is.
    """
    if name not in CATALOGUE:
        raise UsageError(f"no text {name!r} in the catalogue; there is {', '.join(CATALOGUE)}")

    import pooch  # type: ignore[import-untyped]

    entry, path = CATALOGUE[name], _path(name)
    pooch.get_logger().setLevel("WARNING")  # it would tell of every step

    def download(address: str, file: str, _: object) -> None:
        Path(file).unlink()  # made for its owner alone; the one that is made next has the umask's permissions
        try:
            pooch.HTTPDownloader(timeout=TIMEOUT, chunk_size=1 << 16)(address, file, None)
        except OSError as error:
            why = _why(error, entry, Path(file))
            raise FetchError(f"cannot fetch {name}: {why}; by hand: save {address} as {path}") from None
        if (seen := _sha256(Path(file))) != entry.sha256:
            raise DataError(
                f"what came from {address} is not {name} and was not kept: "
                f"its SHA-256 should be {entry.sha256}, and is {seen}"
            )

    pooch.retrieve(entry.address, f"sha256:{entry.sha256}", path.name, path.parent, downloader=download)
    return path


def _why(error: OSError, entry: Entry, file: Path) -> str:
    """In a few words what `error`, raised by requests or the system, means to whoever waits for the file."""
    from requests import exceptions

    host = urlsplit(entry.address).hostname
    arrived = file.stat().st_size if file.exists() else 0
    match error:
        case exceptions.HTTPError(response=response) if response is not None:
            return f"{entry.address} answers {response.status_code} {response.reason}"
        case exceptions.SSLError():
            return f"no connection to {host} that can be trusted: {error}"
        case exceptions.ConnectionError() if not arrived:
            return f"no connection to {host}; is there a network?"
        case exceptions.ConnectionError() | exceptions.ChunkedEncodingError() | exceptions.ReadTimeout():
            return f"the connection to {host} broke before the end of the file"
    return error.strerror or str(error)


def _path(name: str) -> Path:
    return user_folder("corpora") / f"{name}.txt"


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
