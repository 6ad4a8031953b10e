"""What may enter a store (P10): every public argument is checked here, once, before an engine sees it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, get_args

import msgspec

from daram.codec import encode_body
from daram.errors import InvalidInput, TooLarge
from daram.model import Message, Part, Role, Status, Unset

# Tuples: what is asked for may be anything, and not everything can be hashed.
_ROLES = get_args(Role)
_STATUSES = get_args(Status)
# C0 and C1 controls, lone surrogates and the two line separators: none belongs in a name.
_BAD_IN_NAMES = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# PostgreSQL cannot store NUL in text, UTF-8 cannot hold a lone surrogate: refused everywhere, so that data can move.
_BAD_IN_TEXT = re.compile("[\x00\ud800-\udfff]")
_MAX_DEPTH = 32


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of P10. Sizes of messages are in bytes as stored, names in characters."""

    message_bytes: int = 1 << 20
    batch_messages: int = 100
    metadata_pairs: int = 16
    metadata_key_chars: int = 64
    metadata_value_chars: int = 512
    owner_chars: int = 256
    conversation_id_chars: int = 256
    message_id_chars: int = 128
    title_chars: int = 500
    query_chars: int = 1000
    page_items: int = 1000
    record_bytes: int = 4 << 20
    record_key_chars: int = 512
    collection_chars: int = 256
    document_id_chars: int = 256
    passage_bytes: int = 64 << 10


def name(value: object, field: str, limit: int) -> str:
    """An owner, an id or a key: 1 to ``limit`` characters, no control characters."""
    if not isinstance(value, str):
        raise InvalidInput(field, f"must be a string, not {type(value).__name__}")
    if not value:
        raise InvalidInput(field, "must not be empty")
    if len(value) > limit:
        raise TooLarge(field, len(value), limit, "characters")
    if bad := _BAD_IN_NAMES.search(value):
        raise InvalidInput(field, f"has the character U+{ord(bad[0]):04X} at {bad.start()}, which is not allowed here")
    return value


def text(value: object, field: str, limit: int, unit: str = "bytes") -> str:
    """A text without NUL and lone surrogates, at most ``limit`` UTF-8 bytes (or characters)."""
    if not isinstance(value, str):
        raise InvalidInput(field, f"must be a string, not {type(value).__name__}")
    if bad := _BAD_IN_TEXT.search(value):
        what = "NUL" if bad[0] == "\x00" else "a lone surrogate"
        raise InvalidInput(field, f"has {what} (U+{ord(bad[0]):04X}) at {bad.start()}; remove it")
    size = len(value) if unit == "characters" or len(value) * 4 <= limit else len(value.encode())
    if size > limit:
        raise TooLarge(field, size, limit, unit)
    return value


