"""From one store into another, while both are in use: bounded memory, safe to run again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final

from daram.errors import Conflict, InvalidInput, NotFound, StoreReadOnly
from daram.memory import Memory
from daram.model import Conversation, OwnedRecord
from daram.store.paging import pages
from daram.transfer.bring import Changed, InStore, Outcome, bring, same_state
from daram.transfer.documents import CHANGING, PASSING, bring_document, keeps_documents, scanned_documents

_PAGE: Final = 100
_WORKERS: Final = 8
_PASSES: Final = 5


@dataclass
class Report:
    """What became of a move. ``kept``, ``failed`` and ``extra`` name conversations by (owner, id).

    ``conversations``, ``messages``: at the source in the last pass; ``new``, ``replaced``, ``equal``, ``gone``: see
    ``bring.Outcome``; ``running``: answers that are being made at the source, which no move takes along; ``extra``:
    conversations that only the target has; ``records_kept``: records that the target has with another value;
    ``documents``: at the source; ``documents_written``, ``documents_equal``: of them, put in place, and there already;
    ``documents_left``: how many a target that keeps no documents was not given; ``documents_kept``,
    ``documents_changing`` and ``extra_documents`` name documents by (owner, collection, id).
    """

    conversations: int = 0
    messages: int = 0
    records: int = 0
    new: int = 0
    replaced: int = 0
    equal: int = 0
    gone: int = 0
    running: int = 0
    passes: int = 0
    documents: int = 0
    documents_written: int = 0
    documents_equal: int = 0
    documents_left: int = 0
    records_written: int = 0
    kept: list[tuple[str, str]] = field(default_factory=list)
    changing: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    extra: list[tuple[str, str]] = field(default_factory=list)
    records_kept: list[tuple[str, str, str]] = field(default_factory=list)
    documents_kept: list[tuple[str, str, str]] = field(default_factory=list)
    documents_changing: list[tuple[str, str, str]] = field(default_factory=list)
    extra_documents: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether the target has everything that the source has (``documents_left`` aside)."""
        left_alone = self.kept or self.records_kept or self.documents_kept
        return not (left_alone or self.changing or self.documents_changing or self.failed)

    def count(self, conversation: Conversation, outcome: Outcome) -> None:
        """Note one conversation."""
        name = (conversation.owner, conversation.id)
        if outcome == "kept":
            self.kept.append(name)
        elif outcome == "changing":
            self.changing.append(name)
        else:
            setattr(self, outcome, getattr(self, outcome) + 1)


Progress = Callable[[Report], None]


def scanned(store: Memory) -> AsyncIterator[list[Conversation]]:
    """All conversations, page by page."""
    return pages(lambda cursor: store.scan(limit=_PAGE, cursor=cursor))


def scanned_records(store: Memory) -> AsyncIterator[list[OwnedRecord]]:
    """All records, page by page."""
    return pages(lambda cursor: store.scan_all_records(limit=_PAGE, cursor=cursor))


async def recover_all(store: Memory) -> None:
    """Close the answers of dead processes, so that their texts are messages and come along."""
    try:
        while len(await store.recover(limit=100)) == 100:
            pass
    except StoreReadOnly:
        pass


async def copy(source: Memory, target: Memory, *, replace: bool = False, progress: Progress = lambda _: None) -> Report:
    """Bring every conversation, record and document of ``source`` into ``target``; what is there costs reads only.

    Passes are made until one finds nothing that was written meanwhile. Every conversation is read back and compared
    by a digest; at the end both stores are compared once more by the state of each conversation.
    """
    report = Report()
    await recover_all(source)
    while report.passes < _PASSES:
        report.passes += 1
        report.conversations = report.messages = report.records = 0
        report.kept, report.changing, report.failed, report.records_kept = [], [], [], []
        written = await _pass(source, target, report, replace, progress)
        if not written and not report.changing and not report.documents_changing:
            break
    async for page in scanned(target):
        for conversation in page:
            try:
                await source.get(conversation.owner, conversation.id)
            except NotFound:
                report.extra.append((conversation.owner, conversation.id))
    ours, theirs = await keeps_documents(source), await keeps_documents(target)
    if theirs is not None:
        async for documents in scanned_documents(theirs):
            for document in documents:
                where = (document.owner, document.collection, document.id)
                try:
                    if ours is None:
                        raise NotFound("document", document.id)
                    await ours.get_document(*where)
                except NotFound:
                    report.extra_documents.append(where)
    return report


