from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.config import parse_config
from cluster.errors import ConfigError
from deployments.check import Report, check_file, deployment_names
from tests.unit.models.tiny import write_gguf

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def lone_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a cluster, and a cache of the test's own."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("POOLHOUSE_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "m.gguf", keys={"pooling_type": 1})


def _check(tmp_path: Path, args: dict[str, Any] | None = None, **top: Any) -> Report:
    application = {"name": "app", "route_prefix": "/", "import_path": "deployments.app:build", "args": args}
    application |= top.pop("application", {})
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"applications": [application], **top}), encoding="utf-8")
    return check_file(file)


def _args(source: Path | str, encoder: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"models": {"m": {"source": str(source)}}, "encoders": {"e": {"model": "m", **(encoder or {})}}, **more}


class TestGood:
    def test_a_good_file_has_no_fault_and_a_plan(self, tmp_path: Path, model: Path) -> None:
        report = _check(tmp_path, _args(model))
        assert (report.faults, report.notes) == ([], [])
        plan = "\n".join(report.plan)
        assert "application app: fused wiring, deployments: Ingress" in plan
        assert "encoder e: m, answers none, mean, cls, last, weighted; about " in plan
        assert " MB for each replica" in plan
        assert "5 routes: m/none, m/mean, m/cls, m/last, m/weighted" in plan

    def test_a_split_encoder_may_load_its_model_twice_and_a_fused_one_may_not(
        self, tmp_path: Path, model: Path
    ) -> None:
        plans = ["\n".join(_check(tmp_path, _args(model, wiring=wiring)).plan) for wiring in ("split", "fused")]
        assert ["as much again" in plan for plan in plans] == [True, False]
        assert ["while each of them tries an input alone" in plan for plan in plans] == [True, False]

    def test_larger_contexts_and_micro_batches_take_more_memory(self, tmp_path: Path, model: Path) -> None:
        def megabytes(**encoder: Any) -> int:
            [line] = [line for line in _check(tmp_path, _args(model, encoder)).plan if "encoder e" in line]
            return int(line.split("about ")[1].split(" MB")[0])

        assert megabytes(micro_batch_tokens=8192) > megabytes(micro_batch_tokens=64) > 0

    @pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
    def test_every_shipped_file_is_good(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # prod.yaml is for a cluster of larger machines.
        monkeypatch.setenv("RAY_ADDRESS", "auto")
        assert check_file(path).faults == []


class TestSchema:
    @pytest.mark.parametrize(
        ("where", "key", "fault"),
        [
            ("top", "proxy_locatoin", "proxy_locatoin: unknown key (did you mean 'proxy_location'?)"),
            ("http_options", "prot", "http_options.prot: unknown key (did you mean 'port'?)"),
            ("application", "route_prefx", "applications[0].route_prefx: unknown key (did you mean 'route_prefix'?)"),
            (
                "deployment",
                "num_replica",
                "applications[0].deployments[0].num_replica: unknown key (did you mean 'num_replicas'?)",
            ),
            (
                "actor",
                "num_cpu",
                "applications[0].deployments[0].ray_actor_options.num_cpu: unknown key (did you mean 'num_cpus'?)",
            ),
        ],
    )
    def test_a_key_that_serve_would_ignore_is_a_fault(
        self, tmp_path: Path, model: Path, where: str, key: str, fault: str
    ) -> None:
        deployment: dict[str, Any] = {"name": "Ingress", "ray_actor_options": {}}
        places: dict[str, dict[str, Any]] = {
            "top": {},
            "http_options": {},
            "application": {},
            "deployment": deployment,
            "actor": deployment["ray_actor_options"],
        }
        places[where][key] = 1
        application = {**places["application"], "deployments": [deployment]}
        report = _check(
            tmp_path, _args(model), application=application, http_options=places["http_options"], **places["top"]
        )
        assert any(found.startswith(fault) for found in report.faults), report.faults

    def test_a_value_that_serve_refuses_is_a_fault(self, tmp_path: Path, model: Path) -> None:
        report = _check(tmp_path, _args(model), application={"deployments": [{"name": "Ingress", "num_replicas": -1}]})
        assert any(fault.startswith("applications.0.deployments.0.num_replicas") for fault in report.faults)

    def test_a_file_without_applications_is_a_fault(self, tmp_path: Path) -> None:
        file = tmp_path / "config.yaml"
        file.write_text("applications: []\n", encoding="utf-8")
        assert any("applications: there is none" in fault for fault in check_file(file).faults)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"a: [", "is not valid YAML"),
            (b"- a", "is not a mapping"),
            (b"\xff\xfe\xff", "is not valid YAML"),
            (b"", "mapping"),
        ],
    )
    def test_what_is_no_yaml_mapping_is_refused(self, tmp_path: Path, content: bytes, message: str) -> None:
        file = tmp_path / "config.yaml"
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            check_file(file)

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot be read: No such file"):
            check_file(tmp_path / "none.yaml")

    def test_another_application_is_left_alone(self, tmp_path: Path) -> None:
        report = _check(tmp_path, {}, application={"import_path": "other:app"})
        assert report.faults == []
        assert "is not Poolhouse's" in report.notes[0]


