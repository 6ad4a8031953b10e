"""A server that speaks OpenAI's chat completions and says what it is told to: over real sockets, with real faults.

In a test::

    async with ScriptedModelServer() as server:
        server.script("Hello there", failure(429, retry_after=0), cut(after=3))
        model = OpenAIModel("scripted", base_url=server.base_url)
        ...
        assert server.requests[0]["messages"][-1]["content"] == "Hi"

As a process of its own (``python -m daram.testing.model_server --port 0``) it prints its base URL as its first line.
A request for which nothing is scripted is answered by the magic words in it, else by ``remembering``: from what the
request holds, and from nothing else (both in ``daram.testing.model_replies``). Embeddings count the letters of a text.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Self

import msgspec

from daram.testing.model_replies import (
    Reply,
    call,
    cut,
    embeddings,
    failure,
    html,
    magic,
    overflow,
    remembering,
    stall,
)

__all__ = ["Reply", "ScriptedModelServer", "call", "cut", "failure", "html", "overflow", "remembering", "stall"]

Script = str | Reply | Callable[[dict[str, Any]], "str | Reply"]

_REASONS: Final = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}
_FAULTS: Final = frozenset({"cut", "stall", "pings", "garbage", "badjson", "error"})
_WATCH: Final = 0.02
_GARBAGE: Final = b"\xff\xfe\x80\x00 not text \xc3\x28\n\n"


class ScriptedModelServer:
    """Listens while its ``async with`` is open. ``delay``: seconds before each token where the reply does not say.

    ``context_tokens``: requests that are longer (UTF-8 bytes / 4) get a context-length error; None takes all.
    ``api_key``: others get 401. ``default`` answers what is not scripted (``remembering`` where None).
    ``refuse``: fields of a request that this server does not know and answers with 400, as old servers do.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        model: str = "scripted",
        delay: float = 0.0,
        context_tokens: int | None = None,
        api_key: str | None = None,
        default: Script | None = None,
        refuse: Sequence[str] = (),
    ) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.left = 0
        self._address = (host, port)
        self._model = model
        self._delay = delay
        self._context_tokens = context_tokens
        self._api_key = api_key
        self._default = default
        self._refuse = tuple(refuse)
        self._scripts: deque[Script] = deque()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    @property
    def base_url(self) -> str:
        """``http://host:port/v1``."""
        return f"http://{self._address[0]}:{self._address[1]}/v1"

    def script(self, *replies: Script) -> None:
        """The replies to the next requests, in order: a text, a ``Reply``, or a function of the request's JSON."""
        self._scripts.extend(replies)

    async def wait_for(self, condition: Callable[[ScriptedModelServer], bool]) -> None:
        """Wait until ``condition(self)`` holds; asked again whenever a request comes, ends, or its client leaves.

        ``left`` counts the clients that left while they were being answered.
        """
        while not condition(self):
            self._changed.clear()
            await self._changed.wait()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, *self._address)
        self._address = (self._address[0], self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- HTTP ---------------------------------------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        except asyncio.CancelledError:  # closing; asyncio would log a cancelled connection as an error
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; False when the connection is at its end."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        path = path.partition("?")[0]
        if self._api_key is not None and headers.get("authorization") != f"Bearer {self._api_key}":
            reply = failure(401, f"Incorrect API key provided: {headers.get('authorization', 'none')}")
            return await self._plain(writer, reply)
        if (method, path) == ("GET", "/v1/models"):
            listed = {"object": "list", "data": [{"id": self._model, "object": "model", "owned_by": "daram"}]}
            return await self._plain(writer, Reply(body=json.dumps(listed)))
        if (method, path) not in (("POST", "/v1/chat/completions"), ("POST", "/v1/embeddings")):
            return await self._plain(writer, failure(404, f"no {method} {path} here"))
        try:
            request = json.loads(body)
        except ValueError:
            return await self._plain(writer, failure(400, "the body is not JSON"))
        self.requests.append(request)
        self.headers.append(headers)
        self._changed.set()
        if path == "/v1/embeddings":
            said = self._scripts.popleft() if self._scripts else embeddings
            said = said(request) if callable(said) else said
            return await self._plain(writer, Reply(text=said) if isinstance(said, str) else said)
        return await self._watched(self._answer(request, writer), reader)

    async def _watched(self, answer: Coroutine[Any, Any, bool], reader: asyncio.StreamReader) -> bool:
        """Answer, but stop when the client leaves."""
        answering = asyncio.create_task(answer)
        try:
            while not answering.done():
                # Reading would be quicker, but could take the first byte of the next request.
                await asyncio.wait({answering}, timeout=_WATCH)
                if not answering.done() and (reader.at_eof() or reader.exception() is not None):
                    self.left += 1
                    return False
            return answering.result()
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            self._changed.set()

    async def _plain(self, writer: asyncio.StreamWriter, reply: Reply) -> bool:
        body = (reply.body or "").encode()
        head = [f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, 'Scripted')}"]
        head += [f"Content-Type: {reply.content_type}", f"Content-Length: {len(body)}"]
        head += [f"{name}: {value}" for name, value in reply.headers.items()]
        writer.write("\r\n".join([*head, "", ""]).encode() + body)
        await writer.drain()
        return True

    # --- answers ------------------------------------------------------------------------------------------------------

    def _reply(self, request: dict[str, Any]) -> Reply:
        for field in self._refuse:
            if field in request:
                return failure(400, f"Unrecognized request argument supplied: {field}", code="unsupported_parameter")
        size = len(json.dumps(request.get("messages"), ensure_ascii=False).encode()) // 4
        if self._context_tokens is not None and size > self._context_tokens:
            return overflow("openai", self._context_tokens, size)
        if self._scripts:
            said = self._scripts.popleft()
        elif self._default is not None:
            said = self._default
        else:
            return magic(request, Reply(text=remembering(request)))
        if callable(said):
            said = said(request)
        return Reply(text=said) if isinstance(said, str) else said

    async def _answer(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        reply = self._reply(request)
        await asyncio.sleep(reply.before)
        if reply.stall:
            await asyncio.Event().wait()
        if reply.cut:
            return False
        if reply.body is not None or reply.status != 200:
            return await self._plain(writer, reply)
        if not request.get("stream"):
            return await self._plain(
                writer, msgspec.structs.replace(reply, body=json.dumps(self._whole(request, reply)))
            )
        head = ["HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Cache-Control: no-cache"]
        head += [f"{name}: {value}" for name, value in reply.headers.items()]
        writer.write("\r\n".join([*head, "Transfer-Encoding: chunked", "", ""]).encode())
        await writer.drain()
        delay = self._delay if reply.delay is None else reply.delay
        events = self._events(request, reply)
        faulty = reply.end in _FAULTS
        for number, (event, is_token) in enumerate(events):
            if faulty and reply.after is not None and number == reply.after + 1:  # the first event holds the role alone
                break
            if is_token:
                await asyncio.sleep(delay)
            await _send(writer, f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode())
        if faulty:
            return await self._strike(reply.end, writer)
        if reply.end == "done":
            await _send(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _strike(self, end: str, writer: asyncio.StreamWriter) -> bool:
        """What goes wrong after the tokens; the connection does not survive it."""
        if end == "stall":
            await asyncio.Event().wait()
        while end == "pings":
            await _send(writer, b": still here\n\n")
            await asyncio.sleep(_WATCH)
        if end == "garbage":
            await _send(writer, _GARBAGE)
        if end == "badjson":
            await _send(writer, b'data: {"choices": [{"delta": {"content": "ha\n\n')
        if end == "error":
            await _send(writer, b'data: {"error": {"message": "the engine died", "code": 500}}\n\n')
        return False

    def _events(self, request: dict[str, Any], reply: Reply) -> list[tuple[dict[str, Any], bool]]:
        """The chunks of a streamed answer, and whether each is a token."""
        named = {"id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 0, "model": self._model}

        def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
            return {**named, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

        events = [(chunk({"role": "assistant", "content": ""}), False)]
        events += [(chunk({"content": piece}), True) for piece in reply.pieces]
        for index, (name, arguments) in enumerate(reply.tool_calls):
            opening = {"index": index, "id": f"call_{index}", "type": "function"}
            opening["function"] = {"name": name, "arguments": ""}
            events.append((chunk({"tool_calls": [opening]}), True))
            for start in range(0, len(arguments), 7):
                fragment = {"index": index, "function": {"arguments": arguments[start : start + 7]}}
                events.append((chunk({"tool_calls": [fragment]}), True))
        if reply.end != "no-finish" and reply.end not in _FAULTS:
            events.append((chunk({}, "tool_calls" if reply.tool_calls else "stop"), False))
            if (request.get("stream_options") or {}).get("include_usage"):
                events.append(({**named, "choices": [], "usage": _usage(request, reply)}, False))
        return events

    def _whole(self, request: dict[str, Any], reply: Reply) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(reply.pieces)}
        if reply.tool_calls:
            message["tool_calls"] = [
                {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": arguments}}
                for index, (name, arguments) in enumerate(reply.tool_calls)
            ]
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if reply.tool_calls else "stop"}
        named = {"id": "chatcmpl-scripted", "object": "chat.completion", "created": 0, "model": self._model}
        return {**named, "choices": [choice], "usage": _usage(request, reply)}


def _usage(request: dict[str, Any], reply: Reply) -> dict[str, int]:
    given = len(json.dumps(request.get("messages"), ensure_ascii=False).encode()) // 4
    made = len(reply.pieces) + len(reply.tool_calls)
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    await writer.drain()


async def _serve(arguments: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    server = ScriptedModelServer(
        host=arguments.host,
        port=arguments.port,
        model=arguments.model,
        delay=arguments.delay,
        context_tokens=arguments.context_tokens,
        api_key=arguments.api_key,
        default=arguments.reply,
    )
    async with server:
        sys.stdout.write(f"{server.base_url}\n")
        sys.stdout.flush()
        await stopped.wait()


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m daram.testing.model_server", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 (the default): any free one")
    parser.add_argument("--model", default="scripted", help="the name that /v1/models lists")
    parser.add_argument("--delay", type=float, default=0.0, metavar="S", help="seconds before each token")
    parser.add_argument("--context-tokens", type=int, metavar="N", help="refuse longer requests")
    parser.add_argument("--api-key", metavar="KEY", help="refuse other keys")
    parser.add_argument("--reply", metavar="TEXT", help="answer every request with this (no magic words, no memory)")
    asyncio.run(_serve(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
