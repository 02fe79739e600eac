"""Items are kept as JSON and read again; what is left out is what the contract leaves out."""

from __future__ import annotations

import msgspec

from swarmd.api.responses_shapes import CallItem, CallOutputItem, InputText, Item, MessageItem, OutputText, TextFormatOut

ITEMS: list[Item] = [
    MessageItem(id="msg_1", status="completed", role="assistant", content=[OutputText(text="a")]),
    CallItem(id="fc_1", status="completed", call_id="c", name="add", arguments="{}"),
    CallOutputItem(id="fco_1", status="completed", call_id="c", output=[InputText(text="b")]),
    CallOutputItem(id="fco_2", status="completed", call_id="c", output="b"),
]


def test_items_are_read_as_they_were_written() -> None:
    assert msgspec.json.decode(msgspec.json.encode(ITEMS), type=list[Item]) == ITEMS


def test_an_item_as_the_contract_has_it() -> None:
    assert msgspec.to_builtins(ITEMS[0]) == {
        "type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
        "content": [{"type": "output_text", "text": "a", "annotations": [], "logprobs": []}],
    }  # fmt: skip
    assert msgspec.to_builtins(TextFormatOut(type="text")) == {"type": "text"}