def whole(value: object, field: str, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInput(field, f"must be a whole number, not {type(value).__name__}")
    if not low <= value <= high:
        raise InvalidInput(field, f"must be from {low} to {high:,}, not {value:,}")
    return value


def seconds(value: object, field: str) -> float:
    """A positive duration of at most a day, in seconds."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 86_400:
        raise InvalidInput(field, f"must be a number of seconds above 0 and at most 86,400, not {value!r}")
    return float(value)


def moment(value: object, field: str) -> datetime | None:
    """A point in time with its zone, as UTC; None stays None."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidInput(field, f"must be a datetime, not {type(value).__name__}")
    if value.tzinfo is None:
        raise InvalidInput(field, "has no time zone; use datetime.now(timezone.utc) and the like")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise InvalidInput(field, f"{value} is outside of what UTC can say") from None


def metadata(value: object, field: str, limits: Limits) -> dict[str, str]:
    """At most 16 pairs of strings of 64 and 512 characters."""
    return {
        key: text(v, f"{field}[{key!r}]", limits.metadata_value_chars, "characters")
        for key, v in _pairs(value, field, limits, "a mapping of strings to strings").items()
    }


def attributes(value: object, field: str, limits: Limits) -> dict[str, str | int | float | bool]:
    """At most 16 pairs, as for ``metadata``, of strings, truth values and finite numbers."""
    return {
        key: _attribute(v, f"{field}[{key!r}]", limits)
        for key, v in _pairs(value, field, limits, "a mapping from strings").items()
    }


def _pairs(value: object, field: str, limits: Limits, wanted: str) -> dict[str, object]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidInput(field, f"must be {wanted}, not {type(value).__name__}")
    if len(value) > limits.metadata_pairs:
        raise TooLarge(field, len(value), limits.metadata_pairs, "pairs")
    return {name(k, f"{field} key {k!r:.40}", limits.metadata_key_chars): v for k, v in value.items()}


def _attribute(value: object, field: str, limits: Limits) -> str | int | float | bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return whole(value, field, -(1 << 53), 1 << 53)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput(field, "must be a finite number")
        return value
    if not isinstance(value, str):
        raise InvalidInput(field, f"must be a string, a number, true or false, not {type(value).__name__}")
    return text(value, field, limits.metadata_value_chars, "characters")


def parts(value: object, field: str) -> tuple[Part, ...]:
    """A sequence of ``Part`` whose data is JSON."""
    if value == ():
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise InvalidInput(field, f"must be a sequence of daram.Part, not {type(value).__name__}")
    for i, part in enumerate(value):
        if not isinstance(part, Part):
            raise InvalidInput(f"{field}[{i}]", f"must be a daram.Part, not {type(part).__name__}")
        name(part.type, f"{field}[{i}].type", 64)
        if part.id is not None:
            name(part.id, f"{field}[{i}].id", 128)
        if not isinstance(part.data, dict):
            raise InvalidInput(f"{field}[{i}].data", f"must be a dict, not {type(part.data).__name__}")
        _json(part.data, f"{field}[{i}].data", 0)
    return tuple(value)


def _json(value: Any, field: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise InvalidInput(field, f"is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidInput(field, "has a lone surrogate; remove it") from None
    elif isinstance(value, dict):
        for k, v in value.items():
            if not isinstance(k, str):
                raise InvalidInput(field, f"has the key {k!r:.40}, which is not a string")
            _json(k, field, depth)
            _json(v, f"{field}.{k:.40}", depth + 1)
    elif isinstance(value, list):
        for i, v in enumerate(value):
            _json(v, f"{field}[{i}]", depth + 1)
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise InvalidInput(field, f"is {value}, which JSON cannot say")
    elif isinstance(value, int) and not isinstance(value, bool):
        if not -(1 << 63) <= value < 1 << 64:
            raise InvalidInput(field, "is a whole number of more than 64 bits")
    elif value is not None and not isinstance(value, bool):
        raise InvalidInput(
            field, f"holds a {type(value).__name__}; only JSON values can be stored (no tuples, no bytes)"
        )


def counters(value: object, field: str) -> dict[str, int] | None:
    """A mapping of names to whole numbers (``usage``), or None."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidInput(field, f"must be a mapping of names to whole numbers, not {type(value).__name__}")
    return {name(k, f"{field} key", 64): whole(v, f"{field}[{k!r}]", 0, 1 << 53) for k, v in value.items()}


def status(value: object, field: str) -> Status:
    """One of the four ends of a message."""
    if value not in _STATUSES:
        raise InvalidInput(field, f"must be one of {', '.join(sorted(_STATUSES))}, not {value!r:.40}")
    return value  # type: ignore[return-value]  # narrowed by the test above, which the checker cannot follow


def message(value: object, field: str, limits: Limits) -> Message:
    """A message that may be stored, its containers made our own."""
    if not isinstance(value, Message):
        raise InvalidInput(field, f"must be a daram.Message (daram.user(…) makes one), not {type(value).__name__}")
    name(value.id, f"{field}.id", limits.message_id_chars)
    if value.role not in _ROLES:
        raise InvalidInput(f"{field}.role", f"must be one of {', '.join(sorted(_ROLES))}, not {value.role!r:.40}")
    text(value.text, f"{field}.text", limits.message_bytes)
    own_parts = parts(value.parts, f"{field}.parts")
    own_metadata = metadata(value.metadata, f"{field}.metadata", limits)
    own_usage = counters(value.usage, f"{field}.usage")
    status(value.status, f"{field}.status")
    if value.role == "user" and not value.text and not own_parts:
        raise InvalidInput(f"{field}.text", "a user's message must say something")
    if value.model is not None:
        name(value.model, f"{field}.model", 256)
    if value.tokens is not None:
        whole(value.tokens, f"{field}.tokens", 0, 1 << 53)
    created_at = moment(value.created_at, f"{field}.created_at")
    clean = msgspec.structs.replace(
        value, parts=own_parts, metadata=own_metadata, usage=own_usage, created_at=created_at, seq=0, parent=None
    )
    body = encode_body(clean)
    size = len(value.text.encode()) + (len(body) if body else 0)
    if size > limits.message_bytes:
        raise TooLarge(field, size, limits.message_bytes, "bytes")
    return clean


def batch(value: object, limits: Limits, *, may_be_empty: bool = False) -> list[Message]:
    """A batch of messages with ids of their own."""
    if isinstance(value, Message):
        raise InvalidInput("messages", "must be a sequence of messages; put the one message in a list")
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise InvalidInput("messages", f"must be a sequence of daram.Message, not {type(value).__name__}")
    if not value and not may_be_empty:
        raise InvalidInput("messages", "must not be empty")
    if len(value) > limits.batch_messages:
        raise TooLarge("messages", len(value), limits.batch_messages, "messages")
    seen: dict[str, int] = {}
    result = []
    for i, item in enumerate(value):
        clean = message(item, f"messages[{i}]", limits)
        if clean.id in seen:
            raise InvalidInput(f"messages[{i}].id", f"{clean.id!r} is also the id of messages[{seen[clean.id]}]")
        seen[clean.id] = i
        result.append(clean)
    return result


def expectation(value: object, field: str = "expect") -> int | str | None:
    """A version (whole number), an etag (string) or None."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, str):
        return name(value, field, 64)
    raise InvalidInput(field, f"must be a version (int) or an etag (str), not {type(value).__name__}")


def flag(value: object, field: str) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise InvalidInput(field, f"must be True or False, not {type(value).__name__}")
    return value


def given(value: object) -> bool:
    """Whether an optional argument was given at all (None counts as given)."""
    return not isinstance(value, Unset)
