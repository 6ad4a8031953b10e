"""Documents on the page: files dropped into a conversation, collections to answer from, citations that open."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from daram.context.sources import cited
from daram.errors import Conflict, NotFound, Unsupported
from daram.knowledge.access import GROUP, OFFICIAL, Reader
from daram.knowledge.base import NO_DOCUMENTS
from daram.knowledge.collections import Collection, of_conversation
from daram.knowledge.documents import Documents
from daram.model import Message
from daram.store.base import Store
from daram.store.documents import Document, Scope
from daram.ui.strings import Words, plain

if TYPE_CHECKING:
    from chainlit.element import ElementDict

ROOT: Final = "/chat"
"""Where the page is."""
CHOICE: Final = "documents"
"""The setting of the page that says which collections a conversation is answered from."""
_LONGEST: Final = 20_000  # characters of a passage that is opened
_NAMED: Final = 20  # files of a conversation that are named


class Library:
    """What the page does with documents, for whoever is logged in. ``documents``: None where the store keeps none."""

    def __init__(self, memory: Store, documents: Documents | None) -> None:
        self._memory = memory
        self.documents = documents

    async def reader(self, owner: str) -> Reader:
        """The owner with the groups of today."""
        groups = self.documents.groups if self.documents is not None else None
        return Reader(owner, tuple(await groups(owner)) if groups is not None else ())

    async def take(self, owner: str, conversation: str, files: Sequence[Mapping[str, Any]]) -> list[Document]:
        """Take files of Chainlit's (``path``, ``name``, ``type``) into a conversation, begun where there is none.

        A conversation that begins with files is answered from them alone; one that goes on may know other things.
        Raises what ``Documents.attach`` does, and ``Unsupported``.
        """
        documents = self._kept()
        try:
            await self._memory.create(owner, id=conversation)
            new = True
        except Conflict:
            new = False
        who = await self.reader(owner)
        taken = []
        for file in files:
            path = Path(file["path"])
            attached = await documents.attach(
                who, conversation, path, name=file["name"], media_type=file["type"], only=new
            )
            await asyncio.to_thread(path.unlink, missing_ok=True)
            taken.append(attached)
        return taken

    async def files(self, owner: str, conversation: str) -> list[str]:
        """The names of what was uploaded into a conversation and could be read, or still may, the newest first."""
        bound = None if self.documents is None else await self.documents.binding(owner, conversation)
        if self.documents is None or bound is None or not bound.uploads:
            return []
        found = await self.documents.list(owner, of_conversation(conversation), limit=_NAMED)
        return [document.name for document in found.items if document.state != "failed"]

    # --- collections to answer from ---

    async def choices(self, owner: str, conversation: str, words: Words) -> list[dict[str, Any]]:
        """The page's settings for a conversation, as Chainlit shows them; none where there is nothing to choose."""
        if self.documents is None:
            return []
        who = await self.reader(owner)
        collections = await self.documents.list_collections(who)
        if not collections:
            return []
        bound = await self.documents.binding(who, conversation)
        names = {OFFICIAL: words.official}
        items = []
        for one in collections:
            whose = names.get(one.owner) or (one.owner.removeprefix(GROUP) if one.owner.startswith(GROUP) else "")
            label = f"{one.name} ({whose})" if whose else one.name
            items.append({"label": label, "value": _value(Scope(one.owner, one.id))})
        chosen = [] if bound is None else [_value(scope) for scope in bound.collections]
        return [
            {
                "type": "multiselect",
                "id": CHOICE,
                "label": words.answer_from,
                "description": words.answer_from_about,
                "initial": chosen,
                "items": items,
            }
        ]

    async def choose(self, owner: str, conversation: str, values: Sequence[str]) -> None:
        """Have a conversation, begun where there is none, answered from these collections."""
        documents = self._kept()
        who = await self.reader(owner)
        readable = {_value(scope): scope for scope in map(_scope, await documents.list_collections(who))}
        scopes = [readable[value] for value in values if value in readable]
        await documents.bind(who, conversation, scopes)

    # --- citations ---

    async def passage(self, owner: str, conversation: str, message_id: str, number: int, words: Words) -> str:
        """What a citation opens, as Markdown: where it stands, and its words. Raises ``NotFound``."""
        message = await self._memory.message(owner, conversation, message_id)
        found = next((data for data in cited(message) if data["n"] == number), None)
        if found is None:
            raise NotFound("citation", str(number))
        quoted = str(found.get("quote", ""))
        now = await self._now(owner, found)
        remark = "" if now is not None else f"\n\n*{words.changed_since}*"
        lines = (now or quoted)[:_LONGEST].split("\n")
        text = "\n\n".join(plain(line) for line in lines if line.strip())
        return f"**{plain(words.place(found))}**{remark}\n\n{text}"

    async def _now(self, owner: str, found: Mapping[str, Any]) -> str | None:
        """What was cited as it stands today: of a reference that was given whole all of it, else the words that were
        cited. None where they are not there any more, or not for this reader."""
        if self.documents is None:
            return None
        who = await self.reader(owner)
        where, quoted = str(found["collection_owner"]), str(found.get("quote", ""))
        try:
            if found["kind"] == "document":
                document = await self.documents.get(who, Scope(where, found["collection"]), found["document"])
                return quoted if document.revision == found.get("revision") else None
            who.check_read(where, "title", f"{found['category']}/{found['title_no']}")
            reference = await self.documents.references.get(where, found["category"], found["title_no"])
            _, text = await self.documents.references.text(reference)
        except NotFound:
            return None
        if " ".join(quoted.split()) not in " ".join(text.split()):
            return None
        return quoted if "seq" in found else text

    def _kept(self) -> Documents:
        if self.documents is None:
            raise Unsupported(NO_DOCUMENTS)
        return self.documents


def elements(conversation: str, message: Message) -> list[ElementDict]:
    """The citations of an answer as what Chainlit opens beside the page: it makes links of their names in the text."""
    at = f"{ROOT}/citation/{quote(conversation, safe='')}/{quote(message.id, safe='')}"
    return [
        {
            "id": f"{message.id}-{data['n']}",
            "threadId": conversation,
            "type": "text",
            "name": f"[{data['n']}]",
            "display": "side",
            "url": f"{at}/{data['n']}",
            "forId": message.id,
            "mime": "text/markdown",
        }
        for data in cited(message)
    ]


def _scope(collection: Collection) -> Scope:
    return Scope(collection.owner, collection.id)


def _value(scope: Scope) -> str:
    return f"{scope.owner}/{scope.collection}"
