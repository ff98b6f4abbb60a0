"""Makes what stands in deploy/kubernetes twice: one truth for alerts, and for the workers of each queue.

base/prometheusrule.yaml is deploy/prometheus/rules.yml, for the drain of base/configmap.yaml;
overlays/queues/workers.yaml is base/worker.yaml and base/scaledobject.yaml once for each queue. `python generate.py`
writes them, `--check` only looks (exit code 1 if one differs).
"""

# ruff: noqa: INP001 - a script of its own, in no package

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]  # its stubs are a package that only this file would need

__all__ = ["DRAINS_SHARE", "QUEUES", "manifest", "workers"]

_HERE: Final = Path(__file__).resolve().parent
RULES: Final = _HERE.parent / "prometheus" / "rules.yml"
_HEAD: Final = "# Made by deploy/kubernetes/generate.py from {}: change {}.\n"
#: Of THREADLINE_DRAIN_SECONDS; a drain that takes longer is slow.
DRAINS_SHARE: Final = 0.8
#: Of the example, each with a Deployment and a ScaledObject of its own.
QUEUES: Final = ("default", "deep")


def manifest() -> str:
    """The PrometheusRule as text."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    settings = yaml.safe_load((_HERE / "base" / "configmap.yaml").read_text(encoding="utf-8"))["data"]
    for rule in (rule for group in groups for rule in group["rules"] if rule["alert"] == "ThreadlineDrainSlow"):
        # rules.yml is for the default; the base drains for longer.
        limit = float(settings["THREADLINE_DRAIN_SECONDS"]) * DRAINS_SHARE
        rule["expr"] = re.sub(r"> \d+$", f"> {limit:g}", rule["expr"])
    resource: dict[str, Any] = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "threadline"},
        "spec": {"groups": groups},
    }
    return _HEAD.format("deploy/prometheus/rules.yml and configmap.yaml", "these") + _text(resource)


def workers() -> str:
    """The workers of each queue, and what scales them, as text."""
    return _HEAD.format("the base and its list of queues", "these") + "---\n".join(map(_text, _of_queues()))


def _of_queues() -> Iterator[dict[str, Any]]:
    deployment = yaml.safe_load((_HERE / "base" / "worker.yaml").read_text(encoding="utf-8"))
    scaled, _ = yaml.safe_load_all((_HERE / "base" / "scaledobject.yaml").read_text(encoding="utf-8"))
    for queue in QUEUES:
        yield _deployment(copy.deepcopy(deployment), queue)
        yield _scaled(copy.deepcopy(scaled), queue)


def _deployment(resource: dict[str, Any], queue: str) -> dict[str, Any]:
    """Its pods have a label of their own, which its selectors ask for; what selects all workers still finds them."""
    resource["metadata"]["name"] += f"-{queue}"
    template = resource["spec"]["template"]
    spread = [one["labelSelector"]["matchLabels"] for one in template["spec"]["topologySpreadConstraints"]]
    for labels in (resource["spec"]["selector"]["matchLabels"], template["metadata"]["labels"], *spread):
        labels["app.kubernetes.io/instance"] = queue
    template["spec"]["containers"][0]["env"] = [{"name": "THREADLINE_WORKER_QUEUES", "value": queue}]
    return resource


def _scaled(resource: dict[str, Any], queue: str) -> dict[str, Any]:
    resource["metadata"]["name"] += f"-{queue}"
    resource["spec"]["scaleTargetRef"]["name"] += f"-{queue}"
    for trigger in resource["spec"]["triggers"]:
        asked = trigger["metadata"]
        asked["query"] = re.sub(r"WHERE (.+)$", rf"WHERE queue = '{queue}' AND (\1)", asked["query"])
    return resource


def _text(resource: dict[str, Any]) -> str:
    return str(yaml.safe_dump(resource, sort_keys=False, width=120))


def main() -> int:
    """The exit code."""
    made = {
        _HERE / "base" / "prometheusrule.yaml": manifest(),
        _HERE / "overlays" / "queues" / "workers.yaml": workers(),
    }
    differing = [file for file, text in made.items() if not file.exists() or file.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        for file in differing:
            sys.stderr.write(f"{file.name} is not current: run `python deploy/kubernetes/generate.py`\n")
        return 1 if differing else 0
    for file in differing:
        file.write_text(made[file], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
