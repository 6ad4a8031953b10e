"""A Store that fails by script: to see what is built on a store survive what stores do."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Awaitable, Callable
from typing import Any, Literal, cast

import msgspec

from daram.errors import OutcomeUnknown, StoreUnavailable
from daram.store.base import Store, SupportsRecords, SupportsTransfer
from daram.store.documents import SupportsDocuments
from daram.store.wrapper import StoreWrapper

Kind = Literal["raise", "act then raise", "hang", "act then hang", "delay"]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to a call.

    ``raise``: it fails and nothing was done; ``act then raise``: it was done, but the caller is told otherwise (an
    outcome unknown); ``hang``: it never returns (until cancelled), nothing was done; ``act then hang``: done, but it
    never returns; ``delay``: it comes ``seconds`` late. ``error`` is raised by the first two (default:
    ``StoreUnavailable`` and ``OutcomeUnknown``).
    """

    kind: Kind
    error: Callable[[], BaseException] | None = None
    seconds: float = 0.0


class FaultyStore(StoreWrapper):
    """``inner``, but calls fail as planned.

    ::

        store = FaultyStore(inner)
        store.plan("append", None, Fault(kind="act then raise"))   # the first append works, the second's answer is lost
        store.always("checkpoint", Fault(kind="hang"))

    ``calls`` holds the name of every operation that was called, in order; ``real`` is the store without faults.
    """

    def __init__(self, inner: Store) -> None:
        self.calls: builtins.list[str] = []
        self.real = inner
        self._plans: dict[str, builtins.list[Fault | None]] = {}
        self._always: dict[str, Fault] = {}
        super().__init__(cast(Store, _Interceptor(inner, self._call)))

    def plan(self, operation: str, *faults: Fault | None) -> None:
        """The next calls of ``operation`` get these faults, one each (None: this one works), then it works again."""
        self._check(operation)
        self._plans.setdefault(operation, []).extend(faults)

    def always(self, operation: str, fault: Fault) -> None:
        """Every call of ``operation`` that nothing else is planned for gets this fault, until ``heal``."""
        self._check(operation)
        self._always[operation] = fault

    def heal(self) -> None:
        """No more faults."""
        self._plans.clear()
        self._always.clear()

    @property
    def pending(self) -> dict[str, int]:
        """How many planned faults have not happened yet, by operation: a test checks that there are none."""
        return {name: len(faults) for name, faults in self._plans.items() if faults}

    def _check(self, operation: str) -> None:
        if operation.startswith("_") or not callable(getattr(StoreWrapper, operation, None)):
            raise ValueError(f"a store has no operation {operation!r}")

    async def _call(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        self.calls.append(name)
        planned = self._plans.get(name)
        fault = planned.pop(0) if planned else self._always.get(name)
        if fault is None:
            return await call()
        if fault.kind == "delay":
            await asyncio.sleep(fault.seconds)
            return await call()
        if fault.kind in ("act then raise", "act then hang"):
            await call()
        if fault.kind in ("hang", "act then hang"):
            await asyncio.Event().wait()
        if fault.error is not None:
            raise fault.error()
        if fault.kind == "act then raise":
            raise OutcomeUnknown("a planned fault: it was done, but its answer was lost")
        raise StoreUnavailable("a planned fault: nothing was done")

    def _records(self) -> SupportsRecords:
        StoreWrapper(self.real)._records()  # refuses where there are none
        return cast(SupportsRecords, self.inner)

    def _documents(self) -> SupportsDocuments:
        StoreWrapper(self.real)._documents()  # refuses where there are none
        return cast(SupportsDocuments, self.inner)

    def _transfer(self) -> SupportsTransfer:
        if not isinstance(self.real, SupportsTransfer):
            return super()._transfer()
        return cast(SupportsTransfer, self.inner)


class _Interceptor:
    """A store whose operations go through ``call``."""

    def __init__(self, inner: Store, call: Callable[[str, Callable[[], Awaitable[Any]]], Awaitable[Any]]) -> None:
        self._inner = inner
        self._call = call

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._inner, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._call(name, lambda: method(*args, **kwargs))

        return call
