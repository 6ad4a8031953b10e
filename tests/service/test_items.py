"""Items as messages: nothing that a client put in is lost on the way out, whatever it is."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._models import construct_type
from openai.types.conversations.conversation_item import ConversationItem

from daram import Message, Part
from daram.codec import decode_body, encode_body
from daram.errors import InvalidInput
from daram.service.openai_api.items import item_of, items_of, message_ids, message_of, messages_of, part_id
from daram.store import validate
from daram.store.validate import Limits

texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=20)
words = st.text("abcdefghij_", min_size=1, max_size=8)
plain_json = st.recursive(
    st.booleans() | st.integers(-1000, 1000) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
# Fields that nobody knows yet must come back too. None of these names means anything here.
more = st.dictionaries(
    st.sampled_from(["phase", "x_one", "x_two", "data", "media_type", "start"]), plain_json, max_size=2
)
statuses = st.sampled_from([{}, {"status": "completed"}, {"status": "incomplete"}, {"status": "in_progress"}])
ids_ = st.sampled_from([{}]) | st.builds(lambda word: {"id": "x_" + word}, words)


def _with(*parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(*parts).map(lambda found: {key: value for part in reversed(found) for key, value in part.items()})


def _fixed(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(fields)


pieces = st.one_of(
    _with(_fixed(type=st.sampled_from(["input_text", "text", "summary_text", "reasoning_text"]), text=texts), more),
    _with(
        _fixed(type=st.just("output_text"), text=texts),
        st.fixed_dictionaries(
            {},
            optional={
                "annotations": st.lists(_fixed(type=st.just("url_citation"), url=texts, title=texts), max_size=2),
                "logprobs": st.lists(_fixed(token=texts, logprob=st.just(-0.5)), max_size=2),
            },
        ),
        more,
    ),
    _with(_fixed(type=st.just("refusal"), refusal=texts), more),
    _with(
        _fixed(type=st.just("input_image")),
        _fixed(image_url=texts) | _fixed(file_id=words) | _fixed(image_url=texts, detail=st.just("high")),
        more,
    ),
    _with(
        _fixed(type=st.just("input_file")),
        _fixed(file_data=texts, filename=texts) | _fixed(file_id=words) | _fixed(file_url=texts),
        more,
    ),
    _with(_fixed(type=st.just("computer_screenshot"), image_url=texts), more),
    _with(_fixed(type=words.map("x_".__add__)), more),
)
messages = _with(
    _fixed(
        role=st.sampled_from(["user", "assistant", "system", "developer"]), content=texts | st.lists(pieces, max_size=4)
    ),
    st.sampled_from([{}, {"type": "message"}]),
    statuses,
    ids_,
    more,
)
calls = _with(_fixed(type=st.just("function_call"), call_id=words, name=words, arguments=texts), statuses, ids_, more)
outputs = _with(
    _fixed(type=st.just("function_call_output"), call_id=words, output=texts | st.lists(pieces, max_size=3)),
    statuses,
    ids_,
    more,
)
reasonings = _with(
    _fixed(type=st.just("reasoning"), summary=st.lists(_fixed(type=st.just("summary_text"), text=texts), max_size=2)),
    st.sampled_from([{}, {"encrypted_content": "gAAA"}, {"content": [{"type": "reasoning_text", "text": "hm"}]}]),
    statuses,
    ids_,
    more,
)
unknown = _with(_fixed(type=words.map("x_".__add__)), more, ids_, statuses)
items = st.one_of(messages, calls, outputs, reasonings, unknown)


def expected(item: dict[str, Any]) -> dict[str, Any]:
    """The item as it must come out at least: its shorthands written out."""
    item = dict(item)
    if "role" in item and item.get("type", "message") == "message":
        item["type"] = "message"
        if isinstance(item["content"], str):
            kind = "output_text" if item["role"] == "assistant" else "input_text"
            item["content"] = [{"type": kind, "text": item["content"]}]
    return item


def holds(found: Any, wanted: Any) -> bool:
    """Whether all that is wanted is in what was found; objects may have more fields."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(key in found and holds(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(holds, found, wanted))
    return bool(found == wanted) and isinstance(found, type(wanted))


def stored(message: Message) -> Message:
    """The message as a store gives it back."""
    clean = validate.message(message, "messages[0]", Limits())
    parts, metadata, usage = decode_body(encode_body(clean))
    return msgspec.structs.replace(clean, parts=parts, metadata=metadata, usage=usage)


@given(item=items)
def test_nothing_that_was_put_in_is_lost(item: dict[str, Any]) -> None:
    before = json.dumps(item)
    [found] = items_of(stored(message_of(item)))
    assert holds(found, expected(item))
    assert json.dumps(item) == before, "what the caller gave must not be changed"
    assert isinstance(found["id"], str) and found["id"]


@given(item=items)
def test_what_came_out_can_go_in_again_and_comes_out_the_same(item: dict[str, Any]) -> None:
    [first] = items_of(stored(message_of(item)))
    [second] = items_of(stored(message_of(first)))
    assert second == first


