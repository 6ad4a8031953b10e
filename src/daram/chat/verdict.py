"""What became of an answer that nobody stopped."""

from __future__ import annotations

from daram.errors import DaramError, ModelBroken
from daram.llm.base import Finish
from daram.model import Status


def verdict(
    model: str | None, failure: DaramError | None, finish: Finish | None, *, cut: bool, said: bool
) -> tuple[Status, DaramError | None, dict[str, str]]:
    """How an answer ended that nobody stopped: its status, what made it fail, and what its metadata say of it."""
    if failure is None and finish is None and not said:
        failure = ModelBroken(f"the model {model} ended its answer before it had said anything")
    if failure is not None:
        return "failed", failure, {"error": failure.code}
    if cut or finish == "length":
        return "incomplete", None, {"finish": "length"}
    if finish == "content_filter":
        return "incomplete", None, {"finish": "content_filter"}
    return ("incomplete" if finish is None else "complete"), None, {}
