"""What one turn may have of its own: another model, other instructions, other options."""

from __future__ import annotations

import msgspec

from daram.chat.generation import Setup
from daram.chat.prompt import Prompter
from daram.llm.base import ChatModel, Options


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """What is None is the chatbot's own.

    ``model``: who answers; ``system``: the system prompt ("": none); ``options``: how to generate; ``titled``: whether
    the turn may name its conversation; ``whole``: how many messages stand in front of the turn that the model must be
    given, every one of them as it is (the answer fails with ``ContextOverflow`` where that cannot be).
    """

    model: ChatModel | None = None
    system: str | None = None
    options: Options | None = None
    titled: bool = True
    whole: int | None = None


# How many messages a turn may bring itself.
_BATCH = 100


def chosen(setup: Setup, choices: Choices, system: str | None) -> Setup:
    """The setup of a turn; ``system`` is the chatbot's own system prompt."""
    if choices == Choices():
        return setup
    model = choices.model or setup.model
    options = choices.options or setup.options
    window = setup.window if choices.whole is None else choices.whole + _BATCH
    prompter = Prompter(
        setup.memory,
        model,
        system=system if choices.system is None else choices.system,
        options=options,
        window=window,
        whole=choices.whole is not None,
    )
    titled = setup.titled and choices.titled
    return msgspec.structs.replace(setup, model=model, options=options, prompter=prompter, window=window, titled=titled)
