# SPDX-License-Identifier: Apache-2.0
"""The manual pages: complete, and free of markup that man(1) would stumble over."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from archipelago.cli.app import cli as archipelago_cli
from archipelago.settings import Settings, expected, load_settings, setting_keys
from vlmc.cli import cli as vlmc_cli

DOCS = Path(__file__).parents[3] / "docs"
MAN = DOCS / "man"
PAGES = sorted(MAN.glob("*.md"))


def commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


@pytest.mark.parametrize(
    ("page", "group"), [("archipelago.1", archipelago_cli), ("vlmc.1", vlmc_cli)]
)
def test_every_command_and_option_is_described(page: str, group: click.Group) -> None:
    text = (MAN / f"{page}.md").read_text()
    options = {o for p in group.params for o in p.opts}
    for name, command in commands(group):
        assert f"\n**{name}**" in text, name
        options |= {
            option
            for param in command.params
            if isinstance(param, click.Option)
            for option in param.opts
        }
    for option in options:
        assert f"**{option}**" in text, option


def test_every_help_page_has_an_example() -> None:
    for program, group in (("archipelago", archipelago_cli), ("vlmc", vlmc_cli)):
        for name, command in commands(group):
            page = command.get_help(click.Context(command, info_name=name))
            shown = " ".join(page.split())
            assert f"{program} {name}" in shown or "vlmc completion bash" in shown
            assert "SIZE" not in page or "MiB" in page or "from 64K to 4M" in page


def test_every_setting_is_described() -> None:
    text = (MAN / "archipelago.toml.5.md").read_text()
    for key in setting_keys():
        assert f"**{key.rpartition('.')[2]}**" in text, key


def test_the_example_shows_the_defaults(tmp_path: Path) -> None:
    example = (DOCS / "archipelago.toml.example").read_text()
    file = tmp_path / "etc" / "archipelago.toml"
    file.parent.mkdir()
    file.write_text(example)
    assert set(load_settings(tmp_path).origins.values()) == {"default"}
    file.write_text(re.sub(r"(?m)^#(?=\w+ = )", "", example))
    settings = load_settings(tmp_path)
    assert set(settings.origins.values()) == {str(file)}
    plain = Settings.model_fields
    for key in ("placement", "backend", "engine", "direct", "block_size", "lease_ttl"):
        assert getattr(settings, key) == plain[key].default
    for table in ("segment", "log"):
        shown = getattr(settings, table).model_dump()
        default = plain[table].default.model_dump()
        level = default.get("level")
        assert {k: shown[k] for k in shown} == {
            k: level if default[k] is None else default[k] for k in default
        }
    assert expected("engine")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_man_reads_them_without_a_warning(tmp_path: Path, page: Path) -> None:
    subprocess.run(
        [sys.executable, str(MAN / "md2man.py"), str(page), str(tmp_path)], check=True
    )
    made = tmp_path / page.name.removesuffix(".md")
    text = made.read_text()
    assert text.startswith(".TH ")
    assert "**" not in text
    assert "`" not in text
    if shutil.which("man") is None:
        pytest.skip("needs man")
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(made)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize(
    "text", ["no title", "# x(1)\n\n1. one", "# x(1)\n\n#### deep"]
)
def test_unknown_markup_is_refused(tmp_path: Path, text: str) -> None:
    page = tmp_path / "x.1.md"
    page.write_text(text)
    done = subprocess.run(
        [sys.executable, str(MAN / "md2man.py"), str(page), str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert str(page) in done.stderr
