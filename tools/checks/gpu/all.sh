#!/usr/bin/env bash
# Run everything that needs a machine with an NVIDIA GPU, without a network:
#
#     OUT=results bash tools/checks/gpu/all.sh [SECONDS for the checks, 420] [PHASE: timings, correctness or all]
#
# timings needs the GPU to itself; correctness does not, and may run beside a training. Needs onnxruntime-gpu, this
# package's dependencies and a built CUDA op library; torch, pytest, ncu and compute-sanitizer are used if installed.
# Every step has its own time limit and its own file in $OUT, and the checks save after every check, so stopping this
# loses one check at most. The exit code is that of the checks: 0 all passed, 1 a check failed, 3 no GPU.
set -u
export PYTHONUNBUFFERED=1 CUDA_MODULE_LOADING=LAZY
cd "$(dirname "$0")/../../.."
out=${OUT:-gpu-results} limit=${1:-420} phase=${2:-all} python=${PYTHON:-python3}
mkdir -p "$out"
start=$SECONDS
code=0
say() { echo "=== $((SECONDS - start)) s: $*"; }
# A process that hangs on a dead device ignores SIGTERM; it is killed ten seconds later.
within() { timeout --kill-after=10 "$@"; }

checks() { # NAME PATTERN: the checks whose names match, in $OUT/NAME.json
  say "checks -> $out/$1.json, $out/$1.md"
  within $((limit + 60)) "$python" -m tools.checks.gpu -o "$out/$1.json" --limit-s "$limit" --only "$2" > "$out/$1.md" 2> "$out/$1.log"
  code=$?
  cat "$out/$1.md"
  tail -1 "$out/$1.log"
  [ "$code" != 124 ] || echo "a check took too long; $out/$1.json has those before it"
  if [ "$code" = 3 ]; then say "no GPU, so the rest is left out"; exit 3; fi
}

timings() {
  checks gpu-timings '^(?!.*verified)'
  say "memory traffic of the kernel, from the GPU's counters -> $out/counters.txt"
  if command -v ncu > /dev/null; then
    within 45 ncu --kernel-name regex:vector_pass --launch-count 3 --clock-control none \
      --metrics gpu__time_duration.sum,dram__bytes_read.sum,dram__bytes_write.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed \
      "$python" -m tools.checks.gpu.bandwidth > "$out/counters.txt" 2>&1
    tail -12 "$out/counters.txt"
  else
    echo "ncu is not installed" | tee "$out/counters.txt"
  fi
}

correctness() {
  checks gpu-verified 'verified'
  say "tests that need a GPU -> $out/tests.txt"
  within 120 "$python" -m pytest -q -m gpu -p no:cacheprovider \
      tests/ops/test_cuda_library.py tests/torchnet/test_devices.py tests/verifier/test_torch_side.py > "$out/tests.txt" 2>&1
  tail -3 "$out/tests.txt"
  say "the kernel under compute-sanitizer -> $out/sanitizer.txt"
  if command -v compute-sanitizer > /dev/null; then
    within 60 compute-sanitizer --tool memcheck "$python" -m tools.checks.gpu.kernel > "$out/sanitizer.txt" 2>&1
    tail -3 "$out/sanitizer.txt"
  else
    echo "compute-sanitizer is not installed" | tee "$out/sanitizer.txt"
  fi
}

case $phase in timings | correctness | all) ;; *) echo "the phase is $phase, expected timings, correctness or all" >&2; exit 2 ;; esac
say "the machine -> $out/machine.txt"
{
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem --format=csv,noheader
  "$python" -m jr_onnx doctor
} > "$out/machine.txt" 2>&1
head -3 "$out/machine.txt"
worst=0
if [ "$phase" != correctness ]; then timings; worst=$code; fi
if [ "$phase" != timings ]; then correctness; [ "$code" = 0 ] || worst=$code; fi
say "done: $out"
exit "$worst"
