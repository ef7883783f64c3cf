"""The gRPC side of the server: calls on HTTP/2 connections, admitted by their headers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from jr_onnx.errors import JrError
from jr_onnx.serve.connections import ConnectionTable, Listener
from jr_onnx.serve.faults import OverloadedError, UnimplementedError, quoted
from jr_onnx.serve.gate import ByteBudget, Gate
from jr_onnx.serve.grpc_call import GrpcCall
from jr_onnx.serve.grpc_method import Method
from jr_onnx.serve.http2 import Headers, Http2Connection
from jr_onnx.serve.options import Address, Limits

CALLS: Final = 2048
"""How many calls may be open at a time over all connections."""

_CONTENT_TYPE: Final = b"application/grpc"


class GrpcServer:
    """Answers calls of the methods in a table.

    Args:
        address: Where to listen.
        methods: By path, `/package.Service/Method`.
        gate: Checks the token.
        limits: Limits of requests.
        budget: Bytes of all requests together.
        table: Where connections are counted.

    Attributes:
        accepted: How many requests were handed to their methods.
        answered: How many of them were answered.
    """

    def __init__(
        self,
        address: Address,
        methods: Mapping[str, Method],
        gate: Gate,
        limits: Limits,
        budget: ByteBudget,
        table: ConnectionTable,
    ) -> None:
        self._address = address
        self._methods = {path.encode(): method for path, method in methods.items()}
        self._gate = gate
        self._table = table
        self._calls: dict[GrpcCall, None] = {}  # in the order in which they came
        self.limits = limits
        self.budget = budget
        self.accepted = 0
        self.answered = 0

    async def open(self) -> int:
        """Start to listen, and return the port.

        Raises:
            InputError: The port cannot be bound, or certificate and key do not match.
        """
        self.loop = asyncio.get_running_loop()
        self._listener = Listener(
            self._address, self._address.grpc_port or 0, "gRPC", "h2", self._connection, self._table
        )
        self._listener.open()
        return self._listener.port

    async def close(self) -> None:
        """Stop accepting connections."""
        self._listener.close()

    def remove(self, call: GrpcCall) -> None:
        """Forget a call that is over."""
        self._calls.pop(call, None)

    def _connection(self) -> Http2Connection:
        return Http2Connection(self._open, self._table, self.budget, self.limits.timeout_s)

    def _open(self, connection: Http2Connection, number: int, headers: Headers) -> None:
        fields = dict(headers)
        if fields.get(b":method") != b"POST" or not fields.get(b"content-type", b"").startswith(_CONTENT_TYPE):
            connection.refuse(number, b"415")
            return
        call = GrpcCall(self, connection, number)
        connection.begin(number, call)
        self._calls[call] = None
        try:
            method = self._admitted(fields)
            if len(self._calls) > CALLS:
                self._make_room(call, method)
            call.begin(method, fields.get(b"grpc-timeout"), fields.get(b"grpc-encoding", b""))
        except JrError as error:
            call.fail(error)

    def _admitted(self, fields: dict[bytes, bytes]) -> Method:
        """Return the method, of which only the headers have arrived.

        Raises:
            UnimplementedError: There is no such method.
            UnauthorizedError: The call does not carry the token.
        """
        path = fields.get(b":path", b"")
        method = self._methods.get(path)
        if method is None:
            raise UnimplementedError(f"there is no method {quoted(path.decode('latin-1'))}")
        if not method.is_open:
            self._gate.check(fields.get(b"authorization"))
        return method

    def _make_room(self, newest: GrpcCall, method: Method) -> None:
        """Evict the oldest call whose message is not complete.

        Raises:
            OverloadedError: Every other call waits for its answer.
        """
        oldest = next(call for call in self._calls if call is newest or not call.is_accepted())
        if oldest is not newest:
            oldest.give_way()
        elif not method.is_open:
            raise OverloadedError(f"{len(self._calls)} calls are open already", hint="Ask again later")
