#!/usr/bin/env bash
# On the GPU machine, in the project's root, in one command:   bash .gpu/measure.sh          (about 8.5 minutes)
# Again on the same machine: what was left out goes on:        LIMIT=200 bash .gpu/measure.sh
# Only some steps:                                                 bash .gpu/measure.sh env net_main trainer
#
# LIMIT seconds in all; each step has a limit of its own, is skipped if too little time is left, and writes its figures as lines
# of JSON to $OUT/results.jsonl at once. $OUT/table.txt is printed last.
# DEVICE=cpu TINY=1 tries the script on a CPU with sizes that mean nothing.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd) # .gpu/ in the project's root, or tests/gpu/
root=$here
until [ -f "$root/train.py" ]; do
  root=$(dirname "$root")
  [ "$root" != / ] || { echo "put this into the project, as tests/gpu/prepare.sh does" >&2; exit 2; }
done
cd "$root"
export here
self=$here/measure.sh
export LIMIT=${LIMIT:-510} OUT=${OUT:-.gpu/out} WORK=${WORK:-${TMPDIR:-/tmp}/gpu-work} TINY=${TINY:-} PYTHON=${PYTHON:-python3}
export RESULTS=$WORK/results.jsonl SITE=$WORK/site PYTHONUNBUFFERED=1 TORCHINDUCTOR_CACHE_DIR=$WORK/inductor NO_ALBUMENTATIONS_UPDATE=1
export DEVICE=${DEVICE:-cuda:0}
export PYTHONWARNINGS=ignore::SyntaxWarning # of pretrainedmodels
unset PYTHONDONTWRITEBYTECODE
mkdir -p "$OUT" "$WORK/runs"

if [ -n "$TINY" ]; then
  export DEMO_TRAIN=${DEMO_TRAIN:-40} DEMO_TEST=${DEMO_TEST:-8} DEMO_SIZE=32 DEMO_EPOCHS=3 RESUME_EPOCHS=12 BIG_TRAIN=5 BIG_SIZE=64 COPIES=4 E2E_BATCH=4 E2E_LARGE=8
  export CHEN_TRAIN=40 LARGE_TRAIN=40 CHEN_SIZE=32 CHEN_EPOCHS=2 WORKERS=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
else
  export DEMO_TRAIN=${DEMO_TRAIN:-2000} DEMO_TEST=400 DEMO_SIZE=128 DEMO_EPOCHS=22 RESUME_EPOCHS=11 E2E_BATCH=64 E2E_LARGE=128
  export BIG_TRAIN=${BIG_TRAIN:-2400} BIG_SIZE=512 COPIES=${COPIES:-4}
  export CHEN_TRAIN=5000 LARGE_TRAIN=20000 CHEN_SIZE=128 CHEN_EPOCHS=40 WORKERS=4
fi
cores=$(nproc)
# Packed images (10 GB) go to memory if there is plenty: the speed of this machine's disk is not what is measured.
if [ -z "${CACHE:-}" ]; then
  CACHE=$WORK/packed
  [ "$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 {print int($4 / 1e6)}')" -ge 40 ] 2>/dev/null && CACHE=/dev/shm/gpu-packed
