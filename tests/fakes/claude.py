"""A `claude` program of our own: writes down how it was started, and answers as a file beside it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

SCRIPT = '''#!{python}
import json, os, sys, time
log = {log!r}
if sys.argv[1:] == ["--version"]:
    print("2.1.92 (Claude Code)")
    raise SystemExit
mode = open({mode!r}).read()
said = sys.stdin.read() if mode != "deaf" else ""
with open(log, "w") as file:
    json.dump({{"argv": sys.argv[1:], "stdin": said, "cwd": os.getcwd(), "env": dict(os.environ), "pid": os.getpid()}}, file)
def line(**row):
    print(json.dumps(row), flush=True)
def delta(text):
    said = {{"type": "text_delta", "text": text}}
    line(type="stream_event", event={{"type": "content_block_delta", "index": 0, "delta": said}})
if mode == "stubborn":
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
line(type="system", subtype="init", session_id="s")
print("not json", flush=True)
if mode == "broken":
    print("Invalid API key sk-ant-0123456789", file=sys.stderr, flush=True)
    raise SystemExit(1)
if mode == "loud":
    sys.stderr.write("x" * 500000)
    sys.stderr.flush()
if mode == "long":
    sys.stdout.write("y" * 20000000)
    raise SystemExit
if mode == "whole":
    line(type="assistant", message={{"content": [{{"type": "text", "text": "Hello"}}]}})
elif mode != "refused":
    delta("Hel")
    if mode in ("hangs", "stubborn"):
        time.sleep(60)
    delta("lo")
    line(type="assistant", message={{"content": [{{"type": "text", "text": "Hello"}}]}})
if mode == "refused":
    line(type="result", subtype="success", is_error=True, result="Credit balance is too low")
else:
    line(type="result", subtype="success", is_error=False, result="Hello", stop_reason="end_turn",
         usage={{"input_tokens": 7, "output_tokens": 2, "cache_read_input_tokens": 3}})
'''


class FakeClaude:
    """Put at `folder/bin/claude`."""

    def __init__(self, folder: Path) -> None:
        self._mode, self._log = folder / "mode", folder / "log.json"
        self.path = folder / "bin" / "claude"
        self.path.parent.mkdir()
        self.path.write_text(SCRIPT.format(python=sys.executable, log=str(self._log), mode=str(self._mode)))
        self.path.chmod(0o700)
        self.be("well")

    def be(self, mode: str) -> None:
        self._mode.write_text(mode)

    @property
    def started(self) -> bool:
        return self._log.exists()

    def log(self) -> dict[str, object]:
        return json.loads(self._log.read_text())
