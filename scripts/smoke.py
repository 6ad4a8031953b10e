"""Build the wheel, install it into a bare environment without extras, and use it from there. `make smoke` runs this.

Nothing of the checkout is on the path of what is tried: what the wheel forgot to bring is missed here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What is read at run time and is no Python; a pattern is what a checkout has of it.
FILES = ("*.sql", "*.lua", "*.css", "*.js", "*.svg", "*.json", "*.txt", "py.typed")

USE = """
import asyncio, sys
import daram

assert "site-packages" in daram.__file__, daram.__file__

async def main() -> None:
    url = sys.argv[1]
    async with daram.open(url, cache="memory://") as memory:
        await memory.append("ann", "c", [daram.user("다람쥐는 다랑어다.")], create=True)
        done = await memory.append("ann", "c", [daram.assistant("네.")], window=20)
        assert [m.text for m in done.tail] == ["다람쥐는 다랑어다.", "네."], done
    async with daram.open(url) as memory:
        assert [m.text for m in await memory.tail("ann", "c")] == ["다람쥐는 다랑어다.", "네."]
        assert [hit.text for hit in await memory.search("ann", "다람쥐")] == ["다람쥐는 다랑어다."]
    for other in ("postgresql://127.0.0.1:1/none", "redis://127.0.0.1:1"):
        try:
            await daram.open(other)
        except daram.MissingExtra as error:
            assert "daram[" in str(error), error
        else:
            raise AssertionError(f"{other} needs an extra that is not installed")

asyncio.run(main())
with daram.sync.open(sys.argv[1]) as memory:
    assert memory.get("ann", "c").last_seq == 2
"""


def say(text: str) -> None:
    """Print it."""
    sys.stdout.write(f"{text}\n")


def run(*command: str | Path, fails: bool = False, **settings: str) -> str:
    """Run a program in an environment without a path into the checkout; returns what it printed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DARAM_", "PYTHON"))}
    done = subprocess.run(
        [str(word) for word in command],
        env={**inherited, **settings},
        cwd=settings.get("DARAM_DATA", ROOT),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode and not fails:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def missing(wheel: Path) -> list[str]:
    """The files of the checkout that the wheel must hold and does not."""
    source = ROOT / "src"
    wanted = {path.relative_to(source).as_posix() for each in FILES for path in (source / "daram").rglob(each)}
    kinds = {Path(name).suffix for name in wanted}
    if not {".sql", ".lua", ".css", ".js"} <= kinds:
        raise SystemExit(f"the checkout itself lacks files: it has {sorted(kinds)}")
    with zipfile.ZipFile(wheel) as held:
        return sorted(wanted - set(held.namelist()))


def main() -> None:
    """Build, install, use."""
    with tempfile.TemporaryDirectory(prefix="daram-smoke-") as name:
        home = Path(name).resolve()
        # --no-build-isolation: hatchling is installed here already.
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", home)
        wheel = next(home.glob("*.whl"))
        say(f"{wheel.name}: {wheel.stat().st_size:,} bytes")
        if lost := missing(wheel):
            raise SystemExit(f"the wheel has not: {', '.join(lost)}")
        bare = home / "bare"
        if shutil.which("uv"):
            run("uv", "venv", "--quiet", "--python", sys.executable, bare)
            run("uv", "pip", "install", "--quiet", "--python", bare / "bin" / "python", wheel)
        else:
            venv.create(bare, with_pip=True)
            run(bare / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel)
        data = home / "data"
        data.mkdir(mode=0o700)
        daram = bare / "bin" / "daram"
        say(run(daram, "--version", DARAM_DATA=str(data)).strip())
        url = f"sqlite:///{data / 'daram.db'}"
        run(bare / "bin" / "python", "-c", USE, url, DARAM_DATA=str(data))
        say(run(daram, "list", "--owner", "ann", DARAM_DATA=str(data), DARAM_STORE=url).strip())
        # There is no model in a bare environment: doctor must say that, and that all else is well.
        told = run(daram, "doctor", fails=True, DARAM_DATA=str(data), DARAM_STORE=url)
        found = {line.split()[1]: line.split()[0] for line in told.splitlines()}
        if found.pop("model", "") != "missing" or found.get("engine") != "ok" or {*found.values()} - {"ok", "note"}:
            raise SystemExit(f"daram doctor said:\n{told}")
        say(told.strip())
    say("the built wheel works in a bare environment")


if __name__ == "__main__":
    main()