@given(item=messages | calls | outputs | reasonings)
def test_the_sdk_reads_what_comes_out(item: dict[str, Any]) -> None:
    [found] = items_of(stored(message_of(item)))
    parsed = construct_type(type_=ConversationItem, value=found)
    assert holds(parsed.model_dump(warnings=False), expected(item))  # type: ignore[attr-defined]


@given(item=items)
def test_an_item_is_found_by_its_id(item: dict[str, Any]) -> None:
    message = message_of(item)
    [found] = items_of(message)
    assert message.id in message_ids(found["id"])
    assert item_of(message, found["id"]) == found
    assert item_of(message, "item_x") is None


def test_an_answer_of_several_items() -> None:
    answer = Message(
        id="msg_1",
        role="assistant",
        text="I will look.",
        parts=(
            Part(type="reasoning", data={"text": "hm"}),
            Part(type="tool_call", data={"call_id": "c1", "name": "look", "arguments": "{}"}),
            Part(type="tool_call", data={"call_id": "c2", "name": "look", "arguments": "{}"}),
            Part(type="citation", data={"document": "a.txt"}),
        ),
    )
    found = items_of(stored(answer))
    assert [item["type"] for item in found] == ["reasoning", "message", "function_call", "function_call"]
    assert found[1]["id"] == "msg_1"
    assert found[1]["content"][0]["annotations"][0]["document"] == "a.txt"
    assert found[3]["id"] == part_id("function_call", "msg_1", 2)
    assert len({item["id"] for item in found}) == 4
    for item in found:
        assert "msg_1" in message_ids(item["id"])
        assert item_of(answer, item["id"]) == item


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (Message(role="user", text="안녕"), [{"role": "user", "content": [{"type": "input_text", "text": "안녕"}]}]),
        (
            Message(role="user", parts=(Part(type="image", data={"data": "QQ==", "media_type": "image/jpeg"}),)),
            [{"content": [{"type": "input_image", "image_url": "data:image/jpeg;base64,QQ==", "detail": "auto"}]}],
        ),
        (Message(role="assistant", text="", status="failed"), [{"status": "incomplete"}]),
        (Message(role="tool", text="42"), [{"role": "tool", "content": [{"type": "input_text", "text": "42"}]}]),
        (
            Message(
                role="tool",
                text="1 2",
                parts=(
                    Part(type="tool_result", data={"call_id": "a", "output": "1"}),
                    Part(type="tool_result", data={"call_id": "b", "output": "2"}),
                ),
            ),
            [{"type": "function_call_output", "call_id": "a"}, {"type": "function_call_output", "output": "2"}],
        ),
        (Message(role="assistant", parts=(Part(type="theirs", data={"x": 1}),)), [{"type": "message"}]),
    ],
)
def test_messages_of_other_doors(message: Message, wanted: list[dict[str, Any]]) -> None:
    assert holds(items_of(stored(message)), wanted)


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ("hello", "items[0]"),
        ({}, "items[0].type"),
        ({"type": 3}, "items[0].type"),
        ({"type": ""}, "items[0].type"),
        ({"role": "boss", "content": "x"}, "items[0].role"),
        ({"role": ["user"], "content": "x"}, "items[0].role"),
        ({"role": "user"}, "items[0].content"),
        ({"role": "user", "content": 3}, "items[0].content"),
        ({"role": "user", "content": ["x"]}, "items[0].content[0]"),
        ({"role": "user", "content": [{"text": "x"}]}, "items[0].content[0].type"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "items[0].content[0].text"),
        ({"role": "user", "content": [{"type": "input_image"}]}, "items[0].content[0]"),
        ({"role": "user", "content": [{"type": "input_image", "image_url": 3}]}, "items[0].content[0].image_url"),
        (
            {"role": "assistant", "content": [{"type": "output_text", "text": "x", "annotations": [1]}]},
            "items[0].content[0].annotations",
        ),
        ({"role": "user", "content": "x", "status": "late"}, "items[0].status"),
        ({"role": "user", "content": "x", "id": 3}, "items[0].id"),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, "items[0].call_id"),
        ({"type": "function_call_output", "call_id": "c"}, "items[0].output"),
        ({"type": "reasoning", "summary": ["x"]}, "items[0].summary"),
        ({"type": "item_reference", "id": "msg_1"}, "items[0].type"),
    ],
)
def test_what_is_no_item_is_refused_by_name(item: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        messages_of([item])
    assert caught.value.field == field


@given(value=plain_json | st.dictionaries(st.sampled_from(["type", "role", "content", "id", "output"]), plain_json))
def test_anything_is_an_item_or_refused(value: Any) -> None:
    try:
        message = message_of(value)
    except InvalidInput:
        return
    try:
        [found] = items_of(stored(message))
    except InvalidInput:  # ids and such are the store's to judge
        return
    assert holds(found, expected({k: v for k, v in value.items() if v is not None}))
