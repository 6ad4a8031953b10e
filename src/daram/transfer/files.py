"""Exports: from a store into a file of lines, and back. See lines.py for the format."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from importlib.metadata import version
from typing import IO

from daram.errors import DaramError, InvalidInput, NotFound, StoreError
from daram.memory import Memory
from daram.model import Conversation, LogEntry
from daram.store.transfer import checked_conversation, checked_entry
from daram.store.validate import Limits
from daram.transfer import lines
from daram.transfer.bring import CHUNK, Changed, InStore, bring
from daram.transfer.copy import Progress, Report, bring_record, recover_all, scanned, scanned_records
from daram.transfer.lines import AnyLine, ConversationLine, End, GoneLine, Header, MessageLine, RecordLine

MAX_LINE = 64 << 20
"""Bytes of a line at most: a message of 1 MiB whose every character is escaped is far below it."""


async def export(
    store: Memory,
    out: IO[bytes],
    *,
    owner: str | None = None,
    conversation: str | None = None,
    progress: Progress = lambda _: None,
) -> Report:
    """Write all conversations and records, or those of one owner, or one conversation (then ``owner`` must be given).

    Each conversation is written as it was at one moment; they are read one after the other.
    """
    report = Report()
    found = exported(store, report, owner=owner, conversation=conversation, progress=progress)
    async with aclosing(found) as written:
        async for line in written:
            out.write(line)
    out.flush()
    return report


async def exported(
    store: Memory,
    report: Report,
    *,
    owner: str | None = None,
    conversation: str | None = None,
    progress: Progress = lambda _: None,
) -> AsyncGenerator[bytes, None]:
    """The lines of an export; the store is read while they are taken, and ``report`` says so far what they hold."""
    await recover_all(store)
    yield lines.encode(Header(format=lines.FORMAT, daram=version("daram"), created_at=datetime.now(UTC)))
    if conversation is not None:
        assert owner is not None
        async with aclosing(_export_one(store, await store.get(owner, conversation), report)) as found_lines:
            async for line in found_lines:
                yield line
    else:
        async for page in scanned(store):
            for found in page:
                if owner in (None, found.owner):
                    async with aclosing(_export_one(store, found, report)) as found_lines:
                        async for line in found_lines:
                            yield line
                    progress(report)
        async for records in scanned_records(store):
            for record in records:
                if owner in (None, record.owner):
                    yield lines.encode(lines.of_record(record))
                    report.records += 1
    yield lines.encode(End(conversations=report.conversations, messages=report.messages, records=report.records))


async def _export_one(store: Memory, found: Conversation, report: Report) -> AsyncGenerator[bytes, None]:
    owner, id = found.owner, found.id
    for _ in range(5):
        try:
            running = len(await store.answers(owner, id))
            source = await InStore.open(store, owner, id)
        except NotFound:
            return
        except Changed:
            continue
        yield lines.encode(lines.of_conversation(source.conversation, source.leaves))
        try:
            async for chunk in source.entries():
                for entry in chunk:
                    yield lines.encode(lines.of_entry(entry))
            await source.check()  # a message may have been deleted behind or before the place that was read
        except NotFound:
            yield lines.encode(GoneLine())
            return
        except Changed:
            yield lines.encode(GoneLine())
            continue
        report.running += running
        report.conversations += 1
        report.messages += source.conversation.last_seq
        return
    report.changing.append((owner, id))


Place = tuple[int, int]
"""An offset in bytes, and the number of the line that ends there."""


class Reader:
    """The lines of an export, with their numbers; ``file`` can seek."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.number = 0

    def __iter__(self) -> Reader:
        return self

    def __next__(self) -> AnyLine:
        data = self._file.readline(MAX_LINE + 1)
        if not data:
            raise StopIteration
        self.number += 1
        if len(data) > MAX_LINE:
            raise InvalidInput(f"line {self.number}", f"is longer than {MAX_LINE:,} bytes")
        return lines.decode(data, self.number)

    @property
    def place(self) -> Place:
        """Where the next line begins."""
        return self._file.tell(), self.number

    def back_to(self, place: Place) -> None:
        """Go on from an earlier place."""
        self._file.seek(place[0])
        self.number = place[1]


class InFile:
    """A conversation in an export, whose lines were found to be in order."""

    def __init__(self, reader: Reader, conversation: Conversation, leaves: list[int], place: Place) -> None:
        self.conversation = conversation
        self.leaves = leaves
        self._reader = reader
        self._place = place

    async def entries(self) -> AsyncIterator[list[LogEntry]]:
        self._reader.back_to(self._place)
        left = self.conversation.last_seq
        while left:
            chunk = [lines.to_entry(_message(self._reader)) for _ in range(min(CHUNK, left))]
            left -= len(chunk)
            yield chunk

    async def check(self) -> None:
        """A file holds still."""


