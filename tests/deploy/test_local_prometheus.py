"""The local set-up of docs/operations.md: its commands, its ports and deploy/prometheus/local.yml fit each other."""

from __future__ import annotations

import re
import shlex

import click
import pytest
import yaml

from support.markdown import ROOT
from threadline.cli.app import cli

_PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
_SECTION = _PAGE.partition("## A local set-up that is scraped and rings")[2].partition("\n## ")[0]
_LINES = "".join(re.findall(r"```text\n(.*?)```", _SECTION, re.DOTALL)).replace("\\\n", "").splitlines()
_PROMETHEUS = ROOT / "deploy" / "prometheus"


def test_prometheus_scrapes_the_ports_of_the_workers_that_are_started() -> None:
    local = yaml.safe_load((_PROMETHEUS / "local.yml").read_text(encoding="utf-8"))
    targets = {
        target for job in local["scrape_configs"] for group in job["static_configs"] for target in group["targets"]
    }
    ports = {found for line in _LINES for found in re.findall(r"^THREADLINE_METRICS_PORT=(\d+)", line)}
    assert targets == {f"127.0.0.1:{port}" for port in ports}
    assert len(ports) == 2
    assert all((_PROMETHEUS / name).exists() for name in local["rule_files"])
    assert any("--config.file=deploy/prometheus/local.yml" in line for line in _LINES)


@pytest.mark.parametrize("line", [line for line in _LINES if ".venv/bin/threadline" in line])
def test_its_commands_are_commands(line: str) -> None:
    words = shlex.split(re.split(r"[|<>;&]| 2>", line.partition(".venv/bin/threadline ")[2])[0])
    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None
    command.make_parser(click.Context(command)).parse_args(words[1:])


def test_it_waits_for_an_alert_that_exists() -> None:
    rules = (_PROMETHEUS / "rules.yml").read_text(encoding="utf-8")
    assert "`ThreadlineNoWorkers`" in _SECTION
    assert "alert: ThreadlineNoWorkers" in rules
