"""From a URL to an engine: what is refused, in what words, and which file is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daram.errors import ConfigError
from daram.store.url import store_from_url


@pytest.mark.parametrize(
    "url",
    ["", None, 5, "daram", "mysql://h/d", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///a#b.db",
     "sqlite:///a.db?x=1", "sqlite:///a.db?synchronous=maybe", "sqlite:///a.db?busy_timeout=soon",
     "sqlite:///a.db?read_only=perhaps", "memory://?x=1", "http://[::1"],
)  # fmt: skip
def test_what_names_no_store_is_refused(url: Any) -> None:
    with pytest.raises(ConfigError):
        store_from_url(url)


@pytest.mark.parametrize("name", ["plain.db", "a#b.db", "a?b.sqlite", "100%.db", "a%20b.db", "다람.sqlite3"])
async def test_a_plain_path_is_taken_as_it_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (name, str(tmp_path / name)):
        async with store_from_url(path) as store:
            await store.describe()
    assert [found.name for found in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "url", ["mysql://me:hunter2@h/d", "memory://?password=hunter2", "mysql://h/d?password=hunter2"]
)
def test_passwords_are_not_told(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        store_from_url(url)
    assert "hunter2" not in str(caught.value)
