"""Hold the documentation to the repository: links resolve, Python parses, commands exist.

Checked are all Markdown files outside hidden folders: relative links and their ``#anchors``, the syntax of ``python``
blocks, and in ``shell`` blocks each ``make TARGET``, ``python -m MODULE`` and path that looks like one of ours.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).resolve().parent.parent
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```(\w*)\s*$")
_TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)
_MAKE = re.compile(r"(?:^|[;&|(]\s*|\s)make((?:\s+[A-Za-z_-]+(?:=\S*)?)+)")
_MODULE = re.compile(r"python3? -m ([a-z_][\w.]*)")
_OURS = ("bench", "docs", "migrations", "ops", "service", "shardlib")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its first line's number and its text."""

    language: str
    line: int
    text: str


def pages(root: Path = ROOT) -> Iterator[Path]:
    """Yield every Markdown file that belongs to the project."""
    for page in sorted(root.rglob("*.md")):
        if not any(part.startswith(".") for part in page.relative_to(root).parts):
            yield page


def split(text: str) -> tuple[str, list[Block]]:
    """Return the prose, with blocks blanked out so that line numbers stand, and the fenced blocks."""
    prose: list[str] = []
    blocks: list[Block] = []
    inside: list[str] | None = None
    language, start = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        fence = _FENCE.match(line.strip())
        prose.append("" if fence or inside is not None else line)
        if inside is not None and line.strip() == "```":
            blocks.append(Block(language, start, "\n".join(inside)))
            inside = None
        elif inside is not None:
            inside.append(line)
        elif fence:
            language, start, inside = fence[1], number + 1, []
    return "\n".join(prose), blocks


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    prose, _ = split(page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.+?) *$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def bad_links(page: Path, prose: str) -> Iterator[str]:
    for number, line in enumerate(prose.splitlines(), start=1):
        for target in _LINK.findall(line):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            linked = (page.parent / path).resolve() if path else page
            if not linked.exists():
                yield f"{number}: no such file: {target}"
            elif anchor and linked.suffix == ".md" and anchor not in anchors(linked):
                yield f"{number}: no such heading: {target}"


def bad_python(block: Block) -> Iterator[str]:
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    try:
        compile(dedent(block.text), "block", "exec", flags)
    except SyntaxError as error:
        yield f"{block.line + (error.lineno or 1) - 1}: {error.msg}"


def bad_commands(block: Block, targets: set[str]) -> Iterator[str]:
    for number, line in enumerate(block.text.splitlines(), start=block.line):
        command = line.partition("#")[0]
        for words in _MAKE.findall(command):
            for word in words.split():
                if "=" not in word and word not in targets:
                    yield f"{number}: no such make target: {word}"
        for module in _MODULE.findall(command):
            if module.split(".")[0] in _OURS and not _is_module(module):
                yield f"{number}: no such module: {module}"


def _is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__main__.py").exists()


def faults(page: Path, targets: set[str]) -> Iterator[str]:
    """Yield ``line: what`` for everything on the page that isn't so."""
    prose, blocks = split(page.read_text(encoding="utf-8"))
    yield from bad_links(page, prose)
    for block in blocks:
        if block.language == "python":
            yield from bad_python(block)
        elif block.language in ("shell", "sh", "bash", "console"):
            yield from bad_commands(block, targets)


def main() -> int:
    """Print every fault; return the exit code."""
    targets = set(_TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    found = [f"{page.relative_to(ROOT)}:{fault}" for page in pages() for fault in faults(page, targets)]
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
