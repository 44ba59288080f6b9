"""Executed pages: code blocks run when a page is built, and as tests.

| fence | effect |
|---|---|
| `python` | run in one namespace and one empty folder per page; its output is shown below |
| `sh run` | runs every line that starts with `autovae ` by the command line; its output is shown below |
| `sh` | shown; its `autovae` lines are parsed, so that no page names an option that does not exist |
| `toml file=NAME` | written to NAME in the page's folder |
| `commands` | the help of every command, each under its heading, with a list of its arguments and options |
| `math` | TeX as MathML, without scripts, fonts or network; so is TeX between $` and `$ |

More words after the language: `quiet` shows no output, `shows=NAME.png` shows a picture that the block wrote,
`slow` leaves the block, and with it the page, out of the quick tests.

This is a hook of MkDocs; `AUTOVAE_DOCS_RUN=0` builds the pages without running anything (for looks).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^```(?P<language>\w+)(?P<words>[^\n]*)\n(?P<code>.*?)^```[ ]*$", re.M | re.S)
INLINE = re.compile(r"\$`([^`]+)`\$")
TOKEN = "autovaemath{}end"


@dataclass(frozen=True)
class Block:
    """One fenced block of a page: language, words after it, code, and its position in the text."""

    language: str
    words: tuple[str, ...]
    code: str
    span: tuple[int, int]
    line: int

    def value(self, name: str) -> str | None:
        """NAME of a word such as `file=NAME`."""
        return next((word.partition("=")[2] for word in self.words if word.startswith(f"{name}=")), None)

    @property
    def runs(self) -> bool:
        return self.language == "python" or "run" in self.words or self.value("file") is not None

    @property
    def commands(self) -> list[list[str]]:
        """The arguments of every `autovae` line of a shell block; a backslash continues a line."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("autovae ")]


