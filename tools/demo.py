"""The main job from end to end on the embedded digits: what `make demo` runs.

Every step is the command a person would type; its output is shown as it is. The results stay in out/demo.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import onnxruntime as ort

from jr_onnx.data import load
from tools.ports import free_ports

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "out" / "demo"
KAPPAS = (0.0, 0.06, 0.25, 0.5, 1.0)
EVALUATION = (
    "jr-onnx tune {out}/digits.onnx --eps 0.1 --grid 0.1,0.25,0.5,1 --limit 100 --result {out}/tune.json",
    "jr-onnx attack {out}/digits.onnx --kappa 0.5 --eps 0.1 --limit 100 -o {out}/attack",
    "jr-onnx attack {out}/digits.onnx --kappa 0.5 --eps 0.05 --limit 100 -o {out}/attack-at-0.05",
    "jr-onnx harden {out}/digits.onnx --eps 0.1 --rate 0.05 --evaluate 100 --result {out}/harden.json "
    "-o {out}/digits.hardened.onnx",
    "jr-onnx bench {out}/digits.onnx --kappa 0.5 --rounds 20 --no-footprint -o {out}/bench.json",
)
"""What decides whether to deploy, and which kappa; every result goes into the report."""
RESULTS = ("attack", "attack-at-0.05", "tune.json", "harden.json", "bench.json")


def main() -> None:
    """Run the demo; exits with 1 if a step fails."""
    started = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    copy_model(OUT)
    show("jr-onnx inspect out/demo/digits.onnx")
    show("jr-onnx rewrite out/demo/digits.onnx --kappa 0.06")
    show("jr-onnx verify out/demo/digits.jr.onnx out/demo/digits.onnx --data digits")
    show_accuracy()
    evaluate(OUT)
    show("jr-onnx package triton out/demo/digits.jr.onnx -o out/demo/repository --name digits")
    show("jr-onnx verify-package out/demo/repository")
    serve_and_ask()
    print(f"\nDone in {time.monotonic() - started:.0f} s. The results lie in {OUT.relative_to(ROOT)}:")
    for path in sorted(OUT.iterdir()):
        inside = sum(item.is_file() for item in path.rglob("*"))
        size = f"{inside} files" if path.is_dir() else f"{path.stat().st_size} bytes"
        print(f"  {path.relative_to(ROOT)}  {size}")


def copy_model(out: Path) -> None:
    """Copy the demo's model into a folder."""
    shutil.copy(ROOT / "models" / "exported" / "digits_cnn.onnx", out / "digits.onnx")


def evaluate(out: Path) -> None:
    """Evaluate the model in a folder in every way, and put all results into one report there."""
    for command in EVALUATION:
        show(command.format(out=place(out)))
    results = " ".join(f"{place(out)}/{name}" for name in RESULTS)
    for form in ("md", "csv", "json", "html"):
        show(f"jr-onnx report {results} --format {form} -o {place(out)}/report.{form}", quiet=True)


def place(out: Path) -> Path:
    """Return a folder as a command names it: from the checkout where it lies in there."""
    return out.relative_to(ROOT) if out.is_relative_to(ROOT) else out


def show(command: str, *, quiet: bool = False) -> None:
    """Print a command, run it, and stop the demo when it fails; `quiet` leaves out the tables on its stdout."""
    print(f"\n$ {command}", flush=True)
    words = shlex.split(command)
    done = subprocess.run([sys.executable, "-m", "jr_onnx", *words[1:]], cwd=ROOT, check=False,
                          stdout=subprocess.DEVNULL if quiet else None)  # fmt: skip
    if done.returncode != 0:
        sys.exit(f"the demo stopped: {command!r} exited with code {done.returncode}")


def show_accuracy() -> None:
    """Print the clean accuracy of the original and of retrofits with several kappas, on the digits' test split."""
    data = load("digits", split="test")
    print(f"\nClean accuracy on {len(data.labels)} test images (ONNX Runtime):")
    print(f"  original    {accuracy(OUT / 'digits.onnx', data.images, data.labels):.2%}")
    for kappa in KAPPAS:
        path = OUT / f"digits.kappa-{kappa:g}.jr.onnx"
        command = ["rewrite", str(OUT / "digits.onnx"), "--kappa", str(kappa), "-o", str(path)]
        subprocess.run([sys.executable, "-m", "jr_onnx", *command], check=True, capture_output=True)
        print(f"  kappa {kappa:<5g} {accuracy(path, data.images, data.labels):.2%}")


def serve_and_ask() -> None:
    """Serve the package on loopback, ask it over HTTP and gRPC, and stop the server as an orchestrator would."""
    http_port, grpc_port = free_ports(2)
    command = f"jr-onnx serve out/demo/repository --http-port {http_port} --grpc-port {grpc_port}"
    print(f"\n$ {command} &", flush=True)
    words = shlex.split(command)
    server = subprocess.Popen([sys.executable, "-m", "jr_onnx", *words[1:]], cwd=ROOT)
    try:
        wait_until_ready(server, f"http://127.0.0.1:{http_port}/v2/health/ready")
        addresses = [f"127.0.0.1:{http_port}", f"127.0.0.1:{grpc_port}"]
        print(f"$ python -m tools.demo_client {' '.join(addresses)}", flush=True)
        subprocess.run([sys.executable, "-m", "tools.demo_client", *addresses], cwd=ROOT, check=True)
    finally:
        server.terminate()
        server.wait(timeout=60)


def wait_until_ready(server: subprocess.Popen[bytes], url: str) -> None:
    """Wait until the server says that it is ready; exits with 1 if it stops or takes over a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - an address made here
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    sys.exit("the demo stopped: the server did not become ready")


def accuracy(model: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of images that a model puts into the right class."""
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: images})
    return float(np.mean(logits.argmax(axis=1) == labels))


if __name__ == "__main__":
    main()
