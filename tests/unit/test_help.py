"""What `--help` and `--version` print is what was written."""

from importlib.metadata import version
from typing import Any

import pytest
import typer.main
from rich.text import Text
from typer.testing import CliRunner

import crossply


def texts(command: Any, path: str = "crossply") -> dict[str, str]:
    """Return every help text, by its command and parameter."""
    found = {path: command.help or ""}
    for parameter in command.params:
        found[f"{path} {parameter.name}"] = getattr(parameter, "help", None) or ""
    for name, inner in getattr(command, "commands", {}).items():
        found |= texts(inner, f"{path} {name}")
    return found


TEXTS = texts(typer.main.get_command(crossply.app))


@pytest.mark.parametrize("where", TEXTS)
def test_no_word_in_brackets_is_taken_for_markup(where: str) -> None:
    written = TEXTS[where]
    assert Text.from_markup(written).plain == written.replace("\\[", "[")


def test_the_version_is_said_alone() -> None:
    told = CliRunner().invoke(crossply.app, ["--version"])
    assert (told.exit_code, told.output) == (0, f"crossply {version('crossply')}\n")