def blocks_of(markdown: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [
        Block(
            match["language"],
            tuple(match["words"].split()),
            match["code"],
            match.span(),
            markdown.count("\n", 0, match.start()) + 1,
        )
        for match in FENCE.finditer(markdown)
    ]


@contextlib.contextmanager
def tables_restored() -> Iterator[None]:
    """What a page registers is gone when it ends."""
    from autovae import finiteness, registry
    from autovae.beliefs import families

    tables = [families.FAMILIES, finiteness.TAILS]
    tables += [getattr(registry, name) for name in dir(registry) if name.isupper() and isinstance(getattr(registry, name), dict)]
    before = [dict(table) for table in tables]
    try:
        yield
    finally:
        for table, rows in zip(tables, before, strict=True):
            table.clear()
            table.update(rows)


class Session:
    """A page's namespace and folder, in which its blocks run in order."""

    def __init__(self, folder: Path, **namespace: Any) -> None:
        self.folder = folder
        self.namespace: dict[str, Any] = {"__name__": "page", **namespace}

    def run(self, block: Block) -> str:
        """Run one block; returns what it printed. Raises what the block raises, and `RuntimeError` for a failed command."""
        if (name := block.value("file")) is not None:
            (self.folder / name).write_text(block.code, encoding="utf-8")
            return ""
        printed, said = io.StringIO(), io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
            if block.language == "python":
                exec(compile(block.code, f"<block at line {block.line}>", "exec"), self.namespace)
            for command in block.commands if block.language != "python" else ():
                self._command(command, said)
        return printed.getvalue()

    def _command(self, arguments: list[str], said: io.StringIO) -> None:
        from autovae.cli import main

        code = main(arguments)
        if code:
            raise RuntimeError(f"autovae {shlex.join(arguments)}: exit code {code}\n{said.getvalue()}")


def parse_command(arguments: list[str]) -> None:
    """Raise where the command line would refuse these arguments for their names or types; nothing is run."""
    import typer

    from autovae.cli import app

    group = typer.main.get_command(app)
    with group.make_context("autovae", list(arguments)) as context:
        name, command, rest = group.resolve_command(context, list(arguments))  # type: ignore[attr-defined]
        command.make_context(name, rest, parent=context)


# -- the hook -----------------------------------------------------------------------------------------------------------

_formulas: list[str] = []


def _mathml(tex: str, display: str) -> str:
    from latex2mathml.converter import convert

    token = TOKEN.format(len(_formulas))
    _formulas.append(convert(" ".join(tex.split()), display=display))
    return token


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Run the page's blocks, put outputs below them, and set aside its formulas."""
    blocks = blocks_of(markdown)
    alive = os.environ.get("AUTOVAE_DOCS_RUN") != "0"
    pieces, place = [], 0
    with tempfile.TemporaryDirectory() as scratch, tables_restored():
        session = Session(Path(scratch))
        for block in blocks:
            pieces += [_inline(markdown[place : block.span[0]]), _fenced(block)]
            place = block.span[1]
            if not (block.runs and alive):
                continue
            try:
                printed = session.run(block)
            except Exception as error:
                raise RuntimeError(f"{page.file.src_uri}, line {block.line}: {error}") from error
            pieces += _shown(block, printed, session.folder, page, config, files)
    return "".join([*pieces, _inline(markdown[place:])])


def commands_help() -> str:
    """The help of all commands, in the order of `autovae --help`."""
    from autovae.cli import COMMANDS

    names = [command.__name__ for command in COMMANDS]
    return "\n".join(f"## autovae {name}\n\n{command_help(name)}\n" for name in names)


def command_help(name: str) -> str:
    """What `autovae NAME --help` says, as Markdown, from the command's own signature."""
    import inspect
    from typing import get_args, get_type_hints

    from autovae.cli import COMMANDS

    command = next(function for function in COMMANDS if function.__name__ == name)
    hints = get_type_hints(command, include_extras=True)
    lines = [inspect.cleandoc(command.__doc__ or ""), ""]
    for parameter in inspect.signature(command).parameters.values():
        kind, about = get_args(hints[parameter.name])[:2]
        if type(about).__name__ == "ArgumentInfo":
            term = about.metavar or parameter.name.upper()
        else:
            term = ", ".join(about.param_decls or ["--" + parameter.name.replace("_", "-")])
            value = " " + (about.metavar or _value(kind)) if kind is not bool else ""
            term += value
        default = parameter.default
        known = default not in (None, False, True, "") and default is not inspect.Parameter.empty
        lines += [f"`{term}`", f":   {about.help}{f' Default: `{default}`.' if known else ''}", ""]
    return "\n".join(lines)


def _value(kind: Any) -> str:
    """How the value of an option is called."""
    from typing import get_args

    names = {"int": "N", "float": "NUMBER", "Path": "PATH", "str": "TEXT"}
    return next(
        (names[one.__name__] for one in (kind, *get_args(kind)) if getattr(one, "__name__", "") in names), "TEXT"
    )


def _inline(text: str) -> str:
    return INLINE.sub(lambda match: _mathml(match[1], "inline"), text)


def _fenced(block: Block) -> str:
    if block.language == "math":
        return f'<div class="formula" tabindex="0">{_mathml(block.code, "block")}</div>\n'
    if block.language == "commands":
        return commands_help()
    title = f' title="{name}"' if (name := block.value("file")) else ""
    return f"```{block.language}{title}\n{block.code}```\n"


def _shown(block: Block, printed: str, folder: Path, page: Any, config: Any, files: Any) -> Iterator[str]:
    if printed.strip() and "quiet" not in block.words:
        text = "\n".join(wrapped(line.rstrip()) for line in printed.strip("\n").splitlines())
        yield f"\n``` {{ .text .output }}\n{text}\n```\n"
    if (name := block.value("shows")) is not None:
        from mkdocs.structure.files import File

        stem = Path(page.file.src_uri).stem
        made = File.generated(config, f"made/{stem}_{name}", content=(folder / name).read_bytes())
        files.append(made)
        up = "../" * page.file.src_uri.count("/")
        words = " ".join(word for word in block.words if "=" not in word and word not in ("run", "quiet", "slow"))
        yield f"\n![{words or Path(name).stem.replace('_', ' ')}]({up}{made.src_uri}){{ .made }}\n"


def wrapped(line: str, width: int = 108) -> str:
    """Wrap a long line of prose; leave rows of tables unchanged."""
    if len(line) <= width or len(re.findall(r"\S {3,}(?=\S)", line)) > 2:
        return line
    return textwrap.fill(line, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Put the formulas in."""
    return re.sub(TOKEN.format(r"(\d+)"), lambda match: _formulas[int(match[1])], html)
