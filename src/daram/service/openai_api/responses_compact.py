"""``/v1/responses/compact``: a long past as what the user said and a summary of the rest, made by the model.

OpenAI's compaction item is opaque to its client, and so is this one: the summary in base64url, which only saves it from
being taken for something to show. Given back as input it stands in the prompt as a record of what was before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from django.http import HttpRequest, HttpResponse
from ninja import Router

from daram.chat.aside import aside
from daram.context.assemble import Budget
from daram.context.window import groups
from daram.errors import InvalidInput
from daram.llm.base import ChatModel
from daram.model import Message, system, user
from daram.service import runtime
from daram.service.accounts.auth import caller_of, require
from daram.service.openai_api import responses_turn as turns
from daram.service.openai_api import schemas
from daram.service.openai_api.idempotency import Draw, once
from daram.service.openai_api.items import items_of
from daram.service.openai_api.reply import reply
from daram.service.openai_api.responses_past import branch_of, past_of
from daram.service.openai_api.responses_request import CompactIn, CompactOut, choose_model
from daram.service.openai_api.responses_view import usage_object
from daram.service.openai_api.summaries import item_of_summary
from daram.text.tokens import TokenCounter

router = Router(tags=["responses"])
_WRITE: Final = require("write")
# How far back along its branch a response is looked through.
_FURTHEST: Final = 1000
_RULE: Final = (
    "Summarize the conversation that you are given, for somebody who is to go on with it: what was asked, decided, "
    "found out and promised, with names and numbers. Write plain sentences in the language of the conversation. "
    "Never answer it."
)


@router.post("/responses/compact", auth=_WRITE, response={200: CompactOut, **schemas.REFUSALS})
async def compact(request: HttpRequest, payload: CompactIn) -> HttpResponse:
    """Make the past of a response, or the given items, short enough to go on from."""
    house, owner = runtime.current(), caller_of(request).owner
    model = choose_model(house.models, house.model, payload.model)

    async def work(draw: Draw) -> HttpResponse:
        messages = await past_of(house, owner, payload, await branch_of(house, owner, payload), limit=_FURTHEST)
        if not messages:
            raise InvalidInput("input", "is missing")
        summary = await _summary(model, messages, payload.instructions, draw)
        kept = [item for message in messages if message.role == "user" for item in items_of(message)]
        usage = summary.usage or {}
        return reply(
            {
                "id": draw("cmpresp"),
                "object": "response.compaction",
                "created_at": int(time.time()),
                "output": [*kept, item_of_summary(draw("cmp"), summary.text)],
                "usage": usage_object(usage.get("input_tokens", 0), usage.get("output_tokens", 0)),
            }
        )

    # What stands in a response is not copied: a repetition reads it again, or finds it deleted.
    again = None if payload.previous_response_id is None else work
    return await once(house.memory, owner, request, work, again)


async def _summary(model: ChatModel, messages: Sequence[Message], instructions: str | None, draw: Draw) -> Message:
    rules = system(_RULE if not instructions else f"{_RULE}\n\n{instructions}")
    record = await asyncio.to_thread(_record, model, messages, rules)
    return await turns.whole(aside(model, [rules, record], runtime.current().chatbot.options, draw("msg")))


def _record(model: ChatModel, messages: Sequence[Message], rules: Message) -> Message:
    """The conversation as lines, without its beginning where the model could not take it all."""
    count = TokenCounter(model.count_tokens)
    room = Budget.of(model.context_tokens, exact=count.exact).prompt - count.messages([rules])
    lines: list[str] = []
    for group in reversed(groups(messages)):
        said = [_line(message) for message in group]
        room -= sum(count.text(line) + 1 for line in said)
        if lines and room < 0:
            break
        lines = [*said, *lines]
    return user("\n".join(lines))


def _line(message: Message) -> str:
    calls = [
        f"[calls {part.data.get('name')}: {part.data.get('arguments')}]"
        for part in message.parts
        if part.type == "tool_call"
    ]
    return f"{message.role}: {' '.join([message.text, *calls]).strip()}"
