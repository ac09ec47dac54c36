"""What the README shows is what there is."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main

import crossply
from client.leaving import NEVER, leaves
from client.settings import LabSettings
from common.configuration import parse
from common.federation import Federation

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_its_files_are_read_by_the_models() -> None:
    lab, federation = (tomllib.loads(block) for block in blocks("toml"))
    assert parse(LabSettings, lab, "README").targets["tensile_strength"].unit == "ksi"
    assert parse(Federation, federation, "README").imaging.um_per_px == 0.5


def commands(command: Any, prefix: str = "crossply") -> dict[str, set[str]]:
    subs = getattr(command, "commands", {})
    if not subs:
        return {prefix: {option for parameter in command.params for option in parameter.opts}}
    found: dict[str, set[str]] = {}
    for name, sub in subs.items():
        found |= commands(sub, f"{prefix} {name}")
    return found


def test_every_command_stands_in_it_with_options_that_exist() -> None:
    shown = [line[2:].split("#")[0] for block in blocks("console") for line in block.splitlines()]
    known = commands(typer.main.get_command(crossply.app))
    for command, options in known.items():
        uses = [line for line in shown if line.startswith(command)]
        assert uses, command
        for line in uses:
            assert set(re.findall(r"--[a-z][a-z-]*", line)) <= options, line
    named = {line.strip() for line in shown if line.startswith("crossply")}
    assert all(any(line.startswith(command) for command in known) for line in named)


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_commands_in_the_guides_have_options_that_exist(path: Path) -> None:
    known = commands(typer.main.get_command(crossply.app))
    lines = [line for line in path.read_text().splitlines() if line.startswith("$ ")]
    uses = [
        (f"crossply {group} {name}", rest)
        for line in lines
        for group, name, rest in re.findall(r"crossply\S* (lab|server) ([a-z]+)(.*)", line)
    ]
    for command, rest in uses:
        assert set(re.findall(r"--[a-z][a-z-]*", rest)) <= known[command], (command, rest)
    assert uses


def test_its_table_of_what_leaves_is_the_one_that_a_lab_is_shown() -> None:
    table = README.split("## What leaves a lab")[1].split("\n\n")[1]
    plain = re.sub(r" \(\[[^)]*\)\)", "", table)
    rows = [row.strip("| ").split(" | ") for row in plain.splitlines()[2:]]
    assert rows[0][0] == NEVER
    assert [row[-1] for row in rows] == leaves("`min_specimens`")


def test_its_benchmarks_exist() -> None:
    named = re.findall(r"python -m benchmarks\.([a-z_]+)", README)
    assert named
    assert all((ROOT / "benchmarks" / f"{name}.py").exists() for name in named)


def test_its_make_targets_and_files_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([a-z]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).exists(), path


def test_the_gate_contains_the_tests() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    check = makefile.split("check:")[1].split("\n\n")[0]
    test = makefile.split("\ntest:")[1].split("\n\n")[0]
    assert test.splitlines()[1] in check
    assert "make check" in (ROOT / ".ci" / "run").read_text()