fi
export CACHE
export DRAWING=$((cores > 4 ? cores - 2 : cores)) # processes that draw, beside what uses the GPU
py() { PYTHONPATH="$SITE${PYTHONPATH:+:$PYTHONPATH}" "$PYTHON" "$@"; }
bench() { py "$here/bench.py" "$@"; }
results() { "$PYTHON" -u "$here/results.py" "$@"; }
stamped() { results stamp "$1" >>"$WORK/log.txt"; }
publish() { # to the folder that is copied back
  for file in results.jsonl log.txt table.txt profile.txt benchmark.json smi.csv; do
    [ -f "$WORK/$file" ] && tail -c 15000000 "$WORK/$file" >"$OUT/$file"
  done
}
is_drawn() { [ -f "$WORK/$1/atlas.json" ] && grep -q '"complete"' "$WORK/$1/atlas.json"; }
await() { # await ATLAS SECONDS: until it is drawn
  local until=$((SECONDS + $2 * (${#TINY} ? 10 : 1)))
  until is_drawn "$1"; do
    [ $SECONDS -lt $until ] || { echo "the atlas $1 is not drawn after $2 s"; return 1; }
    sleep 0.5
  done
}
drawn_out() { # wait so many seconds at most until nothing is drawn any more
  local until=$((SECONDS + $1)) pid
  for pid in $(cat "$WORK"/drawing.pid 2>/dev/null); do
    while kill -0 "$pid" 2>/dev/null; do
      [ $SECONDS -lt $until ] || return 1
      sleep 0.5
    done
  done
}
end_drawing() { # each is the first process of a group of its own
  local pid
  for pid in $(cat "$WORK"/drawing.pid 2>/dev/null); do kill -TERM -- "-$pid" 2>/dev/null && echo "drawing was ended before its time"; done
  : >"$WORK/drawing.pid"
}
quiet() { drawn_out "$1" || end_drawing; } # nothing may be drawn beside what is timed
behind() { # behind NICENESS FUNCTION: draw beside what follows
  set -m
  nice -n "$1" bash -c "$(declare -f py is_drawn draw folds_of drawing drawing_more); $2" > >(stamped drawing) 2>&1 </dev/null &
  echo $! >>"$WORK/drawing.pid"
  set +m
}
folds_of() { # folds_of ATLAS: near-duplicates looked for, as a user does it
  [ -f "$WORK/$1/folds.csv" ] ||
    py make_folds.py --labels "$WORK/$1/train.csv" --images "$WORK/$1/train" --folds 5 --seed 0 -o "$WORK/$1/folds.csv"
}
draw() { # draw ATLAS words of utils.simulator…
  local name=$1
  shift
  is_drawn "$name" || py -m utils.simulator --out "$WORK/$name" --workers "$DRAWING" "$@"
}

# --- the steps ----------------------------------------------------------------------------------------------------------------

step_install() {
  export PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
  if [ -z "$TINY" ] || [ -n "${INSTALL:-}" ]; then
    "$PYTHON" -m pip install -q --no-deps --no-compile --no-cache-dir --upgrade --target "$SITE" "$here"/wheels/*.whl || return 1
    rm -rf "$SITE/tests" # pretrainedmodels brings a package of this name, which would hide the project's
    # Also for processes without PYTHONPATH, as the tests start some.
    "$PYTHON" -c "import site; open(site.getsitepackages()[0] + '/gpu-kit.pth', 'w').write('import sys; sys.path.insert(0, \"$SITE\")\n')"
  fi
  local check='import train, predict, threshold, ensemble, make_folds, utils.simulator, utils.tools.benchmark.workload, utils.data.augment, pretrainedmodels, iterstrat'
  check="$check; import numpy as np; t = utils.data.augment.build('chen', ['red', 'green', 'blue', 'yellow']); t(np.zeros((64, 64, 4), np.uint8), np.ones(28), 1, 0)"
  if ! py -c "$check"; then
    echo "with this image's numpy the kit does not start; another one is installed"
    "$PYTHON" -m pip install -q --no-deps --no-compile --no-cache-dir --upgrade --target "$SITE" "$here"/fallback/*.whl && py -c "$check"
  fi
}
step_env() {
  bench env
  nvidia-smi 2>/dev/null | head -20
  df -h /dev/shm "$WORK"
}

# In the background from the start, on the cores: the demo's images, then those of 512².
drawing() {
  if [ -z "$WANTED" ] || [[ " $WANTED " == *" demo "* ]]; then
    draw demo --train $DEMO_TRAIN --test $DEMO_TEST --size $DEMO_SIZE --power 0.5 --seed 0
    folds_of demo
  fi
  draw unique --train $BIG_TRAIN --test 1 --size $BIG_SIZE --power 0.5 --seed 3
}
drawing_more() { draw chen --train $CHEN_TRAIN --test 40 --size $CHEN_SIZE --power 0.5 --seed 1; }

# The five scripts on the GPU, as run.sh's demo: one fold in bfloat16, one in float16, at the same time; beside them a third training
# that is killed twice. The README has the demo's macro F1 on two CPU cores.
step_demo() {
  local data=$WORK/demo runs=$WORK/runs fold pids=() fp16=fp16
  [ "$DEVICE" != cpu ] || fp16=auto
  await demo 90 || return 1
  for _ in {1..40}; do [ -f "$data/folds.csv" ] || sleep 0.5; done
  folds_of demo || return 1
  local words=(--recipe gapnet_pl --folds $data/folds.csv --images $data/train --size $DEMO_SIZE --fit resize --augment d4
    --batch-size 16 --optimiser adamw --lr 0.001 --loss "1:bce 12:soft_f1+bce" --patience 4
    --min-gain-mode abs --score-threshold best --runs $runs --cache $CACHE
    --device $DEVICE --workers $WORKERS)
  py train.py "${words[@]}" --fold 0 --name demo --epochs $DEMO_EPOCHS --amp auto > >(stamped demo0) 2>&1 & pids+=($!)
  sleep 3 # the first one packs
  py train.py "${words[@]}" --fold 1 --name demo --epochs $DEMO_EPOCHS --amp $fp16 > >(stamped demo1) 2>&1 & pids+=($!)
  bench resume "${words[@]}" --fold 0 --name resumed --epochs $RESUME_EPOCHS --amp auto
  for pid in "${pids[@]}"; do wait "$pid" || echo "a training of the demo failed with $?"; done
  for fold in 0 1; do bench run $runs/demo/fold$fold; done
  local sample=$data/sample_submission.csv
  py predict.py $runs/demo --images $data/test --ids $sample -o $runs/demo/test.csv --tta 4 --device "$DEVICE" --cache "$CACHE" &&
    py threshold.py $runs/demo -o $runs/demo/thresholds.json &&
    py ensemble.py $runs/demo/test.csv --thresholds $runs/demo/thresholds.json --sample $sample -o $runs/demo/submission.csv &&
    bench thresholds $runs/demo/thresholds.json demo && bench score $data/solution.csv $runs/demo/submission.csv
  # The same network on the CPU and on the GPU, in each arithmetic.
  local one=$runs/demo/fold0 where amp files=() places=(cpu "$DEVICE")
  [ "$DEVICE" != cpu ] || places=(cpu)
  for where in "${places[@]}"; do
    for amp in off bf16 fp16; do
      [ "$where-$amp" != cpu-fp16 ] || continue
      files+=("$runs/demo/${where%%:*}-$amp.csv")
      py predict.py $one --images $data/test --ids $sample -o "${files[-1]}" --tta 1 --device "$where" --amp $amp --cache "$CACHE" &
    done
  done
  wait
  bench agree "GapNet-PL, CPU float32 against others" "${files[@]}"
}

step_net_main() { bench net main; }
step_net_more() { bench net more; }
step_candidates() { bench net candidates; }

# train.py end to end: recipe chen at 512², from packed images, with all that a user's run does.
e2e() { # e2e NAME BATCH EPOCHS …
  local name=$1 batch=$2 epochs=$3
  shift 3
  py train.py --recipe chen ${TINY:+--model gapnet_pl} --weights none --augment 1:chen --loss 1:bce --name "$name" --folds "$WORK/big/folds.csv" --fold 0 --images "$WORK/big/train" \
    --cache "$CACHE" --runs "$WORK/runs" --size $BIG_SIZE --batch-size "$batch" --epochs "$epochs" --early-stop 0 --device "$DEVICE" "$@"
  local rc=$?
  bench run "$WORK/runs/$name/fold0"
  return $rc
}
images() { [ -f "$WORK/big/folds.csv" ] || { await unique 120 && bench link "$WORK/unique" "$WORK/big" $COPIES; }; }
step_e2e() {
  images || return 1
  quiet 1
  e2e chen512 $E2E_BATCH 2
}
step_predict() {
  quiet 60
  bench predict "$WORK/runs/chen512/fold0"
}
step_trainer() {
  images || return 1
  quiet 60
  bench trainer
}
step_e2e_large() {
  images || return 1
  quiet 60
  e2e chen512_large $E2E_LARGE 2
}
step_compiled() { images && bench compiled; }
step_e2e_fp16() {
  images || return 1
  quiet 60
  [ "$DEVICE" = cpu ] || e2e chen512_fp16 $E2E_BATCH 2 --amp fp16
}
step_benchmark() {
  await unique 120 || return 1
  quiet 60
  local more=(--predicted 512)
  [ -z "$TINY" ] || more=(--batch-size 4 --repeats 1 --predicted 4)
  py -m utils.tools.benchmark training prediction --images "$WORK/unique/train" --count $((BIG_TRAIN < 256 ? BIG_TRAIN : 256)) --size $BIG_SIZE --device "$DEVICE" \
    -o "$WORK/benchmark.json" "${more[@]}" && bench benchmark "$WORK/benchmark.json"
}
# side_by_side ATLAS NAME NAME: two trainings without ImageNet's weights, as long as there is time, options of train.py in arrays of these names.
side_by_side() {
  local data=$WORK/$1 name minutes pids=()
  shift
  drawn_out 60 || end_drawing
  minutes=$("$PYTHON" -c "print(max(0.3, ($SECONDS_LEFT - $SECONDS - 35) / 60))")
  for name in "$@"; do
    local -n options=$name
    py train.py "${options[@]}" --weights none --name "$name" --folds "$data/folds.csv" --fold 0 --images "$data/train" --size $CHEN_SIZE \
      --batch-size 64 --early-stop 0 --max-minutes "$minutes" --cache "$CACHE" --runs "$WORK/runs" --device "$DEVICE" --workers $((WORKERS + 2)) \
      > >(stamped "$name") 2>&1 & pids+=($!)
    sleep 4 # the first one packs
  done
  for pid in "${pids[@]}"; do wait "$pid" || echo "a training failed with $?"; done
  for name in "$@"; do
    bench run "$WORK/runs/$name/fold0"
    py threshold.py "$WORK/runs/$name" -o "$WORK/runs/$name/thresholds.json" && bench thresholds "$WORK/runs/$name/thresholds.json" "$name" &
  done
  wait
}
# Chen's recipe at 128² on simulated images, as long as published: BCE throughout, and the switch of the loss.
step_chen() {
  local chen_bce=(--recipe chen --lr 1 --epochs $CHEN_EPOCHS --loss 1:bce)
  local chen_switch=(--recipe chen --lr 1 --epochs $CHEN_EPOCHS --loss "1:bce 11:soft_f1+weighted_bce 24:soft_f1+10*weighted_bce")
  drawing_more && folds_of chen && side_by_side chen chen_bce chen_switch
}
# The kit's own recipe against Chen's on 20,000 simulated images of 128².
step_best() {
  local best=(--recipe best --epochs $CHEN_EPOCHS) best_chen=(--recipe chen --lr 1 --epochs $CHEN_EPOCHS)
  draw large --train $LARGE_TRAIN --test 40 --size $CHEN_SIZE --power 0.5 --seed 4 && folds_of large && side_by_side large best best_chen
}
# The kit's own tests of training, prediction and resuming with this machine's packages (on its CPU: they compare to the bit).
step_tests() {
  local names=(scripts/test_train scripts/test_predict engine/test_resume scripts/test_training_options engine/test_on_cuda data/test_cache data/test_augment models/test_models engine/test_weights)
  [ -z "$TINY" ] || names=(data/test_augment)
  py -m pytest -q --maxfail 10 -n "$cores" -p no:cacheprovider $(printf 'tests/%s.py ' "${names[@]}") 2>&1 | tail -40
}

# --- the order ------------------------------------------------------------------------------------------------------------------

# name, seconds it needs at least, seconds it may take
order="
install 5 60
env 8 50
net_main 20 70
demo 40 130
net_more 25 45
e2e 50 120
predict 25 55
trainer 30 85
compiled 50 130
chen 110 180
e2e_large 50 80
e2e_fp16 50 80
benchmark 70 110
tests 60 150
"
# The same, only if they are named: each is a measurement of its own.
named="
candidates 60 480
best 200 500
"
if [[ ${1:-} == step:* ]]; then
  "step_${1#step:}"
  exit
fi

run() {
  local name=$1 need=$2 most=$3 have began rc
  grep -qx "$name" "$WORK/done" 2>/dev/null && return
  have=$((LIMIT - SECONDS - 8))
  if [ $have -lt $((${#TINY} ? 1 : need)) ]; then
    echo "{\"step\": \"left out\", \"name\": \"$name\", \"seconds_left\": $have}" >>"$RESULTS"
    return
  fi
  [ -z "$TINY" ] || most=600
  [ $most -lt $have ] || most=$have
  began=$(date +%s.%N)
  SECONDS_LEFT=$((most - 3)) timeout -k 6 "$most" bash $self "step:$name" 2>&1 </dev/null | stamped "$name"
  rc=${PIPESTATUS[0]}
  echo "{\"step\": \"done\", \"name\": \"$name\", \"rc\": $rc, \"seconds\": $("$PYTHON" -c "import time; print(round(time.time() - $began, 1))")}" >>"$RESULTS"
  [ "$rc" != 0 ] || echo "$name" >>"$WORK/done"
  publish
}

if command -v nvidia-smi >/dev/null && [ "$DEVICE" != cpu ]; then
  nvidia-smi --query-gpu=timestamp,utilization.gpu,memory.used,power.draw,clocks.sm --format=csv,noheader,nounits -lms 250 >>"$WORK/smi.csv" 2>/dev/null &
  watcher=$!
fi
: >"$WORK/drawing.pid"
finish() {
  trap - EXIT
  [ -z "${watcher:-}" ] || kill "$watcher" 2>/dev/null
  end_drawing
  results busy >/dev/null 2>&1
  results table
  publish
}
trap finish EXIT
trap 'exit 143' TERM INT

export WANTED=$*
while read -r name need most; do
  [ -n "$name" ] || continue
  [ -z "$WANTED" ] || [ "$name" = install ] || [[ " $WANTED " == *" $name "* ]] || continue
  run "$name" "$need" "$most"
  grep -qx install "$WORK/done" 2>/dev/null || break # nothing works without
  if [ "$name" = install ] && ! is_drawn unique; then behind 10 drawing; fi
  if [ "$name" = trainer ] && ! is_drawn chen; then behind 15 drawing_more; fi
done <<<"$order${WANTED:+$named}"