class TestArguments:
    def test_unknown_keys_are_named_with_the_nearest(self, tmp_path: Path, model: Path) -> None:
        [fault] = _check(tmp_path, _args(model, {"poling": ["mean"]})).faults
        assert "encoders.e.poling: unknown key (did you mean 'pooling'?)" in fault

    @pytest.mark.parametrize(
        ("pooling", "why"), [("rank", "it has no classification head"), ("cls", "its first token sees no other")]
    )
    def test_an_impossible_pooling_type_says_why(self, tmp_path: Path, pooling: str, why: str) -> None:
        causal = write_gguf(tmp_path / "causal.gguf", "qwen3", keys={"pooling_type": 3})
        [fault] = _check(tmp_path, _args(causal, {"pooling": ["mean", pooling]})).faults
        assert fault.startswith(f"encoders.e.pooling: {pooling} is impossible: ")
        assert why in fault
        assert "Possible: none, mean, last, weighted" in fault

    def test_a_default_pooling_type_that_nobody_answers_is_a_fault(self, tmp_path: Path, model: Path) -> None:
        args = _args(model, {"pooling": ["mean"]})
        args["models"]["m"]["default_pooling"] = "cls"
        [fault] = _check(tmp_path, args).faults
        assert fault.startswith("models.m.default_pooling: ")

    def test_a_missing_file_is_a_fault(self, tmp_path: Path) -> None:
        [fault] = _check(tmp_path, _args(tmp_path / "nowhere.gguf")).faults
        assert fault == f"models.m.source: there is no file {tmp_path / 'nowhere.gguf'}; correct models.….source"

    def test_a_file_that_is_no_model_is_a_fault(self, tmp_path: Path) -> None:
        file = tmp_path / "m.gguf"
        file.write_bytes(b"not a model")
        [fault] = _check(tmp_path, _args(file)).faults
        assert fault.startswith("models.m.source: ")

    def test_another_digest_is_a_fault(self, tmp_path: Path, model: Path) -> None:
        args = _args(model)
        args["models"]["m"]["sha256"] = "0" * 64
        [fault] = _check(tmp_path, args).faults
        assert "has SHA-256" in fault

    @pytest.mark.parametrize("source", ["package:all-minilm-l6-v2", "hf://org/repo/file.gguf"])
    def test_a_model_that_is_not_here_yet_is_noted(
        self, tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cluster.models.hub.try_to_load_from_cache", lambda *_, **__: None)
        report = _check(tmp_path, _args(source))
        assert report.faults == []
        assert "run with --pull to fetch it" in report.notes[0]

    def test_a_fake_model_needs_no_file(self, tmp_path: Path) -> None:
        assert _check(tmp_path, _args("none", {"engine": "fake"})).faults == []


class TestDeployments:
    def test_each_wiring_has_its_own(self) -> None:
        args = _args("x", wiring="fused")
        assert deployment_names(parse_config(args)) == ["Ingress"]
        args["wiring"] = "split"
        assert deployment_names(parse_config(args)) == ["Ingress", "Tokenizer", "Pooler", "Encoder-e"]

    def test_a_deployment_that_the_wiring_lacks_names_the_nearest(self, tmp_path: Path, model: Path) -> None:
        application = {"deployments": [{"name": "Encoder-f"}]}
        [fault] = _check(tmp_path, _args(model, wiring="split"), application=application).faults
        assert "there is no deployment 'Encoder-f' (did you mean 'Encoder-e'?)" in fault
        assert "the split wiring has: Ingress, Tokenizer, Pooler, Encoder-e" in fault

    def test_more_cores_than_the_machine_has_are_a_fault(self, tmp_path: Path, model: Path) -> None:
        cores = len(os.sched_getaffinity(0))
        application = {"deployments": [{"name": "Ingress", "ray_actor_options": {"num_cpus": cores + 1}}]}
        [fault] = _check(tmp_path, _args(model), application=application).faults
        assert fault == f"Ingress.ray_actor_options.num_cpus is {cores + 1} and this machine has {cores}; lower it"

    def test_a_cluster_elsewhere_is_not_judged_by_this_machine(
        self, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
        application = {"deployments": [{"name": "Ingress", "ray_actor_options": {"num_cpus": 4096}}]}
        assert _check(tmp_path, _args(model), application=application).faults == []

    def test_a_gpu_that_is_not_there_is_noted(
        self, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("shutil.which", lambda _: None)
        application = {"deployments": [{"name": "Ingress", "ray_actor_options": {"num_gpus": 1}}]}
        report = _check(tmp_path, _args(model), application=application)
        assert report.faults == []
        assert "Ingress asks for 1 GPU and this machine has none" in report.notes[0]


class TestKeys:
    def _check_keys(self, tmp_path: Path, **api_keys: str) -> Report:
        return _check(tmp_path, _args("none", {"engine": "fake"}, api_keys=api_keys))

    def test_a_missing_file_is_a_fault(self, tmp_path: Path) -> None:
        [fault] = self._check_keys(tmp_path, file=str(tmp_path / "keys.yaml")).faults
        assert "keys.yaml cannot be read" in fault

    def test_a_variable_that_is_not_set_here_is_noted(self, tmp_path: Path) -> None:
        report = self._check_keys(tmp_path, environment="POOLHOUSE_TEST_NO_KEYS")
        assert report.faults == []
        assert "POOLHOUSE_TEST_NO_KEYS, which is not set here" in report.notes[0]

    @pytest.mark.parametrize(("model", "faults"), [("m", 0), ("mm", 1)])
    def test_a_keys_models_must_exist(self, tmp_path: Path, model: str, faults: int) -> None:
        file = tmp_path / "keys.json"
        digest = hashlib.sha256(b"key").hexdigest()
        file.write_text(json.dumps([{"id": "team", "sha256": digest, "models": [model]}]))
        report = self._check_keys(tmp_path, file=str(file))
        assert len(report.faults) == faults
        if faults:
            assert "the key 'team' may use 'mm', which is not under models (did you mean 'm'?)" in report.faults[0]
