"""Compaction items: a summary on its way to a client and back."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

import msgspec

from daram.context.assemble import SUMMARY_HEADING
from daram.errors import InvalidInput
from daram.model import Message, Part, system
from daram.service.openai_api.items import Item


def item_of_summary(id: str, summary: str) -> Item:
    """The compaction item that holds the summary."""
    content = urlsafe_b64encode(msgspec.json.encode({"summary": summary})).decode()
    return {"id": id, "type": "compaction", "encrypted_content": content}


def message_of_summary(item: Mapping[str, Any], id: str, field: str) -> Message:
    """The message that a compaction item is: a record of what was before. Raises ``InvalidInput``."""
    try:
        content = item.get("encrypted_content")
        found: dict[str, Any] = msgspec.json.decode(urlsafe_b64decode(content if isinstance(content, str) else ""))
        summary = found["summary"]
        if not isinstance(summary, str):
            raise TypeError("summary")
    except (ValueError, TypeError, KeyError, msgspec.DecodeError):
        raise InvalidInput(f"{field}.encrypted_content", "was not made by this server") from None
    whole = Part(type="item", data={"whole": {key: value for key, value in item.items() if key != "id"}})
    return system(f"{SUMMARY_HEADING}\n{summary}", id=id, parts=(whole,))