def _message(reader: Reader) -> MessageLine:
    line = next(reader, None)
    assert isinstance(line, MessageLine), "it was a message when the lines were checked"
    return line


async def import_(
    file: IO[bytes],
    store: Memory,
    *,
    owner: str | None = None,
    replace: bool = False,
    progress: Progress = lambda _: None,
) -> Report:
    """Bring what is in an export into a store; ``owner``: as somebody else's. Safe to run again.

    Every line of a conversation is checked before any of it is stored. Raises ``InvalidInput`` that names line and
    field; what was brought before that line stays.
    """
    report = Report()
    reader = Reader(file)
    limits = Limits()
    first = next(reader, None)
    if not isinstance(first, Header):
        raise InvalidInput("line 1", "is not the header of a Daram export")
    if first.format != lines.FORMAT:
        raise InvalidInput("line 1, format", f"is {first.format}, but this Daram reads {lines.FORMAT}; update Daram")
    for line in reader:
        if isinstance(line, ConversationLine):
            await _import_one(reader, line, store, report, owner, replace, limits)
        elif isinstance(line, RecordLine):
            number = reader.number
            try:
                await bring_record(store, lines.to_record(line, owner), report, replace)
            except InvalidInput as error:
                raise _at(number, error) from None
        elif isinstance(line, End):
            _check_end(reader.number, line, report)
            return report
        else:
            raise InvalidInput(f"line {reader.number}", "has no conversation above it")
        progress(report)
    raise StoreError(
        f"the export ends after line {reader.number} without its last line: it is not whole. "
        "What it holds was brought; export again for the rest"
    )


def _check_end(number: int, line: End, report: Report) -> None:
    for name in ("conversations", "messages", "records"):
        said, found = getattr(line, name), getattr(report, name)
        if said != found:
            raise InvalidInput(f"line {number}, {name}", f"says {said:,}, but there are {found:,}: lines are missing")


async def _import_one(
    reader: Reader,
    line: ConversationLine,
    store: Memory,
    report: Report,
    owner: str | None,
    replace: bool,
    limits: Limits,
) -> None:
    number = reader.number
    try:
        conversation = checked_conversation(lines.to_conversation(line, owner), limits)
    except InvalidInput as error:
        raise _at(number, error) from None
    begin = reader.place
    if not _check_messages(reader, line, limits):
        return
    end = reader.place
    source = InFile(reader, conversation, line.leaves, begin)
    try:
        outcome = await bring(source, store, replace=replace)
    except DaramError as error:
        if isinstance(error, InvalidInput):
            raise _at(number, error) from None
        raise
    reader.back_to(end)
    report.conversations += 1
    report.messages += conversation.last_seq
    report.count(conversation, outcome)


def _check_messages(reader: Reader, line: ConversationLine, limits: Limits) -> bool:
    """Read the messages of a conversation; False where it is to be left out. Raises ``InvalidInput``."""
    number = reader.number
    names: set[str] = set()
    ends: set[int] = set()
    for seq in range(1, line.last_seq + 1):
        found = next(reader, None)
        if isinstance(found, GoneLine):
            return False
        where = f"line {reader.number}"
        if not isinstance(found, MessageLine):
            what = "the end of the file" if found is None else f"a line of type {type(found).__struct_config__.tag}"
            raise InvalidInput(where, f"is {what}, but message {seq} of {line.last_seq} must be here")
        if found.seq != seq:
            raise InvalidInput(f"{where}, seq", f"is {found.seq}, but must be {seq}")
        if found.id in names:
            raise InvalidInput(f"{where}, id", f"{found.id!r} is the id of an earlier message")
        try:
            checked_entry(lines.to_entry(found), "", limits)
        except InvalidInput as error:
            raise _at(reader.number, error) from None
        names.add(found.id)
        ends.discard(found.parent)
        ends.add(seq)
    place = reader.place
    if isinstance(next(reader, None), GoneLine):
        return False
    reader.back_to(place)
    if ends != set(line.leaves) or len(ends) != len(line.leaves):
        raise InvalidInput(f"line {number}, leaves", "are not the messages that no other one follows")
    if line.version < len(ends):
        raise InvalidInput(f"line {number}, version", f"is less than the {len(ends)} changes that the branches took")
    return True


def _at(number: int, error: InvalidInput) -> InvalidInput:
    return InvalidInput(f"line {number}, {error.field.removeprefix('message.')}", error.problem)
