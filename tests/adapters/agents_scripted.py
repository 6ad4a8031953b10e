"""Models for the OpenAI Agents SDK that say what they were told to say."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

os.environ.setdefault("OPENAI_AGENTS_DISABLE_TRACING", "1")

from agents import ModelResponse, Usage
from agents.models.interface import Model
from openai.types.responses import Response, ResponseCompletedEvent, ResponseOutputMessage, ResponseOutputText


def user(text: str) -> Any:
    return {"role": "user", "content": text}


class Scripted(Model):
    """Says what it was told to say, streamed or not, and keeps what it was asked."""

    def __init__(self, *answers: list[Any]) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        self.asked.append(input)
        return ModelResponse(output=self.answers.pop(0), usage=Usage(), response_id=None)

    async def stream_response(
        self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any
    ) -> AsyncIterator[Any]:
        self.asked.append(input)
        response = Response.model_construct(id="r", output=self.answers.pop(0), usage=None)
        yield ResponseCompletedEvent.model_construct(type="response.completed", response=response, sequence_number=0)


def says(text: str) -> list[Any]:
    content = [ResponseOutputText(type="output_text", text=text, annotations=[])]
    return [ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=content)]


class Answering(Scripted):
    """Answers what it was asked last, as an endpoint does that names its responses."""

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        self.asked.append(input)
        return ModelResponse(output=says(f"to {input[-1]['content']}"), usage=Usage(), response_id="r")
