"""What conversations are answered from: the part of ``Documents`` that binds them, and keeps reference texts."""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from daram.errors import NotFound
from daram.knowledge.access import Reader, reader
from daram.knowledge.bindings import Binding, Bindings, Title
from daram.knowledge.collections import Collections
from daram.knowledge.references import Reference, References
from daram.store.base import Store
from daram.store.documents import Scope

Where = str | Scope
"""A collection: by its id where it is the reader's own, else as ``Scope(owner, collection)``."""
GroupsOf = Callable[[str], Awaitable[Sequence[str]]]


class BoundDocuments(ABC):
    """See ``daram.knowledge.documents.Documents``."""

    groups: GroupsOf | None
    collections: Collections
    references: References
    bindings: Bindings
    _memory: Store

    @abstractmethod
    def _readable(self, who: Reader | str, where: Where) -> Scope:
        """The collection, where he may read it. Raises ``NotFound``."""

    # --- conversations ---

    async def bind(
        self,
        who: Reader | str,
        conversation: str,
        collections: Sequence[Where] = (),
        *,
        reference: tuple[str, str | int] | Reference | None = None,
        only: bool = True,
        three_ways: bool = False,
        create: bool = True,
    ) -> Binding:
        """Have a conversation answered from documents from now on, through whatever door it goes on.

        ``reference``: a (category, title_no), the reader's own or an official one. ``only``: where nothing there bears
        on a question, the answer says so and the model is not asked. What was uploaded into it stays in use. Nothing at
        all unbinds it. Raises ``NotFound`` for what is not there to the reader.
        """
        asked = reader(who)
        scopes = [self._readable(who, where) for where in collections]
        for scope in scopes:
            await self.collections.get(*scope)
        title = None
        if reference is not None:
            found = await self.reference(who, *reference) if isinstance(reference, tuple) else reference
            asked.check_read(found.owner, "title", f"{found.category}/{found.title_no}")
            title = Title(found.owner, found.category, found.title_no)
        try:
            there = await self._memory.get(asked.owner, conversation)
        except NotFound:
            if not create:
                raise
            there = await self._memory.create(asked.owner, id=conversation)
        binding = Binding(
            collections=tuple(scopes), reference=title, only=only, three_ways=three_ways, groups=asked.groups
        )
        return await self.bindings.change(
            there,
            lambda found: msgspec.structs.replace(binding, uploads=found is not None and found.uploads),
        )

    async def binding(self, who: Reader | str, conversation: str) -> Binding | None:
        """What a conversation of the reader's is bound to."""
        return await self.bindings.get(reader(who).owner, conversation)

    async def reader_of(self, owner: str, binding: Binding) -> Reader:
        """The owner of a conversation as he may read today."""
        groups = binding.groups if self.groups is None else await self.groups(owner)
        return Reader(owner, tuple(groups))

    # --- references ---

    async def reference(self, who: Reader | str, category: str, title_no: str | int) -> Reference:
        """The reference under (category, title_no): the reader's own, his groups', or the official one.

        Raises ``NotFound``, which names the title, or the category where there is none of it.
        """
        missing: builtins.list[NotFound] = []
        for owner in reader(who).owners():
            try:
                return await self.references.get(owner, category, title_no)
            except NotFound as error:
                missing.append(error)
        raise next((error for error in missing if error.what == "title"), missing[0])

    async def put_reference(
        self, who: Reader | str, category: str, title_no: str | int, title: str, text: str, *, owner: str | None = None
    ) -> Reference:
        """Store or correct a reference of the reader's own, or of another ``owner``; old chats read it at their next
        turn. Raises ``NotAllowed``, ``InvalidInput``."""
        asked = reader(who)
        owner = asked.owner if owner is None else owner
        asked.check_write(owner, "title", f"{category}/{title_no}")
        return await self.references.put(owner, category, title_no, title, text)

    async def remove_reference(
        self, who: Reader | str, category: str, title_no: str | int, *, owner: str | None = None
    ) -> None:
        """Delete a reference. Raises ``NotFound``, ``NotAllowed``."""
        asked = reader(who)
        owner = asked.owner if owner is None else owner
        asked.check_write(owner, "title", f"{category}/{title_no}")
        await self.references.delete(owner, category, title_no)
