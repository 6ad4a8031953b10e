"""A synchronous face as a Store again, so that the tests of stores run through it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from daram.store.base import Store, SupportsRecords, SupportsTransfer
from daram.store.documents import SupportsDocuments
from daram.store.wrapper import StoreWrapper


class _OnThreads:
    """An object whose methods are coroutines that call those of ``face`` on a thread."""

    def __init__(self, face: object) -> None:
        self._face = face

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._face, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(method, *args, **kwargs)

        return call


class AsyncOverSync(StoreWrapper):
    """Each call is made on a thread of its own, as the code of a synchronous program would make it.

    ``face``: an object with the operations of ``Store`` and its capabilities as blocking methods (``daram.sync``).
    """

    def __init__(self, face: object) -> None:
        super().__init__(cast(Store, _OnThreads(face)))
        self.face = face

    def _records(self) -> SupportsRecords:
        return cast(SupportsRecords, self.inner)

    def _documents(self) -> SupportsDocuments:
        return cast(SupportsDocuments, self.inner)

    def _transfer(self) -> SupportsTransfer:
        return cast(SupportsTransfer, self.inner)
