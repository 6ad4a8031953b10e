"""The names of the keys. Everything of a conversation carries one hash tag, so that it is in one slot of a cluster."""

from __future__ import annotations

from daram import ids

_PARTS = "cmifslaqd"
SHARDS = 16


def of_conversation(key: bytes) -> list[str]:
    """All keys of a conversation, in the order that ``scripts/_common.lua`` names them."""
    tag = f"daram:{{{key.hex()}}}"
    return [f"{tag}:{part}" for part in _PARTS]


def index(owner: str) -> str:
    """ZSET of an owner's conversations: score ``updated_at`` in µs, member ``key in hexadecimal:id``."""
    return f"daram:{{o{ids.owner_key(owner).hex()}}}:index"


def namespaces(owner: str) -> str:
    """SET of the namespaces in which an owner has records."""
    return f"daram:{{o{ids.owner_key(owner).hex()}}}:namespaces"


def records(owner: str, namespace: str) -> list[str]:
    """HASH key -> record, ZSET of the keys in their order, and ZSET of those that expire, score in µs."""
    tag = f"daram:{{r{ids.conversation_key(owner, namespace).hex()}}}"
    return [f"{tag}:values", f"{tag}:order", f"{tag}:ends"]


def shard(kind: str, key: bytes) -> str:
    """ZSET of what a sweep looks at, score in µs: conversations (``lease``, ``expiry``) or namespaces (``records``)."""
    return f"daram:{kind}:{key[0] % SHARDS}"


def shards(kind: str) -> list[str]:
    """All of them."""
    return [f"daram:{kind}:{n}" for n in range(SHARDS)]


def index_member(key: bytes, id: str) -> str:
    """How a conversation stands in its owner's index."""
    return f"{key.hex()}:{id}"


def sweep_member(owner: str, id: str) -> str:
    """How a conversation stands in a shard; neither name holds a line break."""
    return f"{owner}\n{id}"
