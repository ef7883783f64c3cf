"""Ask a server with nothing but the standard library, so that a request can be as wrong as it likes."""

from __future__ import annotations

import http.client
import json
from typing import Any

import numpy as np

LENGTH = "Inference-Header-Content-Length"


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        assert list(self.json) == ["error"], self.body
        return str(self.json["error"])

    def output(self, name: str = "y") -> np.ndarray:
        found = next(output for output in self.json["outputs"] if output["name"] == name)
        return np.array(found["data"], dtype=np.float32).reshape(found["shape"])


class Rest:
    """One connection, opened again where the server has closed it."""

    def __init__(self, port: int, token: str | None = None, context: Any = None, timeout: float = 30) -> None:
        if context is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        else:
            self._connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout, context=context)
        self._token = token

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        sent = dict(headers or {})
        if self._token is not None:
            sent["Authorization"] = f"Bearer {self._token}"
        try:
            self._connection.request(method, path, data, sent)
            return Answer(self._connection.getresponse())
        except http.client.RemoteDisconnected:
            self._connection.close()
            self._connection.request(method, path, data, sent)
            return Answer(self._connection.getresponse())

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def infer(self, model: str, body: Any, headers: dict[str, str] | None = None) -> Answer:
        return self.ask("POST", f"/v2/models/{model}/infer", body, headers)

    def binary(self, model: str, request: dict[str, Any], tail: bytes, length: int | str | None = None) -> Answer:
        head = json.dumps(request).encode()
        return self.infer(model, head + tail, {LENGTH: str(len(head) if length is None else length)})

    def close(self) -> None:
        self._connection.close()


def tensor(array: np.ndarray, name: str = "x", datatype: str = "FP32") -> dict[str, Any]:
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": array.ravel().tolist()}


def request(array: np.ndarray, name: str = "x", datatype: str = "FP32") -> dict[str, Any]:
    return {"inputs": [tensor(array, name, datatype)]}


ROWS = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 16)
GOOD = request(ROWS)


def changed(**fields: Any) -> dict[str, Any]:
    """A good request with something of its input changed; None takes it away."""
    item = {**GOOD["inputs"][0], **fields}
    return {"inputs": [{key: value for key, value in item.items() if value is not None}]}
