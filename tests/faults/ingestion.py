"""A process that takes a document in, replaces it and deletes it, and is killed at a given write; what must hold then.

For any engine: ``killed`` and ``check`` take the URL of a store.
"""

from __future__ import annotations

import subprocess
import sys
import time

import msgspec
from tests.faults import children
from tests.knowledge.texts import left

import daram
from daram.errors import NotFound
from daram.knowledge import base
from daram.knowledge.documents import Documents
from daram.knowledge.files import PIECE
from daram.knowledge.leases import Work
from daram.memory import Memory

ANN, WHERE, NAME = "ann", "animals", "a.txt"
LINES = 430  # a passage each: more than two stagings
# Each call that writes is counted; the process ends before the one that is asked for. What it says is what was
# acknowledged to it.
CHILD = (
    f"LINES, PIECE, WHO, WHERE, NAME = {LINES}, {PIECE // 128}, {ANN!r}, {WHERE!r}, {NAME!r}"
    """
from daram.knowledge import extract, files
from daram.knowledge.documents import Documents
from daram.text.chunk import Chunking
from daram.text.load import load

files.PIECE = PIECE  # more than one of each file
end = int(sys.argv[2])
count = 0

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

async def sections(self, path, *, name, media_type=None, limits=None):
    for section in load(path, name=name):
        yield section

extract.Readers.sections = sections

def counted(call):
    async def counting(*args, **options):
        global count
        if count == end:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        return await call(*args, **options)
    return counting

async def main():
    async with daram.open(sys.argv[1]) as memory:
        documents = Documents(memory)
        await documents.create(WHO, id=WHERE, chunking=Chunking(size=50, overlap=0))
        for name in ("put_record", "delete_record", "put_document", "stage_passages", "publish_document",
                     "discard_revision", "delete_document"):
            setattr(memory, name, counted(getattr(memory, name)))
        for which in ("first", "second"):
            text = "\\n\\n".join(f"The {which} squirrel hides its acorn {n}." for n in range(LINES)).encode()
            say("adding", which)
            added = await documents.add(WHO, WHERE, text, name=NAME)
            say("added", which)
            await documents.wait(added)
            say("ready", which)
        say("removing")
        await documents.remove(WHO, WHERE, added.id)
        say("removed")
    say("count", count)

asyncio.run(main())
"""
)


def killed(url: str, before: int) -> list[str]:
    """Run it until it is to do its write number ``before`` (-1: to the end); what was acknowledged."""
    with subprocess.Popen(
        [sys.executable, "-c", children.PRELUDE + CHILD, url, str(before)],
        env=children.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            said, _ = child.communicate(timeout=200)
        except subprocess.TimeoutExpired:
            child.kill()
            raise
    assert child.returncode == (0 if before < 0 else -9), said
    return said.splitlines()


async def check(url: str, said: list[str]) -> None:
    """What was acknowledged is there, as a whole, and what was deleted is not; then another process goes on."""
    async with daram.open(url) as memory:
        documents = Documents(memory)
        seen = await _seen(documents)
        assert seen in _allowed(said), said
        await _let_run_out(memory)
        await documents.ingester.sweep()
        seen = await _seen(documents)
        last = said[-1] if said else ""
        if last in ("added second", "ready second"):
            assert seen == "second"
        elif last in ("added first", "ready first"):
            assert seen == "first"
        else:
            assert seen in _allowed(said)
        # Nothing is left over: of the document there is its one original, and of nothing else anything.
        page = await documents.list(ANN, WHERE)
        files = (await documents.files.list(ANN)).items
        assert {file.id for file in files} == {document.source for document in page.items}
        blobs = (await memory.scan_records(ANN, base.BLOBS, limit=100)).items
        assert {blob.key.split("/")[0] for blob in blobs} == {file.id for file in files}
        for document in page.items:
            assert document.state == "ready"
            assert document.passages == LINES
            await documents.remove(ANN, WHERE, document.id)
        assert await _seen(documents) is None
        rest = await left(memory, ANN)
        assert rest == {base.COLLECTIONS}, rest


def _allowed(said: list[str]) -> set[str | None]:
    """What may be found, by what was acknowledged and what was under way."""
    match said[-1].split() if said else []:
        case ["adding", "first"] | ["added", "first"]:
            return {None, "first"}
        case ["ready", "first"]:
            return {"first"}
        case ["adding", "second"] | ["added", "second"]:
            return {"first", "second"}
        case ["ready", "second"]:
            return {"second"}
        case ["removing"]:
            return {"second", None}
        case _:
            return {None}


async def _seen(documents: Documents) -> str | None:
    """Which revision is found, by every way that there is: the whole of one, or nothing."""
    result = await documents.search(ANN, "squirrel acorn", WHERE)
    found = {passage.text.split()[1] for passage in result.passages}
    kept: list[str] = []
    for document in (await documents.list(ANN, WHERE)).items:
        try:
            passages = await documents.passages(ANN, WHERE, document.id, limit=1000)
        except NotFound:
            continue
        kept += [passage.text.split()[1] for passage in passages]
    assert len(kept) in (0, LINES)
    assert found == set(kept)
    assert len(found) <= 1
    return next(iter(found), None)


async def _let_run_out(memory: Memory) -> None:
    """Time passes: the leases of the dead process end, and what it had under way is looked at."""
    for record in (await memory.scan_records(ANN, base.LEASES)).items:
        work = msgspec.structs.replace(msgspec.json.decode(record.value, type=Work), until=time.time() - 1)
        await memory.put_record(ANN, base.LEASES, record.key, msgspec.json.encode(work))
    for record in (await memory.scan_records(base.HOUSE, base.UPLOADS)).items:
        upload = msgspec.json.decode(record.value) | {"due": 0}
        await memory.put_record(base.HOUSE, base.UPLOADS, record.key, msgspec.json.encode(upload))
