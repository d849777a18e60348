from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from cluster.cli.main import main
from tests.support.servers import served


async def score(request: Request) -> JSONResponse:
    """A document's score is the number of its letters that the query has."""
    body = await request.json()
    scores = [sum(letter in body["query"] for letter in document) for document in body["documents"]]
    results = [{"index": index, "relevance_score": float(score)} for index, score in enumerate(scores)]
    return JSONResponse({"results": results, "model": "m", "score_type": "logit"})


@pytest.fixture
def reranker() -> Iterator[str]:
    with served(Starlette(routes=[Route("/v1/rerank", score, methods=["POST"])])) as url:
        yield url


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    path = tmp_path / "documents.txt"
    path.write_text("xyz\nab\n\naab\n", encoding="utf-8")
    return path


def test_documents_are_printed_from_the_best_to_the_worst(
    reranker: str, documents: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rerank", "abc", str(documents), "--url", reranker]) == 1
    printed = capsys.readouterr()
    assert [line.split() for line in printed.out.splitlines()] == [
        ["3.0000", "4", "aab"],
        ["2.0000", "2", "ab"],
        ["0.0000", "1", "xyz"],
    ]
    assert f"{documents}, line 3: the line is empty" in printed.err


def test_json_says_what_the_scores_are(reranker: str, documents: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rerank", "abc", str(documents), "--url", reranker, "--json", "--top-n", "1"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["score_type"], answer["model"]) == ("logit", "m")
    assert answer["results"] == [{"line": 4, "score": 3.0, "text": "aab"}]


def test_no_documents_are_an_error(reranker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    assert main(["rerank", "abc", str(empty), "--url", reranker]) == 2
    assert "there is no document to rank" in capsys.readouterr().err


@pytest.mark.usefixtures("local_fake")
@pytest.mark.parametrize("strategy", ["cross_encoder", "late_interaction", "similarity"])
def test_the_model_in_this_process_ranks_as_a_server_does(
    strategy: str, url: str, documents: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = []
    for place in (["--local"], ["--url", url]):
        assert main(["rerank", "abc", str(documents), "--json", "--strategy", strategy, *place]) == 1
        answers.append(json.loads(capsys.readouterr().out))
    assert [result["line"] for result in answers[0]["results"]] == [result["line"] for result in answers[1]["results"]]
    assert answers[0]["results"]
    for ours, theirs in zip(answers[0]["results"], answers[1]["results"], strict=True):
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-6)
