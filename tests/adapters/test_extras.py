"""Without its framework an adapter says which line installs it; the rest of Daram does without."""

from __future__ import annotations

import subprocess
import sys

import pytest

ADAPTERS = {
    "daram.adapters.langchain": ("langchain_core", "langchain"),
    "daram.llm.langchain": ("langchain_core", "langchain"),
    "daram.adapters.langgraph": ("langgraph.checkpoint", "langgraph"),
    "daram.adapters.openai_agents": ("agents", "agents"),
    "daram.adapters.llama_index": ("llama_index", "llama-index"),
    "daram.adapters.pydantic_ai": ("pydantic_ai", "pydantic-ai"),
    "daram.adapters.chainlit": ("chainlit", "chainlit"),
    "daram.adapters.django": ("django", "django"),
}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_names_its_extra(adapter: str) -> None:
    framework, extra = ADAPTERS[adapter]
    code = (
        f"import sys; sys.modules[{framework!r}] = None\n"
        "import daram\n"
        f"assert not any(name.split('.')[0] in {[f.split('.')[0] for f, _ in ADAPTERS.values()]!r}"
        " for name, module in sys.modules.items() if module)\n"
        f"try:\n    import {adapter}\nexcept daram.MissingExtra as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert f'pip install "daram[{extra}]"' in done.stdout, done.stderr
