"""``daram import --from …``: what other libraries keep."""

from __future__ import annotations

from daram.config import open_memory
from daram.settings import Settings
from daram.transfer.chathistory import chat_history
from daram.transfer.foreign import Added, add
from daram.transfer.langchain import community_redis, langchain_redis, langchain_sql


async def bring_in(
    settings: Settings,
    kind: str,
    source: str,
    *,
    owner: str,
    session_is_owner: bool,
    prefix: str | None,
    table: str | None,
) -> Added:
    """Append what is not there yet; see ``daram.transfer.foreign.add``."""
    if kind == "langchain-redis":
        found = langchain_redis(source, prefix)
    elif kind == "langchain-community-redis":
        found = community_redis(source, prefix)
    elif kind == "langchain-sql":
        found = langchain_sql(source, table)
    else:
        found = chat_history(source, prefix)
    async with await open_memory(settings) as memory:
        return await add(memory, found, owner=owner, session_is_owner=session_is_owner)
