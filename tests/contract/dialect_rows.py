"""What agents and editors ask: the Anthropic dialect, MCP, and the small status beside the models."""

from __future__ import annotations

from swarmd.domain.refusals import Busy
from tests.contract.our_rows import SERVED, SWARM, pipeline
from tests.contract.row import KEY, Refused, Row
from tests.fakes.rim import TINY, no_coverage

ANTHROPIC = {"type": "=error", "error": {"type": "str", "message": "str"}, "request_id": "str"}
JSON_RPC = {"jsonrpc": "=2.0", "id": "null|int|str", "error": {"code": "int", "message": "str", "data?": "any"}}
HELLO = [{"role": "user", "content": "Hello"}]
MESSAGE = {"model": TINY, "max_tokens": 8, "messages": HELLO}
USAGE = {
    "input_tokens": "int", "cache_creation_input_tokens": "int", "cache_read_input_tokens": "int", "output_tokens": "int"
}  # fmt: skip
INITIALIZE = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25", "capabilities": {}}
}  # fmt: skip
PICTURE = [{"role": "user", "content": [{"type": "image", "source": {}}]}]

ROWS = (
    Row(
        method="POST", path="/v1/messages", access=KEY, body=MESSAGE, envelope=ANTHROPIC, live=True,
        live_body={"model": "auto", "max_tokens": 4, "messages": HELLO},
        reply={
            "id": "str", "type": "=message", "role": "=assistant", "model": "str", "usage": USAGE, "swarm": SWARM,
            "content": [{"type": "=text", "text": "str"}], "stop_reason": "=end_turn|=max_tokens", "stop_sequence": "null",
        },
        refused=[
            Refused(status=404, when="nobody knows the model", body=MESSAGE | {"model": "unknown"}),
            Refused(status=400, when="no max_tokens", body={"model": TINY, "messages": HELLO}),
            Refused(status=400, when="too hot for this contract", body=MESSAGE | {"temperature": 1.5}),
            Refused(status=400, when="a picture", body=MESSAGE | {"messages": PICTURE}),
            Refused(status=400, when="thinking", body=MESSAGE | {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
            Refused(status=529, when="all places are taken", arrange=pipeline(Busy(what="ten replies are running"))),
            Refused(status=503, when="nobody holds a shard of it", arrange=pipeline(no_coverage())),
        ],
    ),
    Row(
        method="POST", path="/v1/messages/count_tokens", access=KEY, body={"model": TINY, "messages": HELLO}, live=True,
        live_body={"model": "auto", "messages": HELLO}, envelope=ANTHROPIC, reply={"input_tokens": "int"},
        refused=[
            Refused(status=404, when="nobody knows the model", body={"model": "unknown", "messages": HELLO}),
            Refused(status=400, when="no messages", body={"model": TINY, "messages": []}),
        ],
    ),
    Row(
        method="GET", path="/v1/status", access=KEY, live=True,
        reply={
            "node": "node", "version": "str", "uptime_seconds": "int", "peers": "int", "active": "int", "queued": "int",
            "stages": "int", "tokens_per_second": "num|null",
            "models": [{"id": "str", "owned_by": "str", "context_length?": "int", "swarm?": SERVED}],
        },
    ),
    Row(
        method="POST", path="/mcp", access=KEY, body=INITIALIZE, envelope=JSON_RPC, live=True,
        reply={
            "jsonrpc": "=2.0", "id": "int",
            "result": {
                "protocolVersion": "=2025-11-25", "capabilities": {"tools": {}, "resources": {}}, "instructions": "str",
                "serverInfo": {"name": "=swarmd", "title": "str", "version": "str"},
            },
        },
        refused=[
            Refused(status=400, when="no session", body={"jsonrpc": "2.0", "id": 1, "method": "tools/list"}),
            Refused(status=400, when="another protocol", body={"jsonrpc": "1.0", "id": 1, "method": "initialize"}),
        ],
    ),
    # With a session: tests/api/test_mcp.py.
    Row(method="GET", path="/mcp", access=KEY, envelope=JSON_RPC, status=400, reply=JSON_RPC, live=True),
    Row(method="DELETE", path="/mcp", access=KEY, envelope=JSON_RPC, status=400, reply=JSON_RPC, live=True),
)  # fmt: skip
