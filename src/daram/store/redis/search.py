"""Search without an index: the newest messages of one conversation, looked through on this side."""

from __future__ import annotations

import builtins

from daram.errors import NotFound, Unsupported
from daram.model import Hit, Message
from daram.store.primitives import Ref
from daram.store.redis import values
from daram.store.redis.core import SEARCHED
from daram.store.redis.lists import RedisLists
from daram.text.analyzer import Query, index_terms, matches, parse_query

_CHUNK = 250


class RedisSearch(RedisLists):
    """The part of ``RedisStore`` that searches."""

    async def _search(
        self, owner: str, query: str, conversation: Ref | None, limit: int, any_word: bool
    ) -> builtins.list[Hit]:
        if conversation is None:
            raise Unsupported(
                "the Redis engine does not search all conversations of an owner; search in one (conversation=…), "
                "or keep conversations in SQLite or PostgreSQL"
            )
        try:
            title = values.to_conversation(await self._read("get", conversation, conversation.id)).title
        except NotFound:
            return []  # as every search where nothing is
        parsed = parse_query(query)
        if not parsed.words:
            return []
        found: builtins.list[tuple[Message, builtins.list[str]]] = []
        below = b"0"
        for _ in range(SEARCHED // _CHUNK):
            below, page = await self._read("recent", conversation, conversation.id, below, _CHUNK)
            found += [(m, index_terms(m.text).split()) for m in values.to_messages(page)]
            if below == b"0":
                break
        for all_words in (False,) if any_word else (True, False):
            hits = [(_score(parsed, terms), m) for m, terms in found if matches(parsed, terms, all_words=all_words)]
            if hits:
                hits.sort(key=lambda hit: (hit[0], hit[1].seq), reverse=True)
                return [Hit(message=m, conversation=conversation.id, title=title, score=s) for s, m in hits[:limit]]
        return []


def _score(parsed: Query, terms: builtins.list[str]) -> float:
    """How many words of the query the message has; among equals the shorter message comes first."""
    return sum(matches(Query((word,)), terms, all_words=False) for word in parsed.words) + 1 / (1 + len(terms))
