"""Grammars enforced by the engine in the wheel: what they allow satisfies the schema, and the other way round."""

from __future__ import annotations

import ctypes as c
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.domain.generation import Sampling
from swarmd.domain.structure import CallForm, CallRule, Grammar
from swarmd.inference.engine import ContextShape, Embeddings, Engine, LoadedShard, Sampler, Vocabulary
from swarmd.inference.grammars import grammar_text
from swarmd.inference.guidance import Guidance, GuidanceFailure
from swarmd.inference.native import open_library
from swarmd.inference.tool_calls import ToolCallParser
from swarmd.inference.worker_frames import NO_TOKEN, Run
from swarmd.models.shard_file import vocabulary_file
from tests.fakes.gguf import TinyModel, write_model
from tests.fakes.shards import cut_model, write_shards

MODEL = TinyModel(layers=2, tokenizer=True)
END, TURN, MARK = 256, 257, 258
PIECES = [bytes([byte]) for byte in range(256)] + [b"", b"", b"", b'{"', b'": ', b"</", b"true", "é".encode()]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


@functools.cache
def _shared() -> Guidance:
    """Of a vocabulary of bytes, a few longer texts, two tokens that end a reply and a marker of Mistral's."""
    names = {"</s>": END, "<end>": TURN, "[TOOL_CALLS]": MARK}
    return Guidance(open_library(), pieces=PIECES, names=names, ends=[END, TURN])


@pytest.fixture
def guidance() -> Guidance:
    return _shared()


def spell(text: str) -> list[int]:
    return list(text.encode())


def accepts(guidance: Guidance, grammar: Grammar, ids: Sequence[int]) -> bool:
    """The whole reply, and that it may end there."""
    guide = guidance.guide(grammar)
    try:
        for token in ids:
            allowed = guide.allowed()
            if allowed is None or not allowed[token] or not guide.accept(token):
                return False
        allowed = guide.allowed()
        return allowed is not None and bool(allowed[END] and allowed[TURN])
    finally:
        guide.close()


def wander(guidance: Guidance, grammar: Grammar, seed: int, most: int = 400) -> bytes | None:
    """What a model without any sense would write; None: it is not done after so many tokens."""
    chance = np.random.default_rng(seed)
    guide = guidance.guide(grammar)
    text = b""
    try:
        for _ in range(most):
            allowed = guide.allowed()
            assert allowed is not None, text
            if allowed[END] and chance.random() < 0.5:
                return text
            likely = np.where(np.isin(np.arange(len(PIECES)), [ord("]"), ord("}"), ord('"')]), 8.0, 1.0) * allowed
            likely[[END, TURN]] *= 0.1
            token = int(chance.choice(len(PIECES), p=likely / likely.sum()))
            if token in (END, TURN):
                return text
            assert guide.accept(token)
            text += b"[TOOL_CALLS]" if token == MARK else PIECES[token]
        return None
    finally:
        guide.close()


SCHEMAS: list[dict[str, Any]] = [
    {"type": "object"},
    {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "minimum": -3, "maximum": 40}, "b": {"type": ["string", "null"], "maxLength": 3},
        },
        "required": ["a"],
        "additionalProperties": False,
    },
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    {"enum": ["one", 2, None, {"x": [1]}]},
    {"const": "just this"},
    {"anyOf": [{"type": "number", "exclusiveMinimum": 0, "maximum": 1}, {"type": "null"}]},
    {"type": "string", "pattern": "^[a-c]{2,3}$"},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "minLength": 1, "maxLength": 4},
    {
        "$ref": "#/$defs/tree",
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {"v": {"type": "boolean"}, "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/tree"}]}},
                "required": ["v", "next"],
                "additionalProperties": False,
            }
        },
    },
    {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 50}}},
            {"required": ["a"], "properties": {"b": {"const": 1}}},
        ],
        "additionalProperties": False,
        "properties": {"a": True, "b": True},
    },
    {"type": "object", "additionalProperties": {"type": "boolean"}, "minProperties": 1, "maxProperties": 2},
    {"prefixItems": [{"const": 1}, {"type": "string", "maxLength": 2}], "items": False, "minItems": 2, "type": "array"},
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:40])
def test_what_comes_out_satisfies_the_schema(guidance: Guidance, schema: dict[str, Any]) -> None:
    whole = 0
    for seed in range(12):
        text = wander(guidance, Grammar(schema=json.dumps(schema)), seed)
        if text is not None:
            whole += 1
            jsonschema.validate(json.loads(text), schema, format_checker=jsonschema.FormatChecker())
    assert whole, "no reply came to its end"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-60, 60) | st.sampled_from(["", "a", "ab", "abc", "one", "just this", "é"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["a", "b", "v", "next", "x"]), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SCHEMAS[:8] + SCHEMAS[9:]), VALUES)
