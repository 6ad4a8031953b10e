"""What the model is asked: the context of one turn, from what begin_turn read and, in long conversations, a search."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from daram.context.assemble import SYSTEM, Budget, Context, assemble, check_fits, shrink
from daram.context.recall import choose_notes
from daram.errors import ContextOverflow, DaramError
from daram.llm.base import ChatModel, Options
from daram.model import Message
from daram.store.base import Store
from daram.text.tokens import TokenCounter

log = logging.getLogger(__name__)

# Best first; answers are among them, notes are made of what the user said.
_HITS = 40
_QUERY_CHARS = 900


class Prompter:
    """Builds contexts for one model. ``system``: the system prompt (None: the default one, "": none); ``whole``: all of
    the ``window`` goes to the model as it is, or nothing.

    In threads: a local model's tokenizer takes about a millisecond for a text, and there are many texts in a context.
    """

    def __init__(
        self,
        memory: Store,
        model: ChatModel,
        *,
        system: str | None,
        options: Options,
        window: int,
        whole: bool = False,
    ) -> None:
        self._memory = memory
        self._model = model
        self._system = SYSTEM if system is None else system
        self._options = options
        self._window = window
        self._whole = whole

    async def check(self, question: Message) -> None:
        """Raise ``MessageTooLong`` where the question alone does not fit; nothing is read or stored."""
        await asyncio.to_thread(self._check, question)

    async def build(self, owner: str, conversation: str, question: Message, tail: Sequence[Message]) -> Context:
        """The context of an answer to ``question``; ``tail``: the recent messages of its branch, from begin_turn.

        Raises ``MessageTooLong`` where a model took the place of a larger one; ``ContextOverflow``, if all was to go to
        the model, where the branch has grown meanwhile.
        """
        place = next((i for i, message in enumerate(tail) if message.id == question.id), len(tail))
        recent = tail[:place]
        if self._whole:
            return await asyncio.to_thread(self._assemble_whole, question, recent, len(tail))
        found: list[Message] = []
        if len(tail) >= self._window and question.role == "user":
            found = await self._search(owner, conversation, question.text)
        return await asyncio.to_thread(self._assemble, question, recent, found)

    async def halve(self, context: Context) -> Context | None:
        """The context at half its size, after the model said that it is too long; None if nothing can be left out."""
        if self._whole:
            return None
        return await asyncio.to_thread(lambda: shrink(context, TokenCounter(self._model.count_tokens)))

    async def count(self, text: str) -> int | None:
        """The tokens of a text if the model can tell."""
        return await asyncio.to_thread(self._model.count_tokens, text)

    def _check(self, question: Message) -> None:
        count, budget = self._measure()
        check_fits(question, system=self._system, budget=budget, count=count)

    def _assemble(self, question: Message, recent: Sequence[Message], found: Sequence[Message]) -> Context:
        notes = choose_notes(question, _one_wording([*found, *recent], [*recent, question]))
        count, budget = self._measure()
        return assemble(
            question=question,
            tail=recent,
            budget=budget,
            count=count,
            system=self._system,
            notes=notes,
            prefers_notes=self._model.prefers_notes,
        )

    def _assemble_whole(self, question: Message, recent: Sequence[Message], read: int) -> Context:
        count, budget = self._measure()
        context = assemble(question=question, tail=recent, budget=budget, count=count, system=self._system)
        if context.dropped or read >= self._window:
            raise ContextOverflow("not all of the conversation fits the model's context, and nothing may be left out")
        return context

    def _measure(self) -> tuple[TokenCounter, Budget]:
        # Anew each time: a local model can count, and knows the length of its context, only once it is loaded.
        count = TokenCounter(self._model.count_tokens)
        budget = Budget.of(self._model.context_tokens, answer=self._options.max_tokens, exact=count.exact)
        return count, budget

    async def _search(self, owner: str, conversation: str, text: str) -> list[Message]:
        text = text.strip()[:_QUERY_CHARS]
        if not text:
            return []
        try:
            hits = await self._memory.search(owner, text, conversation=conversation, limit=_HITS, any_word=True)
        except DaramError as error:  # a poorer answer is better than none
            log.warning("the search for notes failed, the turn goes on without: %s", error)
            return []
        return [hit.message for hit in hits]


def _one_wording(candidates: Iterable[Message], branch: Sequence[Message]) -> list[Message]:
    """Without the earlier wordings of an edited message, which a search finds too: siblings share their parent.

    Of siblings the one on the branch stands, else the latest.
    """
    places: dict[str | None, Message] = {}
    for message in sorted(candidates, key=lambda message: message.seq):
        places[message.parent] = message
    places.update({message.parent: message for message in branch})
    return list(places.values())
