"""`trnn corpus`: what it makes, fetches and tells; fetching is tried against a server on this machine."""

import hashlib
import io
import json
import os
import re
import socket
import stat
import sys
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tinygrad_rnn.text.catalogue import CATALOGUE, Entry
from tinygrad_rnn.text.recipes import RECIPES
from trnn_cli import layout
from trnn_cli.corpus import Source

from .conftest import fails

TEXT = b"Once upon a time there was a text.\n" * 5000


@pytest.fixture
def corpus(trnn):
    """Run `trnn corpus`."""
    return partial(trnn, "corpus")


class Server(BaseHTTPRequestHandler):
    """Has /good, /wrong (another text), /broken (less than it promises) and /silent."""

    def do_GET(self):
        what = self.path[1:]
        if what == "silent":
            self.rfile.read(1)  # until the client goes
            return
        self.send_response(200 if what in ("good", "wrong", "broken") else 404)
        self.send_header("Content-Length", str(len(TEXT)))
        self.end_headers()
        self.wfile.write({"good": TEXT, "wrong": TEXT[::-1], "broken": TEXT[:100_000]}.get(what, b""))

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where fetched texts are kept."""
    monkeypatch.setattr("tinygrad_rnn.text.catalogue.user_folder", lambda part: tmp_path / "cache" / part)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache" / "corpora"


@pytest.fixture
def fable(cache, monkeypatch):
    """Sets the address of the text "fable" of the catalogue."""

    def set_address(address):
        digest = hashlib.sha256(TEXT).hexdigest()
        monkeypatch.setitem(CATALOGUE, "fable", Entry("A fable", address, len(TEXT), digest, "free"))

    return set_address


def test_a_fetched_text_is_there_under_its_name(corpus, cache, fable, address, monkeypatch):
    fable(f"{address}/good")
    assert "fable  175,000 bytes  fetch it: trnn corpus get fable\n" in corpus("list")[1]
    path = cache / "fable.txt"
    umask = os.umask(0o027)
    try:
        assert corpus("get", "fable") == (0, f"fable  175,000 bytes  {path}\n", "")
    finally:
        os.umask(umask)
    assert path.read_bytes() == TEXT
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert f"fable  175,000 bytes  {path}\n" in corpus("list")[1] == corpus("get")[1]
    assert corpus("stats", "fable")[0] == 0
    fable("http://127.0.0.1:1/")  # a second time needs no network
    assert corpus("get", "fable")[0] == 0


@pytest.mark.parametrize("before", [None, b"an earlier edition"])
@pytest.mark.parametrize(
    ("page", "exit_code", "said"),
    [
        ("wrong", 3, [hashlib.sha256(TEXT).hexdigest(), hashlib.sha256(TEXT[::-1]).hexdigest(), "not kept"]),
        ("broken", 1, ["the connection to 127.0.0.1 broke before the end of the file"]),
        ("silent", 1, ["the connection to 127.0.0.1 broke before the end of the file"]),
        ("missing", 1, ["/missing answers 404 Not Found"]),
    ],
)
def test_what_cannot_be_fetched_leaves_nothing(
    corpus, cache, fable, address, monkeypatch, before, page, exit_code, said
):
    monkeypatch.setattr("tinygrad_rnn.text.catalogue.TIMEOUT", (5, 0.2))
    fable(f"{address}/{page}")
    if before is not None:
        cache.mkdir(parents=True)
        (cache / "fable.txt").write_bytes(before)
    fails(corpus("get", "fable"), exit_code, "fable", *said)
    assert [path.read_bytes() for path in cache.iterdir()] == ([before] if before else [])


def test_no_network(corpus, cache, fable):
    with socket.socket() as nobody:  # bound, but not listening: refuses connections
        nobody.bind(("127.0.0.1", 0))
        fable(f"http://127.0.0.1:{nobody.getsockname()[1]}/good")
        problem = "cannot fetch fable: no connection to 127.0.0.1; is there a network?"
        by_hand = f"by hand: save {CATALOGUE['fable'].address} as {cache / 'fable.txt'}"
        fails(corpus("get", "fable"), 1, problem, by_hand)
    fable("http://no-such-host.invalid/good")
    fails(corpus("get", "fable"), 1, "cannot fetch fable: no connection to no-such-host.invalid")
    assert list(cache.iterdir()) == []
    (cache / "fable.txt").write_bytes(TEXT)
    assert corpus("get", "fable")[0] == 0


def test_a_name_that_the_catalogue_lacks(corpus, cache):
    fails(corpus("get", "tinyshakespaere"), 2, "'tinyshakespaere'", "tinyshakespeare")
    assert not cache.exists()


def test_make(corpus, folder):
    code, out, err = corpus("make", "reber", "--size", "20k", "--seed", 3)
    assert (code, err) == (0, "")
    text = (folder / "reber.txt").read_bytes()
    assert out == (
        f"reber.txt: {len(text):,} bytes\nthe lowest loss possible on it is 0.373 nats = 0.538 bits/char\n"
    )
    assert 19_900 < len(text) <= 20_000
    assert corpus("make", "reber", "--size", "20k", "--seed", 3, "--output", "again.txt")[0] == 0
    assert (folder / "again.txt").read_bytes() == text
    assert corpus("make", "python", "--size", "20k")[1].count("\n") == 1  # nobody knows its lowest loss


def test_what_cannot_be_made(corpus, folder):
    for source in ("python", "dyck", "arithmetic", "reber"):
        fails(corpus("make", source, "--size", 1), 2, f"first line of {source}", "ask for more")
    fails(corpus("make", "python", "--seed", 1), 2, "python takes no --seed")
    fails(corpus("make", "dyck", "--seed", -1), 2, "--seed")
    fails(corpus("make", "dyck", "--size", "1 MB"), 2, "--size", "500k")
    fails(corpus("make", "dyck", "--size", "9" * 5000), 2, "--size", "500k")
    assert list(folder.iterdir()) == []
    (folder / "dyck.txt").write_text("mine")
    fails(corpus("make", "dyck"), 2, "dyck.txt exists already")
    assert [path.read_text() for path in folder.iterdir()] == ["mine"]


STRANGE = "\ufeff[red]one\r\ntwo\x1b[31m\x07 \u202e[/]\ufffd\n" + "the end " * 40


@pytest.mark.parametrize("columns", [20, 80, 200, None])
def test_stats(corpus, folder, monkeypatch, columns):
    monkeypatch.setattr(layout, "width", lambda: columns)
    (folder / "[b]odd\x1b.txt").write_bytes(STRANGE.encode())
    code, out, err = corpus("stats", "[b]odd\x1b.txt")
    assert (code, err) == (0, "")
    widest = max(map(len, out.splitlines()))
    assert columns is None or widest <= columns
    assert not set(out) & set("\x1b\x07\r\u202e\ufeff")  # named, not shown
    flat = " ".join(out.split())
    for part in (
        "[b]odd.txt",
        f"characters {len(STRANGE):,}",
        f"bytes {len(STRANGE.encode()):,}",
        "lines 3",
        f"different {len(set(STRANGE))}",
        "' ' 81",
        "carriage returns: 1",
        "a byte-order mark at the beginning",
        r"'\x1b' 1",
        "U+FFFD",
        "rarer than 10 times:",
    ):
        assert part in flat if columns == 20 else part in re.sub(" +", " ", out)
    assert ("bits/char" in flat) == (columns is None or columns > 20)
    assert re.search(r"frequencies \d\.\d{3}", flat)


def test_stats_for_machines(corpus, folder):
    (folder / "text.txt").write_text("abab\n")
    code, out, _ = corpus("stats", "text.txt", "--json")
    record = json.loads(out)
    assert code == 0
    assert record["counts"] == [["a", 2], ["b", 2], ["\n", 1]]
    assert record["losses"]["guessing"] == pytest.approx(1.0986, abs=1e-4)
    assert (record["bytes"], record["symbols"], record["lines"], record["encoding"]) == (5, 5, 1, "utf-8")


def test_a_text_that_is_made_goes_to_standard_output(corpus, folder, monkeypatch):
    assert corpus("make", "dyck", "--size", "20k")[0] == 0
    code, out, err = corpus("make", "dyck", "--size", "20k", "--output", "-")
    assert (code, out, err) == (0, (folder / "dyck.txt").read_text(), "")
    assert [path.name for path in folder.iterdir()] == ["dyck.txt"]
    fails(corpus("make", "dyck", "--output", "nowhere/dyck.txt"), 2, "there is no folder nowhere")


def test_stats_of_standard_input_and_of_folders(corpus, folder, monkeypatch):
    (folder / "parts" / "deep").mkdir(parents=True)
    (folder / "parts" / "a.txt").write_text("one\n")
    (folder / "parts" / "deep" / "b.txt").write_text("two\n")
    (folder / "parts" / "c.bin").write_bytes(b"\0\1")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\ntwo\n")))
    piped = json.loads(corpus("stats", "-", "--json")[1])
    joined = json.loads(corpus("stats", "parts", "--json")[1])
    assert (piped.pop("text"), joined.pop("text")) == ("standard input", "parts")
    assert piped == joined and piped["symbols"] == 8
    (folder / "parts" / "deep" / "b.txt").write_bytes(b"tw\xff\n")
    assert "parts/deep/b.txt is not UTF-8: byte 0xff at offset 2" in corpus("stats", "parts")[1]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    fails(corpus("stats", "-"), 3, "standard input is empty")


def test_stats_of_what_is_not_utf8(corpus, folder):
    (folder / "latin.txt").write_bytes("rrGrüße, Grüße".encode("latin-1"))
    out = corpus("stats", "latin.txt")[1]
    assert "not UTF-8: byte 0xfc at offset 4" in out
    assert "bits/byte" in out
    assert "0x72 4" in out
    assert json.loads(corpus("stats", "latin.txt", "--json")[1])["counts"][0] == [0x72, 4]


def test_what_has_no_stats(corpus, folder):
    (folder / "empty.txt").touch()
    fails(corpus("stats", "empty.txt"), 3, "empty.txt is empty")
    fails(corpus("stats", "missing.txt"), 3, "no file 'missing.txt'")
    fails(corpus("stats", folder), 3, "is empty")


@pytest.mark.parametrize("command", [[], ["make"], ["stats"], ["get"], ["list"]])
def test_help_shows_an_example(corpus, command):
    code, out, _ = corpus(*command, "--help")
    assert code == 0
    assert command == ["list"] or "Try:" in out


def test_every_recipe_can_be_asked_for():
    assert {source.value for source in Source} == {"python", *RECIPES}
