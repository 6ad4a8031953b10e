"""Which collection a command of ``daram docs`` is about, and who asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click
import msgspec

if TYPE_CHECKING:
    from daram.knowledge.access import Reader
    from daram.store.documents import Scope

F = TypeVar("F", bound=Callable[..., object])
DEFAULT = "documents"


class Place(msgspec.Struct, frozen=True):
    """Which collection the flags name."""

    collection: str | None
    official: bool
    title_no: str | None
    group: str | None

    def check(self) -> None:
        """Raises ``click.UsageError``."""
        if self.title_no is not None and not self.official:
            raise click.UsageError("--title-no is the number of an official title; say --official too")
        if self.title_no is not None and self.collection is not None:
            raise click.UsageError("--title-no and --collection name two collections; say one of them")
        if self.official and self.group is not None:
            raise click.UsageError("a collection is official or a group's, not both")

    @property
    def named(self) -> bool:
        """Whether any flag was given."""
        return self.official or self.collection is not None or self.group is not None

    def scope(self, owner: str) -> Scope:
        """The collection, for this owner."""
        from daram.knowledge.access import GROUP, OFFICIAL
        from daram.knowledge.collections import official_title
        from daram.store.documents import Scope

        if self.title_no is not None:
            return official_title(self.title_no)
        whose = OFFICIAL if self.official else owner if self.group is None else GROUP + self.group
        return Scope(whose, self.collection or DEFAULT)

    def reader(self, owner: str) -> Reader:
        """Who asks: whoever can open the store may change what is official."""
        from daram.knowledge.access import Reader

        return Reader(owner, () if self.group is None else (self.group,), admin=True)


def place_flags(function: F) -> F:
    """The flags that name a collection."""
    for option in (
        click.option("--group", metavar="NAME", help="The collection belongs to this group."),
        click.option("--title-no", metavar="N", help="The official collection that is this title."),
        click.option("--official", is_flag=True, help="The collection is for everybody."),
        click.option("--collection", metavar="NAME", help=f'The collection, "{DEFAULT}" where none is named.'),
    ):
        function = option(function)
    return function
