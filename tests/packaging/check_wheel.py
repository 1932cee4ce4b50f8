"""Build the wheel of a copy of this tree, and check what it holds.

It must hold every module of the tree, the code for a GPU, the texts, and no top-level module but tinygrad_rnn
and trnn_cli; and the command in it must run and find the texts.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
INSTALLED_AS = {"tinygrad_rnn": "tinygrad_rnn", "cli": "trnn_cli", "corpora": "tinygrad_rnn/corpora"}
KEPT = {".py", ".cu", ".typed", ".txt", ".md"}
LIST_CORPORA = "import sys; from trnn_cli.main import main; sys.exit(main(['corpus', 'list']))"


def expected_files() -> set[str]:
    return {
        f"{installed}/{file.relative_to(ROOT / folder).as_posix()}"
        for folder, installed in INSTALLED_AS.items()
        for file in (ROOT / folder).rglob("*")
        if file.suffix in KEPT
    }


def build(folder: Path) -> zipfile.ZipFile:
    tree = folder / "tree"  # a copy, since what an earlier build left behind would get into the wheel
    tree.mkdir()
    for name in [*INSTALLED_AS, "pyproject.toml", "README.md", "LICENSE"]:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tree / name)
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", folder, tree]
    built = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if built.returncode != 0:
        sys.exit(built.stdout)
    [wheel] = folder.glob("*.whl")
    return zipfile.ZipFile(wheel)


def main() -> int:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wheel = build(folder)
        files = {name for name in wheel.namelist() if ".dist-info/" not in name}
        problems = [f"missing from the wheel: {name}" for name in sorted(expected_files() - files)]
        problems += [f"should not be in the wheel: {name}" for name in sorted(files - expected_files())]
        top = {name.split("/")[0] for name in files}
        if top != {"tinygrad_rnn", "trnn_cli"}:
            problems.append(f"top-level modules of the wheel: {', '.join(sorted(top))}")

        wheel.extractall(folder / "installed")
        listed = subprocess.run(
            [sys.executable, "-c", LIST_CORPORA],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder / "installed")},
            capture_output=True,
            text=True,
        )
        if listed.returncode != 0 or str(folder / "installed") not in listed.stdout:
            problems.append(f"trnn corpus list says: {listed.stdout}{listed.stderr}")
    print("\n".join(problems) or f"the wheel is right: {len(files)} files")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
