"""Sources: what a name stands for, in what order, and what is told of names that stand for nothing."""

import io
import os
import re
import sys
import threading
from contextlib import ExitStack

import pytest

from tinygrad_rnn.errors import DataError
from tinygrad_rnn.text import names, resolve
from tinygrad_rnn.text.sources import find_sources, text_files


def read(*sources, folder):
    with ExitStack() as spools:
        found = find_sources(sources, spools, folder)
        first = [b"".join(source.blocks(3)) for source in found]
        assert [b"".join(source.blocks(1000)) for source in found] == first  # as often as needed
        return first


def pipe(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_sources_are_in_the_order_given(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"first")
    (tmp_path / "b").write_bytes(b"second")
    pipe(monkeypatch, b"\xffpiped\r\n")
    found = read(tmp_path / "b", "-", str(tmp_path / "a"), tmp_path / "b", folder=tmp_path / "new")
    assert found == [b"second", b"\xffpiped\r\n", b"first", b"second"]
    assert not any((tmp_path / "new").iterdir())


def test_a_folder_is_its_text_files_sorted_by_path(tmp_path):
    files = ["z.txt", "a/b.md", "a/c", "a-b.py", "a/.hidden", ".git/config", "a/b/c.txt", "A.txt", "empty"]
    for name in [*files, "picture.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name if name != "empty" else "")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    found = [file.relative_to(tmp_path).as_posix() for file in text_files(tmp_path)]
    assert found == ["A.txt", "a-b.py", "a/b.md", "a/b/c.txt", "a/c", "empty", "z.txt"]


def test_a_folder_without_text(tmp_path):
    with pytest.raises(DataError, match=r"no text file in .* \(0 of other kinds\)"):
        text_files(tmp_path)
    (tmp_path / "noise").write_bytes(b"\0")
    with pytest.raises(DataError, match=r"no text file in .* \(1 of other kinds\)"):
        text_files(tmp_path)


def test_a_named_pipe_is_read_once_and_kept(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"through the pipe",))
    writer.start()
    (tmp_path / "file").touch()  # where no folder can be, so that temporary files go where they always go
    assert read(tmp_path / "pipe", folder=tmp_path / "file" / "folder") == [b"through the pipe"]
    writer.join()


def test_a_closed_standard_input(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DataError, match="standard input: it is closed"):
        read("-", folder=tmp_path)


@pytest.mark.parametrize("name", ["", "nothing", "no/such/harbour", "nul\0byte"])
def test_a_missing_file_names_what_comes_along(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"no file .*harbour\)"):
        resolve(name)


def test_a_slip_in_a_name_is_seen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("harbor", "habour.txt"):
        with pytest.raises(DataError, match=rf"no file '{name}'; did you mean harbour\?$"):
            resolve(name)
    fetch = "did you mean tinyshakespeare? fetch it with: trnn corpus get tinyshakespeare"
    with pytest.raises(DataError, match=re.escape(fetch)):
        resolve("tinyshakespear")


def test_what_cannot_be_read(tmp_path):
    (tmp_path / "broken").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"cannot read .*broken: No such file"):
        read(tmp_path / "broken", folder=tmp_path)
    with pytest.raises(DataError, match=r"cannot read /proc/self/mem: "):
        read("/proc/self/mem", folder=tmp_path)


def test_a_file_comes_before_a_text_that_comes_along(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert names() == ["harbour"]
    assert resolve("harbour") == resolve("harbour.txt")
    (tmp_path / "harbour").write_text("mine")
    assert resolve("harbour").read_text() == "mine"
    assert resolve("harbour.txt").read_text() != "mine"


def test_what_a_training_left_in_a_folder_is_no_text(tmp_path):
    for name in ("a.txt", "runs/one/history.jsonl", "runs/one/run.lock", "runs/one/checkpoints/x", "b/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    assert [path.name for path in text_files(tmp_path)] == ["a.txt", "c.txt"]
