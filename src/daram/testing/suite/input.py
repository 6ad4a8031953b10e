"""P10: bad input is answered, not stored: a typed error that names the field, and nothing has changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest

from daram.errors import InvalidInput, TooLarge
from daram.model import Message, Part, assistant, user
from daram.store.base import Store
from daram.testing.suite.base import ANN, Suite, begin, search, texts

Call = Callable[[Store, Any], Awaitable[object]]

_DEEP: dict[str, Any] = {}
for _ in range(40):
    _DEEP = {"d": _DEEP}

_NO_ZONE = datetime(2030, 1, 1)  # noqa: DTZ001  # that is what is wrong with it
_BAD_NAMES = ["", None, 7, b"bytes", ["list"], "a\x00b", "a\nb", "\x7f", "\x85", "\u2028", "\ud800", "a\udfffb"]

_BY_OWNER: dict[str, Call] = {
    "create": lambda s, v: s.create(v),
    "get": lambda s, v: s.get(v, "c"),
    "list": lambda s, v: s.list(v),
    "update": lambda s, v: s.update(v, "c", title="t"),
    "delete": lambda s, v: s.delete(v, "c"),
    "delete_owner": lambda s, v: s.delete_owner(v),
    "append": lambda s, v: s.append(v, "c", [user("x")], create=True),
    "tail": lambda s, v: s.tail(v, "c"),
    "messages": lambda s, v: s.messages(v, "c"),
    "message": lambda s, v: s.message(v, "c", "a"),
    "delete_message": lambda s, v: s.delete_message(v, "c", "a"),
    "branches": lambda s, v: s.branches(v, "c", "a"),
    "use_branch": lambda s, v: s.use_branch(v, "c", "a"),
    "begin_turn": lambda s, v: s.begin_turn(v, "c", [user("x")], create=True),
    "checkpoint": lambda s, v: s.checkpoint(v, "c", "a", "t", "x"),
    "finish_turn": lambda s, v: s.finish_turn(v, "c", "a", "t", text="x"),
    "cancel_turn": lambda s, v: s.cancel_turn(v, "c"),
    "answers": lambda s, v: s.answers(v, "c"),
    "search": lambda s, v: s.search(v, "x"),
}
_BY_ID: dict[str, Call] = {
    "get": lambda s, v: s.get(ANN, v),
    "update": lambda s, v: s.update(ANN, v, title="t"),
    "delete": lambda s, v: s.delete(ANN, v),
    "append": lambda s, v: s.append(ANN, v, [user("x")], create=True),
    "tail": lambda s, v: s.tail(ANN, v),
    "messages": lambda s, v: s.messages(ANN, v),
    "message": lambda s, v: s.message(ANN, v, "a"),
    "delete_message": lambda s, v: s.delete_message(ANN, v, "a"),
    "branches": lambda s, v: s.branches(ANN, v, "a"),
    "use_branch": lambda s, v: s.use_branch(ANN, v, "a"),
    "begin_turn": lambda s, v: s.begin_turn(ANN, v, [user("x")], create=True),
    "checkpoint": lambda s, v: s.checkpoint(ANN, v, "a", "t", "x"),
    "finish_turn": lambda s, v: s.finish_turn(ANN, v, "a", "t", text="x"),
    "cancel_turn": lambda s, v: s.cancel_turn(ANN, v),
    "answers": lambda s, v: s.answers(ANN, v),
}
_BY_MESSAGE_ID: dict[str, tuple[str, Call]] = {
    "message": ("message_id", lambda s, v: s.message(ANN, "c", v)),
    "delete_message": ("message_id", lambda s, v: s.delete_message(ANN, "c", v)),
    "branches": ("message_id", lambda s, v: s.branches(ANN, "c", v)),
    "use_branch": ("message_id", lambda s, v: s.use_branch(ANN, "c", v)),
    "append": ("messages[0].id", lambda s, v: s.append(ANN, "c", [Message(id=v, role="user", text="x")])),
    "checkpoint": ("answer_id", lambda s, v: s.checkpoint(ANN, "c", v, "t", "x")),
    "finish_turn": ("answer.id", lambda s, v: s.finish_turn(ANN, "c", v, "t", text="x")),
}

_append: Call = lambda s, v: s.append(ANN, "c", v, create=True)  # noqa: E731  # a column of the table below
_begin: Call = lambda s, v: s.begin_turn(ANN, "c", v, create=True)  # noqa: E731


def _message(**fields: Any) -> list[Message]:
    return [Message(**({"role": "user", "text": "x"} | fields))]


def _part(data: Any) -> list[Message]:
    return _message(parts=(Part(type="image", data=data),))


# What is called, with what, the field that the error names, and whether it is a matter of size.
_TABLE: dict[str, tuple[Call, Any, str, bool]] = {
    "no messages": (_append, [], "messages", False),
    "messages None": (_append, None, "messages", False),
    "one message, not a list": (_append, user("x"), "messages", False),
    "a string as messages": (_append, "hello", "messages", False),
    "a dictionary as messages": (_append, {"role": "user"}, "messages", False),
    "a generator as messages": (_append, (m for m in [user("x")]), "messages", False),
    "a dictionary as message": (_append, [{"role": "user", "text": "x"}], "messages[0]", False),
    "a string as message": (_append, [user("x"), "x"], "messages[1]", False),
    "101 messages": (_append, [user(str(i)) for i in range(101)], "messages", True),
    "an id twice": (_append, [user("x", id="a"), user("y", id="b"), user("z", id="a")], "messages[2].id", False),
    "a long message id": (_append, [user("x", id="m" * 129)], "messages[0].id", True),
    "an unknown role": (_append, _message(role="developer"), "messages[0].role", False),
    "no role": (_append, _message(role=None), "messages[0].role", False),
    "an unhashable role": (_append, _message(role=[]), "messages[0].role", False),
    "an unknown status": (_append, _message(status="done"), "messages[0].status", False),
    "an unhashable status": (_append, _message(status={}), "messages[0].status", False),
    "text None": (_append, _message(text=None), "messages[0].text", False),
    "text bytes": (_append, _message(text=b"x"), "messages[0].text", False),
    "an empty user message": (_append, [user("")], "messages[0].text", False),
    "NUL in text": (_append, [user("a\x00b")], "messages[0].text", False),
    "a lone surrogate in text": (_append, [assistant("ok"), user("a\ud83d")], "messages[1].text", False),
    "a text over 1 MiB": (_append, [user("x" * ((1 << 20) + 1))], "messages[0].text", True),
    "a Korean text over 1 MiB": (_append, [user("가" * 350_000)], "messages[0].text", True),
    "parts over 1 MiB": (_append, _part({"base64": "x" * (1 << 20)}), "messages[0]", True),
    "parts not a sequence": (_append, _message(parts=7), "messages[0].parts", False),
    "a part not a Part": (_append, _message(parts=({"type": "image"},)), "messages[0].parts[0]", False),
    "a part without type": (_append, _message(parts=(Part(type=""),)), "messages[0].parts[0].type", False),
    "a part whose data is a list": (_append, _part([1]), "messages[0].parts[0].data", False),
    "bytes in a part": (_append, _part({"b": b"x"}), "messages[0].parts[0].data.b", False),
    "a tuple in a part": (_append, _part({"t": (1,)}), "messages[0].parts[0].data.t", False),
    "a set in a part": (_append, _part({"s": {1}}), "messages[0].parts[0].data.s", False),
    "NaN in a part": (_append, _part({"n": float("nan")}), "messages[0].parts[0].data.n", False),
    "infinity in a part": (_append, _part({"n": [float("-inf")]}), "messages[0].parts[0].data.n[0]", False),
    "a huge number in a part": (_append, _part({"n": 1 << 64}), "messages[0].parts[0].data.n", False),
    "a surrogate in a part": (_append, _part({"s": "\udc00"}), "messages[0].parts[0].data.s", False),
    "a number as key in a part": (_append, _part({"a": {1: 2}}), "messages[0].parts[0].data.a", False),
    "a deep part": (_append, _part(_DEEP), "messages[0].parts[0].data", False),
    "an object in a part": (_append, _part({"o": object()}), "messages[0].parts[0].data.o", False),
    "metadata of a message not a mapping": (_append, _message(metadata=[1]), "messages[0].metadata", False),
    "a number in metadata": (_append, _message(metadata={"k": 1}), "messages[0].metadata['k']", False),
    "model not a name": (_append, _message(model=""), "messages[0].model", False),
    "negative tokens": (_append, _message(tokens=-1), "messages[0].tokens", False),
    "tokens True": (_append, _message(tokens=True), "messages[0].tokens", False),
    "usage with a float": (_append, _message(usage={"input_tokens": 1.5}), "messages[0].usage['input_tokens']", False),
    "created_at a string": (_append, _message(created_at="2024-01-01"), "messages[0].created_at", False),
    "created_at without zone": (_append, _message(created_at=_NO_ZONE), "messages[0].created_at", False),
    "created_at out of range": (
        _append,
        _message(created_at=datetime.fromisoformat("0001-01-01T00:00:00+14:00")),
        "messages[0].created_at",
        False,
    ),
    "begin_turn with one message": (_begin, user("x"), "messages", False),
    "begin_turn with NUL": (_begin, [user("\x00")], "messages[0].text", False),
    "parent a number": (lambda s, v: s.append(ANN, "c", [user("x")], parent=v), 1, "parent", False),
    "parent with NUL": (lambda s, v: s.append(ANN, "c", [user("x")], parent=v), "\x00", "parent", False),
    "expect a float": (lambda s, v: s.append(ANN, "c", [user("x")], expect=v), 1.0, "expect", False),
    "expect True": (lambda s, v: s.append(ANN, "c", [user("x")], expect=v), True, "expect", False),
    "create a number": (lambda s, v: s.append(ANN, "c", [user("x")], create=v), 1, "create", False),
    "window negative": (lambda s, v: s.append(ANN, "c", [user("x")], window=v), -1, "window", False),
    "window too large": (lambda s, v: s.append(ANN, "c", [user("x")], window=v), 1001, "window", False),
    "window None": (lambda s, v: s.append(ANN, "c", [user("x")], window=v), None, "window", False),
    "title a number": (lambda s, v: s.create(ANN, title=v), 7, "title", False),
    "title with NUL": (lambda s, v: s.update(ANN, "c", title=v), "a\x00", "title", False),
    "title too long": (lambda s, v: s.update(ANN, "c", title=v), "x" * 501, "title", True),
    "metadata a list": (lambda s, v: s.create(ANN, metadata=v), ["a"], "metadata", False),
    "metadata with 17 pairs": (
        lambda s, v: s.create(ANN, metadata=v),
        {str(i): "" for i in range(17)},
        "metadata",
        True,
    ),
    "metadata None in update": (lambda s, v: s.update(ANN, "c", metadata=v), {"k": None}, "metadata['k']", False),
    "metadata value too long": (lambda s, v: s.update(ANN, "c", metadata=v), {"k": "x" * 513}, "metadata['k']", True),
    "metadata key too long": (lambda s, v: s.create(ANN, metadata=v), {"x" * 65: "v"}, "metadata key 'xxxxx", True),
    "metadata key empty": (lambda s, v: s.create(ANN, metadata=v), {"": "v"}, "metadata key ''", False),
    "pinned a string": (lambda s, v: s.update(ANN, "c", pinned=v), "yes", "pinned", False),
    "archived None": (lambda s, v: s.update(ANN, "c", archived=v), None, "archived", False),
    "expires_at a number": (lambda s, v: s.create(ANN, expires_at=v), 1e9, "expires_at", False),
    "expires_at without zone": (
        lambda s, v: s.update(ANN, "c", expires_at=v),
        _NO_ZONE,
        "expires_at",
        False,
    ),
    "limit 0": (lambda s, v: s.list(ANN, limit=v), 0, "limit", False),
    "limit too large": (lambda s, v: s.messages(ANN, "c", limit=v), 1001, "limit", False),
    "limit a string": (lambda s, v: s.tail(ANN, "c", v), "20", "limit", False),
    "limit a float": (lambda s, v: s.search(ANN, "x", limit=v), 2.0, "limit", False),
    "limit of purge": (lambda s, v: s.purge(limit=v), 0, "limit", False),
    "limit of recover": (lambda s, v: s.recover(limit=v), True, "limit", False),
    "recover of an owner without id": (lambda s, v: s.recover(owner=v), ANN, "owner, id", False),
    "order": (lambda s, v: s.messages(ANN, "c", order=v), "ASC", "order", False),
    "cursor a number": (lambda s, v: s.list(ANN, cursor=v), 1, "cursor", False),
    "cursor of nothing": (lambda s, v: s.messages(ANN, "c", cursor=v), "AAAA", "cursor", False),
    "query None": (lambda s, v: s.search(ANN, v), None, "query", False),
    "query too long": (lambda s, v: s.search(ANN, v), "x" * 1001, "query", True),
    "query with NUL": (lambda s, v: s.search(ANN, v), "a\x00", "query", False),
    "search in no conversation": (lambda s, v: s.search(ANN, "x", conversation=v), "", "conversation", False),
    "lease 0": (lambda s, v: s.begin_turn(ANN, "c", [user("x")], lease=v), 0, "lease", False),
    "lease NaN": (lambda s, v: s.begin_turn(ANN, "c", [user("x")], lease=v), float("nan"), "lease", False),
    "lease of two days": (lambda s, v: s.checkpoint(ANN, "c", "q!", "t", "x", lease=v), 172_800, "lease", False),
    "model of a turn": (lambda s, v: s.begin_turn(ANN, "c", [user("x")], model=v), "a\n", "model", False),
    "token None": (lambda s, v: s.checkpoint(ANN, "c", "q!", v, "x"), None, "token", False),
    "partial text None": (lambda s, v: s.checkpoint(ANN, "c", "q!", "t", v), None, "text", False),
    "partial text with NUL": (lambda s, v: s.checkpoint(ANN, "c", "q!", "t", v), "\x00", "text", False),
    "answer with a surrogate": (
        lambda s, v: s.finish_turn(ANN, "c", "q!", "t", text=v),
        "\ud800",
        "answer.text",
        False,
    ),
    "answer over 1 MiB": (
        lambda s, v: s.finish_turn(ANN, "c", "q!", "t", text=v),
        "x" * (2 << 20),
        "answer.text",
        True,
    ),
    "status of an answer": (
        lambda s, v: s.finish_turn(ANN, "c", "q!", "t", text="", status=v),
        "running",
        "answer.status",
        False,
    ),
    "parts of an answer": (lambda s, v: s.finish_turn(ANN, "c", "q!", "t", text="", parts=v), "abc", "parts", False),
    "usage of an answer": (
        lambda s, v: s.finish_turn(ANN, "c", "q!", "t", text="", usage=v),
        {"a": -1},
        "usage['a']",
        False,
    ),
}


async def _see(store: Store) -> list[object]:
    return [await store.list(ANN), await store.messages(ANN, "c"), await store.answers(ANN, "c")]


class InputTests(Suite):
    @pytest.mark.parametrize("name", _TABLE)
    async def test_bad_input_is_answered_and_not_stored(self, store: Store, name: str) -> None:
        call, value, field, too_large = _TABLE[name]
        await begin(store, "q")
        before = await _see(store)
        with pytest.raises(InvalidInput) as caught:
            await call(store, value)
        assert caught.value.field.startswith(field)
        assert str(caught.value).startswith(caught.value.field)
        assert caught.value.problem
        assert isinstance(caught.value, TooLarge) == too_large
        assert len(str(caught.value)) < 500, "the error repeats the input"
        assert await _see(store) == before

    @pytest.mark.parametrize("name", _BY_OWNER)
    async def test_bad_owners(self, store: Store, name: str) -> None:
        for value in [*_BAD_NAMES, "o" * 257]:
            with pytest.raises(InvalidInput) as caught:
                await _BY_OWNER[name](store, value)
            assert caught.value.field == "owner"

    @pytest.mark.parametrize("name", _BY_ID)
    async def test_bad_conversation_ids(self, store: Store, name: str) -> None:
        for value in [*_BAD_NAMES, "c" * 257]:
            with pytest.raises(InvalidInput) as caught:
                await _BY_ID[name](store, value)
            assert caught.value.field == "id"

    @pytest.mark.parametrize("name", _BY_MESSAGE_ID)
    async def test_bad_message_ids(self, store: Store, name: str) -> None:
        field, call = _BY_MESSAGE_ID[name]
        for value in [*_BAD_NAMES, "m" * 129]:
            with pytest.raises(InvalidInput) as caught:
                await call(store, value)
            assert caught.value.field == field

    async def test_a_batch_is_stored_as_a_whole_or_not_at_all(self, store: Store) -> None:
        await begin(store, "q")
        with pytest.raises(InvalidInput, match=r"messages\[2\]"):
            await store.append(ANN, "c", [user("a"), user("b"), user("c\x00")])
        assert texts(await store.tail(ANN, "c")) == ["q"]

    async def test_the_limits_themselves_are_allowed(self, store: Store) -> None:
        await store.create("o" * 256, id="c" * 256, title="t" * 500, metadata={"k" * 64: "v" * 512})
        await store.create(ANN, id="c", metadata={str(i): "" for i in range(16)})
        await store.append(ANN, "c", [user("x" * (1 << 20), id="m" * 128)])
        await store.append(ANN, "c", [user(str(i)) for i in range(100)], window=1000)
        assert len(await store.tail(ANN, "c", 1000)) == 101
        assert await search(store, "y" * 1000) == []
