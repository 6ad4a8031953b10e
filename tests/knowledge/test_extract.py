"""The process that reads documents: what it says, and that nothing which it does reaches us."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import psutil
import pytest
from tests.knowledge import documents

from daram.errors import DocumentError, DocumentTooLarge, MissingExtra, UnsupportedDocument
from daram.knowledge import extract
from daram.text.load import LoadLimits, Section

HOSTILE = """
import sys
from daram.knowledge import extract
from daram.text.load import Section

def load(path, **given):
    {body}

extract.load = load
extract.main()
"""


async def read(path: Path, **given: object) -> list[Section]:
    return [section async for section in extract.Readers().sections(path, name=path.name, **given)]  # type: ignore[arg-type]


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # type: ignore[no-untyped-def]  # a function of a test
    """Reading in a child whose loader does something bad."""
    spawn = asyncio.create_subprocess_exec

    async def run(body: str, **given: object) -> list[Section]:
        async def start(*command: str, **options: object) -> asyncio.subprocess.Process:
            return await spawn(sys.executable, "-c", HOSTILE.format(body=body), **options)  # type: ignore[arg-type]

        monkeypatch.setattr(extract.asyncio, "create_subprocess_exec", start)
        path = tmp_path / "a.txt"
        path.write_text("x")
        return await read(path, **given)

    return run


async def test_sections_come_through(tmp_path: Path) -> None:
    pages = [[f"Page {n} of the book of squirrels."] for n in range(1, 40)]
    sections = await read(documents.pdf(tmp_path / "책.pdf", pages))
    assert sections == [Section(page[0], number) for number, page in enumerate(pages, 1)]


async def test_errors_come_through_with_the_users_name_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "upload-7f3a"
    path.write_bytes(b"nonsense")
    for name, error in (("보고서.pdf", DocumentError), ("program.exe", UnsupportedDocument)):
        with pytest.raises(error, match=name) as caught:
            [s async for s in extract.Readers().sections(path, name=name)]
        assert type(caught.value) is error
        assert "upload" not in str(caught.value)
    with pytest.raises(DocumentTooLarge, match="at most 3"):
        [s async for s in extract.Readers().sections(path, name="a.txt", limits=LoadLimits(file=3))]


@pytest.mark.parametrize(
    ("body", "error", "text"),
    [
        ("sys.exit(3)", DocumentTooLarge, "ended without an answer"),
        ("import os; os.kill(os.getpid(), 11)", DocumentTooLarge, "ended without an answer"),
        ("yield from (x for x in [bytearray(8 << 30)])", DocumentTooLarge, "more memory"),
        ("yield 1 / 0", DocumentError, "ZeroDivisionError"),
        ("load(path)", DocumentError, "nested too deeply"),
        ("raise ImportError('x')", DocumentError, "ImportError"),
        ("from daram.errors import MissingExtra; raise MissingExtra('x', 'documents')", MissingExtra, "documents"),
    ],
    ids=["exit", "crash", "memory", "bug", "recursion", "import", "extra"],
)
@pytest.mark.skipif(sys.platform != "linux", reason="the bound of memory is Linux's")
async def test_a_loader_that_goes_wrong(hostile, body: str, error: type[Exception], text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=text):
        await hostile(body)


async def test_a_loader_that_hangs_is_ended(hostile) -> None:  # type: ignore[no-untyped-def]
    before = set(psutil.Process().children())
    with pytest.raises(DocumentTooLarge, match="silent for 1 s"):
        await hostile("import time; time.sleep(1000)", silence=1)
    assert set(psutil.Process().children()) <= before


async def test_a_loader_that_loops_runs_out_of_time(hostile) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DocumentTooLarge, match="ended without an answer"):
        await hostile("while True: pass", seconds=1)


async def test_who_stops_listening_ends_the_child(tmp_path: Path) -> None:
    path = documents.pdf(tmp_path / "a.pdf", [[f"Page {n}"] for n in range(300)])
    before = set(psutil.Process().children())
    sections = extract.Readers().sections(path, name="a.pdf")
    await anext(sections)
    await sections.aclose()
    assert set(psutil.Process().children()) <= before


async def test_one_child_reads_several_documents_until_something_goes_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[asyncio.subprocess.Process] = []
    spawn = asyncio.create_subprocess_exec

    async def start(*command: str, **options: object) -> asyncio.subprocess.Process:
        started.append(await spawn(*command, **options))  # type: ignore[arg-type]
        return started[-1]

    monkeypatch.setattr(extract.asyncio, "create_subprocess_exec", start)
    good, bad = tmp_path / "good.txt", tmp_path / "bad.pdf"
    good.write_text("acorns")
    bad.write_text("nonsense")
    readers = extract.Readers(most=1)

    async def text() -> str:
        return "".join([section.text async for section in readers.sections(good, name=good.name)])

    async with readers.kept():
        for _ in range(2):
            assert await text() == "acorns"
            with pytest.raises(DocumentError, match=r"bad\.pdf"):
                [s async for s in readers.sections(bad, name=bad.name)]
        assert len(started) == 1
        # One that died while it waited is replaced, and nobody hears of it.
        started[0].kill()
        assert await text() == "acorns"
        assert len(started) == 2
        # One that has a bound of processor time has it for each document.
        async for _ in readers.sections(good, name=good.name, seconds=1):
            pass
        assert await text() == "acorns"
        assert len(started) == 2
        # One that is left in the middle reads no more.
        half = readers.sections(documents.pdf(tmp_path / "a.pdf", [["x"]] * 50), name="a.pdf")
        await anext(half)
        await half.aclose()
        assert await text() == "acorns"
        assert len(started) == 3
    assert all(child.returncode is not None for child in started)
    assert await text() == "acorns"
    assert len(started) == 4
    assert started[3].returncode is not None


async def test_a_reader_that_leaves_early_is_let_go_although_more_is_waiting_for_it(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("\n\n".join(f"Squirrels hide acorn {n}." * 40 for n in range(20_000)))
    sections = extract.Readers().sections(path, name=path.name)
    await anext(sections)
    await asyncio.sleep(0.3)  # where this is enough for the pipe to fill, leaving it would hang
    async with asyncio.timeout(60):
        await sections.aclose()
