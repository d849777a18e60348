"""What the chart renders, and what it refuses to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.unit.helm.chart import (
    CASES,
    CHART,
    ENVIRONMENT,
    PROD,
    ROOT,
    files,
    helm,
    only,
    pod_templates,
    refusal,
    render,
)

KEYS = ("--set", "apiKeys.existingSecret=keys")
CPU_GROUP = {"name": "cpu", "minReplicas": 1, "maxReplicas": 2, "resources": {"limits": {"cpu": "4"}}}
FULL = CHART / "ci" / "full.yaml"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_lint_finds_nothing(case: Path) -> None:
    done = helm("lint", "--strict", CHART, *files(), "--values", case)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_the_serve_configuration_is_the_file(case: Path) -> None:
    service = only(render("--values", case), "RayService")
    assert service["spec"]["serveConfigV2"].strip() == PROD.read_text(encoding="utf-8").strip()


def test_the_check_finds_no_fault_in_the_rendered_configuration(tmp_path: Path) -> None:
    rendered = tmp_path / "serve.yaml"
    rendered.write_text(only(render(*KEYS), "RayService")["spec"]["serveConfigV2"], encoding="utf-8")
    # In its own process: importing Ray Serve warns, and warnings are errors here.
    command = [sys.executable, "-m", "cluster.cli.main", "check", str(rendered)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "fault" not in done.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_every_ray_container_has_the_environment_of_the_file(case: Path) -> None:
    lines = [line.strip() for line in ENVIRONMENT.read_text(encoding="utf-8").splitlines()]
    expected = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert expected
    for name, template in pod_templates(only(render("--values", case), "RayService")).items():
        given = {each["name"]: each.get("value") for each in template["spec"]["containers"][0]["env"]}
        assert expected.items() <= given.items(), name


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_the_rules_that_the_operator_applies_are_kept(case: Path) -> None:
    service = only(render("--values", case), "RayService")
    assert len(service["metadata"]["name"]) <= 47
    cluster = service["spec"]["rayClusterConfig"]
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "serve" in {port["name"] for port in head["template"]["spec"]["containers"][0]["ports"]}
    assert cluster["workerGroupSpecs"]
    for group in cluster["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["maxReplicas"]
    for template in pod_templates(service).values():
        assert "restartPolicy" not in template["spec"]
        # The operator's head service selects pods by its own value of this label.
        assert "app.kubernetes.io/name" not in template["metadata"]["labels"]
    assert cluster["autoscalerOptions"]["version"] == "v2"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_worker_pods_outlast_the_longest_drain(case: Path) -> None:
    config = yaml.safe_load(PROD.read_text(encoding="utf-8"))
    drains = [each.get("graceful_shutdown_timeout_s", 20) for each in config["applications"][0]["deployments"]]
    templates = pod_templates(only(render("--values", case), "RayService"))
    workers = [template for name, template in templates.items() if name != "head"]
    assert workers
    for template in workers:
        assert template["spec"]["terminationGracePeriodSeconds"] > max(drains) + 30


def test_groups_with_gpus_run_the_cuda_image_and_ask_for_gpus() -> None:
    pods = pod_templates(only(render(*KEYS), "RayService"))
    gpu, cpu = (pods[name]["spec"]["containers"][0] for name in ("gpu", "cpu"))
    assert gpu["image"] == "poolhouse:0.1.0-cuda"
    assert gpu["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert cpu["image"] == "poolhouse:0.1.0-cpu"
    assert "nvidia.com/gpu" not in cpu["resources"]["limits"]


def test_redis_keeps_the_cluster_over_a_lost_head_and_lets_it_be_drained() -> None:
    plain, redundant = render(*KEYS), render("--values", FULL)
    assert "gcsFaultToleranceOptions" not in only(plain, "RayService")["spec"]["rayClusterConfig"]
    assert only(plain, "PodDisruptionBudget", "-head")["spec"]["maxUnavailable"] == 0
    options = only(redundant, "RayService")["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    assert options["redisAddress"] == "redis.search.svc:6379"
    assert options["redisPassword"]["valueFrom"]["secretKeyRef"] == {"name": "redis", "key": "password"}
    assert only(redundant, "PodDisruptionBudget", "-head")["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_ray_asks_every_caller_for_a_token(case: Path) -> None:
    service = only(render("--values", case), "RayService")
    secret = {"secretName": "ray-token"} if case == FULL else {}
    assert service["spec"]["rayClusterConfig"]["authOptions"] == {"mode": "token", **secret}
    for template in pod_templates(service).values():
        # KubeRay adds the mode and the token, and leaves alone what a container has already.
        assert not [each for each in template["spec"]["containers"][0]["env"] if each["name"].startswith("RAY_AUTH")]


def test_the_token_can_be_switched_off() -> None:
    service = only(render(*KEYS, "--set", "auth.mode=disabled"), "RayService")
    assert service["spec"]["rayClusterConfig"]["authOptions"] == {"mode": "disabled"}


def test_only_the_http_port_is_open_to_others() -> None:
    rules = only(render(*KEYS), "NetworkPolicy")["spec"]["ingress"]
    assert [rule for rule in rules if "from" not in rule]
    for rule in rules:
        ports = {port["port"] for port in rule.get("ports", [])}
        if "from" not in rule:
            assert ports == {8000}
        elif not ports:
            (peer,) = rule["from"]
            assert "namespaceSelector" not in peer
            assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/part-of"] == "search-poolhouse"


def test_policies_and_monitors_select_the_ray_pods() -> None:
    manifests = render("--values", FULL)
    pods = pod_templates(only(manifests, "RayService"))
    selectors = [
        only(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        only(manifests, "PodMonitor")["spec"]["selector"]["matchLabels"],
    ]
    assert set(pods) > {"head"}
    for selector in selectors:
        assert selector
        for template in pods.values():
            assert selector.items() <= template["metadata"]["labels"].items()


def test_the_ports_that_are_scraped_are_declared() -> None:
    manifests = render("--values", FULL)
    head = pod_templates(only(manifests, "RayService"))["head"]["spec"]["containers"][0]
    declared = {port["name"] for port in head["ports"]}
    scraped = {endpoint["port"] for endpoint in only(manifests, "PodMonitor")["spec"]["podMetricsEndpoints"]}
    assert scraped <= declared


def test_the_dashboard_arrives_unchanged() -> None:
    data = only(render("--values", FULL), "ConfigMap")["data"]["poolhouse.json"]
    assert json.loads(data) == json.loads((CHART / "dashboards" / "poolhouse.json").read_text(encoding="utf-8"))


def test_api_keys_reach_the_variable_that_the_configuration_names() -> None:
    manifests = render("--values", FULL)
    secret = only(manifests, "Secret")
    (record,) = yaml.safe_load(secret["stringData"]["api-keys"])
    assert record["id"] == "search"
    environment = pod_templates(only(manifests, "RayService"))["cpu"]["spec"]["containers"][0]["env"]
    source = next(each for each in environment if each["name"] == "POOLHOUSE_API_KEYS")["valueFrom"]["secretKeyRef"]
    assert source == {"name": secret["metadata"]["name"], "key": "api-keys"}


def test_a_change_of_the_keys_changes_the_pods(tmp_path: Path) -> None:
    changed = tmp_path / "changed.yaml"
    changed.write_text(f"apiKeys: {{records: [{{id: other, sha256: {'a' * 64}}}]}}", encoding="utf-8")
    first, second = (
        pod_templates(only(render(*values), "RayService"))["cpu"]["metadata"]["annotations"]["checksum/api-keys"]
        for values in (("--values", FULL), ("--values", FULL, "--values", changed))
    )
    assert first != second


def test_the_model_cache_is_where_the_containers_are_told_to_look() -> None:
    for template in pod_templates(only(render(*KEYS), "RayService")).values():
        container = template["spec"]["containers"][0]
        environment = {each["name"]: each.get("value", "") for each in container["env"]}
        (mount,) = container["volumeMounts"]
        assert environment["POOLHOUSE_CACHE_DIR"] == mount["mountPath"]
        assert environment["HF_HOME"].startswith(mount["mountPath"])


def test_models_in_the_image_need_no_volume() -> None:
    manifests = render("--values", CHART / "ci" / "gateway.yaml")
    assert not [each for each in manifests if each["kind"] == "PersistentVolumeClaim"]
    for template in pod_templates(only(manifests, "RayService")).values():
        assert "volumes" not in template["spec"]


def test_upgrades_in_steps_leave_gateway_and_service_to_the_operator() -> None:
    manifests = render("--values", CHART / "ci" / "incremental.yaml")
    spec = only(manifests, "RayService")["spec"]
    assert spec["upgradeStrategy"]["clusterUpgradeOptions"]["gatewayClassName"] == "istio"
    assert "serveService" not in spec
    assert not [each for each in manifests if each["kind"] in {"Gateway", "HTTPRoute", "Ingress"}]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--set-file serveConfig=configs/prod.yaml"),
        (("--set-file", f"serveConfig={PROD}", *KEYS), "--set-file serveEnv=configs/serve.env"),
        (files(), "set apiKeys.existingSecret or apiKeys.records"),
        (files(ROOT / "configs" / "split.yaml"), "http_options.host is this machine alone"),
        (("--set", "serveConfig=a: [", *KEYS), "not valid YAML"),
        (("--set", "serveConfig=a: 1", *KEYS), "has no applications"),
        (("--set-file", f"serveConfig={PROD}", "--set", "serveEnv=export A", *KEYS), "is not NAME=VALUE"),
        ((*files(), *KEYS, "--set-json", f"workerGroups={json.dumps([CPU_GROUP])}"), "no worker group has any"),
        ((*files(), *KEYS, "--set", "gcsFaultTolerance.enabled=true"), "gcsFaultTolerance.redisAddress"),
        ((*files(), *KEYS, "--set", "auth.mode=disabled,auth.existingSecret=ray"), "nobody would be asked"),
        ((*files(), *KEYS, "--set", "upgrade.type=NewClusterWithIncrementalUpgrade"), "gatewayClassName"),
        ((*files(), *KEYS, "--set", "httpRoute.enabled=true"), "httpRoute.parentRefs"),
        ((*files(), *KEYS, "--set", "autoscalr.enabled=true"), "autoscalr"),
        (
            (*files(), "--values", CHART / "ci" / "incremental.yaml", "--set", "ingress.enabled=true"),
            "disable ingress and httpRoute",
        ),
    ],
    ids=lambda value: value.replace(" ", "-")[:40] if isinstance(value, str) else "values",
)
def test_what_cannot_work_is_refused_with_what_to_do(arguments: tuple[str, ...], words: str) -> None:
    assert words in refusal(*arguments)


def test_keys_that_the_configuration_would_not_read_are_refused(tmp_path: Path) -> None:
    config = yaml.safe_load(PROD.read_text(encoding="utf-8"))
    del config["applications"][0]["args"]["api_keys"]
    open_to_all = tmp_path / "open.yaml"
    open_to_all.write_text(yaml.safe_dump(config), encoding="utf-8")
    assert "everybody would be served" in refusal(*files(open_to_all), *KEYS)
