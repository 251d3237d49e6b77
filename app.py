"""Starts the dashboard: `streamlit run app.py`, or `python app.py`. The pages hang on components/router.py.

What is here belongs to the server and not to a page: security headers, the audio of known clips, a health check, and
warming up.
"""

from __future__ import annotations

import base64
import hashlib
import re
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

from components import clip_audio, guard, state

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
            "connect-src 'self' ws: wss:",
            "media-src 'self' blob:",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'self'",
        ]
    )


class SecurityHeaders:
    """Adds the headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.headers = [
            (b"content-security-policy", content_policy().encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self.headers]
            await send(message)

        await self.app(scope, receive, send_with_headers)


@asynccontextmanager
async def lifespan(_: Any) -> AsyncIterator[dict[str, Any] | None]:
    """Open the bundled demo in the background while the first browser loads the page; stop jobs at the end."""
    threading.Thread(target=state.warm_up, name="warm-up", daemon=True).start()
    yield None
    state.engine().jobs.close(timeout=5)


def health(_: Request) -> JSONResponse:
    """Says that the server answers, and how many jobs it is on."""
    return JSONResponse({"status": "ok", "active_jobs": sum(job.active for job in state.engine().jobs.jobs())})


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
