from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from cluster.cli import compare as command
from cluster.errors import InvalidRequest
from cluster.evaluation.local import LocalModel

PAIRS = "".join(f"word {n},word {n + n % 3},{(n * 7) % 5}.0\n" for n in range(30))


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers(required=True), "help")
    return parser.parse_args(["compare", *arguments])


def run(*arguments: str) -> int:
    options = parse(*arguments)
    return int(options.run(options))


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    path = tmp_path / "pairs.csv"
    path.write_text(PAIRS, encoding="utf-8")
    return str(path)


@pytest.fixture
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalModel, "load", lambda config, threads: LocalModel.fake())


@pytest.mark.usefixtures("fake_model")
def test_the_terminal_ends_with_what_to_use(pairs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--data", pairs, "--resamples", "100") == 0
    printed = capsys.readouterr()
    assert "30 scored pairs" in printed.out
    assert printed.out.splitlines()[-1].startswith("Use ")
    assert printed.err == ""


@pytest.mark.usefixtures("fake_model")
def test_json_is_all_there_is_on_standard_output(
    pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report"
    assert run("--data", pairs, "--resamples", "100", "--json", "--report", str(report)) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["settings"]["resamples"] == 100
    assert f"written: {report / 'report.html'}" in printed.err
    assert (report / "report.html").is_file()


@pytest.mark.usefixtures("fake_model")
def test_bad_rows_are_skipped_when_asked_and_named(pairs: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Path(pairs).open("a", encoding="utf-8") as file:
        file.write("only one field\n")
    with pytest.raises(InvalidRequest, match="line 31"):
        run("--data", pairs)
    assert run("--data", pairs, "--resamples", "100", "--skip-bad-rows") == 0
    assert "left out: " in capsys.readouterr().err


@pytest.mark.usefixtures("fake_model")
def test_a_type_without_a_vector_is_refused_before_anything_is_encoded(pairs: str) -> None:
    with pytest.raises(InvalidRequest, match="gives no vector"):
        run("--data", pairs, "--pooling", "mean,none")


def test_a_folder_that_cannot_be_made_is_refused_before_the_model_is_loaded(pairs: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be made"):
        run("--data", pairs, "--model", "/nowhere/model.gguf", "--report", f"{pairs}/report")


def test_no_data_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="give --data, --labels or --retrieval"):
        run()


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("--url", "http://127.0.0.1:1", "--append-eos"), "for a local model"),
        (("--api-key", "secret"), "give its --url"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(pairs: str, arguments: tuple[str, ...], fault: str) -> None:
    with pytest.raises(InvalidRequest, match=fault):
        run("--data", pairs, *arguments)


@pytest.mark.parametrize(
    "arguments", [("--pooling", "meen"), ("--neighbours", "0"), ("--threads", "two"), ("--local", "--url", "http://x")]
)
def test_an_argument_of_a_wrong_form_ends_with_usage(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_live_server_gives_the_same_figures_as_the_model_in_this_process(
    url: str, pairs: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LocalModel, "load", lambda config, threads: LocalModel.fake())
    answers = []
    for place in (["--local"], ["--url", url]):
        assert run("--data", pairs, "--resamples", "100", "--json", *place) == 0
        answers.append(json.loads(capsys.readouterr().out))
    local, remote = (answer["tasks"][0]["metrics"]["spearman"] for answer in answers)
    assert answers[0]["recommendation"]["pooling"] == answers[1]["recommendation"]["pooling"]
    assert local.keys() == remote.keys() > set()
    for pooling, figure in local.items():
        assert remote[pooling]["value"] == pytest.approx(figure["value"], abs=2e-4)
