"""The in-memory engine: the reference model, plain dictionaries."""

from daram.store.memory.engine import MemoryData, MemoryStore

__all__ = ["MemoryData", "MemoryStore"]
