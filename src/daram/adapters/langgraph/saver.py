"""LangGraph's checkpoints on a Daram store: what each step added, and a thread's messages as a conversation."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Collection, Coroutine, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from langchain_core.runnables import ConfigurableFieldSpec
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from daram import sync
from daram.adapters.langgraph.care import Care, merged
from daram.adapters.langgraph.config import above, checkpoint_of, refuse_unsafe, thread_of, whole
from daram.adapters.langgraph.conversation import Projection
from daram.adapters.langgraph.deleted import LATE, Deleted
from daram.adapters.langgraph.layout import Side
from daram.adapters.langgraph.records import Head, Memo, Space
from daram.adapters.langgraph.steps import Steps
from daram.adapters.langgraph.threads import Threads
from daram.errors import InvalidInput, Unsupported
from daram.ids import etag
from daram.store.base import Store, SupportsRecords

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.serde.base import SerializerProtocol

__all__ = ["DaramSaver"]

R = TypeVar("R")
_VERSION_DIGITS: Final = 10
_PAGE: Final = 50
_AT_ONCE: Final = 1000
_DELETED_AT_ONCE: Final = 10


class DaramSaver(BaseCheckpointSaver[str]):
    """Checkpoints of LangGraph in ``memory`` (of ``daram.open`` or ``daram.sync.open``), which must keep records.

    ``owner``: whose the threads are; by default the ``owner`` in the run's ``configurable``. What has no config
    (``delete_thread`` and the like) needs it: ``saver.of("alice").delete_thread(…)``.
    ``messages``: the channel whose messages are the conversation with the id of the thread (None: no conversation). It
    follows the thread; what other doors add to it the graph does not see.
    ``types``: the classes, beside the framework's own safe ones (and, with ``LANGGRAPH_STRICT_MSGPACK``, those in the
    annotations of the graph's state), that may come back from what is stored. Nothing else does: of others come their
    fields. ``serde``: another serializer, such as the framework's ``EncryptedSerializer``; there is no readable
    conversation then. Raises ``ConfigError`` for one that would import whatever the data names, or unpickle.
    """

    def __init__(
        self,
        memory: Store | sync.Memory,
        *,
        owner: str | None = None,
        messages: str | None = "messages",
        types: Collection[type | tuple[str, str]] = (),
        serde: SerializerProtocol | None = None,
    ) -> None:
        store = memory.inner if isinstance(memory, sync.Memory) else memory
        if not isinstance(store, SupportsRecords):
            raise Unsupported(f"{type(store).__name__} keeps no records, which LangGraph's checkpoints need")
        if serde is None:
            serde = JsonPlusSerializer(allowed_msgpack_modules=tuple(types) or None)
        refuse_unsafe(serde)
        super().__init__(serde=serde)
        self._store = store
        self._owner = owner
        self._channel = messages
        self._memo = Memo()

    def of(self, owner: str) -> DaramSaver:
        """This saver for one owner."""
        clone = copy.copy(self)
        clone._owner = owner
        return clone

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """What a run may say in its ``configurable`` beside the thread."""
        if self._owner is not None:
            return []
        return [ConfigurableFieldSpec(id="owner", annotation=str, name="Owner", description="Whose the thread is")]

    # --- reading ---

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that the config names, or the thread's newest; None where there is none."""
        threads, space = self._at(config)
        if id := checkpoint_of(config):
            head = await threads.stored(space, id)
            return None if head is None or head.record.hidden else await threads.tuple_of(space, head)
        async for head in threads.heads(space, page=1):
            found = await threads.tuple_of(space, head)
            if found is not None:
                return found
        self._memo.is_gone(space)
        if space.ns and above(config) is not None:
            return None  # it goes with the graph that it is part of
        waited = await Deleted(threads, self._memo).begin(space)
        return await self.aget_tuple(config) if waited else None

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """The checkpoints of a thread (of all threads of the owner without a config), the newest first."""
        threads = self._threads(self._owner_of(config))
        given: Mapping[str, Any] = {} if config is None else config["configurable"]
        if "checkpoint_ns" in given:
            spaces = [Space(self._owner_of(config), thread_of(config), given["checkpoint_ns"])]
        else:
            spaces = await threads.spaces(None if config is None else thread_of(config))
        only, end = checkpoint_of(config), checkpoint_of(before)
        page = max(1, min(_PAGE, _AT_ONCE // max(1, len(spaces))))  # one of each space is held
        if limit is not None and not filter:
            page = max(1, min(limit, page))
        found = merged(threads, spaces, before=end, page=page) if only is None else _one(threads, spaces, only, end)
        left = -1 if limit is None else limit
        if left == 0:
            return
        async for space, head in found:
            if filter:
                metadata = threads.metadata(head)
                if any(metadata.get(name) != value for name, value in filter.items()):
                    continue
            item = await threads.tuple_of(space, head)
            if item is not None:
                left -= 1
                yield item
            if left == 0:
                return  # not another page

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What the writes on the way to a checkpoint gave to channels of the framework's delta kind."""
        if not channels:
            return {}
        threads, space = self._at(config)
        return await Care(threads).history(space, checkpoint_of(config), channels)

    # --- writing ---

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keep a checkpoint: what its step changed. It is durable on return, and visible as a whole or not at all.

        A write whose outcome is unknown, or whose store was away, is made again, for a second; then its error is the
        run's: nothing is left out in silence. Where the checkpoint was kept and its messages were not yet in the
        conversation, the next step adds them there. Of a thread that was deleted meanwhile nothing is kept, and the
        run goes on.
        """
        threads, space = self._at(config)
        own = get_serializable_checkpoint_metadata(config, metadata)
        watch = None if space.ns else self._told
        steps = Steps(self._store, threads, self._memo, space, above(config))
        await steps.put(checkpoint_of(config), checkpoint, own, new_versions, watch)
        return threads.config(space, checkpoint["id"])

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keep what a task wrote behind the checkpoint that the config names, as ``aput`` keeps that."""
        threads, space = self._at(config)
        id = checkpoint_of(config)
        if id is None:
            raise InvalidInput("checkpoint_id", "is not in the config's configurable: writes belong to a checkpoint")
        await Steps(self._store, threads, self._memo, space, above(config)).write(id, writes, task_id, task_path)

    # --- care ---

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete a thread and its conversation. A run that is on it goes on, and leaves nothing."""
        await self._delete([whole("thread_id", thread_id)])

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints and writes of runs, and the messages that no other checkpoint of the thread has.

        A thread that had no others is deleted.
        """
        owner = self._owner_of(None)
        care = Care(self._threads(owner))
        emptied = await care.delete_for_runs(frozenset(run_ids), self._told, lambda at: Projection(self._store, at))
        await self._delete(sorted(emptied))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread with all its checkpoints and writes, and its conversation as it is now.

        What the target had goes, but of a thread that is copied onto itself nothing.
        """
        owner = self._owner_of(None)
        source_thread_id = whole("source_thread_id", source_thread_id)
        target_thread_id = whole("target_thread_id", target_thread_id)
        if source_thread_id == target_thread_id:
            return
        threads = self._threads(owner)
        await Care(threads).copy(source_thread_id, target_thread_id)
        await Deleted(threads, self._memo).forget(target_thread_id)
        self._memo.forget(owner, target_thread_id)
        if self._told is not None:
            target = Space(owner, target_thread_id, "")
            added = await Care(threads).conversation(target, self._told)
            await Projection(self._store, target).replace(added)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Keep the newest checkpoint of each namespace (``keep_latest``), or none (``delete``).

        Of graphs with the framework's delta channels those stay, out of sight, that the newest is built on.
        """
        if strategy not in ("keep_latest", "delete"):
            raise InvalidInput("strategy", f'must be "keep_latest" or "delete", not {strategy!r:.40}')
        owner = self._owner_of(None)
        threads = [whole("thread_ids", thread) for thread in thread_ids]
        if strategy == "delete":
            await self._delete(threads)
            return
        for thread in threads:
            await Care(self._threads(owner)).keep_latest(thread)
            self._memo.forget(owner, thread)

    # --- the synchronous face ---

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """``aget_tuple``, synchronously."""
        return _run(self.aget_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """``alist``, synchronously."""
        found = self.alist(config, filter=filter, before=before, limit=limit)

        async def following() -> CheckpointTuple | None:
            return await anext(found, None)

        while (item := _run(following())) is not None:
            yield item

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """``aget_delta_channel_history``, synchronously."""
        return _run(self.aget_delta_channel_history(config=config, channels=channels))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """``aput``, synchronously."""
        return _run(self.aput(config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """``aput_writes``, synchronously."""
        _run(self.aput_writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """``adelete_thread``, synchronously."""
        _run(self.adelete_thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """``adelete_for_runs``, synchronously."""
        _run(self.adelete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """``acopy_thread``, synchronously."""
        _run(self.acopy_thread(source_thread_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """``aprune``, synchronously."""
        _run(self.aprune(thread_ids, strategy=strategy))

    def get_next_version(self, current: str | None, channel: None) -> str:
        """A number and something random: two branches of a thread never give one version to two values."""
        number = 0 if current is None else int(str(current).split(".", 1)[0])
        return f"{number + 1:0{_VERSION_DIGITS}}.{etag()[:8]}"

    # --- helpers ---

    async def _delete(self, names: Sequence[str]) -> None:
        owner = self._owner_of(None)
        threads = self._threads(owner)
        deleted, care = Deleted(threads, self._memo), Care(threads)
        # A few at a time: who begins one of them anew waits for the end.
        for few in (names[start : start + _DELETED_AT_ONCE] for start in range(0, len(names), _DELETED_AT_ONCE)):
            marks = {}
            for name in few:
                marks[name] = await deleted.mark(name)
                await care.delete(name)
                if self._told is not None:
                    await Projection(self._store, Space(owner, name, "")).delete()
            await asyncio.sleep(LATE)
            for name in few:
                if await deleted.goes_on(name, marks[name]):
                    await care.delete(name)  # what a run that had not seen the mark was about to write
                self._memo.forget(owner, name)
                await deleted.end(name, marks[name])

    @property
    def _plain(self) -> JsonPlusSerializer:
        inner = self.serde.serde if isinstance(self.serde, EncryptedSerializer) else self.serde
        return inner if isinstance(inner, JsonPlusSerializer) else JsonPlusSerializer(allowed_msgpack_modules=None)

    @property
    def _told(self) -> str | None:
        """The channel that the conversation tells; None where what is stored is sealed."""
        return self._channel if isinstance(self.serde, JsonPlusSerializer) else None

    def _threads(self, owner: str) -> Threads:
        side = Side(cast("SupportsRecords", self._store), owner)
        return Threads(side, self._memo, self.serde, self._plain, named=self._owner is None)

    def _at(self, config: RunnableConfig) -> tuple[Threads, Space]:
        owner = self._owner_of(config)
        return self._threads(owner), Space(owner, thread_of(config), config["configurable"].get("checkpoint_ns", ""))

    def _owner_of(self, config: RunnableConfig | None) -> str:
        owner = self._owner
        if owner is None and config is not None:
            owner = config.get("configurable", {}).get("owner")
        if not isinstance(owner, str) or not owner:
            raise InvalidInput(
                "owner",
                "is not known: give DaramSaver(memory, owner=…), or each run configurable={'owner': …}, or say"
                " saver.of(owner) before what has no config",
            )
        return owner


async def _one(
    threads: Threads, spaces: Sequence[Space], id: str, before: str | None
) -> AsyncIterator[tuple[Space, Head]]:
    """The checkpoints with that id, of which there is one in each space at most."""
    if before is not None and id >= before:
        return
    for space in spaces:
        head = await threads.stored(space, id)
        if head is not None and not head.record.hidden:
            yield space, head


def _run(work: Coroutine[Any, Any, R]) -> R:
    return sync.portal().run(work)