def test_a_value_is_allowed_exactly_where_it_satisfies_the_schema(schema: dict[str, Any], value: Any) -> None:
    guidance = _shared()
    if isinstance(value, dict):  # properties come in the schema's order, unknown ones behind them
        order = list(schema.get("properties") or schema.get("$defs", {}).get("tree", {}).get("properties", {}))
        value = dict(sorted(value.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))
        if any(isinstance(inner, dict) for inner in value.values()):
            return
    valid = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).is_valid(value)
    text = json.dumps(value, ensure_ascii=False)
    assert accepts(guidance, Grammar(schema=json.dumps(schema)), spell(text)) == valid, text


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {"type": "string"}}, "not"),
        ({"if": {}, "then": {}}, "if"),
        ({"type": "string", "format": "color"}, "color"),
        ({"type": "string", "pattern": "(?=a)b"}, "pattern|look"),
        ({"$ref": "https://example.com/schema"}, "example.com|ref"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "nsatisfiable|minimum"),
        ({"$ref": "#"}, "nothing satisfies"),
        ({"type": "object", "properties": {"a\0": {"type": "integer"}}}, "zero|NUL|u0000|Unicode|control|."),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(guidance: Guidance, schema: dict[str, Any], words: str) -> None:
    if "properties" in schema:
        guidance.guide(Grammar(schema=json.dumps(schema))).close()  # escaped, it is a name like others
        return
    with pytest.raises(GuidanceFailure, match=words):
        guidance.guide(Grammar(schema=json.dumps(schema)))


RULES = (
    CallRule(name="get", schema='{"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}, "required": ["n"], '
             '"additionalProperties": false, "$defs": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}}'),
    CallRule(name="now", schema='{"type": "object", "additionalProperties": false}'),
)  # fmt: skip


@pytest.mark.parametrize("form", CallForm)
@pytest.mark.parametrize("many", [False, True])
def test_a_forced_call_is_one_that_the_parser_reads(guidance: Guidance, form: CallForm, many: bool) -> None:
    whole = 0
    for seed in range(8):
        text = wander(guidance, Grammar(calls=RULES, form=form, many=many), seed)
        if text is None:
            continue
        whole += 1
        parser = ToolCallParser(form=form, names=["get", "now"], make_id=str)
        content, pieces = parser.feed(text.decode())
        rest, _ = parser.finish()
        assert (content, rest) == ("", "") and parser.calls >= 1
        assert many or parser.calls == 1
        for index in range(parser.calls):
            name = next(piece.name for piece in pieces if piece.index == index)
            arguments = json.loads("".join(piece.arguments for piece in pieces if piece.index == index))
            rule = next(rule for rule in RULES if rule.name == name)
            jsonschema.validate(arguments, json.loads(rule.schema))
    assert whole


@pytest.mark.parametrize(
    ("form", "text", "fits"),
    [
        (CallForm.HERMES, "just text, 1 < 2", True),
        (CallForm.HERMES, 'so <tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>', True),
        (CallForm.HERMES, 'so <tool_call>\n{"name": "now", "arguments": {"x": 1}}\n</tool_call>', False),
        (CallForm.HERMES, "so <tool_call> whatever", False),
        (CallForm.LLAMA, "just text {", True),
        (CallForm.LLAMA, '{"name": "get", "parameters": {"n": 4}}', True),
        (CallForm.LLAMA, '{"name": "get", "parameters": {"n": 44}}', False),
        (CallForm.LLAMA, '{"other": 1}', False),
    ],
)
def test_with_strict_tools_text_is_free_and_calls_are_not(
    guidance: Guidance, form: CallForm, text: str, fits: bool
) -> None:
    assert accepts(guidance, Grammar(calls=RULES, form=form, free=True), spell(text)) == fits


