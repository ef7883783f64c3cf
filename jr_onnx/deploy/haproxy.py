"""The configuration of HAProxy in front of Triton's replicas: HTTP, gRPC, readiness checks and metrics.

Replicas are found by the network's own name server and come and go without a restart. A replica gets requests only
while Triton calls it ready; a request goes to the replica with the fewest in flight; one whose connection fails is
sent to another.
"""

from __future__ import annotations

HAPROXY_IMAGE = "haproxy:3.4.5-alpine"
HTTP_PORT = 8000
GRPC_PORT = 8001
STATUS_PORT = 8404
MAX_REPLICAS = 16
NAME_SERVER = "127.0.0.11:53"
"""Where Docker answers for the names of a network."""

_TEMPLATE = """\
global
    log stdout format raw local0 notice
    maxconn 4096

defaults
    mode http
    log global
    option dontlognull
    option redispatch
    retries 2
    retry-on conn-failure
    balance leastconn
    timeout connect 2s
    timeout client {request_seconds}s
    timeout server {request_seconds}s
    timeout queue 5s
    timeout http-request 10s
    timeout http-keep-alive 30s
    timeout check 3s
    default-server check inter 2s fall 3 rise 1 resolvers network init-addr none

resolvers network
    nameserver docker {name_server}
    accepted_payload_size 8192
    resolve_retries 3
    timeout resolve 1s
    timeout retry 1s
    hold valid 5s
    hold obsolete 10s

frontend http
    bind :{http_port}
    default_backend triton_http

frontend grpc
    bind :{grpc_port} proto h2
    default_backend triton_grpc

frontend status
    bind :{status_port}
    monitor-uri /healthz
    monitor fail if {{ nbsrv(triton_http) lt 1 }}
    http-request use-service prometheus-exporter if {{ path /metrics }}
    http-request return status 404

backend triton_http
    option httpchk
    http-check send meth GET uri /v2/health/ready
{http_servers}

backend triton_grpc
    option httpchk
    http-check send meth GET uri /v2/health/ready
{grpc_servers}
"""


def haproxy_config(*, request_seconds: int) -> str:
    """Return the text of `haproxy.cfg`.

    Args:
        request_seconds: How long the balancer waits for an answer.
    """
    return _TEMPLATE.format(
        request_seconds=request_seconds,
        name_server=NAME_SERVER,
        http_port=HTTP_PORT,
        grpc_port=GRPC_PORT,
        status_port=STATUS_PORT,
        http_servers=_servers(f"triton:{HTTP_PORT}"),
        grpc_servers=_servers(f"triton:{GRPC_PORT} proto h2 check-proto h1 port {HTTP_PORT}"),
    )


def _servers(settings: str) -> str:
    """Return a slot for each possible replica.

    Each is written out: `server-template` keeps `check-proto` for the first slot alone (seen with HAProxy 2.6), and
    the readiness check of all others would then speak HTTP/2 to a port that does not.
    """
    return "\n".join(f"    server triton-{number} {settings}" for number in range(1, MAX_REPLICAS + 1))
