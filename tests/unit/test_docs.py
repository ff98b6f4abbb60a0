"""What the documents say is so: commands, links, names, numbers and tables are compared with the code."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest

import threadline
from support.markdown import DOCUMENTS, ROOT, Block, anchors, block, blocks, inline_code, links, rows
from threadline.cli.app import cli
from threadline.cli.catalogue import COMMANDS
from threadline.cli.errors import ExitCode
from threadline.contract.states import TRANSITIONS
from threadline.environment import VARIABLES
from threadline_worker.liveness import STALLED_EXIT

_EACH = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
_SHELL = [(found.document, line) for path in DOCUMENTS for found in blocks(path) if found.language == "sh"
          for line in found.text.splitlines()]  # fmt: skip
_PROGRAMS = [found for path in DOCUMENTS for found in blocks(path) if found.language == "python"]


def test_the_documents_that_a_reader_expects_are_there() -> None:
    names = {str(path.relative_to(ROOT)) for path in DOCUMENTS}
    assert names >= {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/protocol.md"}
    assert names >= {"docs/guarantees.md", "docs/operations.md", "docs/architecture.md"}
    assert len([name for name in names if name.startswith("docs/adr/")]) >= 7


def test_the_generated_tables_are_current() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_variable_has_a_row() -> None:
    assert [row[0].strip("`") for row in rows("README.md", "variable")] == [variable.name for variable in VARIABLES]


@_EACH
def test_links_resolve(document: Path) -> None:
    for target in links(document):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@_EACH
def test_addresses_outside_are_few_and_known(document: Path) -> None:
    """A document that names a host names one that is meant: licences, standards, examples."""
    hosts = {
        urlsplit(url).hostname for url in re.findall(r"\w+://\w[^\s`)>\"']+", document.read_text(encoding="utf-8"))
    }
    assert hosts <= {"keepachangelog.com", "semver.org", "localhost", "hooks.example", "shop.example", None}


@_EACH
def test_names_of_variables_are_known(document: Path) -> None:
    known = {variable.name for variable in VARIABLES}
    assert set(re.findall(r"THREADLINE_[A-Z_]*[A-Z]", document.read_text(encoding="utf-8"))) <= known


@_EACH
def test_names_of_metrics_are_known(document: Path) -> None:
    known = {row[0].strip("`") for row in rows("README.md", "metric")}
    named = {re.split(r"[{ ]", code)[0] for code in inline_code(document) if code.startswith("threadline_")}
    assert {name for name in named if "/" not in name and not re.match(r"threadline_worker\b", name)} <= known


@_EACH
def test_files_that_are_named_exist(document: Path) -> None:
    for code in inline_code(document):
        if re.fullmatch(r"(producer|worker|tests|docs)/[\w./]+", code):
            assert (ROOT / code).exists(), code


def test_the_tree_in_the_architecture_is_the_tree() -> None:
    folder = ROOT
    tree = block("docs/architecture.md", "text")
    named = 0
    for line in tree.splitlines():
        if not line.startswith(" "):
            folder = ROOT / line.split()[0]
            assert folder.is_dir(), line
            continue
        for word in re.split(r"\s{2,}", line.strip())[0].split():
            assert (folder / word).exists(), word
            named += 1
    assert named > 20


@pytest.mark.parametrize("program", _PROGRAMS, ids=lambda found: f"{found.document.name}-{found.name}")
def test_python_in_the_documents_compiles(program: Block) -> None:
    compile(program.text, program.name or str(program.document), "exec")


def test_shell_lines_are_commands_that_exist() -> None:
    """Arguments and options included: each is parsed by the command itself."""
    seen = set()
    for document, line in _SHELL:
        words = shlex.split(re.split(r"[|<>;]|&&", line.partition(" #")[0])[0])
        if not words:
            continue
        seen.add(words[0])
        match words[0]:
            case "threadline":
                _parse(words[1:])
            case "make":
                assert words[1] in _make_targets(), line
            case "export":
                assert all("=" in word for word in words[1:]), line
            case ".venv/bin/python":
                assert (ROOT / words[3]).exists(), line
            case _:
                pytest.fail(f"{document.name}: {line}")
    assert {"threadline", "make", "export"} <= seen


@_EACH
def test_commands_in_running_text_exist(document: Path) -> None:
    for code in inline_code(document):
        words = code.split()
        if words[:1] == ["threadline"] and len(words) > 1 and not words[1].startswith("-"):
            assert words[1] in COMMANDS, code
        if words[:1] == ["make"] and len(words) > 1:
            assert words[1] in _make_targets(), code


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if not re.search(rf"\b{name}\b", text)] == []


def test_extras_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {
        extra
        for code in inline_code(ROOT / "README.md")
        if code.startswith("pip install")
        for extra in re.findall(r"[a-z]+", (re.search(r"\[(.*)\]", code) or ["", ""])[1])
    }
    assert named == set(project["optional-dependencies"]) - {"dev"}


def test_exit_codes_are_those_of_the_programs() -> None:
    assert {int(row[0]) for row in rows("README.md", "code")} == {*map(int, ExitCode), STALLED_EXIT}


def test_the_diagram_of_states_is_the_table_of_transitions() -> None:
    drawn = re.findall(r"^ +(\w+) --> (\w+):", block("docs/architecture.md", "mermaid"), re.MULTILINE)
    assert sorted(drawn) == sorted((str(state), str(after)) for state, ends in TRANSITIONS.items() for after in ends)


def test_what_threadline_says_in_the_troubleshooting_is_what_it_says() -> None:
    said = [_said(path) for folder in ("producer", "worker") for path in (ROOT / folder).rglob("*.py")]
    section = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8").partition("## Threadline says")[2]
    told = [
        words for row in re.findall(r"^\| (`.+?) \|", section, re.MULTILINE) for words in re.findall(r"`(.+?)`", row)
    ]
    assert len(told) > 15
    for words in told:
        parts = [part for part in _blanked(words).split("…") if part.strip()]
        assert any(all(part in text for part in parts) for text in said) or words.startswith("/"), words


def test_the_changelog_has_this_version() -> None:
    assert f"## [{threadline.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_licence_is_the_unmodified_apache_text() -> None:
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def _said(path: Path) -> str:
    """All strings of a file in their order, values left open."""
    found = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Constant)]
    inner = sorted(found, key=lambda node: (node.lineno, node.col_offset))
    return _blanked("".join(node.value for node in inner if isinstance(node.value, str)))


def _blanked(words: str) -> str:
    return re.sub(r"\d+|[A-Z_]{4,}|…", "…", words)


def _parse(words: list[str]) -> None:
    with click.Context(cli) as group:
        _name, command, rest = cli.resolve_command(group, words)
        assert command is not None
        command.make_context(words[0], rest, parent=group)


def _make_targets() -> set[str]:
    env = {"PATH": os.environ["PATH"]}
    told = subprocess.run(["make", "help"], cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"make ([a-z-]+)", told))
