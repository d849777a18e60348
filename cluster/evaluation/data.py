"""A person's validation set: scored pairs, labelled texts, or a corpus with queries and judgements."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cluster.errors import InvalidRequest
from cluster.evaluation.tables import (
    FaultLog,
    FieldFault,
    Row,
    Table,
    find_column,
    number_field,
    read_table,
    text_field,
)
from cluster.types import Float32

_SCORE = ("score", "similarity", "label", "gold", "rating")
_FIRST = ("sentence1", "text1", "sentence_a", "text_a", "first", "query")
_SECOND = ("sentence2", "text2", "sentence_b", "text_b", "second", "document")
_TEXT = ("text", "sentence", "content", "document")
_LABEL = ("label", "class", "category", "topic")
_IDENTIFIER = ("_id", "id", "doc_id", "docid", "query_id", "query-id", "qid")
_TITLE = "title"
_QUERY_IDENTIFIER = ("query-id", "query_id", "qid", "query")
_DOCUMENT_IDENTIFIER = ("corpus-id", "corpus_id", "doc_id", "docid", "doc-id", "document")
_RELEVANCE = ("score", "relevance", "rel", "label")
_LEAST_PAIRS = 3
_LEAST_TEXTS = 4


@dataclass(frozen=True, slots=True)
class ScoredPairs:
    """Pairs of texts and how similar a person found them.

    Attributes:
        scores: float32 ``[n]``, larger is more similar, on any scale.
        skipped: the rows that were left out and why.
    """

    first: list[str]
    second: list[str]
    scores: Float32
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LabelledTexts:
    """Texts and the class of each."""

    texts: list[str]
    labels: list[str]
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Documents, queries, and which documents answer which query.

    Attributes:
        relevance: for each query, document's index → its grade (> 0). No query is without.
        skipped: rows that were left out and why.
    """

    documents: list[str]
    queries: list[str]
    relevance: list[dict[int, float]]
    skipped: list[str] = field(default_factory=list)


def read_pairs(path: Path, skip_bad_rows: bool = False) -> ScoredPairs:
    """Read pairs with columns score, sentence1, sentence2, or three columns without a header of which one is a number.

    Raises:
        InvalidRequest: a column is missing, or a row cannot be used; names the line.
    """
    table = read_table(path, (*_SCORE, *_FIRST, *_SECOND))
    score, first, second = _pair_columns(table)
    log = FaultLog(path, skip_bad_rows)
    pairs = ScoredPairs([], [], np.zeros(0, dtype=np.float32), log.faults)
    scores: list[float] = []
    for row in table.rows:
        try:
            fields = text_field(row, first), text_field(row, second), number_field(row, score)
        except FieldFault as fault:
            log.add(row.line, fault)
            continue
        pairs.first.append(fields[0])
        pairs.second.append(fields[1])
        scores.append(fields[2])
    skipped = log.close(len(scores))
    if len(scores) < _LEAST_PAIRS or len(set(scores)) < 2:
        raise InvalidRequest(
            f"{path} has {len(scores)} pair(s) of {len(set(scores))} score(s); a correlation needs more"
        )
    return ScoredPairs(pairs.first, pairs.second, np.asarray(scores, dtype=np.float32), skipped)


def read_labels(path: Path, skip_bad_rows: bool = False) -> LabelledTexts:
    """Read labelled texts with columns text and label.

    Raises:
        InvalidRequest: a column is missing, a row cannot be used, or there are too few labels to tell apart.
    """
    table = read_table(path, (*_TEXT, *_LABEL))
    text, label = find_column(table, "text", _TEXT), find_column(table, "label", _LABEL)
    log = FaultLog(path, skip_bad_rows)
    texts: list[str] = []
    labels: list[str] = []
    for row in table.rows:
        try:
            fields = text_field(row, text), text_field(row, label).strip()
        except FieldFault as fault:
            log.add(row.line, fault)
            continue
        texts.append(fields[0])
        labels.append(fields[1])
    skipped = log.close(len(texts))
    distinct = len(set(labels))
    if len(texts) < _LEAST_TEXTS or not 2 <= distinct < len(texts):
        raise InvalidRequest(
            f"{path} has {len(texts)} text(s) of {distinct} label(s); give at least {_LEAST_TEXTS} texts, two labels, "
            "and more texts than labels"
        )
    return LabelledTexts(texts, labels, skipped)


