"""The chat-completions protocol: our values to its JSON, and its streamed chunks to our deltas.

Shared by everything that speaks it (an endpoint over HTTP, the local runtime in the process); no I/O.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from daram.llm.base import Delta, Finish, Options
from daram.model import Message, Part

_FINISH: dict[str, Finish] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


def body(model: str, messages: Sequence[Message], options: Options) -> dict[str, Any]:
    """The JSON of a streaming request. ``options.extra`` is merged last: it may replace what stands there."""
    request: dict[str, Any] = {
        "model": model,
        "messages": [wire for message in messages for wire in _message(message)],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    for name in ("max_tokens", "temperature", "top_p"):
        value = getattr(options, name)
        if value is not None:
            request[name] = value
    if options.stop:
        request["stop"] = list(options.stop)
    if options.tools:
        request["tools"] = list(options.tools)
    return request | options.extra


def _message(message: Message) -> Iterator[dict[str, Any]]:
    if message.role == "tool":
        yield from _results(message)
    elif message.role == "assistant":
        calls = [_call(part) for part in message.parts if part.type == "tool_call"]
        if calls:
            yield {"role": "assistant", "content": message.text or None, "tool_calls": calls}
        elif message.text:  # an answer that was cut before its first word says nothing, and many endpoints refuse it
            yield {"role": "assistant", "content": message.text}
    else:
        yield {"role": message.role, "content": _content(message)}


def _content(message: Message) -> str | list[dict[str, Any]]:
    attached = [wire for part in message.parts if (wire := _attachment(part))]
    if not attached:
        return message.text
    text = [{"type": "text", "text": message.text}] if message.text else []
    return [*text, *attached]


def _attachment(part: Part) -> dict[str, Any] | None:
    if part.type == "image":
        url = part.data.get("url")
        if not url and part.data.get("data"):
            url = f"data:{part.data.get('media_type', 'image/png')};base64,{part.data['data']}"
        if url:
            image = {"url": url}
            if part.data.get("detail"):
                image["detail"] = part.data["detail"]
            return {"type": "image_url", "image_url": image}
    if part.type in ("image", "file"):  # what cannot be shown to the model is at least named
        return {"type": "text", "text": f"[{part.type}: {part.data.get('name') or 'unnamed'}]"}
    return None


def _call(part: Part) -> dict[str, Any]:
    function = {"name": part.data.get("name", ""), "arguments": part.data.get("arguments", "{}")}
    return {"id": part.data.get("call_id", ""), "type": "function", "function": function}


def _results(message: Message) -> Iterator[dict[str, Any]]:
    results = [part for part in message.parts if part.type == "tool_result"]
    for part in results:
        output = part.data.get("output", "")
        content = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
        yield {"role": "tool", "tool_call_id": part.data.get("call_id", ""), "content": content}
    if not results:
        yield {"role": "tool", "content": message.text}


class _Call(msgspec.Struct):
    id: str = ""
    name: str = ""
    arguments: str = ""


class Chunks:
    """Turns the chunks of one answer, in order, into deltas.

    Text comes out as it comes in. Fragments of tool calls and of reasoning are joined and come out with ``end``, which
    also has the reason for the end and the usage. ``started``: something of the answer has come; ``ended``: the model
    has said why it stopped, so nothing of the answer is missing; ``done``: the server has said that nothing follows.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.started = False
        self.ended = False
        self.done = False
        self._finish: Finish | None = None
        self._usage: dict[str, int] | None = None
        self._calls: dict[int, _Call] = {}
        self._reasoning: list[str] = []

    def add(self, chunk: Any) -> Delta | None:
        """Take one chunk, or one whole ``chat.completion``. Raises ``ValueError`` where it is not of the protocol."""
        try:
            return self._add(chunk)
        except (AttributeError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"unexpected shape: {error}") from error

    def end(self) -> Delta:
        """The last delta of the answer."""
        parts = [Part(type="reasoning", data={"text": "".join(self._reasoning)})] if self._reasoning else []
        for number, call in self._calls.items():
            data = {"call_id": call.id or f"call_{number}", "name": call.name, "arguments": call.arguments or "{}"}
            parts.append(Part(type="tool_call", data=data))
        finish = self._finish or "stop"
        if self._calls and finish == "stop":  # some servers end a call with "stop"
            finish = "tool_calls"
        return Delta(parts=tuple(parts), finish=finish, usage=self._usage, model=self.model)

    def _add(self, chunk: Any) -> Delta | None:
        if not isinstance(chunk, dict) or not isinstance(chunk.get("choices"), list):
            raise ValueError("it has no list of choices")
        if isinstance(chunk.get("model"), str) and chunk["model"]:
            self.model = chunk["model"]
        if usage := chunk.get("usage"):
            self._usage = {
                "input_tokens": int(usage.get("prompt_tokens") or 0),
                "output_tokens": int(usage.get("completion_tokens") or 0),
            }
        text = ""
        for choice in chunk["choices"][:1]:
            piece = choice.get("delta") or choice.get("message") or {}
            text = _text(piece.get("content")) or _text(piece.get("refusal"))
            if reasoning := _text(piece.get("reasoning_content")) or _text(piece.get("reasoning")):
                self._reasoning.append(reasoning)
            for fragment in piece.get("tool_calls") or ():
                self._add_call(fragment)
            self.started = self.started or bool(text or reasoning or self._calls)
            if choice.get("finish_reason"):
                self.ended = True
                self._finish = _FINISH.get(choice["finish_reason"], "stop")
        return Delta(text=text, model=self.model) if text else None

    def _add_call(self, fragment: dict[str, Any]) -> None:
        # Without an index each fragment with an id opens a call, and one without continues the last.
        last = max(self._calls, default=0)
        index = fragment.get("index", last + 1 if fragment.get("id") else last)
        if not isinstance(index, int):
            raise TypeError(f"a fragment of a tool call has the index {index!r}")
        call = self._calls.setdefault(index, _Call())
        function = fragment.get("function") or {}
        call.id = fragment.get("id") or call.id
        call.name = function.get("name") or call.name
        arguments = function.get("arguments") or ""
        call.arguments += arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _text(content: Any) -> str:
    if isinstance(content, list):  # some endpoints send content as typed pieces
        return "".join(piece.get("text") or "" for piece in content if piece.get("type") == "text")
    if content is not None and not isinstance(content, str):
        raise ValueError(f"content is a {type(content).__name__}")
    return content or ""
