"""Fields of Voyage's and Jina's bodies that change vectors and that Poolhouse spells otherwise or does not have.

To ignore one would be a wrong answer with status 200, so each is an error that says what to send, unless it asks for what it
gets anyway. That holds for these fields only; a field that changes no vector is ignored, and named in a header.
"""

from __future__ import annotations

from typing import Any

from cluster.api.body import Fields, describe
from cluster.errors import InvalidRequest

# Field → the values that ask for what is answered anyway, beside null, and what to send in its place.
_FOREIGN: dict[str, tuple[tuple[Any, ...], str]] = {
    "output_dimension": ((), "send dimensions"),
    "embedding_type": (
        ("float", ["float"]),
        "send output_dtype for int8, uint8, binary or ubinary, and encoding_format for base64",
    ),
    "late_chunking": (
        (False,),
        'it is not available here: send pooling: "none" for a vector of each token, and pool the chunks\' own',
    ),
    "return_multivector": ((False,), 'send pooling: "none"'),
    "normalized": ((True,), "send embd_normalize: -1 for vectors that are not normalised"),
    "task": ((), "send input_type, with the name of one of the model's prompts"),
}


def refuse_foreign(fields: Fields) -> None:
    """Check that no foreign field asks for other vectors than it would get.

    Raises:
        InvalidRequest: one does; ``param`` is that field, the message names ours.
    """
    for name, (defaults, instead) in _FOREIGN.items():
        value = fields.raw(name)
        # Compared with their types: 1 is not true.
        if value is not None and not any(type(value) is type(default) and value == default for default in defaults):
            raise InvalidRequest(f"{name} is {describe(value)}, which means nothing here; {instead}", name)
