"""The documentation is true: every block of code in it is run, every link leads somewhere, the tables are current.

In README.md and docs/**/*.md, page by page, in one fresh directory per page, with the scripted model as the endpoint:

* ``python`` blocks are run in order, in one namespace; ``await`` may stand at the top level;
* ``sh`` blocks are run; in ``console`` blocks the lines after ``$ `` are, and the others are what they must print;
* an ``output`` block is what the block before it must have printed; ``...`` in it stands for anything;
* ``json`` and ``toml`` blocks must be that; ``text`` blocks are prose;
* ``<!-- not run: REASON -->`` before a block leaves it out.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib.util
import inspect
import io
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXCLUDED = re.compile(r"<!-- not run: (.{10,}) -->")
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """One fenced block; ``line`` is that of its fence, from 1."""

    language: str
    body: str
    line: int
    excluded: bool


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page."""
    found = []
    for match in FENCE.finditer(page):
        before = page[: match.start()].rstrip().rpartition("\n")[2].strip()
        body = re.sub(rf"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
        line = page.count("\n", 0, match.start()) + 1
        found.append(Block(match["language"], body, line, bool(EXCLUDED.fullmatch(before))))
    return found


def same(expected: str, printed: str) -> bool:
    """Whether that was printed; ``...`` and ``…`` stand for anything."""
    parts = re.split(r"\.\.\.|…", expected.strip())
    return re.fullmatch(".*".join(map(re.escape, parts)), printed.strip(), re.DOTALL) is not None


class Page:
    """Runs the blocks of one page, in the current directory."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.printed = ""

    def run_all(self, page: str) -> None:
        """Run all blocks of the page's text."""
        for block in blocks(page):
            self.run(block)

    def run(self, block: Block) -> None:
        """Run one block. Raises what it raises, or ``AssertionError``."""
        where = f"{self.name}:{block.line}"
        if block.excluded or block.language == "text":
            return
        if block.language == "python":
            self.printed = self.python(block)
        elif block.language == "sh":
            self.printed = shell(block.body, where)
        elif block.language == "console":
            for command, expected in dialogue(block.body):
                printed = shell(command, where)
                assert same(expected, printed), f"{where}: {command!r} printed {printed!r}, not {expected!r}"
        elif block.language == "output":
            assert same(block.body, self.printed), f"{where}: printed was {self.printed!r}"
        elif block.language in ("json", "toml"):
            (json if block.language == "json" else tomllib).loads(block.body)
        else:
            raise AssertionError(
                f"{where}: a block must say its language (one that is known here), or why it is not run"
            )

    def python(self, block: Block) -> str:
        """Run Python code and return what it printed."""
        # Line numbers in a traceback are then those of the page.
        source = "\n" * block.line + block.body
        code = compile(source, self.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            if code.co_flags & inspect.CO_COROUTINE:
                self.runner.run(eval(code, self.names))
            else:
                exec(code, self.names)
        return printed.getvalue()

    def __enter__(self) -> Page:
        self.runner = asyncio.Runner()
        return self

    def __exit__(self, *_: object) -> None:
        self.runner.close()


def dialogue(body: str) -> Iterator[tuple[str, str]]:
    """The commands of a ``console`` block, each with what it must print."""
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        while command.endswith("\\"):
            more, _, expected = expected.partition("\n")
            command += "\n" + more
        yield command, expected


def shell(script: str, where: str) -> str:
    """Run a script and return what it printed, on both channels. It must end well."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-euc", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 0, f"{where}: {script!r} ended with {done.returncode} and printed {done.stdout!r}"
    return done.stdout


@pytest.fixture
def fresh_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARAM_DATA", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The base URL of a scripted model."""
    with subprocess.Popen(
        [sys.executable, "-m", "daram.testing.model_server"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_of_code_runs(
    page: Path, fresh_directory: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint)
    monkeypatch.setenv("DARAM_MODEL", "openai:scripted")
    with Page(page.relative_to(ROOT).as_posix()) as running:
        running.run_all(page.read_text("utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        aimed = (page.parent / path).resolve() if path else page
        assert aimed.exists(), f"{page.name}: {target} is not there"
        if anchor and aimed.suffix == ".md":
            assert anchor in anchors(aimed.read_text("utf-8")), f"{page.name}: {target} has no such heading"


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ +(.+?) *$", FENCE.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_pages_made_from_the_code_are_current() -> None:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    for name, page in reference.PAGES.items():
        assert (reference.DOCS / name).read_text("utf-8") == page(), f"docs/reference/{name} is old: make docs"


# --- the test itself can fail ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page",
    [
        "```python\nraise SystemExit\n```",
        "```python\nassert await asyncio.sleep(0, 1) == 2\n```",
        "```python\nprint(1)\n```\n```output\n2\n```",
        "```sh\nfalse\ntrue\n```",
        "```console\n$ echo a b\na c\n```",
        "```console\n$ echo a\na\n$ false\n```",
        "```json\n{'a': 1}\n```",
        "```toml\na\n```",
        "```\nwhat is this?\n```",
        "```ruby\nputs 1\n```",
        "<!-- not run: why -->\n```sh\nfalse\n```",
        "  ```sh\n  false\n  ```",
    ],
)
@pytest.mark.usefixtures("fresh_directory")
def test_a_page_that_is_wrong_is_found(page: str) -> None:
    with Page("page.md") as running, pytest.raises((AssertionError, ValueError, SystemExit, NameError)):
        running.run_all(page)


RIGHT = """\
```python
import asyncio
x = await asyncio.sleep(0, 20)
```
And then:

```python
print("x is", x, id(x))
```

```output
x is 20 ...
```

```console
$ printf 'a\\nb\\n' | \\
  head -1
a
$ daram --version
daram, version …
```

1. In a list:

   ```sh
   test -d data || echo none
   ```

<!-- not run: it needs a machine of its own -->
```sh
reboot
```
"""


@pytest.mark.usefixtures("fresh_directory")
def test_a_page_that_is_right_passes() -> None:
    found = blocks(RIGHT)
    assert [block.language for block in found] == ["python", "python", "output", "console", "sh", "sh"]
    assert [block.line for block in found][:2] == [1, 7]
    with Page("page.md") as running:
        running.run_all(RIGHT)
        assert running.printed == "none\n"
