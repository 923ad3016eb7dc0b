"""A bucket without a key: the role of the pod, as EKS Pod Identity gives it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nanobatch_storage.adapters.blobs_obstore import S3Access, open_blobs
from nanobatch_storage.errors import BlobsUnavailableError

KEYS = {"AccessKeyId": "A-ROLES-KEY", "SecretAccessKey": "x", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"}


@pytest.fixture
def node():
    """A node that gives out keys, and a store that refuses whatever it is asked; and what both were asked with."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((self.path.partition("/probe/")[0], self.headers.get("Authorization", "")))
            keys = self.path == "/v1/credentials"
            body = json.dumps(KEYS).encode() if keys else b""
            self.send_response(200 if keys else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_DELETE = answer  # noqa: N815  # the standard library's names

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


async def test_without_a_key_the_bucket_is_asked_with_the_one_that_the_pods_token_is_changed_for(
    node, tmp_path, monkeypatch
):
    address, asked = node
    (tmp_path / "token").write_text("the-pods-token")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{address}/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    with pytest.raises(BlobsUnavailableError):
        await open_blobs("s3://bucket/pictures", S3Access(endpoint=address, region="eu-central-1")).probe()
    assert asked[0] == ("/v1/credentials", "the-pods-token")
    path, signed = asked[1]
    assert path == "/bucket/pictures"
    assert "Credential=A-ROLES-KEY/" in signed
