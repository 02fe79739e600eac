"""Signed links into storage: a signature over the path and query as they are sent, byte for byte, and an end.

A client that writes `%27` as `'`, puts parameters in another order or drops one sends another link, and gets 403, as
object storage answers.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from urllib.parse import parse_qsl, quote

MARK = "&X-Amz-Signature="


class Links:
    """Makes links and checks them. `expire` ends all that were made so far, whatever their time."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._generation = 0

    def sign(self, sha256: str, filename: str, expires: int) -> str:
        """Path and query of a link to a blob, good until `expires` (Unix seconds)."""
        disposition = f"attachment; filename*=UTF-8''{quote(filename, safe='')}; filename=\"{quote(filename, safe=' ')}\";"
        target = (
            f"/cdn/{sha256}?response-content-disposition={_escaped(disposition)}"
            f"&response-content-type=application%2Foctet-stream&X-Amz-Algorithm=AWS4-HMAC-SHA256"
            f"&X-Amz-Credential=local%2F{self._generation}&Expires={expires}"
        )
        return target + MARK + self._signature(target)

    def refusal(self, target: str, now: float) -> str | None:
        """Why a link is not served, in storage's own word; none where it is good."""
        signed, mark, signature = target.rpartition(MARK)
        if not mark:
            return "MissingSecurityHeader"
        if not hmac.compare_digest(signature.encode("latin-1"), self._signature(signed).encode()):
            return "SignatureDoesNotMatch"
        said = dict(parse_qsl(signed.partition("?")[2]))  # signed by us, so all of it is there
        old = said["X-Amz-Credential"] != f"local/{self._generation}"
        return "AccessDenied" if old or int(said["Expires"]) <= now else None

    def expire(self) -> None:
        self._generation += 1

    def _signature(self, target: str) -> str:
        return hmac.new(self._secret, target.encode("latin-1"), hashlib.sha256).hexdigest()


def _escaped(value: str) -> str:
    return quote(value, safe="")
