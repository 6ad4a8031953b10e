"""``export`` and ``import``: a documented format that keeps everything, and says where a file is wrong."""

from __future__ import annotations

import io
import json
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
from tests.transfer.house import contents, furnish

from daram.errors import InvalidInput, NotFound, StoreError, StoreUnavailable
from daram.memory import Memory
from daram.model import LogEntry, Message
from daram.store.memory import MemoryStore
from daram.store.wrapper import StoreWrapper
from daram.testing import FaultyStore
from daram.testing.faulty import Fault
from daram.testing.suite.base import say
from daram.transfer import lines
from daram.transfer.files import export, import_


def memory() -> Memory:
    return Memory(MemoryStore(), "memory://")


@pytest.fixture
async def old() -> Memory:
    store = memory()
    await furnish(store)
    return store


@pytest.fixture
async def written(old: Memory) -> bytes:
    out = io.BytesIO()
    await export(old, out)
    return out.getvalue()


def changed(data: bytes, number: int, **fields: Any) -> bytes:
    """The export with other fields in its line ``number`` (None: without the field)."""
    found = data.splitlines()
    line = json.loads(found[number - 1]) | fields
    found[number - 1] = json.dumps({k: v for k, v in line.items() if v is not None}).encode()
    return b"\n".join(found) + b"\n"


async def test_what_is_exported_comes_back_as_it_was(old: Memory, written: bytes) -> None:
    new = memory()
    report = await import_(io.BytesIO(written), new)
    assert report.complete
    assert (report.new, report.messages, report.records_written) == (4, 262, 2)
    assert await contents(new) == await contents(old)


async def test_importing_again_writes_nothing(written: bytes) -> None:
    faulty = FaultyStore(MemoryStore())
    await import_(io.BytesIO(written), Memory(faulty, ""))
    faulty.calls.clear()
    again = await import_(io.BytesIO(written), Memory(faulty, ""))
    assert (again.equal, again.new, again.records_written) == (4, 0, 0)
    assert not {"load", "put_record"} & set(faulty.calls)


async def test_an_interrupted_import_is_run_again(old: Memory, written: bytes) -> None:
    store = MemoryStore()
    faulty = FaultyStore(store)
    faulty.plan("load", None, None, Fault(kind="act then raise", error=lambda: StoreUnavailable("cut")))
    with pytest.raises(StoreUnavailable):
        await import_(io.BytesIO(written), Memory(faulty, ""))
    assert (await import_(io.BytesIO(written), Memory(store, ""))).complete
    assert await contents(Memory(store, "")) == await contents(old)


async def test_an_older_export_takes_nothing_back(old: Memory, written: bytes) -> None:
    await say(old, "later", id="long", owner="ben")
    report = await import_(io.BytesIO(written), old)
    assert report.kept == [("ben", "long")]
    assert (await old.tail("ben", "long", 1))[0].text == "later"
    assert (await import_(io.BytesIO(written), old, replace=True)).complete
    with pytest.raises(NotFound):
        await old.message("ben", "long", "later")


async def test_one_owner_and_one_conversation(old: Memory) -> None:
    out = io.BytesIO()
    report = await export(old, out, owner="ann")
    assert (report.conversations, report.records) == (1, 1)
    one = io.BytesIO()
    await export(old, one, owner="ben", conversation="long")
    new = memory()
    one.seek(0)
    await import_(one, new, owner="dora")
    assert [c.id for c in (await new.list("dora")).items] == ["long"]
    assert (await new.list("ben")).items == []
    with pytest.raises(NotFound):
        await export(old, io.BytesIO(), owner="ann", conversation="long")


async def test_the_schema_that_is_shipped_describes_every_line(written: bytes) -> None:
    shipped = json.loads(files("daram.transfer").joinpath("export.schema.json").read_text("utf-8"))
    assert shipped == json.loads(json.dumps(lines.schema())), "make it anew: daram.transfer.lines.schema()"
    jsonschema.Draft202012Validator.check_schema(shipped)
    validator = jsonschema.Draft202012Validator(shipped)
    found = [json.loads(line) for line in written.splitlines()]
    for line in found:
        validator.validate(line)
    assert {line["type"] for line in found} == {"header", "conversation", "message", "record", "end"}
    for wrong in ({"type": "message", "seq": "1"}, {"type": "else"}, found[1] | {"surplus": 1}):
        assert not validator.is_valid(wrong)


