"""What a response goes on from: the branch that it answers, as far as the model is to have it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Final, NamedTuple

from daram.chat.grounding import Grounding
from daram.chat.prompt import Prompter
from daram.codec import messages_cursor
from daram.context.assemble import SYSTEM, Budget
from daram.context.sources import Source
from daram.context.window import groups
from daram.errors import ConversationBusy, InvalidInput, NotFound
from daram.llm.base import ChatModel, Options
from daram.memory import Memory
from daram.model import Message, system
from daram.service.openai_api.errors import Worded
from daram.service.openai_api.idempotency import Draw
from daram.service.openai_api.items import message_of
from daram.service.openai_api.responses_request import CompactIn, Inputs, Json, conversation_of, inputs
from daram.service.openai_api.responses_view import Place, place_of
from daram.service.openai_api.summaries import message_of_summary
from daram.service.runtime import Runtime
from daram.text.tokens import TokenCounter

_PAGE: Final = 100
MOST: Final = 900
"""Messages of a prompt that leaves nothing out: a turn of the store reads at most 1,000."""


class Branch(NamedTuple):
    """A branch of a conversation: the one that ends with the message ``leaf``; None: the one in use."""

    conversation: str
    leaf: str | None


class PreviousNotFound(Worded):
    """A request names a response that is not there."""

    code = "previous_response_not_found"

    def __init__(self, id: str) -> None:
        super().__init__("previous_response_id", f"Previous response with id {id!r:.200} not found.")


class ContextTooLong(Worded):
    """What is to go to the model is longer than its context, and nothing may be left out."""

    code = "context_length_exceeded"

    def __init__(self, room: int) -> None:
        super().__init__(
            "input",
            "Your input exceeds the context window of this model. Please adjust your input and try again: with what "
            f"was said before it takes more than the {room:,} tokens that there is room for, and truncation is "
            "'disabled'; with 'auto' the oldest messages are left out.",
        )


async def branch_of(runtime: Runtime, owner: str, wanted: Inputs | CompactIn) -> Branch | None:
    """The branch that the request goes on from. Raises ``InvalidInput``, ``ConversationBusy``."""
    if isinstance(wanted, Inputs) and (named := conversation_of(wanted)) is not None:
        return Branch(named, None)
    if wanted.previous_response_id is None:
        return None
    place = await _answered(runtime, owner, wanted.previous_response_id)
    return Branch(place.conversation, place.answer)


async def _answered(runtime: Runtime, owner: str, id: str) -> Place:
    """Where a response is that has come to its end; one that is being made is waited for."""
    place = place_of(id)
    if place is not None:
        with suppress(NotFound):
            await runtime.memory.message(owner, *place)
            return place
        try:
            async with asyncio.timeout(runtime.settings.wait):
                async for _ in runtime.chatbot.resume(owner, *place):
                    pass
            return place
        except NotFound:
            pass
        except TimeoutError:
            raise ConversationBusy(place.answer) from None
    raise PreviousNotFound(id)


def read(items: Sequence[Json], draw: Draw, *, known: bool) -> list[Message]:
    """The messages of the input. References to items are left out where the context has those items anyway."""
    if known:
        items = [item for item in items if item.get("type") != "item_reference"]
    return [_message(item, f"input[{i}]", draw) for i, item in enumerate(items)]


def _message(item: Json, field: str, draw: Draw) -> Message:
    if item.get("type") == "compaction":
        return message_of_summary(item, str(item.get("id") or draw("cmp")), field)
    return message_of(item, field, draw)


async def past_of(
    runtime: Runtime, owner: str, wanted: Inputs | CompactIn, branch: Branch | None, *, limit: int
) -> list[Message]:
    """The last messages of the branch, at most ``limit``, and the messages of the input."""
    said = read(inputs(wanted.input), Draw(), known=branch is not None)
    past: list[Message] = []
    if branch is not None:
        async with aclosing(_backward(runtime.memory, owner, branch, limit)) as pages:
            async for page in pages:
                past += page
                if len(past) >= limit:
                    break
    return [*reversed(past[:limit]), *said]


class Prompt(NamedTuple):
    """What a model is asked: ``sources``: the passages of documents in it; ``asked``: the words of the question."""

    messages: list[Message]
    sources: list[Source] = []  # noqa: RUF012  # nobody adds to it
    asked: str = ""


async def context_of(
    runtime: Runtime,
    owner: str,
    wanted: Inputs,
    model: ChatModel,
    options: Options,
    *,
    fitted: bool,
    grounding: Grounding | None = None,
) -> Prompt:
    """The whole prompt of a request that is not to be stored, made as that of a turn that is.

    What endpoints refuse is left out: calls without results, results without calls. Unless it is ``fitted`` into the
    model's context, it is as long as it is. Raises ``ContextTooLong``, ``MessageTooLong``, ``InvalidInput``,
    ``NotFound``.
    """
    whole = wanted.truncation == "disabled"
    window = runtime.settings.window
    branch = await branch_of(runtime, owner, wanted)
    messages = await past_of(runtime, owner, wanted, branch, limit=MOST + 1 if whole else window)
    if not messages or (wanted.input in (None, []) and wanted.previous_response_id is None):
        raise InvalidInput("input", "is missing")
    rules = _rules(runtime, wanted.instructions)
    told = [message for group in groups(messages) for message in group]
    if fitted and (grounding is not None or not whole):
        if whole:
            await asyncio.to_thread(_check, model, options, [system(rules), *told])
        question = messages[-1]
        if question.role == "assistant":  # a beginning to be gone on with, but no calls that nothing answers
            if not told:
                raise InvalidInput("input", "holds nothing that could be answered")
            question = told[-1]
        if branch is None:  # nothing was left out that could be searched for
            window = len(messages) + 1
        prompter = Prompter(
            runtime.memory,
            model,
            system=rules,
            options=options,
            window=len(messages) + 1 if whole else window,
            whole=whole,
            grounding=grounding,
        )
        where = "" if branch is None else branch.conversation
        context = await prompter.build(owner, where, question, messages)
        return Prompt(context.messages, context.sources, question.text)
    found = [*([system(rules)] if rules else []), *told]
    if whole:
        await asyncio.to_thread(_check, model, options, found)
    return Prompt(found)


def _rules(runtime: Runtime, instructions: str | None) -> str:
    rules = runtime.settings.system if instructions is None else instructions
    return SYSTEM if rules is None else rules


async def whole_past(
    runtime: Runtime,
    owner: str,
    branch: Branch | None,
    said: Sequence[Message],
    model: ChatModel,
    *,
    instructions: str | None,
    options: Options,
) -> int:
    """How many messages stand in front of what is ``said``, where the model can be given them all.

    Raises ``ContextTooLong``, ``NotFound``.
    """
    found = [system(_rules(runtime, instructions)), *said]
    if branch is not None:
        async with aclosing(_backward(runtime.memory, owner, branch, _PAGE)) as pages:
            async for page in pages:
                found += page
                await asyncio.to_thread(_check, model, options, found)
    await asyncio.to_thread(_check, model, options, found)
    return len(found) - len(said) - 1


def _check(model: ChatModel, options: Options, messages: Sequence[Message]) -> None:
    count = TokenCounter(model.count_tokens)
    room = Budget.of(model.context_tokens, answer=options.max_tokens, exact=count.exact).prompt
    if len(messages) > MOST or count.messages(messages) > room:
        raise ContextTooLong(room)


async def _backward(memory: Memory, owner: str, branch: Branch, size: int) -> AsyncGenerator[list[Message], None]:
    """The messages of a branch, the last one first, in pages of at most ``size``. Raises ``NotFound``."""
    cursor = None
    if branch.leaf is not None:
        leaf = await memory.message(owner, branch.conversation, branch.leaf)
        yield [leaf]
        cursor = messages_cursor(owner, branch.conversation, "desc", leaf.seq, leaf.seq)
    while True:
        page = await memory.messages(owner, branch.conversation, limit=min(size, _PAGE), cursor=cursor, order="desc")
        yield list(page.items)
        cursor = page.next_cursor
        if cursor is None:
            return
