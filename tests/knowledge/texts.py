"""What is asked of documents in tests: a vector for every text, without a model; records that are left."""

from __future__ import annotations

import math
from collections.abc import Sequence

from daram.errors import ModelUnavailable
from daram.knowledge import base
from daram.memory import Memory

SQUIRREL = "The red squirrel hides acorns under oak trees. In winter it finds most of them again by smell."
TUNA = "The tuna is a fish of the open sea. It swims in schools and never sleeps."
OTTER = "다람쥐는 도토리를 참나무 아래에 숨긴다. 겨울이 오면 냄새로 다시 찾아낸다."


class Letters:
    """An ``Embedder`` by the letters of a text. ``down``: fails as an endpoint does that cannot be reached."""

    def __init__(self, name: str = "letters", dimensions: int = 32) -> None:
        self.name = name
        self.dimensions = dimensions
        self.down = False
        self.texts: list[str] = []

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        if self.down:
            raise ModelUnavailable("the embedding model cannot be reached")
        self.texts += texts
        found = []
        for text in texts:
            vector = [0.01] * self.dimensions
            for letter in text:
                vector[ord(letter) % self.dimensions] += 1.0
            length = math.hypot(*vector)
            found.append([value / length for value in vector])
        return found

    async def close(self) -> None:
        """Nothing to let go of."""


async def left(memory: Memory, owner: str) -> set[str]:
    """The namespaces in which there are records of an owner's or of the house's."""
    names = (base.COLLECTIONS, base.FILES, base.BLOBS, base.BINDINGS, base.LEASES, base.UPLOADS, "documents.bound")
    return {
        name
        for name in (*names, base.REFERENCES, "documents.reference.text")
        for whose in (owner, base.HOUSE)
        if (await memory.scan_records(whose, name)).items
    }
