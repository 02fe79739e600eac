"""What the official package makes of our messages."""

from __future__ import annotations

import mcp_types
import msgspec

from swarmd.api import mcp_shapes as shapes


def test_results_are_theirs() -> None:
    result = shapes.ToolResult(content=[shapes.TextContent(text="x")], structured_content={"a": 1})
    theirs = mcp_types.CallToolResult.model_validate_json(msgspec.json.encode(result))
    assert theirs.structured_content == {"a": 1} and not theirs.is_error
    read = shapes.ResourceContents(contents=[shapes.ResourceText(uri="swarmd://x", mime_type="application/json", text="{}")])
    assert mcp_types.ReadResourceResult.model_validate_json(msgspec.json.encode(read)).contents[0].uri == "swarmd://x"


def test_names_on_the_wire() -> None:
    progress = shapes.RpcNotification(
        method="notifications/progress", params=shapes.Progress(progress_token="t", progress=1, total=2, message="m")
    )
    assert msgspec.json.decode(msgspec.json.encode(progress)) == {
        "jsonrpc": "2.0", "method": "notifications/progress",
        "params": {"progressToken": "t", "progress": 1, "total": 2, "message": "m"},
    }  # fmt: skip
    meta = msgspec.convert({"name": "chat", "_meta": {"progressToken": 5, "other": 1}}, shapes.CallTool).meta
    assert meta == shapes.CallMeta(progress_token=5)