@pytest.mark.parametrize(
    ("number", "fields", "said"),
    [
        (1, {"type": "end", "format": None}, "line 1"),
        (1, {"format": 2}, "line 1, format"),
        (3, {"text": 5}, "line 3, text"),
        (3, {"role": "king"}, "line 3, role"),
        (3, {"seq": 2}, "line 3, seq"),
        (3, {"parent": 1}, "line 3, parent"),
        (3, {"surplus": 1}, "line 3.*surplus"),
        (3, {"text": "nul \0"}, "line 3, text"),
        (3, {"id": ""}, "line 3, id"),
        (3, {"created_at": "yesterday"}, "line 3, created_at"),
        (3, {"metadata": {"k": "x" * 600}}, "line 3, metadata"),
        (3, {"type": "record", "owner": "o", "namespace": "n", "key": "k", "value": ""}, "line 3"),
        (2, {"leaves": [1]}, "line 2, leaves"),
        (2, {"version": 0}, "line 2, version"),
        (2, {"owner": ""}, "line 2, owner"),
        (2, {"title": "x" * 501}, "line 2, title"),
        (2, {"type": "gone"}, "line 2"),
    ],
)
async def test_a_wrong_line_is_named_with_its_field(number: int, fields: dict[str, Any], said: str) -> None:
    old, out, new = memory(), io.BytesIO(), memory()
    await say(old, "a", "b")
    await export(old, out)
    with pytest.raises(InvalidInput, match=said):
        await import_(io.BytesIO(changed(out.getvalue(), number, **fields)), new)
    assert (await new.list("ann")).items == []


@pytest.mark.parametrize("bad", [b"", b"{", b"\xff\xfe\n", b"[]\n", b'{"type":"header","format":1}\n'])
async def test_what_is_no_export_is_refused(bad: bytes) -> None:
    with pytest.raises(InvalidInput, match="line 1"):
        await import_(io.BytesIO(bad), memory())


async def test_a_file_that_was_cut_is_noticed(old: Memory, written: bytes) -> None:
    whole = written.splitlines(keepends=True)
    for keep in (len(whole) - 1, len(whole) - 3):
        with pytest.raises((StoreError, InvalidInput), match="line"):
            await import_(io.BytesIO(b"".join(whole[:keep])), memory())
    with pytest.raises(InvalidInput, match="message 5 of"):
        await import_(io.BytesIO(b"".join(whole[:6])), memory())
    lost = [line for line in whole if b'"record"' not in line]
    with pytest.raises(InvalidInput, match="records"):
        await import_(io.BytesIO(b"".join(lost)), memory())


class Deleting(StoreWrapper):
    """A store whose conversation is deleted while it is exported."""

    async def log(self, owner: str, id: str, *, after: int = 0, limit: int = 100) -> list[LogEntry]:
        found = await super().log(owner, id, after=after, limit=limit)
        if id == "long" and after:
            await self.inner.delete(owner, id)
        return found


async def test_what_is_deleted_during_the_export_is_left_out(old: Memory) -> None:
    out, new = io.BytesIO(), memory()
    report = await export(Memory(Deleting(old), ""), out)
    assert report.conversations == 3
    assert b'"gone"' in out.getvalue()
    assert (await import_(io.BytesIO(out.getvalue()), new)).complete
    assert await contents(new) == await contents(old)


class DeletingMessage(StoreWrapper):
    """A store of whose conversation messages at both ends are deleted, once, while it is exported."""

    done = False

    async def log(self, owner: str, id: str, *, after: int = 0, limit: int = 100) -> list[LogEntry]:
        found = await super().log(owner, id, after=after, limit=limit)
        if id == "long" and after and not self.done:
            self.done = True
            await self.inner.delete_message(owner, id, "m3")
            await self.inner.delete_message(owner, id, "m249")
        return found


async def test_a_conversation_is_exported_as_it_was_at_one_moment(old: Memory) -> None:
    out, new = io.BytesIO(), memory()
    report = await export(Memory(DeletingMessage(old), ""), out)
    assert (report.conversations, report.changing) == (4, [])
    assert (await import_(io.BytesIO(out.getvalue()), new)).complete
    assert await contents(new) == await contents(old)


async def test_a_message_of_the_largest_size_comes_back() -> None:
    old, new, out = memory(), memory(), io.BytesIO()
    text = "\x01" * (1 << 20)
    await old.append("ann", "c", [Message(role="user", text=text)], create=True)
    await export(old, out)
    await import_(io.BytesIO(out.getvalue()), new)
    assert (await new.tail("ann", "c"))[0].text == text
