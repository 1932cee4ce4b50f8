"""`trnn` in processes that start at once: a server that has everything imported forks one for each.

    with Server() as server:
        process = server.start(["train", "text.txt"], folder)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

The rest of this file is what the server runs.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path


class Server:
    def __enter__(self) -> Server:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.communicate()

    def start(
        self,
        arguments: list[str],
        folder: Path,
        held: bool = False,
        out: str = "out",
        err: str = "err",
        largest_file: int | None = None,
    ) -> Process:
        """Run `trnn` in `folder`.

        held          only when it is sent a SIGCONT
        out, err      files that its output goes to
        largest_file  bytes; what would make a larger one fails
        """
        for name in (out, err):
            (folder / name).touch()
        started = self.ask(
            arguments=arguments, folder=str(folder), held=held, out=out, err=err, largest_file=largest_file
        )
        return Process(self, started, folder)

    def ask(self, **question: object) -> int:
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


class Process:
    def __init__(self, server: Server, pid: int, folder: Path) -> None:
        self._server, self.pid, self._folder = server, pid, folder

    def wait(self) -> int:
        """The exit code; that of a process that was killed is the signal's number, negative."""
        return self._server.ask(wait=self.pid)

    @property
    def out(self) -> str:
        return (self._folder / "out").read_bytes().decode()

    @property
    def err(self) -> str:
        return (self._folder / "err").read_bytes().decode()


def serve() -> None:
    import safetensors.numpy
    import threadpoolctl

    from trnn_cli import display, main, start

    del display, main, safetensors, threadpoolctl  # imported so that no process has to
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            answer = os.waitstatus_to_exitcode(os.waitpid(question["wait"], 0)[1])
        elif not (answer := os.fork()):
            _run(start.run, question)
        elif question["held"]:
            os.waitpid(answer, os.WUNTRACED)  # until it is
        print(answer, flush=True)


def _run(command, question: dict) -> None:
    code = 1
    try:
        os.chdir(question["folder"])
        for descriptor, name, flags in [
            (0, os.devnull, os.O_RDONLY),
            (1, question["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
            (2, question["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        ]:
            opened = os.open(name, flags | os.O_NOCTTY, 0o666)
            os.dup2(opened, descriptor)
            os.close(opened)
        # As if made for them, and not for what the server has there.
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
        if question["largest_file"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (question["largest_file"],) * 2)
        _let_others_trace()
        if question["held"]:
            os.kill(os.getpid(), signal.SIGSTOP)
        sys.argv[1:] = question["arguments"]
        command()
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(OSError):
            sys.stderr.flush()
        os._exit(code)


def _let_others_trace() -> None:
    """Some systems let a process be traced by its ancestors only, unless it says otherwise."""
    import ctypes

    pr_set_ptracer, any_process = 0x59616D61, -1
    ctypes.CDLL(None).prctl(pr_set_ptracer, ctypes.c_long(any_process), 0, 0, 0)


if __name__ == "__main__":
    serve()
