"""Logging: for people, or as lines of JSON; keys and tokens are masked wherever they come from."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final

from daram.service.observe.request import noted

__all__ = ["set_up"]

_SECRETS: Final = (
    (re.compile(r"\b(daram-[a-z0-9]{10})-[A-Za-z0-9]{43}\b"), r"\1-***"),
    (re.compile(r"(?i)\b(bearer)\s+[\w.~+/-]+=*"), r"\1 ***"),
    (re.compile(r"\b(sk-[\w-]{2})[\w-]{10,}"), r"\1***"),
    (re.compile(r"([?&](?:token|key|password|secret)=)[^&\s\"']+"), r"\1***"),
    (re.compile(r"(://[^/@\s:]*:)[^/\s]+@"), r"\1***@"),
)
_FIELDS: Final = ("method", "route", "status", "milliseconds", "bytes", "user")


def set_up(how: str) -> None:
    """Log to stderr: ``off`` (what went wrong only), ``text`` or ``json`` (each request too)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if how == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    ours = logging.getLogger("daram")
    ours.setLevel(logging.WARNING if how == "off" else logging.INFO)
    # The terminal's own handler masks nothing, and would keep what is said from this one.
    ours.handlers.clear()
    ours.propagate = True
    # It warns of every address that is not there: that is in the line of the request.
    logging.getLogger("django.request").setLevel(logging.ERROR)


def masked(text: str) -> str:
    """The text without what opens something."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        note = noted.get()
        id = getattr(record, "request_id", None) or (note.id if note else None)
        words = masked(super().format(record))
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%d %H:%M:%S")
        return f"{moment} {record.levelname.lower()} {words}{f' [{id}]' if id else ''}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        note = noted.get()
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": masked(record.getMessage()),
            "request_id": getattr(record, "request_id", None) or (note.id if note else None),
        }
        line |= {name: getattr(record, name) for name in _FIELDS if getattr(record, name, None) is not None}
        if record.exc_info:
            line["exception"] = masked(self.formatException(record.exc_info))
        return json.dumps({name: value for name, value in line.items() if value is not None}, ensure_ascii=False)
