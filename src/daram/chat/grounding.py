"""What a turn is given of documents: the passages that bear on its question, or that there are none."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from daram.context.recall import asks
from daram.context.sources import Source
from daram.errors import DaramError
from daram.knowledge.bindings import Binding, Title
from daram.knowledge.collections import of_conversation
from daram.knowledge.documents import Documents
from daram.knowledge.filters import compiled
from daram.knowledge.fuse import Found
from daram.knowledge.retrieve import Retrieval
from daram.knowledge.rewrite import queries
from daram.llm.base import ChatModel
from daram.model import Message
from daram.store.documents import Attribute, Scope

log = logging.getLogger(__name__)

NOT_SAID: Final = {"en": "The documents do not say anything about that.", "ko": "문서에는 그에 대한 내용이 없습니다."}
"""The answer where nothing in the documents bears on a question. The model is not asked: it would make one up."""
NOTHING_RULE: Final = (
    "Nothing in the documents of this conversation bears on the user's message. "
    "Where it asks what the documents say, answer that they do not say."
)

_HANGUL: Final = re.compile("[가-힣ㄱ-ㅎㅏ-ㅣ]")
_PATIENCE: Final = 30.0  # for what was uploaded a moment ago
_LEAST_OF_THRESHOLD: Final = 0.5
_ASTRAY: Final = 1_000  # characters


class Ground(msgspec.Struct, frozen=True):
    """What a turn stands on: ``sources`` to quote; ``instead``: an answer in place of the model's; ``rule``: what the
    model is told beside."""

    sources: list[Source] = []
    instead: str | None = None
    rule: str | None = None


class Grounding:
    """Finds the ground of turns. ``binding``: for this turn, in place of what the conversation is bound to."""

    def __init__(self, documents: Documents, model: ChatModel, binding: Binding | None = None) -> None:
        self.documents = documents
        self._model = model
        self._binding = binding

    def chosen(self, model: ChatModel, binding: Binding | None) -> Grounding:
        """The same for another model, or other documents."""
        return Grounding(self.documents, model, binding or self._binding)

    async def find(
        self,
        owner: str,
        conversation: str,
        question: Message,
        earlier: Sequence[Message],
        fits: Callable[[Source], bool],
    ) -> Ground:
        """The ground of an answer; nothing for a conversation without documents. ``fits``: whether a text can be given
        whole. Raises ``NotFound`` for a collection, a category or a title that is not there any more."""
        documents = self.documents
        binding = self._binding or await documents.bindings.get(owner, conversation)
        if binding is None:
            return Ground()
        asked = await documents.reader_of(owner, binding)
        scopes = list(binding.collections)
        for scope in scopes:
            asked.check_read(scope.owner, "collection", scope.collection)
        if binding.uploads:
            scopes.append(await self._uploads(Scope(owner, of_conversation(conversation))))
        sources: list[Source] = []
        titles: dict[Scope, _Whole] = {}
        if (title := binding.reference) is not None:
            asked.check_read(title.owner, "title", f"{title.category}/{title.title_no}")
            reference = await documents.references.get(title.owner, title.category, title.title_no)
            reference, text = await documents.references.text(reference)
            whole = Source(text=text, label=reference.title, data=_of_title(title, reference.title, len(text)))
            if fits(whole):
                sources.append(whole)
            else:
                scopes.append(await documents.references.readable(reference))
                titles[reference.scope] = _Whole(title, text)
        if not scopes or not question.text.strip():
            return Ground(sources)
        how = _narrowed(documents.retrieval, binding)
        # A small model rewrites badly and slowly; words do as well for it.
        model = None if self._model.prefers_notes else self._model
        three_ways = binding.three_ways or how.three_ways
        wordings = await queries(question.text, earlier, model, three_ways=three_ways)
        passes = None if binding.filters is None else compiled(binding.filters)
        result = await documents.retriever.search(scopes, wordings, how, passes=passes)
        if result.answers:
            least = how.threshold * _LEAST_OF_THRESHOLD
            good = [passage for passage in result.passages if passage.score >= least]
            # A turn with documents of its own (a tool's) is shown what is said of each.
            said = {} if self._binding is None else await documents.said_of(good)
            found = (_source(one, titles, said.get((one.scope, one.document), {})) for one in good)
            return Ground([*sources, *found])
        if sources:
            return Ground(sources)
        for scope in binding.collections:  # one that was deleted does not say nothing: it is missing
            await documents.collections.get(*scope)
        if binding.only and asks(question.text):
            return Ground(instead=NOT_SAID["ko" if _HANGUL.search(question.text) else "en"])
        return Ground(rule=NOTHING_RULE)

    async def _uploads(self, scope: Scope) -> Scope:
        """What was uploaded, once it is read: people ask about a file the moment they dropped it."""
        try:
            async with asyncio.timeout(_PATIENCE):
                page = await self.documents.list(scope.owner, scope)
                for document in page.items:
                    if document.state in ("waiting", "reading"):
                        await self.documents.wait(document)
        except (TimeoutError, DaramError) as error:
            log.info("not all that was uploaded is read yet: %s", error)
        return scope


def _narrowed(how: Retrieval, binding: Binding) -> Retrieval:
    given = {name: getattr(binding, name) for name in ("passages", "threshold", "words", "vectors", "rerank")}
    changed = {name: value for name, value in given.items() if value is not None}
    if binding.passages is not None:
        changed["candidates"] = max(how.candidates, binding.passages)
    return msgspec.structs.replace(how, **changed)


class _Whole(msgspec.Struct, frozen=True):
    """A reference that is searched, and its text."""

    title: Title
    text: str

    def place(self, found: Found) -> tuple[int, int]:
        """Where a passage stands in the text: its loader counts with blank lines of its own between the sections."""
        start = self.text.find(found.text, max(0, found.start - _ASTRAY))
        start = self.text.find(found.text) if start < 0 else start
        return (found.start, found.end) if start < 0 else (start, start + len(found.text))


def _source(found: Found, titles: dict[Scope, _Whole], attributes: dict[str, Attribute]) -> Source:
    whole = titles.get(found.scope)
    start, end = (found.start, found.end) if whole is None else whole.place(found)
    place: dict[str, Any] = {
        "start": start,
        "end": end,
        "seq": found.first,
        "last_seq": found.last,
        "revision": found.revision,
        "page": found.page,
        "heading": list(found.heading),
        "score": round(found.score, 4),
    }
    if whole is not None:
        data = _of_title(whole.title, found.title or found.name, 0) | place
    else:
        data = {
            "kind": "document",
            "collection": found.scope.collection,
            "collection_owner": found.scope.owner,
            "document": found.document,
            "name": found.name,
            "title": found.title,
            **place,
        }
        if attributes:
            data["attributes"] = attributes
    words = [found.title or found.name, *found.heading]
    label = " > ".join(words) + (f", page {found.page}" if found.page is not None else "")
    return Source(text=found.text, label=label, data=data)


def _of_title(title: Title, name: str, length: int) -> dict[str, Any]:
    return {
        "kind": "reference",
        "collection_owner": title.owner,
        "category": title.category,
        "title_no": title.title_no,
        "title": name,
        "start": 0,
        "end": length,
    }
