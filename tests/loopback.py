"""A server on loopback that answers as a test tells it, however badly."""

import contextlib
import http.server
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802
        self.server.requests += 1
        self.server.seen.append(dict(self.headers))
        answer = self.server.answers.pop(0) if self.server.answers else status(503)
        with contextlib.suppress(ConnectionError):  # the other side may have seen enough
            answer(self)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serve():
    """Serve `answers` one after the other, keeping the headers of all requests; then 503."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        running.requests, running.answers, running.seen = 0, [], []
        running.released = threading.Event()
        running.url = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield running
        finally:
            running.released.set()
            running.shutdown()


def reply(handler, body, *, code=200, length=None, media_type="text/csv", headers=()):
    handler.send_response(code)
    handler.send_header("Content-Type", media_type)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    for name, value in dict(headers).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def status(code, headers=()):
    return lambda handler: reply(handler, b"", code=code, length=0, headers=headers)


def silent(handler):
    handler.server.released.wait(20)


def publish(content, *, version='"1"', stop=None, stall=False, media_type="application/x-gzip"):
    """Return an answer as a good server gives it for a file of that content and version.

    Args:
        content: Bytes of the file.
        version: Its ETag; a request to go on with another version gets the whole file.
        stop: Close the connection before this byte of the file.
        stall: Wait there instead.
        media_type: Content-Type of the answer.
    """

    def answer(handler):
        begin, total = 0, len(content)
        told, code = {"ETag": version, "Accept-Ranges": "bytes"}, 200
        if "Range" in handler.headers and handler.headers["If-Range"] == version:
            begin = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            told["Content-Range"], code = f"bytes {begin}-{total - 1}/{total}", 206
        body = content[begin:stop]
        reply(handler, body, code=code, length=total - begin, media_type=media_type, headers=told)
        if stall:
            handler.server.released.wait(20)

    return answer
