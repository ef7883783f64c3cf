"""The library on runtimes that are too old, driven through its entry point with tables made here."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

GET_API = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)
GET_VERSION = ctypes.CFUNCTYPE(ctypes.c_void_p)
CREATE_STATUS = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)
STATUS = 0x5151
NOT_IMPLEMENTED = 9


class ApiBase(ctypes.Structure):
    _fields_ = (("get_api", GET_API), ("get_version", GET_VERSION))


class Old:
    """A runtime with the API versions up to `newest`; its table holds CreateStatus alone."""

    def __init__(self, version: bytes | None, newest: int) -> None:
        self.messages: list[tuple[int, str]] = []
        self.asked: list[int] = []
        self._create = CREATE_STATUS(self._create_status)
        self._table = (ctypes.c_void_p * 300)()
        self._table[0] = ctypes.cast(self._create, ctypes.c_void_p).value
        self._newest = newest
        self._version = None if version is None else ctypes.create_string_buffer(version)
        self.base = ApiBase(GET_API(self._get_api), GET_VERSION(self._get_version))

    def _get_version(self) -> int | None:
        return None if self._version is None else ctypes.addressof(self._version)

    def _get_api(self, version: int) -> int | None:
        self.asked.append(version)
        return ctypes.addressof(self._table) if version <= self._newest else None

    def _create_status(self, code: int, message: bytes) -> int:
        self.messages.append((code, message.decode()))
        return STATUS


def register(library: Path, runtime: Old) -> int | None:
    entry = ctypes.CDLL(str(library)).RegisterCustomOps
    entry.argtypes = [ctypes.c_void_p, ctypes.POINTER(ApiBase)]
    entry.restype = ctypes.c_void_p
    result: int | None = entry(None, ctypes.byref(runtime.base))
    return result


@pytest.mark.parametrize("version", [b"1.17.3", b"1.8.0", b"2.0", b"unknown", b"", None], ids=str)
def test_an_old_runtime_gets_a_clear_error(cpu_library: Path, version: bytes | None) -> None:
    runtime = Old(version, newest=17)
    assert register(cpu_library, runtime) == STATUS
    ((code, message),) = runtime.messages
    assert code == NOT_IMPLEMENTED
    shown = "of unknown version" if version is None else version.decode()
    assert f"needs ONNX Runtime 1.18 or newer, this one is {shown}" in message
    assert "upgrade onnxruntime" in message


def test_a_version_known_to_be_old_is_not_asked_for_the_new_table(cpu_library: Path) -> None:
    runtime = Old(b"1.17.3", newest=17)
    register(cpu_library, runtime)
    assert runtime.asked == [1]  # asking for 18 would make the runtime print a complaint of its own


def test_a_runtime_without_any_table_gets_a_line_on_stderr(
    cpu_library: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert register(cpu_library, Old(b"1.17.3", newest=0)) is None
    assert "needs ONNX Runtime 1.18 or newer, this one is 1.17.3" in capfd.readouterr().err
