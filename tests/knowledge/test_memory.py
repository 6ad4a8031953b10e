"""How much memory taking a document in needs, in a process that does nothing else: no more for a large one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import openpyxl
import pytest
from reportlab.pdfgen import canvas
from tests.faults.children import environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# Says how much it and the processes that read for it had at most, in MiB, beyond what it had before.
CHILD = """
import asyncio, json, resource, sys
from pathlib import Path
import daram

def peak():  # (what getrusage says of itself, a process inherits from its parent)
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) >> 10

async def main():
    async with daram.open(sys.argv[1]) as memory:
        documents = daram.Documents(memory)
        await documents.add("ann", "books", b"A squirrel.", name="a.txt", wait=True)
        before = peak()
        added = await documents.add("ann", "books", Path(sys.argv[2]))
        read = await documents.wait(added)
        found = await documents.search("ann", "squirrel", "books")
        print(json.dumps({"state": read.state, "error": read.error, "passages": read.passages,
            "bytes": read.bytes, "grown": peak() - before,
            "child": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10, "found": len(found.passages)}))

asyncio.run(main())
"""
WORDS = "A squirrel hides its acorns under the oak, and 다람쥐는 도토리를 참나무 아래에 숨긴다. " * 4


def ingested(path: Path, url: str, seconds: int) -> dict[str, object]:
    """Take a document in; what the process says of it."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, url, str(path)],
        env=environment(),
        capture_output=True,
        timeout=seconds,
        check=True,
    )
    said = json.loads(done.stdout)
    print(path.name, said)
    assert (said["state"], said["error"], said["bytes"]) == ("ready", None, path.stat().st_size)
    assert said["found"]
    return said


def text(path: Path, megabytes: int) -> Path:
    """As long as that, as what its name says."""
    before, between, after = {
        ".txt": ("", "{0} {1}\n\n", ""),
        ".md": ("", "# Part {0}\n\n{1}\n\n", ""),
        ".csv": ("number,text\n", '{0},"{1}"\n', ""),
        ".html": ("<!doctype html><body>", "<h2>Part {0}</h2><div><p>{1}</p></div>\n", "</body>"),
    }[path.suffix]
    with path.open("w", encoding="utf-8") as file:
        size = file.write(before)
        number = 0
        while size < megabytes << 20:
            number += 1
            size += len(between.format(number, WORDS).encode())
            file.write(between.format(number, WORDS))
        file.write(after)
    return path


@pytest.mark.timeout(280)
def test_a_large_document_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    """Forty megabytes, of which one is text: what takes time is the text."""
    path = tmp_path / "a.html"
    with path.open("w", encoding="utf-8") as file:
        for number in range(2500):
            file.write(f"<div data-x='{'x' * 4000}'><i>{WORDS}</i><b></b></div><!-- {'y' * 12_000} -->\n{number}")
    assert path.stat().st_size > 40_000_000
    said = ingested(path, f"sqlite:///{tmp_path}/daram.db", 270)
    assert int(str(said["grown"])) < 32
    assert int(str(said["child"])) < 128


@pytest.mark.soak
@pytest.mark.parametrize("suffix", [".txt", ".md", ".csv", ".html"])
def test_half_a_gigabyte(tmp_path: Path, suffix: str) -> None:
    said = ingested(text(tmp_path / f"a{suffix}", 500), f"sqlite:///{tmp_path}/daram.db", 7000)
    assert int(str(said["grown"])) < 64
    # What libxml2 was fed it keeps to the end: of HTML the process that reads has as much as the page is long.
    assert int(str(said["child"])) < (800 if suffix == ".html" else 128)


@pytest.mark.soak
def test_ten_thousand_pages(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    drawing = canvas.Canvas(str(path))
    for number in range(10_000):
        for line in range(40):
            drawing.drawString(
                72, 800 - 16 * line, f"Page {number}, line {line}: a squirrel hides acorn {number * line}."
            )
        drawing.showPage()
    drawing.save()
    said = ingested(path, f"sqlite:///{tmp_path}/daram.db", 7000)
    assert int(str(said["grown"])) < 64
    assert int(str(said["child"])) < 256


@pytest.mark.soak
def test_a_million_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("Stock")
    for number in range(1_000_000):
        sheet.append([number, f"squirrel {number}", "acorns", number / 2])
    book.save(path)
    said = ingested(path, f"sqlite:///{tmp_path}/daram.db", 7000)
    assert int(str(said["grown"])) < 64
    assert int(str(said["child"])) < 256
