from __future__ import annotations

import msgspec

from swarmd.api import openai_shapes


def test_every_shape_prints_a_schema() -> None:
    """The OpenAPI document is made of them."""
    shapes = [
        one
        for one in vars(openai_shapes).values()
        if isinstance(one, type) and issubclass(one, msgspec.Struct) and one is not msgspec.Struct
    ]
    schemas, components = msgspec.json.schema_components(shapes)
    assert len(schemas) == len(shapes)
    assert set(components) == {shape.__name__ for shape in shapes}


def test_requests_ignore_what_they_do_not_know() -> None:
    body = b'{"model": "m", "prompt": "x", "whatever": {"a": 1}}'
    assert msgspec.json.decode(body, type=openai_shapes.CompletionRequest).prompt == "x"
