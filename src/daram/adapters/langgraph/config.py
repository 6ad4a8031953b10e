"""What a run's config says, and which serializers are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langgraph.checkpoint.base import get_checkpoint_id
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from daram.errors import ConfigError, InvalidInput

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.serde.base import SerializerProtocol


def thread_of(config: RunnableConfig | None) -> str:
    """The thread that a config names. Raises ``InvalidInput`` where it names none."""
    thread = None if config is None else config.get("configurable", {}).get("thread_id")
    if thread is None or thread == "":
        raise InvalidInput("thread_id", "is not in the config's configurable")
    return whole("thread_id", thread)


def checkpoint_of(config: RunnableConfig | None) -> str | None:
    """The checkpoint that a config names, if it does."""
    id = None if config is None else get_checkpoint_id(config)
    return None if id is None else whole("checkpoint_id", id)


def above(config: RunnableConfig) -> str | None:
    """Of a subgraph's config the checkpoint of its graph."""
    found: str | None = config["configurable"].get("checkpoint_map", {}).get("")
    return found


def whole(field: str, name: object) -> str:
    """A name as a string. Raises ``InvalidInput`` for one that has half of a character."""
    try:
        str(name).encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(field, f"has half of a character at {error.start}; remove it") from None
    return str(name)


def refuse_unsafe(serde: SerializerProtocol) -> None:
    """Raises ``ConfigError`` for a serializer that would run or import what the data says."""
    if isinstance(serde, EncryptedSerializer):
        serde = serde.serde
    if not isinstance(serde, JsonPlusSerializer):
        return
    if serde.pickle_fallback:
        raise ConfigError("a serializer with pickle_fallback runs code that is in the data; Daram does not use it")
    if serde._allowed_msgpack_modules is True or serde._allowed_json_modules is True:
        raise ConfigError(
            "this serializer imports and calls whatever the data names; give it the classes of your state:"
            " JsonPlusSerializer(allowed_msgpack_modules=[…]), or DaramSaver(memory, types=[…])"
        )
