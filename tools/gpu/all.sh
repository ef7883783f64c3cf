#!/usr/bin/env bash
# Everything that this project wants of a machine with an NVIDIA GPU, in one go and without a network:
#
#     OUT=results bash tools/gpu/all.sh [SECONDS for the checks, 420]
#
# Needs onnxruntime-gpu, this package's dependencies and a built CUDA op library; torch, pytest, ncu and compute-sanitizer
# where they are there. Every step has its own time limit and its own file in $OUT, and check_gpu saves after every
# check, so whoever stops this loses one check at most. The exit code is check_gpu's: 0 all well, 1 a check failed, 3 no GPU.
set -u
export PYTHONUNBUFFERED=1 CUDA_MODULE_LOADING=LAZY
cd "$(dirname "$0")/../.."
out=${OUT:-gpu-results} limit=${1:-420} python=${PYTHON:-python3}
mkdir -p "$out"
start=$SECONDS
say() { echo "=== $((SECONDS - start)) s: $*"; }
# What waits for a dead device is killed a while after it was asked to end.
within() { timeout --kill-after=10 "$@"; }

say "the machine -> $out/machine.txt"
{
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem --format=csv,noheader
  "$python" -m jr_onnx doctor
} > "$out/machine.txt" 2>&1
head -3 "$out/machine.txt"

say "checks -> $out/gpu-report.json, $out/checks.md"
within $((limit + 120)) "$python" -m tools.check_gpu --json "$out/gpu-report.json" --limit-s "$limit" > "$out/checks.md" 2> "$out/checks.log"
code=$?
cat "$out/checks.md"
tail -1 "$out/checks.log"
[ "$code" != 124 ] || echo "a check took too long; $out/gpu-report.json has those before it"
if [ "$code" = 3 ]; then say "no GPU, so the rest is left out"; exit 3; fi

say "tests that need a GPU -> $out/tests.txt"
within 120 "$python" -m pytest -q -m gpu -p no:cacheprovider \
    tests/ops/test_cuda_library.py tests/torchnet/test_devices.py > "$out/tests.txt" 2>&1
tail -3 "$out/tests.txt"

say "memory traffic of the kernel, from the GPU's counters -> $out/counters.txt"
if command -v ncu > /dev/null; then
  within 60 ncu --kernel-name regex:vector_pass --launch-count 3 --clock-control none \
    --metrics gpu__time_duration.sum,dram__bytes_read.sum,dram__bytes_write.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed \
    "$python" -m tools.gpu.bandwidth > "$out/counters.txt" 2>&1
  tail -12 "$out/counters.txt"
else
  echo "ncu is not installed" | tee "$out/counters.txt"
fi

say "the kernel under compute-sanitizer -> $out/sanitizer.txt"
if command -v compute-sanitizer > /dev/null; then
  within 60 compute-sanitizer --tool memcheck "$python" -m tools.gpu.kernel > "$out/sanitizer.txt" 2>&1
  tail -3 "$out/sanitizer.txt"
else
  echo "compute-sanitizer is not installed" | tee "$out/sanitizer.txt"
fi
say "done: $out"
exit "$code"
