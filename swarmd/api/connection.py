"""One connection to the API: what is no HTTP gets our envelope, and one quiet line in the log.

aiohttp would write a traceback for it, with what was sent: whoever can open a socket could fill the log, and a key in a
broken header would be in it.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import msgspec
from aiohttp import http_exceptions, web

from swarmd.api.replies import BadHttp, reply_to
from swarmd.domain.refusals import Refusal

LINE_LIMIT_BYTES: Final = 8190
"""Of the request line and of each header: aiohttp's default."""

logger = logging.getLogger(__name__)


class Connection(web.RequestHandler):
    """The protocol of a socket."""

    def __init__(self, manager: web.Server, **more: Any) -> None:
        super().__init__(manager, max_line_size=LINE_LIMIT_BYTES, max_field_size=LINE_LIMIT_BYTES, **more)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """For what never reached the table of routes. Statuses from 500 on are a bug between socket and table."""
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        if request.writer.output_size > 0:
            raise ConnectionError("a part of a reply was sent already")
        logger.debug("%s sent what is no HTTP: %s", request.remote, type(exc).__name__)
        reply = reply_to(_refusal(exc))
        response = web.Response(
            status=reply.status, body=msgspec.json.encode(reply.body), content_type="application/json",
            headers={"server": "swarmd", "x-content-type-options": "nosniff"},
        )  # fmt: skip
        response.force_close()  # nobody knows where the next request begins
        return response


def _refusal(error: BaseException | None) -> Refusal:
    """Without what was sent."""
    if isinstance(error, http_exceptions.LineTooLong):
        return BadHttp(what=f"the address and each header may have {LINE_LIMIT_BYTES} bytes: one has more")
    return BadHttp(what="this is no HTTP/1.1 request that can be read")
