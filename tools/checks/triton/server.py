"""A real tritonserver without a container, for `tools/checks/triton/run.py` and `tools/checks/balancer.py`.

The server is the one bundled with nvidia-pytriton (Triton 24.10), in an environment of its own that is made on the
first run (about 470 MB from PyPI). It must stay on loopback: that release has known security faults. Its ONNX Runtime
back end is not on PyPI, so `tools/checks/triton/backend` stands in under the same name; all else is Triton's own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
DEFAULT_FOLDER = ROOT / "out" / "triton-environment"
REQUIREMENTS = ("nvidia-pytriton==0.7.0", "onnxruntime==1.23.2", "tritonclient[http,grpc]==2.73.0")
READY_SECONDS = 60.0


@dataclass(frozen=True)
class Environment:
    """The environment that holds tritonserver."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def server_folder(self) -> Path:
        """Where tritonserver and its back ends lie."""
        return Path(self.query("sysconfig.get_path('purelib')")) / "pytriton" / "tritonserver"

    def query(self, expression: str) -> str:
        """Evaluate an expression there."""
        command = [str(self.python), "-c", f"import sys, sysconfig; print({expression})"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class Server:
    """A running tritonserver; its log goes to a file, so that it never waits for a reader."""

    def __init__(
        self,
        environment: Environment,
        backends: Path,
        repository: Path,
        *,
        http: int,
        grpc: int,
        address: str,
        log: Path,
        options: Sequence[str] = (),
    ) -> None:
        site_packages = environment.query("sysconfig.get_path('purelib')")
        libraries = [environment.query("sysconfig.get_config_var('LIBDIR')"), f"{site_packages}/nvidia_pytriton.libs"]
        command = [
            str(environment.server_folder / "bin" / "tritonserver"),
            f"--model-repository={repository}",
            f"--backend-directory={backends}",
            "--disable-auto-complete-config",
            f"--http-address={address}",
            f"--http-port={http}",
            f"--grpc-address={address}",
            f"--grpc-port={grpc}",
            "--allow-metrics=false",
            "--exit-timeout-secs=10",
            *options,
        ]
        settings = {
            "PATH": f"{environment.folder / 'bin'}:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": ":".join(libraries),
            "JR_ONNX_SITE_PACKAGES": site_packages,
        }
        self._ready_url = f"http://{address}:{http}/v2/health/ready"
        self._log = log
        with log.open("w", encoding="utf-8") as stream:
            self.process = subprocess.Popen(
                command, env={**os.environ, **settings}, stdout=stream, stderr=subprocess.STDOUT
            )

    def log(self) -> str:
        """Return what it has written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def errors(self) -> list[str]:
        """Return the lines of the log that are errors."""
        return [line for line in self.log().splitlines() if line.startswith(("E", "[libprotobuf ERROR"))]

    def wait_until_ready(self) -> None:
        """Wait for the models to be loaded; leave with the errors where that does not happen."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(self._ready_url, timeout=1) as answer:  # noqa: S310 - an address of ours
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        self.stop()
        raise SystemExit("tritonserver does not become ready:\n" + "\n".join(self.errors()))

    def stop(self) -> int:
        """Ask it to leave and return its exit code; kill it where it does not."""
        self.process.terminate()
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def make_environment(folder: Path, python: str) -> Environment:
    """Create the environment unless a complete one is there."""
    environment = Environment(folder)
    marker = folder / "complete"
    if not marker.exists():
        if shutil.which(python) is None:
            raise SystemExit(f"no interpreter {python!r} here: name one of Python 3.10 to 3.12 with --python")
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(environment.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *REQUIREMENTS], check=True)
        marker.write_text("\n".join(REQUIREMENTS) + "\n", encoding="utf-8")
    library = environment.query("sysconfig.get_config_var('LDLIBRARY')")
    if not library.startswith("libpython") or ".so" not in library:
        raise SystemExit(f"{python} was built without a shared libpython, which tritonserver's Python back end needs")
    return environment


def make_backends(environment: Environment, folder: Path) -> Path:
    """Lay out a folder of back ends: Triton's own for Python, and the stand-in named onnxruntime."""
    server = environment.server_folder
    python_backend = folder / "python"
    shutil.copytree(server / "backends" / "python", python_backend)
    version = environment.query("'%d.%d' % sys.version_info[:2]")
    shutil.copytree(server / "python_backend_stubs" / version, python_backend, dirs_exist_ok=True)
    stand_in = folder / "onnxruntime"
    stand_in.mkdir()
    shutil.copy(ROOT / "tools" / "checks" / "triton" / "backend" / "model.py", stand_in / "model.py")
    return folder