def test_a_control_token_opens_the_calls_of_mistral(guidance: Guidance) -> None:
    grammar = Grammar(calls=RULES, form=CallForm.MISTRAL, free=True)
    call = spell('[{"name": "now", "arguments": {}}]')
    assert accepts(guidance, grammar, [*spell("so "), MARK, *call])
    assert not accepts(guidance, grammar, [*spell("so "), MARK, *spell("[1]")])
    forced = Grammar(calls=RULES, form=CallForm.MISTRAL)
    assert accepts(guidance, forced, [MARK, *call]) and not accepts(guidance, forced, call)


def test_json_or_a_call(guidance: Guidance) -> None:
    grammar = Grammar(schema='{"enum": [1, 2]}', calls=RULES)
    assert accepts(guidance, grammar, spell("2"))
    assert accepts(guidance, grammar, spell('<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'))
    assert not accepts(guidance, grammar, spell("3"))


def test_a_vocabulary_that_cannot_end_a_reply(engine: Engine) -> None:
    with pytest.raises(GuidanceFailure, match="no token that ends"):
        Guidance(engine.library, pieces=PIECES, names={}, ends=[])


def test_a_grammar_in_the_chain_of_shards_picks_what_llama_cpp_with_its_own_grammar_sampler_picks(
    engine: Engine, tmp_path: Path
) -> None:
    """The whole model in one llama.cpp context, greedy, beside llama.cpp's own sampler around the same constraint engine."""
    data = write_model(tmp_path / "tiny.gguf", MODEL).read_bytes()
    cut = cut_model(data)
    (path,) = write_shards(cut, tmp_path)
    at = cut.files[0].embedding
    assert at is not None
    table = Embeddings(
        offset_bytes=at.file_offset, kind=at.type, rows=at.rows, width=at.columns, row_bytes=at.row_bytes, scale=1.0
    )
    shape = ContextShape(cells=256, sequences=1, rows=16, threads=1)
    shard = LoadedShard(engine, path, last=True, embeddings=table, shape=shape)
    schema = {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 3, "maxItems": 6}
    grammar = Grammar(schema=json.dumps(schema))
    call = engine.library.call
    (tmp_path / "vocabulary.gguf").write_bytes(vocabulary_file(cut.header))
    vocabulary = Vocabulary(engine, tmp_path / "vocabulary.gguf")
    words = range(vocabulary.size)
    names = {vocabulary.piece(at, special=True).decode(): at for at in words if vocabulary.is_control(at)}
    ends = [at for at in words if vocabulary.ends_generation(at)]
    pieces = [vocabulary.piece(at, special=False) for at in words]

    def reply(pick: Any) -> list[int]:
        shard.forget(0)
        said: list[int] = []
        token, position = 5, 0
        while position < 200:
            shard.step([Run(0, position, 1)], shard.embed(np.array([token], np.int32)), [0])
            token = pick(position)
            if token in ends:
                return said
            said.append(token)
            position += 1
        raise AssertionError("it goes on and on")

    guidance = Guidance(engine.library, pieces=pieces, names=names, ends=ends)
    sampler = Sampler(
        engine, Sampling(temperature=0.0), vocabulary_size=len(words), cells=256, guide=guidance.guide(grammar)
    )
    ours = reply(lambda position: sampler.pick(shard, 0, position).token)
    sampler.close()
    make = call._Z22llama_sampler_init_llgPK11llama_vocabPKcS3_
    make.restype, make.argtypes = c.c_void_p, (c.c_void_p, c.c_char_p, c.c_char_p)
    chain = call.llama_sampler_chain_init(call.llama_sampler_chain_default_params())
    call.llama_sampler_chain_add(chain, make(vocabulary._vocab, b"lark", grammar_text(grammar, names.get).encode()))
    call.llama_sampler_chain_add(chain, call.llama_sampler_init_greedy())
    theirs = reply(lambda _: call.llama_sampler_sample(chain, shard.context, 0))
    call.llama_sampler_free(chain)
    shard.close()
    guidance.close()
    assert ours == theirs
    jsonschema.validate(json.loads(b"".join(pieces[token] for token in ours)), schema)


def test_a_reply_that_cannot_go_on_says_so_in_place_of_a_token(guidance: Guidance) -> None:
    guide = guidance.guide(Grammar(schema='{"const": 1}'))
    assert not guide.accept(ord("x")), "this is not in the grammar"
    assert guide.allowed() is None
    guide.close()
    assert NO_TOKEN == -1
