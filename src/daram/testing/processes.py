"""Stores in processes of their own: what several programs on one store do to each other."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import runpy
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec

from daram.errors import DaramError
from daram.store.base import Store
from daram.testing.over_sync import AsyncOverSync

_START_SECONDS = 120.0


class _Failure(msgspec.Struct):
    """An error on its way between processes; its class need not be one that pickle can make again."""

    kind: type[BaseException]
    args: tuple[Any, ...]
    fields: dict[str, Any]

    def error(self) -> BaseException:
        made = self.kind.__new__(self.kind)
        made.args = self.args
        vars(made).update(self.fields)
        return made


def _serve(pipe: Connection) -> None:
    """The life of the other process: open stores and call them, one call at a time."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the parent, which then closes the pipe
    stores: list[Store] = []

    async def answer(number: int | None, name: str | Callable[..., Store], args: Any, kwargs: Any) -> Any:
        if callable(name):
            stores.append(name(*args, **kwargs))
            return len(stores) - 1
        assert number is not None
        return await getattr(stores[number], name)(*args, **kwargs)

    with asyncio.Runner() as runner:
        while True:
            try:
                question = pipe.recv()
            except EOFError:
                return
            try:
                found: Any = runner.run(answer(*question))
            except DaramError as error:
                found = _Failure(type(error), error.args, vars(error))
            except Exception as error:  # noqa: BLE001  # whatever it was, whoever asked is to hear of it
                found = _Failure(RuntimeError, (f"{type(error).__name__}: {error}",), {})
            pipe.send(found)


def _from_file(file: str, name: str, *args: Any, **kwargs: Any) -> Store:
    """Call a function of a file that need not be a module that can be imported."""
    store: Store = runpy.run_path(file)[name](*args, **kwargs)
    return store


class _Remote:
    """The blocking face of one store in the other process."""

    def __init__(self, process: StoreProcess, number: int) -> None:
        self._process = process
        self._number = number

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: self._process._ask(self._number, name, args, kwargs)


class StoreProcess:
    """A process that opens stores and makes one call at a time on them. To be stopped, or used in ``with``.

    Arguments and results are sent as they are (values of ``daram.model``); callbacks such as ``partial`` cannot be.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # threads of this process must not be copied in mid-step
        self._pipe, theirs = context.Pipe()
        self._lock = threading.Lock()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def open(self, make: Callable[..., Store], *args: Any, **kwargs: Any) -> Store:
        """The store that ``make(*args, **kwargs)`` (something that can be imported there) gives, in that process."""
        return AsyncOverSync(_Remote(self, self._ask(None, make, args, kwargs)))

    def open_from(self, file: Path, name: str, *args: Any, **kwargs: Any) -> Store:
        """The same with a function of a Python file, as tests have them, which are seldom on the path of imports."""
        return self.open(_from_file, str(file), name, *args, **kwargs)

    def pause(self) -> None:
        """Stop it in mid-step (SIGSTOP); calls wait."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without any farewell (SIGKILL)."""
        self._process.kill()
        self._process.join()

    def stop(self) -> None:
        """End it once it is idle."""
        with self._lock:
            self._pipe.close()
        self._process.join(_START_SECONDS)
        if self._process.is_alive():
            self.kill()

    def __enter__(self) -> StoreProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def _ask(self, number: int | None, name: str | Callable[..., Store], args: Any, kwargs: Any) -> Any:
        with self._lock:
            self._pipe.send((number, name, args, kwargs))
            found = self._pipe.recv()
        if isinstance(found, _Failure):
            raise found.error()
        return found
