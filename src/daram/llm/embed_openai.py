"""Any endpoint that speaks OpenAI's embeddings: OpenAI itself, vLLM, Ollama, llama.cpp, text-embeddings-inference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from daram.errors import ConfigError
from daram.llm.endpoint import Endpoint
from daram.llm.openai import DEFAULT_URL, checked_key, checked_url

KNOWN_DIMENSIONS: Final = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
    "nomic-embed-text": 768,
    "mxbai-embed-large": 1024,
    "bge-m3": 1024,
    "BAAI/bge-m3": 1024,
    "intfloat/multilingual-e5-large": 1024,
}
MAX_CHARS: Final = 8_000
"""Of a longer text only the beginning is sent: the models take some 8,000 tokens at most."""
_BATCH: Final = 64


class _Vector(msgspec.Struct):
    embedding: list[float]
    index: int = -1


class _Body(msgspec.Struct):
    data: list[_Vector]


_body: Final = msgspec.json.Decoder(_Body)


class OpenAIEmbedder(Endpoint):
    """An ``Embedder`` behind an endpoint. Times, retries and errors are those of ``OpenAIModel``.

    ``dimensions``: the length of its vectors; may be left out for the models of ``KNOWN_DIMENSIONS``. Where another
    length than that is given for one of OpenAI's ``text-embedding-3``, the endpoint is asked to shorten them.

    Raises ``ConfigError`` for an address or a key that cannot be one, and where the dimensions are not known.
    """

    def __init__(
        self,
        name: str,
        *,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        dimensions: int | None = None,
        connect_timeout: float = 10.0,
        read_timeout: float = 60.0,
        max_retries: int = 2,
        backoff: float = 0.5,
        max_backoff: float = 20.0,
    ) -> None:
        known = KNOWN_DIMENSIONS.get(name)
        if dimensions is None and known is None:
            raise ConfigError(
                f"DARAM_EMBEDDER=openai:{name}: how long its vectors are is not known; "
                "set DARAM_EMBEDDER_DIMENSIONS (the model's page says it)"
            )
        url = checked_url(base_url, "DARAM_EMBEDDER_URL")
        super().__init__(
            name,
            url,
            key=checked_key(api_key, "DARAM_EMBEDDER_KEY"),
            shown=str(url.copy_with(userinfo=b"", query=None, fragment=None)),
            settings=("DARAM_EMBEDDER", "DARAM_EMBEDDER_URL", "DARAM_EMBEDDER_KEY"),
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            max_retries=max_retries,
            backoff=backoff,
            max_backoff=max_backoff,
        )
        self.dimensions = dimensions or known or 0
        self._shorten = name.startswith("text-embedding-3") and self.dimensions != known

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector of unit length per text, in order. Raises a child of ``ModelError``."""
        found: list[list[float]] = []
        for start in range(0, len(texts), _BATCH):
            found += await self._embed(texts[start : start + _BATCH])
        return found

    async def _embed(self, texts: Sequence[str]) -> list[list[float]]:
        # Endpoints refuse an empty text, and JSON has no lone surrogates.
        clean = [text[:MAX_CHARS].encode("utf-8", "replace").decode().strip() or "-" for text in texts]
        request: dict[str, object] = {"model": self.name, "input": clean, "encoding_format": "float"}
        if self._shorten:
            request["dimensions"] = self.dimensions
        answer = await self.post("embeddings", request)
        try:
            vectors = _body.decode(answer).data
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self.broken(f"sent what is not an embeddings answer ({error}) instead of the vectors") from error
        if all(vector.index >= 0 for vector in vectors):
            vectors = sorted(vectors, key=lambda vector: vector.index)
        if len(vectors) != len(texts):
            raise self.broken(f"sent {len(vectors)} vectors for {len(texts)} texts instead of the vectors")
        return [self._checked(vector.embedding) for vector in vectors]

    def _checked(self, vector: list[float]) -> list[float]:
        if len(vector) != self.dimensions:
            raise self.broken(
                f"sent vectors of {len(vector)} dimensions, not {self.dimensions} (DARAM_EMBEDDER_DIMENSIONS), those"
            )
        length = math.sqrt(math.fsum(value * value for value in vector))
        if not math.isfinite(length) or length == 0:
            raise self.broken("sent a vector without a direction, that")
        return [value / length for value in vector]
