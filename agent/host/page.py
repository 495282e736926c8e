"""A page of our own for the demo: one file over HTTP on loopback, and a letter box beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from agent.errors import Unavailable

#: Longest letter that is taken, in bytes.
_LONGEST = 256 * 1024


class PageServer:
    """Serves one file at `/` of 127.0.0.1, and hands what is posted to `on_letter`.

    Reads the file at each request, so that a broken page is broken at once. Raises Unavailable
    when the port is taken.
    """

    def __init__(
        self, port: int, file: Path, on_letter: Callable[[bytes], None] = lambda _body: None
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    body, status = file.read_bytes(), 200
                except OSError as error:
                    body, status = f"cannot read the page: {error.strerror}\n".encode(), 500
                self._answer(status, body)

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                if length > _LONGEST:
                    self._answer(413, b"too long\n")
                    return
                on_letter(self.rfile.read(length))
                self._answer(200, b"taken\n")

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: object) -> None:
                pass

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise Unavailable(
                f"cannot serve a page on 127.0.0.1:{port}: {error.strerror}; choose another port"
            ) from error
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
