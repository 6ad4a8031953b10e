"""LangGraph's own tests of graphs, on Daram's saver: ``make langgraph-tests CHECKOUT=DIRECTORY``.

They are in no package: get them with ``git clone --branch RELEASE https://github.com/langchain-ai/langgraph``, of the
release that is installed (tests of another may ask for what that one does differently; what fails on the framework's
own ``memory`` too says so). All of them that take a checkpointer are run, on each engine, in the environment of
``make adapters-matrix`` with the newest releases.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from adapters_matrix import python_of

CONFTEST = Path(__file__).with_name("langgraph_tests_conftest.py")
NEEDED = ("pytest-mock", "syrupy")


def main(checkout: str, *more: str) -> int:
    """Run them; what pytest returns."""
    tests = Path(checkout) / "libs" / "langgraph" / "tests"
    if not tests.is_dir():
        raise SystemExit(f"{tests} is not there: CHECKOUT must be a checkout of LangGraph's repository")
    python = python_of("newest")
    subprocess.run([str(python), "-m", "pip", "install", "-q", *NEEDED], check=True)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(tests, Path(folder) / "tests"))
        shutil.copy(CONFTEST, copy / "conftest.py")
        (Path(folder) / "pytest.ini").write_text("[pytest]\n")
        taking = [p for p in copy.glob("test_*.py") if re.search(r"\b(a?sync)_checkpointer\b", p.read_text("utf-8"))]
        names = [f"tests/{path.name}" for path in sorted(taking)]
        command = [str(python), "-m", "pytest", "-q", "--timeout", "120", *names, *more]
        # Else nothing tells a saver of the classes in a graph's state, and Daram's makes none that it was not told of.
        strict = {**os.environ, "LANGGRAPH_STRICT_MSGPACK": "true"}
        return subprocess.run(command, cwd=folder, env=strict, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]) if len(sys.argv) > 1 else __doc__)
