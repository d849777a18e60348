from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import InvalidRequest
from cluster.evaluation.data import read_labels, read_pairs, read_retrieval


def write(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def test_pairs_are_read_by_column_name(tmp_path: Path) -> None:
    path = write(tmp_path, "p.csv", "id,score,sentence1,sentence2\n1,0.5,a,b\n2,1,c,d\n3,0,e,f\n")
    pairs = read_pairs(path)
    assert pairs.first == ["a", "c", "e"]
    assert pairs.second == ["b", "d", "f"]
    assert pairs.scores.tolist() == [0.5, 1.0, 0.0]


@pytest.mark.parametrize("line", ["a,b,{score}", "{score},a,b", "a,{score},b"])
def test_three_columns_without_a_header_find_the_score_wherever_it_is(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, "p.csv", "".join(line.format(score=score) + "\n" for score in (1, 2, 3)))
    pairs = read_pairs(path)
    assert (pairs.first[0], pairs.second[0], pairs.scores.tolist()) == ("a", "b", [1.0, 2.0, 3.0])


def test_all_bad_rows_are_named_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "p.csv", "score,sentence1,sentence2\nx,a,b\n1,,b\n2,a,b\n3,c\n")
    with pytest.raises(InvalidRequest) as caught:
        read_pairs(path)
    assert "line 2: score is 'x', not a number" in caught.value.message
    assert "line 3: sentence1 is empty" in caught.value.message
    assert "line 5: sentence2 is missing" in caught.value.message


def test_bad_rows_are_left_out_and_reported_when_asked(tmp_path: Path) -> None:
    path = write(tmp_path, "p.csv", "score,sentence1,sentence2\nx,a,b\n1,a,b\n2,c,d\n3,e,f\n")
    pairs = read_pairs(path, skip_bad_rows=True)
    assert pairs.first == ["a", "c", "e"]
    assert pairs.skipped == [f"{path}: line 2: score is 'x', not a number"]


def test_a_file_without_a_usable_row_is_refused_even_when_bad_rows_are_skipped(tmp_path: Path) -> None:
    path = write(tmp_path, "p.csv", "score,sentence1,sentence2\nx,a,b\n")
    with pytest.raises(InvalidRequest, match="no usable row"):
        read_pairs(path, skip_bad_rows=True)


def test_pairs_of_one_score_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"3 pair\(s\) of 1 score"):
        read_pairs(write(tmp_path, "p.csv", "a,b,1\nc,d,1\ne,f,1\n"))


def test_labels_need_two_and_fewer_than_texts(tmp_path: Path) -> None:
    good = read_labels(write(tmp_path, "l.csv", "text,label\na,x\nb,x\nc,y\nd,y\n"))
    assert good.labels == ["x", "x", "y", "y"]
    for labels in ("xxxx", "wxyz"):
        rows = "".join(f"{text},{label}\n" for text, label in zip("abcd", labels, strict=True))
        with pytest.raises(InvalidRequest, match="more texts than labels"):
            read_labels(write(tmp_path, "l.csv", "text,label\n" + rows))


def retrieval_files(folder: Path, qrels: str, name: str = "qrels.tsv") -> tuple[Path, Path, Path]:
    return (
        write(folder, "corpus.jsonl", '{"_id": "d1", "title": "T", "text": "one"}\n{"_id": "d2", "text": "two"}\n'),
        write(folder, "queries.csv", "_id,text\nq1,first\nq2,second\n"),
        write(folder, name, qrels),
    )


def test_a_retrieval_set_joins_titles_and_drops_queries_without_an_answer(tmp_path: Path) -> None:
    data = read_retrieval(*retrieval_files(tmp_path, "query-id\tcorpus-id\tscore\nq1\td2\t2\nq2\td1\t0\n"))
    assert data.documents == ["T one", "two"]
    assert data.queries == ["first"]
    assert data.relevance == [{1: 2.0}]


def test_judgements_in_trec_form_are_read(tmp_path: Path) -> None:
    assert read_retrieval(*retrieval_files(tmp_path, "q2\t0\td1\t1\n")).relevance == [{0: 1.0}]


def test_a_judgement_of_an_unknown_document_names_its_line(tmp_path: Path) -> None:
    files = retrieval_files(tmp_path, "query-id\tcorpus-id\tscore\nq1\td2\t1\nq1\td9\t1\n")
    with pytest.raises(InvalidRequest, match=r"line 3: corpus-id is 'd9', which .*corpus\.jsonl does not have"):
        read_retrieval(*files)


def test_a_set_in_which_nothing_is_relevant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="names no relevant document"):
        read_retrieval(*retrieval_files(tmp_path, "query-id\tcorpus-id\tscore\nq1\td2\t0\n"))


def test_an_identifier_that_was_used_before_names_its_line(tmp_path: Path) -> None:
    corpus, queries, qrels = retrieval_files(tmp_path, "q1\t0\td1\t1\n")
    queries.write_text("_id,text\nq1,first\nq1,again\n", encoding="utf-8")
    with pytest.raises(InvalidRequest, match="line 3: the identifier 'q1' was used before"):
        read_retrieval(corpus, queries, qrels)