def read_retrieval(corpus: Path, queries: Path, qrels: Path, skip_bad_rows: bool = False) -> Retrieval:
    """Read a corpus and queries (columns _id, text and optionally title) and judgements.

    Judgements have columns query-id, corpus-id and score, or are in TREC's form without a header: query, 0, document, grade.

    Raises:
        InvalidRequest: a column is missing, a row cannot be used, or no query has a relevant document.
    """
    documents, skipped_documents = _read_texts(corpus, skip_bad_rows)
    questions, skipped_questions = _read_texts(queries, skip_bad_rows)
    document_index = {identifier: index for index, identifier in enumerate(documents)}
    table = read_table(qrels, (*_QUERY_IDENTIFIER, *_DOCUMENT_IDENTIFIER, *_RELEVANCE))
    query_column, document_column, grade_column = _judgement_columns(table)
    log = FaultLog(qrels, skip_bad_rows)
    relevance: dict[str, dict[int, float]] = {}
    for row in table.rows:
        try:
            query = _known(row, query_column, questions, queries)
            document = _known(row, document_column, document_index, corpus)
            grade = number_field(row, grade_column)
        except FieldFault as fault:
            log.add(row.line, fault)
            continue
        if grade > 0:
            relevance.setdefault(query, {})[document_index[document]] = grade
    skipped = log.close(len(table.rows) - len(log.faults))
    judged = [query for query in questions if query in relevance]
    if not judged:
        raise InvalidRequest(f"{qrels} names no relevant document (score > 0) for any query of {queries}")
    return Retrieval(
        documents=list(documents.values()),
        queries=[questions[query] for query in judged],
        relevance=[relevance[query] for query in judged],
        skipped=[*skipped_documents, *skipped_questions, *skipped],
    )


def _pair_columns(table: Table) -> tuple[str, str, str]:
    if table.header:
        return (
            find_column(table, "score", _SCORE),
            find_column(table, "first text", _FIRST),
            find_column(table, "second text", _SECOND),
        )
    if len(table.columns) != 3:
        raise InvalidRequest(
            f"{table.path} has no header and {len(table.columns)} columns; "
            "three were expected (two texts and a score), or a header with score, sentence1, sentence2"
        )
    for score in ("2", "0", "1"):
        first, second = (column for column in table.columns if column != score)
        try:
            number_field(table.rows[0], score)
        except FieldFault:
            continue
        return score, first, second
    raise InvalidRequest(f"{table.path}, line {table.rows[0].line}: no column is a finite number, so none is the score")


def _judgement_columns(table: Table) -> tuple[str, str, str]:
    if not table.header and len(table.columns) in (3, 4):
        return "0", table.columns[-2], table.columns[-1]
    return (
        find_column(table, "query's identifier", _QUERY_IDENTIFIER),
        find_column(table, "document's identifier", _DOCUMENT_IDENTIFIER),
        find_column(table, "relevance", _RELEVANCE),
    )


def _read_texts(path: Path, skip_bad_rows: bool) -> tuple[dict[str, str], list[str]]:
    table = read_table(path, (*_IDENTIFIER, *_TEXT))
    identifier, text = find_column(table, "identifier", _IDENTIFIER), find_column(table, "text", (*_TEXT, "query"))
    titled = _TITLE in table.columns
    log = FaultLog(path, skip_bad_rows)
    texts: dict[str, str] = {}
    for row in table.rows:
        try:
            name = text_field(row, identifier).strip()
            if name in texts:
                log.add(row.line, FieldFault(f"the identifier {name!r} was used before"))
                continue
            content = text_field(row, text)
        except FieldFault as fault:
            log.add(row.line, fault)
            continue
        title = str(row.fields.get(_TITLE) or "").strip() if titled else ""
        texts[name] = f"{title} {content}" if title else content
    return texts, log.close(len(texts))


def _known(row: Row, column: str, known: dict[str, str] | dict[str, int], path: Path) -> str:
    name = text_field(row, column).strip()
    if name not in known:
        raise FieldFault(f"{column} is {name!r}, which {path} does not have")
    return name
