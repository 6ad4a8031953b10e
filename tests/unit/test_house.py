"""The house keeps its rules: imports point one way, no machine's paths, no long rooms, a whole wheel."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "daram"
LONGEST = 450  # lines of a module: a file that needs a table of contents is two rooms


def sources(*folders: str) -> list[Path]:
    """The files of the project that people write, as text."""
    kinds = {".py", ".md", ".sql", ".toml", ".txt", ".js", ".css", ".json", ".yaml", ".yml", ""}
    return [
        file
        for folder in folders
        for file in sorted((ROOT / folder).rglob("*"))
        if file.is_file() and file.suffix in kinds and "__pycache__" not in file.parts
    ]


def everything() -> list[Path]:
    """All of them, with those at the top."""
    top = [ROOT / name for name in ("pyproject.toml", "Makefile", "README.md", "CHANGELOG.md", ".gitignore", ".ci/run")]
    return top + sources("src", "tests", "docs", "scripts", "bench", "examples")


def test_imports_point_one_way() -> None:
    code = "from importlinter.cli import lint_imports_command as lint; lint(['--no-cache'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        (
            "a path of somebody's machine",
            r"(?<![\w.$}])/(?:work|root|farm|home/[a-z]+)/\w",
        ),
        ("a temporary directory of somebody's machine", r"(?<![\w.])/tmp/" + r"\w"),
        ("the host of a package registry", r"(?i)(?:py" + r"pi\.org|python" + r"hosted\.org|npm" + r"js\.org)"),
        ("a key", r"\bsk-[A-Za-z0-9]{20,}"),
    ],
)
def test_nothing_of_one_machine_is_in_the_project(what: str, pattern: str) -> None:
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in everything()
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert not found, f"{what}: {found}"


def test_no_module_is_too_long() -> None:
    lengths = {file: len(file.read_text("utf-8").splitlines()) for file in PACKAGE.rglob("*.py")}
    assert not {str(file.relative_to(ROOT)): n for file, n in lengths.items() if n > LONGEST}


def test_every_ignored_type_error_says_why() -> None:
    unexplained = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in PACKAGE.rglob("*.py")
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        if "type: ignore" in line and not re.search(r"# type: ignore\[[\w, -]+\]  # \w", line)
    ]
    assert not unexplained


def test_every_extra_is_in_all_but_those_for_developers() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    (everything_else,) = extras["all"]
    names = re.fullmatch(r"daram\[(.+)\]", everything_else)
    assert names is not None
    assert set(names[1].split(",")) == set(extras) - {"all", "bench", "dev", "testing"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return Path(built)


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    expected = {
        file.relative_to(PACKAGE.parent).as_posix()
        for file in PACKAGE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    held = {name for name in zipfile.ZipFile(wheel).namelist() if not name.startswith("daram-")}
    assert held == expected
    assert {".sql", ".txt", ".css", ".py"} <= {Path(name).suffix for name in held}
    assert "daram/py.typed" in held


def test_the_wheel_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import daram, pathlib\n"
        "assert pathlib.Path(daram.__file__).is_relative_to(sys.argv[1]), daram.__file__\n"
        "with daram.sync.open('sqlite:///kept.db') as memory:\n"
        "    memory.append('o', 'c', [daram.user('다람쥐')], create=True)\n"
        "with daram.sync.open('sqlite:///kept.db') as memory:\n"
        "    print(memory.tail('o', 'c')[0].text, memory.search('o', '다람')[0].text)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "site")],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.stdout == "다람쥐 다람쥐\n", done.stderr
