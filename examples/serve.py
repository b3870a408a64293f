"""A server that says what pictures show, of a model folder: Python's own `http.server`, nothing else to install.

    python examples/serve.py MODEL_DIR --port 8000
    curl --data-binary @photo.jpg localhost:8000

A picture (any format that Pillow reads) is posted; the answer is JSON: the class, and the probabilities of the best.
A newer version of the folder is served from the next picture on.
"""

from __future__ import annotations

import argparse
import io
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

from PIL import Image

import lightning_cl


class Handler(BaseHTTPRequestHandler):
    folder: str
    model: Any = None
    lock = Lock()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            picture = Image.open(io.BytesIO(body))
        except Exception:
            self.answer(400, {"error": "this is no picture that can be read; post the bytes of one."})
            return
        with self.lock:
            found = self.newest().predict([picture])
        best = dict(found.top(3)[0])
        self.answer(200, {"class": found.labels[0], "probabilities": best, "version": self.newest().version})

    def newest(self) -> Any:
        cls = type(self)
        if cls.model is None or cls.model.version != cls.model.folder.version():
            cls.model = lightning_cl.load(self.folder)
        return cls.model

    def answer(self, code: int, content: dict[str, Any]) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--port", type=int, default=8000)
    Handler.folder, port = (options := parser.parse_args()).folder, options.port
    ThreadingHTTPServer(("", port), Handler).serve_forever()
