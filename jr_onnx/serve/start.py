"""Start the server: everything is checked before kserve, which takes seconds to import."""

from __future__ import annotations

import logging
import os
import ssl
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from jr_onnx.errors import InputError, PrintableFormatter, require
from jr_onnx.opened import OpenedFile
from jr_onnx.runtime.providers import CUDA, full_name, require_providers, usable_providers
from jr_onnx.serve.catalogue import Catalogue
from jr_onnx.serve.connections import expect_regular
from jr_onnx.serve.gate import Gate
from jr_onnx.serve.options import Address, Running, ServeOptions


def serve(options: ServeOptions, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        options: What to serve, where and how.
        say: Takes messages to the operator, one line each.

    Raises:
        JrError: A model, a package, a certificate or the token file is not usable, or a port cannot be bound.
    """
    require("orjson", "serve")  # the lightest of what the extra brings
    check_certificate(options.address)
    for path in (options.address.token_file, options.address.tls_key):
        for warning in secret_warnings(path):
            say(f"warning: {warning}")
    options = replace(options, running=on_usable_providers(options.running, say))
    gate = Gate.from_file(options.address.token_file)
    if gate.is_open and not options.address.is_loopback:
        say(f"warning: {options.address.host} accepts unauthenticated requests; --token-file requires a token")
    catalogue = Catalogue(
        options.models, key=options.key, not_before=options.not_before, all_versions=options.all_versions
    )
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("jr-onnx: %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.ERROR, handlers=[handler])
    from jr_onnx.serve.server import Server

    Server(options, catalogue, gate, say).start()


def on_usable_providers(running: Running, say: Callable[[str], None]) -> Running:
    """Refuse providers that do not work here, or drop them with a warning where that is allowed.

    Raises:
        InputError: A provider does not work, and falling back is not allowed; or its name is unknown.
    """
    names = tuple(full_name(name) for name in running.providers)
    if running.allow_fallback:
        names = usable_providers(names, lambda words: say(f"warning: {words}"))
    else:
        require_providers(names)
    if CUDA not in names:  # its options would have nothing to apply to
        return replace(running, providers=names, cuda_options="default", graph_batch=())
    return replace(running, providers=names)


def check_certificate(address: Address) -> None:
    """Refuse a certificate that cannot be used, before any model is loaded.

    Raises:
        InputError: The certificate or its key cannot be read, or they do not belong together.
    """
    if address.tls_cert is None or address.tls_key is None:
        return
    expect_regular(address)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(address.tls_cert, address.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"the certificate {address.tls_cert} or its key cannot be used: {error}") from None


def secret_warnings(path: Path | None) -> Iterator[str]:
    """Say who beside this user can read or replace a file that holds a secret.

    A warning and no refusal: Kubernetes mounts secrets readable for all users, in a container that no other user is in.

    Raises:
        ModelError: The file cannot be read.
    """
    if path is None:
        return
    file = OpenedFile(path, "a secret's")
    if file.mode & stat.S_IROTH:
        yield f"every user of this machine can read {path}; chmod o-r {path} keeps them out"
    if file.mode & (stat.S_IWOTH | stat.S_IWGRP):
        yield f"other users of this machine can write to {path}; chmod go-w {path} keeps them out"
    if file.owner not in (0, os.geteuid()):
        yield f"{path} belongs to another user, who can read and replace it"