async def _pass(source: Memory, target: Memory, report: Report, replace: bool, progress: Progress) -> bool:
    """One look at everything; returns whether anything was written."""
    before = _writes(report)
    gate = asyncio.Semaphore(_WORKERS)
    is_first = report.passes == 1
    report.running = 0

    async def one(found: Conversation) -> None:
        async with gate:
            await _one(source, target, found, report, replace, is_first)
            progress(report)

    async for page in scanned(source):
        try:
            async with asyncio.TaskGroup() as tasks:
                for conversation in page:
                    tasks.create_task(one(conversation))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # the others are of the same kind, or were cancelled for it
    async for records in scanned_records(source):
        for record in records:
            try:
                await bring_record(target, record, report, replace)
            except InvalidInput as error:  # the target allows less than the source did
                report.failed.append((record.owner, f"{record.record.namespace}/{record.record.key}", str(error)))
        progress(report)
    await _documents(source, target, report, replace, progress)
    return _writes(report) > before


def _writes(report: Report) -> int:
    return report.new + report.replaced + report.records_written + report.documents_written


async def _documents(source: Memory, target: Memory, report: Report, replace: bool, progress: Progress) -> None:
    """After the records, among which are the files that a document which waits is to be read from."""
    ours, theirs = await keeps_documents(source), await keeps_documents(target)
    report.documents = report.documents_equal = report.documents_left = 0
    report.documents_kept, report.documents_changing = [], []
    if ours is None:
        return
    async for documents in scanned_documents(ours):
        for document in documents:
            report.documents += 1
            if theirs is None:
                report.documents_left += 1
                continue
            where = (document.owner, document.collection, document.id)
            try:
                outcome = await bring_document(ours, theirs, document, replace=replace)
            except InvalidInput as error:  # the target allows less than the source did
                report.failed.append((document.owner, f"{document.collection}/{document.id}", str(error)))
                continue
            if outcome in ("new", "replaced"):
                report.documents_written += 1
            elif outcome == "equal":
                report.documents_equal += 1
            elif outcome == "kept":
                report.documents_kept.append(where)
            elif outcome == "changing":
                report.documents_changing.append(where)
            progress(report)


async def _one(
    source: Memory, target: Memory, found: Conversation, report: Report, replace: bool, is_first: bool
) -> None:
    owner, id = found.owner, found.id
    report.conversations += 1
    report.messages += found.last_seq
    try:
        running = len(await source.answers(owner, id))
        report.running += running
        if not is_first:
            try:
                if same_state(found, await target.get(owner, id)):
                    return  # compared by its digest in the first pass, or when it was written
            except NotFound:
                pass
        outcome: Outcome = await bring(await InStore.open(source, owner, id), target, replace=replace)
    except NotFound:
        outcome = "gone"
    except Changed:
        outcome = "changing"
    except InvalidInput as error:  # the target allows less than the source did
        report.failed.append((owner, id, str(error)))
        return
    if is_first or outcome != "equal":
        report.count(found, outcome)


async def bring_record(target: Memory, found: OwnedRecord, report: Report, replace: bool) -> None:
    """Bring one record; a different one is left alone unless ``replace``."""
    record = found.record
    if record.namespace in PASSING:
        return
    replace = replace or record.namespace in CHANGING
    report.records += 1
    name = (found.owner, record.namespace, record.key)
    for _ in range(_PASSES):
        there = await target.get_record(*name)
        if there is not None and (there.value, there.expires_at) == (record.value, record.expires_at):
            return
        if there is not None and not replace:
            break
        expect = None if there is None else there.etag
        try:
            await target.put_record(*name, record.value, expect=expect, expires_at=record.expires_at)
        except Conflict:
            continue  # somebody wrote it meanwhile: look again
        report.records_written += 1
        return
    report.records_kept.append(name)
