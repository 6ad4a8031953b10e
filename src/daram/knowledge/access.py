"""Who may read and change a collection: its owner's name says it.

A collection belongs to a user (and is private), to a group (``group:editors``, whose members read and change it), or
is ``official``: all may read it, administrators change it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from daram.errors import InvalidInput, NotAllowed, NotFound

OFFICIAL: Final = "official"
GROUP: Final = "group:"
_RESERVED: Final = (GROUP, "daram:")


class Reader(msgspec.Struct, frozen=True):
    """Who asks: a user with the names of his groups; ``admin``: may change what is official.

    Raises ``InvalidInput`` for an owner's name that would be no user's.
    """

    owner: str
    groups: tuple[str, ...] = ()
    admin: bool = False

    def __post_init__(self) -> None:
        if self.owner == OFFICIAL or self.owner.startswith(_RESERVED):
            raise InvalidInput("owner", f"{self.owner!r} stands for what is shared; no user can be called that")

    def may_read(self, owner: str) -> bool:
        """Whether the collections of that owner are his to read."""
        return owner in (self.owner, OFFICIAL) or (owner.startswith(GROUP) and owner[len(GROUP) :] in self.groups)

    def may_write(self, owner: str) -> bool:
        """Whether the collections of that owner are his to change."""
        return self.admin if owner == OFFICIAL else self.may_read(owner)

    def owners(self) -> list[str]:
        """All whose collections he may read: his own, those of his groups, the official ones."""
        return [self.owner, *(GROUP + name for name in self.groups), OFFICIAL]

    def check_read(self, owner: str, what: str, id: str) -> None:
        """Raise ``NotFound`` unless he may read it: what is not his behaves as what is not there."""
        if not self.may_read(owner):
            raise NotFound(what, id)

    def check_write(self, owner: str, what: str, id: str) -> None:
        """Raise ``NotFound`` where he may not read it, ``NotAllowed`` where he may do only that."""
        self.check_read(owner, what, id)
        if not self.may_write(owner):
            raise NotAllowed(f"{what} {id!r} is official: only administrators change it")


def reader(who: Reader | str) -> Reader:
    """The reader; a bare name is a user without groups."""
    return Reader(who) if isinstance(who, str) else who
