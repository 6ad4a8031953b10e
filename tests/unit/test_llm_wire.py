"""The chat-completions protocol without a connection: messages, error bodies, events."""

from __future__ import annotations

import json

import pytest

from daram.llm import _refusals, _sse, wire
from daram.llm.base import Options
from daram.model import Part, assistant, tool, user


def test_messages_on_the_wire():
    tool_call = Part(type="tool_call", data={"call_id": "c1", "name": "find", "arguments": '{"a":1}'})
    image = Part(type="image", data={"url": "https://example.org/a.png"})
    inline = Part(type="image", data={"data": "QUJD", "media_type": "image/jpeg"})
    file = Part(type="file", data={"name": "notes.txt"})
    messages = [
        user("Look", parts=[image, inline, file]),
        assistant("", parts=[tool_call]),
        tool("found", call_id="c1"),
        assistant(""),  # was cut before its first word
        user("Thanks"),
    ]
    wired = wire.body("m", messages, Options(extra={"seed": 7, "model": "other"}))
    assert wired["seed"] == 7
    assert wired["model"] == "other"
    assert wired["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look"},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,QUJD"}},
                {"type": "text", "text": "[file: notes.txt]"},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"a":1}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "found"},
        {"role": "user", "content": "Thanks"},
    ]


@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
        "'max_tokens' or 'max_completion_tokens' is too large: 2000. This model's maximum context length is 4096",
        "The decoder prompt (length 9000) is longer than the maximum model length of 4096.",
        "The input (9000 tokens) is longer than the model's context length (4096 tokens).",
        "request (9030 tokens) exceeds the available context size (8192 tokens), try increasing it",
        "The number of tokens to keep from the initial prompt is greater than the context length",
        "Trying to keep the first 9000 tokens when context the overflows.",
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
        "Please reduce the length of the messages or completion.",
        "prompt is too long: 213462 tokens > 200000 maximum",
        "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).",
        "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
        "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens",
    ],
)
def test_the_words_of_other_servers(words):
    assert _refusals.read(400, json.dumps({"error": {"message": words}})).is_overflow


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "Invalid value for temperature"),
        (429, "Rate limit reached: please reduce the length of the messages"),
        (401, "Incorrect API key"),
        (500, "out of memory"),
    ],
)
def test_other_refusals_are_no_overflow(status, words):
    assert not _refusals.read(status, json.dumps({"error": {"message": words}})).is_overflow


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3), ("0.5", 0.5), ("-1", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("x", None), (None, None)],
)
def test_retry_after_header(header, seconds):
    assert _refusals.seconds(header) == seconds


async def test_events_are_the_same_however_they_are_cut():
    raw = ": ping\r\n\r\nevent: x\r\ndata: 다람쥐\r\ndata: two\r\n\r\ndata:three\n\nid: 4\ndata: last".encode()
    expected = [None, "다람쥐\ntwo", "three", "last"]
    for size in (1, 2, 3, 7, len(raw)):

        async def pieces(size=size):
            for start in range(0, len(raw), size):
                yield raw[start : start + size]

        assert [event async for event in _sse.events(pieces())] == expected


async def test_an_endless_line_is_refused(monkeypatch):
    monkeypatch.setattr(_sse, "MAX_LINE", 1000)

    async def endless():
        while True:
            yield b"data: " + b"x" * 100

    with pytest.raises(_sse.NotEventsError):
        [event async for event in _sse.events(endless())]
