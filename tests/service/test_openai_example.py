"""The example that calls everything of ``/v1`` with OpenAI's own libraries, as a user runs it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.service.api_server import house

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "openai_sdk.py"


async def test_the_example_calls_everything(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        environment = os.environ | {"OPENAI_BASE_URL": home.base_url, "OPENAI_API_KEY": home.person.key}
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "ignore", str(EXAMPLE)),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(program.communicate(), 240)
        assert program.returncode == 0, err.decode()
        told = out.decode()
        for call, what in (
            ("models.list", "scripted"),
            ("conversations.update", "다람쥐"),
            ("conversations.items.list", "2"),
            ("responses.create(conversation=)", "I remember: One."),
            ("responses.stream(previous_response_id=)", "deltas: "),
            ("responses.create(background=True)", "then response.completed"),
            ("responses.input_items.list", "1"),
            ("responses.create(store=False)", "not_found"),
            ("chat.completions.create(stream=True)", "You said: Hello."),
            ("files.content", "Employees earn two days"),
            ("vector_stores.file_batches.upload_and_poll", "2"),
            ("vector_stores.search(filters=)", "leave.txt"),
            ("responses.create(tools=[file_search])", "leave.txt"),
            ("its citations", "leave.txt"),
            ("files.delete", "[True, True, True]"),
            ("AsyncOpenAI: responses.stream", "You said: Hello."),
            ("Agents SDK: OpenAIConversationsSession", "4 items: "),
            ("Agents SDK: conversation_id=", "You said: Hello."),
        ):
            assert any(line.startswith(f"{call} ") and what in line for line in told.splitlines()), f"{call}\n{told}"
        # It deletes what it makes.
        assert (await home.memory.list(home.owner)).items == []
