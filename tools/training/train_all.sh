#!/usr/bin/env bash
# Train the CIFAR-10 networks of the paper, plain and robust, in a given time on one GPU, without a network connection:
#
#     bash tools/training/train_all.sh DATA_DIR OUT SECONDS
#
# DATA_DIR is cifar-10-batches-bin. OUT gets NAME.pt (float16 weights), NAME.json (the record) and NAME.log of each;
# MiB: alex_like 2.2, mobilenet_v2 4.5, wide_resnet 14.2. AlexLike comes first, both side by side, then two lanes:
# wide_resnet plain and robust, mobilenet_v2 plain and robust. Every training gets a share of the time that is left,
# ends annealed within it (--time-limit), and is killed after it. What cannot be started in time is left out and named.
# Environment: DEVICE (cuda), PYTHON (python3), TRAIN_OPTIONS (further options of tools.training.train, the last one wins),
# RESERVE_S (25: seconds of each training for start, loading and test), PACK (a folder that gets the results as four
# .tar files, renewed as each training ends). The exit code is 0 if all weights were written, else 1.
set -u
export PYTHONUNBUFFERED=1 CUDA_MODULE_LOADING=LAZY
[ $# = 3 ] || { echo "usage: train_all.sh DATA_DIR OUT SECONDS" >&2; exit 2; }
[ -f "$1/data_batch_1.bin" ] || { echo "train_all.sh: no data_batch_1.bin in $1, expected the folder cifar-10-batches-bin" >&2; exit 2; }
[[ $3 =~ ^[1-9][0-9]*$ ]] || { echo "train_all.sh: found '$3' seconds, expected a whole number" >&2; exit 2; }
mkdir -p "$2" || exit 2
if [ -n "${PACK:-}" ]; then mkdir -p "$PACK" || exit 2; PACK=$(cd "$PACK" && pwd); fi
data=$(cd "$1" && pwd) out=$(cd "$2" && pwd) limit=$3
cd "$(dirname "$0")/../.." || exit 2
device=${DEVICE:-cuda} python=${PYTHON:-python3} reserve=${RESERVE_S:-25} pack=${PACK:-}
read -ra options <<< "${TRAIN_OPTIONS:-}"
say() { echo "=== $SECONDS s: $*"; }
left() { echo $((limit - SECONDS)); }

# pack_up: the results so far as four files, each replaced whole.
pack_up() {
  [ -n "$pack" ] || return 0
  local name file files
  for name in wide_resnet wide_resnet_robust mobilenet_v2 alex_like; do
    case $name in
      wide_resnet*) files=("$out/$name".{pt,json,log}) ;;
      *) files=("$out/$name"{,_robust}.{pt,json,log}) ;;
    esac
    (
      flock 9
      cd "$out" || exit
      for file in "${files[@]##*/}"; do [ ! -s "$file" ] || echo "$file"; done > .packed
      [ ! -s .packed ] || { tar -cf ".$name.part" -T .packed && mv ".$name.part" "$pack/$name.tar"; }
    ) 9> "$out/.lock"
  done
}

# train_one SECONDS MODEL [--robust]: one training that is over after SECONDS.
train_one() {
  local seconds=$1 model=$2 name=$2${3:+_robust}
  if [ $((seconds - reserve)) -lt 5 ]; then say "$name is left out: $seconds s left"; return; fi
  say "$name: $seconds s at most"
  timeout --kill-after=5 "$seconds" "$python" -m tools.training.train "$model" ${3:+"$3"} --data "cifar10:$data" \
    --with-validation --schedule one-cycle --half-weights --device "$device" --time-limit $((seconds - reserve)) \
    --output "$out/$name.pt" ${options[@]+"${options[@]}"} > "$out/$name.log" 2>&1
  say "$name ended with exit code $?: $(tail -1 "$out/$name.log")"
  pack_up
}

# share PERCENT: seconds of what is left.
share() { echo $(($(left) * $1 / 100)); }

train_one "$(share 28)" alex_like &
train_one "$(share 28)" alex_like --robust &
wait
{ train_one "$(share 48)" wide_resnet; train_one "$(left)" wide_resnet --robust; } &
{ train_one "$(share 48)" mobilenet_v2; train_one "$(left)" mobilenet_v2 --robust; } &
wait

code=0
for name in {alex_like,wide_resnet,mobilenet_v2}{,_robust}; do
  [ -s "$out/$name.pt" ] || { say "$name has no weights"; code=1; }
done
say "done: $out"
exit "$code"
