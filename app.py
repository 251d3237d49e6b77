"""Starts the dashboard: `streamlit run app.py`, or `python app.py`. The pages hang on components/router.py.

What is here belongs to the server and not to a page: security headers, the audio of known clips, a health check, and
warming up.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from components import defaults, guard, server, visitors
from components import shown as runs
from components.patching.results import indexed
from components.player import clip_audio
from interp_core.errors import InterpError
from interp_core.experiments.patching.request import PatchRequest
from interp_core.models import bundled

ROOT = Path(__file__).resolve().parent


def content_policy() -> str:
    """The content security policy: nothing from anywhere else. `blob:` is how Streamlit loads a component's script.

    Streamlit's own page has an inline script, which is allowed by its hash; styles are set inline all over.
    """
    index = Path(st.__file__).parent / "static" / "index.html"
    inline = re.findall(r"<script>(.*?)</script>", index.read_text("utf-8"), re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in inline]
    return "; ".join(
        [
            "default-src 'self'",
            " ".join(["script-src 'self' blob:", *hashes]),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self' blob: ws: wss:",
            "media-src 'self' blob:",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'self'",
        ]
    )


class SecurityHeaders:
    """Adds the headers to every answer, and gives a new visitor a cookie by which their jobs are theirs."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.headers = [
            (b"content-security-policy", content_policy().encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"permissions-policy", b"camera=(), microphone=(self), geolocation=()"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self.headers, *self.cookie(scope)]
            await send(message)

        await self.app(scope, receive, send_with_headers)

    def cookie(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """The cookie, for a page that is asked for without it; no script can read it."""
        asked = Request(scope)
        if visitors.COOKIE in asked.cookies or "text/html" not in asked.headers.get("accept", ""):
            return []
        secure = "; Secure" if asked.url.scheme == "https" else ""
        kept = f"Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax{secure}"
        return [(b"set-cookie", f"{visitors.COOKIE}={secrets.token_urlsafe(24)}; {kept}".encode())]


def warm_up() -> None:
    """Open the first bundled model and what it shows, so that the first visitor need not wait; for a thread."""
    try:
        for name in list(bundled.demos())[:1]:
            asked = defaults.usual(PatchRequest(name))
            server.engine().open(name)
            server.engine().manifest(asked)
            if saved := runs.shipped(asked):
                indexed(saved)
    except InterpError as error:
        guard.log.warning("warming up: %s", error)


@asynccontextmanager
async def lifespan(_: Any) -> AsyncIterator[dict[str, Any] | None]:
    """Open the bundled demo in the background while the first browser loads the page; stop jobs at the end."""
    if said := server.exposed():
        guard.log.warning(said)
    threading.Thread(target=warm_up, name="warm-up", daemon=True).start()
    yield None
    server.engine().openings.close(timeout=5)
    server.engine().jobs.close(timeout=5)


def health(_: Request) -> JSONResponse:
    """Says that the server answers, and how many jobs it is on."""
    return JSONResponse({"status": "ok", "active_jobs": sum(job.active for job in server.jobs())})


ROUTER = ROOT / "components" / "router.py"
OPTIONS: dict[str, Any] = {
    "lifespan": lifespan,
    "routes": [Route("/api/health", health), Route("/audio/{digest}.wav", clip_audio.serve)],
    "middleware": [Middleware(SecurityHeaders)],
    "on_script_error": guard.log_script_error,
}
app = st.App(ROUTER, **OPTIONS)

if __name__ == "__main__":
    app.run()
