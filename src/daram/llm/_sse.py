"""Server-sent events (the WHATWG HTML standard, section 9.2), as far as streamed completions use them."""

from __future__ import annotations

import codecs
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

MAX_LINE = 8 << 20
"""Characters. A line that is longer is no event of a language model, and must not fill the memory."""

_FIELDS = frozenset({"data", "event", "id", "retry"})


class NotEventsError(ValueError):
    """What came is not a stream of events; the text shows its beginning."""


async def events(stream: AsyncIterator[bytes]) -> AsyncGenerator[str | None]:
    """The ``data`` of each event, and None for each comment (a sign of life). Raises ``NotEventsError``.

    An event that the end of the stream cuts off is given too: the last line of some servers has no blank one after it.
    """
    data: list[str] = []
    async with aclosing(_lines(stream)) as lines:
        async for line in lines:
            field, _, value = line.partition(":")
            if not line:
                if data:
                    yield "\n".join(data)
                    data = []
            elif not field:
                yield None
            elif field not in _FIELDS:
                raise NotEventsError(line[:200])
            elif field == "data":
                data.append(value.removeprefix(" "))
    if data:
        yield "\n".join(data)


async def _lines(stream: AsyncIterator[bytes]) -> AsyncGenerator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    rest = ""
    async for chunk in stream:
        try:
            rest += decoder.decode(chunk)
        except UnicodeDecodeError as error:
            raise NotEventsError(repr(chunk[:60])) from error
        # A "\r" at the end may be half of "\r\n", so it waits for what follows.
        held = "\r" if rest.endswith("\r") else ""
        *whole, rest = rest.removesuffix(held).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        rest += held
        if len(rest) > MAX_LINE:
            raise NotEventsError(rest[:200])
        for line in whole:
            yield line
    if rest:
        yield rest.rstrip("\r")
