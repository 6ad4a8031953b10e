"""The documents as the operations of both APIs know them: who asks, and what a collection is called from outside."""

from __future__ import annotations

from django.http import HttpRequest

from daram.errors import NotFound, Unsupported
from daram.knowledge.access import GROUP, OFFICIAL, Reader
from daram.knowledge.base import NO_DOCUMENTS
from daram.knowledge.collections import Collection
from daram.knowledge.documents import Documents
from daram.service import runtime
from daram.service.accounts.auth import Caller, caller_of, groups_of
from daram.store.documents import Scope

_OFFICIAL = f"{OFFICIAL}:"


def documents_here() -> Documents:
    """The documents of this server. Raises ``Unsupported`` where its store keeps none."""
    documents = runtime.current().documents
    if documents is None:
        raise Unsupported(NO_DOCUMENTS)
    return documents


async def reader_of(caller: Caller) -> Reader:
    """The caller with the groups that they have now; whose key or login may administrate changes what is official."""
    return Reader(caller.owner, tuple(await groups_of(caller.owner)), "admin" in caller.scopes)


async def library_of(request: HttpRequest) -> tuple[Documents, Reader]:
    """The documents, and who asks for them. Raises ``Unsupported``."""
    return documents_here(), await reader_of(caller_of(request))


def public_id(owner: str, scope: Scope) -> str:
    """What a collection is called towards a user: its id, with what it is shared by in front (``official:ID``,
    ``group:NAME:ID``)."""
    return scope.collection if scope.owner == owner else f"{scope.owner}:{scope.collection}"


def scope_of(who: Reader, id: str, what: str = "collection") -> Scope:
    """The collection that is called so. Raises ``NotFound`` for one of a group that is not the caller's."""
    if id.startswith(_OFFICIAL):
        return Scope(OFFICIAL, id.removeprefix(_OFFICIAL))
    if id.startswith(GROUP):
        # The longest name first: a name may hold a colon.
        for name in sorted(who.groups, key=len, reverse=True):
            if id.startswith(f"{GROUP}{name}:"):
                return Scope(GROUP + name, id.removeprefix(f"{GROUP}{name}:"))
        raise NotFound(what, id)
    return Scope(who.owner, id)


async def find_collection(
    documents: Documents, who: Reader, id: str, *, what: str = "collection", write: bool = False
) -> Collection:
    """The collection that is called so. Raises ``NotFound``, and to ``write`` into what is official ``NotAllowed``."""
    scope = scope_of(who, id, what)
    found = await documents.collections.find(*scope)
    if found is None:
        raise NotFound(what, id)
    if write:
        who.check_write(scope.owner, what, id)
    return found
