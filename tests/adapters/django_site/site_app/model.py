"""A model that says what it was told before."""

import asyncio

from daram.adapters.django.test import ScriptedModel
from daram.llm.base import Delta, Options

WORD = "so far"


def recall(messages):
    said = [message.text for message in messages if message.role == "user"]
    return f"{len(said)} {WORD}: {' | '.join(said)}"


def make():
    return ScriptedModel(recall)


class Endless(ScriptedModel):
    """It says one word and then thinks until it is stopped."""

    async def stream(self, messages, options=Options()):
        yield Delta(text="acorn")
        await asyncio.Event().wait()


def endless():
    return Endless()
