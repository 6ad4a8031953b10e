"""An adapter says at its import which releases of its framework it is for: those that its extra brings."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import daram
from daram.adapters import versions

ROOT = Path(__file__).resolve().parents[2]
ADAPTERS = ROOT / "src" / "daram" / "adapters"


def bounds() -> dict[str, tuple[str, str]]:
    """What the extras say, as ``make adapters-matrix`` reads it."""
    spec = importlib.util.spec_from_file_location("adapters_matrix", ROOT / "scripts" / "adapters_matrix.py")
    assert spec is not None and spec.loader is not None
    matrix = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(matrix)
    found: dict[str, tuple[str, str]] = matrix.frameworks()
    return found


def required() -> dict[str, list[tuple[str, str, str]]]:
    """What each adapter asks for in its ``require(…)``: the distribution and its bounds, by module."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for file in ADAPTERS.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "require":
                named = {word.arg: ast.literal_eval(word.value) for word in node.keywords}
                name = ast.literal_eval(node.args[2]).lower()
                found.setdefault(str(file.relative_to(ADAPTERS)), []).append((name, named["oldest"], named["below"]))
    return found


def test_an_adapter_asks_for_what_its_extra_brings() -> None:
    given, asked = bounds(), required()
    assert {"pydantic_ai.py", "chainlit/__init__.py", "django/__init__.py", "langgraph/__init__.py"} <= asked.keys()
    for module, wanted in asked.items():
        for name, oldest, below in wanted:
            assert given[name] == (oldest, below), module


@pytest.mark.parametrize(
    ("found", "fits"),
    [
        ("5.2", True),
        ("5.2.19", True),
        ("6.0rc1", True),
        ("6.9.9.post1+local", True),
        ("5.1.15", False),
        ("5", False),
        ("7.0", False),
        ("7.0.dev1", False),
        ("10.1", False),
    ],
)
def test_releases_are_compared_as_numbers(monkeypatch: pytest.MonkeyPatch, found: str, fits: bool) -> None:
    monkeypatch.setattr(versions, "version", lambda name: found)
    if fits:
        versions.require("the adapter", "django", "Django", "django", oldest="5.2", below="7")
        return
    with pytest.raises(daram.UnsupportedVersion) as refused:
        versions.require("the adapter", "django", "Django", "django", oldest="5.2", below="7")
    said = f'the adapter needs Django>=5.2,<7, but {found} is installed; pip install -U "daram[django]"'
    assert str(refused.value) == said
    assert isinstance(refused.value, ImportError)


def test_what_is_not_there_is_missing() -> None:
    for module, distribution in (("no_such_module", "Django"), ("json", "no-such-distribution"), ("no.such", "x")):
        with pytest.raises(daram.MissingExtra, match=r'pip install "daram\[django\]"'):
            versions.require("the adapter", module, distribution, "django", oldest="1", below="2")


@pytest.mark.parametrize(
    ("adapter", "distribution"),
    [
        ("daram.adapters.chainlit", "chainlit"),
        ("daram.adapters.django", "Django"),
        ("daram.adapters.langchain", "langchain-core"),
        ("daram.adapters.langgraph", "langgraph-checkpoint"),
        ("daram.adapters.llama_index", "llama-index-core"),
        ("daram.adapters.openai_agents", "openai-agents"),
        ("daram.adapters.pydantic_ai", "pydantic-ai-slim"),
    ],
)
def test_an_old_framework_is_named_before_it_is_imported(adapter: str, distribution: str) -> None:
    code = (
        "import importlib.metadata as metadata, sys\n"
        "known = metadata.version\n"
        f"metadata.version = lambda name: '0.1' if name == {distribution!r} else known(name)\n"
        f"try:\n    import {adapter}\nexcept ImportError as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.startswith("UnsupportedVersion") and "0.1 is installed" in done.stdout, done.stderr
