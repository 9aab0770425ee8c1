#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Turn our manual pages from markdown into what man(1) reads.

    md2man.py PAGE.1.md... DIRECTORY

writes DIRECTORY/PAGE.1.  The markdown is a small part of it: a title ``# name(1)``,
``##`` and ``###`` headings, paragraphs, ``- `` lists, code (fenced or indented),
definitions (a line, then lines that begin with ``: ``), tables of two columns (set as
definitions), **bold**, *italic* and `code`.  Anything else that looks like markup is
an error rather than a surprise on the page.

Source: groff_man(7).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

_SPANS = re.compile(r"\*\*(.+?)\*\*|\*(.+?)\*|`(.+?)`")
_TITLE = re.compile(r"# ([\w.-]+)\((\d)\)(?: - (.+))?")


def escape(text: str) -> str:
    """Protect what roff would take for its own."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return re.sub(r"^\.", r"\\&.", text)


def inline(text: str) -> str:
    """Set bold, italic and code of one paragraph."""
    parts = []
    end = 0
    for match in _SPANS.finditer(text):
        bold, italic, code = match.groups()
        font = "I" if italic else "B"
        parts.append(escape(text[end : match.start()]))
        parts.append(f"\\f{font}{escape(bold or italic or code)}\\fR")
        end = match.end()
    parts.append(escape(text[end:]))
    return "".join(parts)


def blocks(source: str) -> Iterator[list[str]]:
    """Split a page into blocks: runs of lines, or fenced code with its empty lines."""
    block: list[str] = []
    for line in source.splitlines():
        fenced = bool(block) and block[0].startswith("```")
        if fenced or (line.strip() and not line.startswith("```")):
            block.append(line)
            if not fenced or line != "```":
                continue
        if block:
            yield block
        block = [line] if line.startswith("```") and not fenced else []
    if block:
        yield block


def convert(source: str) -> Iterator[str]:
    """Turn one page, line by line.

    Raises:
        ValueError: markup that this converter does not know.
    """
    title, *rest = blocks(source)
    match = _TITLE.fullmatch(title[0])
    if match is None:
        raise ValueError("the first line is not '# name(section)'")
    name, section, what = match.groups()
    yield f'.TH {name.upper()} {section} "" archipelago "{what or "archipelago"}"'
    for block in rest:
        yield from _block(block)


def _block(lines: list[str]) -> Iterator[str]:
    first = lines[0]
    if first.startswith("```"):
        yield from _code(lines[1:-1])
    elif all(line.startswith("    ") for line in lines):
        yield from _code([line[4:] for line in lines])
    elif first.startswith("### "):
        yield f".SS {escape(first[4:])}"
    elif first.startswith("## "):
        yield f".SH {escape(first[3:].upper())}"
    elif first.startswith("- "):
        for item in "\n".join(lines)[2:].split("\n- "):
            yield ".IP \\(bu 2"
            yield inline(" ".join(item.split()))
    elif len(lines) > 1 and lines[1].startswith(": "):
        yield ".TP"
        yield inline(first)
        yield inline(" ".join(" ".join(lines[1:])[1:].split()))
    elif first.startswith("|"):
        for row in lines[2:]:
            term, meaning = (cell.strip() for cell in row.strip("|").split("|"))
            yield f".TP\n{inline(term)}\n{inline(meaning)}"
    elif first.startswith(("#", ">", "* ", "1.", ": ")):
        raise ValueError(f"markup this converter does not know: {first!r}")
    else:
        yield ".PP"
        yield inline(" ".join(lines))


def _code(lines: list[str]) -> Iterator[str]:
    yield ".PP\n.RS 4\n.nf"
    yield from map(escape, lines)
    yield ".fi\n.RE"


def main(arguments: list[str]) -> int:
    """Convert the pages; returns the exit status."""
    if len(arguments) < 2:
        print("usage: md2man.py PAGE.N.md... DIRECTORY", file=sys.stderr)
        return 2
    *pages, directory = map(Path, arguments)
    directory.mkdir(parents=True, exist_ok=True)
    for page in pages:
        try:
            text = "\n".join(convert(page.read_text(encoding="utf-8")))
        except ValueError as error:
            print(f"md2man.py: {page}: {error}", file=sys.stderr)
            return 1
        (directory / page.name.removesuffix(".md")).write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
