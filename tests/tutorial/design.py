"""The second tutorial's design, small and faithful: a table of chats, Django's cache framework over it, a view.

Everything wrong in it is wrong in the original in the same way. It stands here so that each defect is seen before it is
shown to be impossible in Daram, and is used nowhere else.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass

from tests.unit.chat_script import ScriptedModel

from daram.llm.base import Options
from daram.model import Message

SECONDS = 600.0
OFFICIAL = "OFFICIAL_DOCS"


class Clock:
    """Time as the test lets it pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Cache:
    """``django.core.cache`` over django-redis as it comes: pickled values, each with its time to live."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.values: dict[str, tuple[float, bytes]] = {}

    def get(self, key: str) -> object:
        due, data = self.values.get(key, (0.0, b""))
        return pickle.loads(data) if due > self._clock() else None

    def set(self, key: str, value: object, timeout: float) -> None:
        self.values[key] = (self._clock() + timeout, pickle.dumps(value))


class DoesNotExist(Exception):
    """``Chat.DoesNotExist``."""


@dataclass
class Chat:
    """A row of the table. ``conversation`` is one JSON list."""

    id: int | None
    user: str
    conversation: str
    content_info: str
    content: str
    title: str = ""


class Table:
    """The ORM's manager. A row read is a copy, ``save`` writes the whole row."""

    def __init__(self) -> None:
        self.rows: dict[int, Chat] = {}
        self.written = 0  # bytes
        self._last = 0

    def get(self, id: int, user: str) -> Chat:
        row = self.rows.get(id)
        if row is None or row.user != user:
            raise DoesNotExist
        return Chat(**vars(row))

    def save(self, chat: Chat) -> None:
        if chat.id is None:
            self._last += 1
            chat.id = self._last
        self.rows[chat.id] = Chat(**vars(chat))
        self.written += len(chat.conversation)

    def delete(self, id: int) -> None:
        self.rows.pop(id, None)


class Views:
    """The view of the tutorial, method by method."""

    def __init__(self, model: ScriptedModel, clock: Clock) -> None:
        self.model = model
        self.cache = Cache(clock)
        self.table = Table()
        self.references: dict[tuple[str, int], tuple[str, str]] = {}
        self.documents: dict[int, str] = {}

    async def post(self, user: str, body: dict[str, object], chat_id: int | None = None) -> dict[str, object]:
        key = f"{user}:chat:{chat_id}"
        try:
            chat = self.cache.get(key)
        except DoesNotExist:
            chat = self.table.get(chat_id or 0, user)  # never: a cache does not raise for what it has not
        if not isinstance(chat, Chat):
            chat = self._begin(user, body)
        history = json.loads(chat.conversation)
        info = json.loads(chat.content_info)
        if info["category"] == OFFICIAL:
            if chat_id is not None:
                found = self.documents[info["title_no"]]
            prompt = f"Answer from these documents: {found}"
        else:
            prompt = f"Answer from this text: {chat.content}"
        said = str(body["user_input"])
        answer = await self._ask([prompt, *(str(list(entry.values())[-1]) for entry in history), said])
        number = len(history)
        history += [{"id_user": number, "USER": said}, {"id_ai": number + 1, "AI": answer}]
        chat.conversation = json.dumps(history, ensure_ascii=False)
        chat.title = await self._ask([f"Summarise as a title: {chat.conversation}"], Options(max_tokens=32))
        self.table.save(chat)
        self.cache.set(key, chat, timeout=SECONDS)
        return {"id": chat.id, "AI": answer}

    def get(self, user: str, chat_id: int) -> list[dict[str, object]]:
        chat = self.cache.get(f"{user}:chat:{chat_id}")
        if not isinstance(chat, Chat):
            chat = self.table.get(chat_id, user)
        found: list[dict[str, object]] = json.loads(chat.conversation)
        return found

    def delete(self, user: str, chat_id: int) -> None:
        self.table.get(chat_id, user)
        self.table.delete(chat_id)

    def _begin(self, user: str, body: dict[str, object]) -> Chat:
        category, title_no = body.get("category"), body.get("title_no")
        title, content = self.references.get((str(category), int(str(title_no or 0))), ("", ""))
        info = json.dumps({"category": category, "title_no": title_no, "title": title})
        return Chat(None, user, json.dumps([{"SYSTEM": "init conversation"}]), info, content)

    async def _ask(self, texts: list[str], options: Options = Options()) -> str:
        messages = [Message(id=f"m{n}", role="user", text=text) for n, text in enumerate(texts)]
        return "".join([delta.text async for delta in self.model.stream(messages, options)])
