"""A store in whose writes a process ends."""

from __future__ import annotations

from typing import Any

from daram.store.wrapper import StoreWrapper


class Dying(StoreWrapper):
    """Ends behind the write that comes after ``lives`` others, as a process that is killed there."""

    lives = 0

    async def _live(self, found: Any) -> Any:
        if not self.lives:
            raise ConnectionAbortedError("the process is gone")
        self.lives -= 1
        return found

    async def append(self, *args: Any, **kwargs: Any) -> Any:
        return await self._live(await super().append(*args, **kwargs))

    async def load(self, *args: Any, **kwargs: Any) -> Any:
        return await self._live(await super().load(*args, **kwargs))

    async def put_record(self, *args: Any, **kwargs: Any) -> Any:
        return await self._live(await super().put_record(*args, **kwargs))

    async def delete_record(self, *args: Any, **kwargs: Any) -> Any:
        return await self._live(await super().delete_record(*args, **kwargs))

    async def delete_message(self, *args: Any, **kwargs: Any) -> Any:
        return await self._live(await super().delete_message(*args, **kwargs))

    async def delete(self, *args: Any, **kwargs: Any) -> Any:
        return await self._live(await super().delete(*args, **kwargs))
