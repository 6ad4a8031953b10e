"""The lines of an export: format 1, one JSON object each, told apart by ``type``.

A ``header``; then per conversation its line and one per message, in the order of ``seq``; then the records; ``end``.
docs/reference/export-format.md says what the fields mean; ``export.schema.json`` beside this file is made from here.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

import msgspec

from daram.errors import InvalidInput
from daram.model import Conversation, LogEntry, Message, OwnedRecord, Part, Record, Role, Status

FORMAT: Final = 1
_PATH = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)


class Line(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    """What all lines share."""


class Header(Line, frozen=True, kw_only=True, tag="header"):
    """The first line. ``daram``: the version that wrote it."""

    format: int
    daram: str
    created_at: datetime


class ConversationLine(Line, frozen=True, kw_only=True, tag="conversation", omit_defaults=True):
    """A conversation; its messages follow. ``leaves``: the ends of its branches, the head first."""

    owner: str
    id: str
    title: str | None = None
    metadata: dict[str, str] = {}
    pinned: bool = False
    archived: bool = False
    version: int
    last_seq: int
    leaves: list[int]
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None


class PartLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A part of a message."""

    type: str
    id: str | None = None
    data: dict[str, Any] = {}


class MessageLine(Line, frozen=True, kw_only=True, tag="message", omit_defaults=True):
    """A message of the conversation above; ``parent``: the ``seq`` that it follows, 0 for none."""

    seq: int
    id: str
    parent: int
    role: Role
    text: str = ""
    parts: list[PartLine] = []
    status: Status = "complete"
    model: str | None = None
    tokens: int | None = None
    usage: dict[str, int] | None = None
    metadata: dict[str, str] = {}
    created_at: datetime
    question: int | None = None
    deleted: bool = False


class GoneLine(Line, frozen=True, kw_only=True, tag="gone"):
    """The conversation above was deleted while it was written: it is to be left out."""


class RecordLine(Line, frozen=True, kw_only=True, tag="record", omit_defaults=True):
    """A record; ``value`` in base64."""

    owner: str
    namespace: str
    key: str
    value: bytes
    expires_at: datetime | None = None


class End(Line, frozen=True, kw_only=True, tag="end"):
    """The last line, without which a file is not whole."""

    conversations: int
    messages: int
    records: int


AnyLine = Header | ConversationLine | MessageLine | GoneLine | RecordLine | End
_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[AnyLine] = msgspec.json.Decoder(AnyLine)


def encode(line: AnyLine) -> bytes:
    """One line, with its end."""
    return _encoder.encode(line) + b"\n"


def decode(data: bytes, number: int) -> AnyLine:
    """One line; raises ``InvalidInput`` that names the number of the line (from 1) and the field."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        match = _PATH.fullmatch(str(error))
        what, path = (match["what"], match["path"]) if match else (str(error), None)
        raise InvalidInput(f"line {number}" + (f", {path}" if path else ""), what) from None


def schema() -> dict[str, Any]:
    """The JSON Schema of a line."""
    made = msgspec.json.schema(AnyLine)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A line of a Daram export", **made}


# --- values and lines ------------------------------------------------------------------------------------------------


def of_conversation(value: Conversation, leaves: list[int]) -> ConversationLine:
    """The line of a conversation."""
    return ConversationLine(
        owner=value.owner,
        id=value.id,
        title=value.title,
        metadata=value.metadata,
        pinned=value.pinned,
        archived=value.archived,
        version=value.version,
        last_seq=value.last_seq,
        leaves=leaves,
        created_at=value.created_at,
        updated_at=value.updated_at,
        expires_at=value.expires_at,
    )


def to_conversation(line: ConversationLine, owner: str | None = None) -> Conversation:
    """The inverse; ``owner``: somebody else's from now on."""
    return Conversation(
        owner=line.owner if owner is None else owner,
        id=line.id,
        title=line.title,
        metadata=line.metadata,
        pinned=line.pinned,
        archived=line.archived,
        version=line.version,
        etag="",
        last_seq=line.last_seq,
        created_at=line.created_at,
        updated_at=line.updated_at,
        expires_at=line.expires_at,
    )


def of_entry(entry: LogEntry) -> MessageLine:
    """The line of a message."""
    m = entry.message
    assert m.created_at is not None
    return MessageLine(
        seq=m.seq,
        id=m.id,
        parent=entry.parent,
        role=m.role,
        text=m.text,
        parts=[PartLine(type=part.type, id=part.id, data=part.data) for part in m.parts],
        status=m.status,
        model=m.model,
        tokens=m.tokens,
        usage=m.usage,
        metadata=m.metadata,
        created_at=m.created_at,
        question=entry.question,
        deleted=entry.deleted,
    )


def to_entry(line: MessageLine) -> LogEntry:
    """The inverse."""
    message = Message(
        seq=line.seq,
        id=line.id,
        role=line.role,
        text=line.text,
        parts=tuple(Part(type=part.type, id=part.id, data=part.data) for part in line.parts),
        status=line.status,
        model=line.model,
        tokens=line.tokens,
        usage=line.usage,
        metadata=line.metadata,
        created_at=line.created_at,
    )
    return LogEntry(message=message, parent=line.parent, question=line.question, deleted=line.deleted)


def of_record(value: OwnedRecord) -> RecordLine:
    """The line of a record."""
    record = value.record
    return RecordLine(
        owner=value.owner,
        namespace=record.namespace,
        key=record.key,
        value=record.value,
        expires_at=record.expires_at,
    )


def to_record(line: RecordLine, owner: str | None = None) -> OwnedRecord:
    """The inverse."""
    record = Record(namespace=line.namespace, key=line.key, value=line.value, etag="", expires_at=line.expires_at)
    return OwnedRecord(owner=line.owner if owner is None else owner, record=record)
