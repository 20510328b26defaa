#!/usr/bin/env bash
# The competition in order, on a simulated atlas.
#   bash run.sh             environment, data, folds, training of two folds, prediction, thresholds, submission, score
#   bash run.sh test        the same environment, all tests; bash run.sh test quick: the core of them, in a minute
#   bash run.sh real        Kaggle's own data: all folds of Chen's recipe, the submission, and the line that submits it.
#                           bash run.sh real gapnet_pl --size 256 --fit resize: another recipe, other options of train.py;
#                           FOLDS=5 bash run.sh real: five folds instead of ten
#   bash run.sh paper NAME  one paper's experiments on the real data, and a page with its numbers beside ours; NAME: chen, gapnet_pl,
#                           mylavarapu or poster. bash run.sh paper NAME --small: the same on simulated images, 5 to 12 minutes
#                           on two cores
#   bash run.sh losses      four schedules of the loss compared, three seeds each, about 40 minutes
#   bash run.sh networks    five networks compared, five minutes and three seeds each, about 40 minutes
#   bash run.sh --help      this text
set -euo pipefail
cd "$(dirname "$0")"
trap 'exit 130' INT # else: train.py saves and ends with exit code 0, and bash goes on with the next command

environment() {
  local wanted have=.venv/requirements.installed python
  wanted=$(cat requirements.txt)
  if [ -f "$have" ] && [ "$(cat "$have")" = "$wanted" ]; then
    echo "environment: .venv is up to date"
    return
  fi
  for python in python3.11 python3.12 python3.10 python3; do
    if command -v "$python" >/dev/null && "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'; then
      echo "environment: $python -m venv .venv, pip install -r requirements.txt (about 6 GB, a few minutes)"
      "$python" -m venv .venv
      .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
      printf '%s\n' "$wanted" >"$have"
      return
    fi
  done
  echo "error: no Python 3.10, 3.11 or 3.12 found; install one" >&2
  exit 2
}

# Print a command as a user would type it.
typed() {
  local word line=
  for word in "$@"; do
    case $word in *[\ \*]*) line+=" \"$word\"" ;; *) line+=" $word" ;; esac
  done
  echo "${line# }"
}

# Print a command, then run it in the environment.
step() {
  printf '\n$ %s\n' "$(typed "$@")"
  PATH="$PWD/.venv/bin:$PATH" "$@"
}

# once FILE [SOURCE ...] -- COMMAND: the same, unless FILE, which the command writes, exists and is older than no SOURCE.
once() {
  local file=$1 old=
  shift
  while [ "$1" != -- ]; do
    if [ "$1" -nt "$file" ]; then old=yes; fi
    shift
  done
  shift
  if [ -e "$file" ] && [ -z "$old" ]; then
    printf '\n%s is there already; delete it to run again: %s\n' "$file" "$(typed "$@")"
  else
    step "$@"
  fi
}

# From a run's trained folds to its submission: decide RUN TEST-IMAGES SAMPLE [options of predict.py]
decide() {
  local run=$1 images=$2 sample=$3
  shift 3
  once "$run/test.csv" "$run"/fold*/best.safetensors -- python predict.py "$run" --images "$images" --ids "$sample" -o "$run/test.csv" --tta 4 "$@"
  once "$run/thresholds.json" "$run"/fold*/oof.csv -- python threshold.py "$run" -o "$run/thresholds.json" --plot "$run/thresholds.png"
  once "$run/submission.csv" "$run/test.csv" "$run/thresholds.json" -- \
    python ensemble.py "$run/test.csv" --thresholds "$run/thresholds.json" --sample "$sample" -o "$run/submission.csv"
}

demo() {
  local data=input/demo run=runs/demo
  step python -m utils.simulator --out $data --train 2000 --test 400 --size 128 --power 0.5 --seed 0
  once $data/folds.csv -- python make_folds.py --labels $data/train.csv --images $data/train --folds 5 --seed 0 -o $data/folds.csv --plot $data/folds.png
  folds_side_by_side "0 1" --recipe gapnet_pl --folds $data/folds.csv --images $data/train --name demo \
    --size 128 --fit resize --augment d4 --epochs 22 --batch-size 16 \
    --optimiser adamw --lr 0.001 --loss "1:bce 12:soft_f1+bce" --patience 4 --min-gain-mode abs --score-threshold best
  decide $run $data/test $data/sample_submission.csv
  once $run/submission_half.csv $run/test.csv -- python ensemble.py $run/test.csv --thresholds 0.5 --sample $data/sample_submission.csv -o $run/submission_half.csv
  step python -m utils.tools.score $run/submission.csv $run/submission_half.csv --truth $data/solution.csv --images $data/test --sheet $run/contact_sheet.jpg
  printf '\nsubmission: %s\nfigures:    %s\n' $run/submission.csv "$run/contact_sheet.jpg $run/thresholds.png $data/folds.png"
}

real() {
  local recipe=chen run table fold folds gpus crop data=input word key value plan predict=()
  if [[ ${1:--} != -* ]]; then
    recipe=$1
    shift
  fi
  for word in "$@"; do
    case ${word%%=*} in
      --fold | --overwrite | --classes)
        echo "error: ${word%%=*} is not for all folds of the competition; leave it out, or call train.py yourself" >&2
        exit 2
        ;;
    esac
  done
  # Let train.py check its options before anything is fetched.
  plan=$(.venv/bin/python train.py --recipe "$recipe" "$@" --fold 0 --check)
  while IFS='=' read -r key value; do
    case $key in
      run) run=$value ;;
      folds) table=$value ;;
      gpus) gpus=$value ;;
      crop) crop=$value ;;
      predict) predict+=("$value") ;;
    esac
  done <<<"$plan"
  if [ "$crop" -gt 0 ]; then
    step python -m utils.kaggle.fetch --crop "$crop"
  else
    step python -m utils.kaggle.fetch
  fi
  once "$table" -- python make_folds.py --folds "${FOLDS:-10}" -o "$table" --plot "${table%.csv}.png"
  folds=$(.venv/bin/python -m utils.kaggle.submit "$run" --list --folds "$table" --wanted "${FOLDS:-0}")
  for fold in $folds; do
    if [ "$gpus" -gt 1 ]; then
      step torchrun --nproc-per-node "$gpus" train.py --recipe "$recipe" "$@" --fold "$fold"
    else
      step python train.py --recipe "$recipe" "$@" --fold "$fold"
    fi
    step python -m utils.kaggle.submit "$run" --trained --folds "$table" --fold "$fold"
  done
  decide "$run" $data/test $data/sample_submission.csv "${predict[@]}"
  step python -m utils.kaggle.submit "$run" --file "$run/submission.csv"
}

# A paper's experiments, and the page with its numbers beside ours: paper NAME [--small] [options of train.py]
paper() {
  local name=${1:-} word small="" options=() recipes recipe key value gpus=0 crop=0 table images test_images classes=hpa place=runs/paper run plan
  case $name in
    chen) recipes=(chen) ;;
    gapnet_pl) recipes=(gapnet_pl m_cnn conv_mil densenet121 deeploc) ;;
    mylavarapu) recipes=(mylavarapu_1 mylavarapu_2 mylavarapu_3 mylavarapu_4) ;;
    poster) recipes=(poster_convnet_rgb poster_convnet_rgby poster_xception poster_gapnet) ;;
    *)
      echo "error: unknown paper '$name'; use: bash run.sh paper chen, gapnet_pl, mylavarapu or poster" >&2
      exit 2
      ;;
  esac
  for word in "${@:2}"; do
    case ${word%%=*} in
      --small) small=yes place=runs/small ;;
      --recipe | --name | --runs | --fold | --folds | --images | --classes | --overwrite)
        echo "error: ${word%%=*} is given by the paper; leave it out, or call train.py yourself" >&2
        exit 2
        ;;
      *) options+=("$word") ;;
    esac
  done
  place=${place}_$name
  # Let train.py check its options before anything is fetched.
  for recipe in "${recipes[@]}"; do
    plan=$(.venv/bin/python train.py --recipe "$recipe" "${options[@]}" --fold 0 --check)
    while IFS='=' read -r key value; do
      case $key in
        gpus) gpus=$value ;;
        crop) crop=$value ;;
      esac
    done <<<"$plan"
  done
  [ -n "$small" ] || step python -m utils.tools.paper "$name" --needs
  paper_folds
  trap end_trainings EXIT
  for recipe in "${recipes[@]}"; do paper_training "$recipe" "$recipe"; done
  all_trained
  if [ "$name" = gapnet_pl ]; then
    paper_training single gapnet_pl --single-label --layers last --loss 1:cross_entropy --weights $place/gapnet_pl/fold0/best.safetensors
    all_trained
    recipes+=(single)
  fi
  for recipe in "${recipes[@]}"; do
    run=$place/$recipe
    [ "$name" = poster ] || once $run/test.csv $run/fold0/best.safetensors "$table" -- \
      python predict.py $run --images "$test_images" --ids "$table" --fold -2 -o $run/test.csv
  done
  if [ "$name" = chen ]; then
    once $run/thresholds.json $run/fold0/oof.csv -- python threshold.py $run
    once $run/speed.csv $run/fold0/best.safetensors -- python predict.py $run/fold0 --images "$test_images" --benchmark --tta 1 -o $run/speed.csv
  fi
  step python -m utils.tools.paper "$name" --runs $place
}

# The images and folds of a paper: sets table, images, test_images, classes.
paper_folds() {
  local data=input labels split=() count=${IMAGES:-2000}
  case $name$small in
    gapnet_plyes)
      data=input/small_cyto
      step python -m utils.simulator --out $data --form cyto --train "$count" --test 0 --size 152 --power 0.5 --seed 2
      ;;
    *yes)
      data=input/small
      step python -m utils.simulator --out $data --train "$count" --test 0 --external $((count / 8)) --size 128 --power 0.5 --seed 2
      ;;
    gapnet_pl) [ ! -e input/cyto/train.csv ] || data=input/cyto ;;
  esac
  labels=$data/train.csv images=$data/train test_images=$data/train table=$data/paper_$name.csv
  if [ $data = input ] && [ "$crop" -gt 0 ]; then
    step python -m utils.kaggle.fetch --crop "$crop"
  elif [ $data = input ]; then
    step python -m utils.kaggle.fetch
  fi
  case $name in
    chen)
      test_images=$data/external
      if [ -z "$small" ]; then
        test_images=input/hpav18
        step python -m utils.kaggle.hpav18 --limit 11111 --to $test_images # as many as Chen evaluated on
      fi
      split=(--test "other=$test_images.csv" --images $test_images)
      ;;
    gapnet_pl)
      classes=cyto split=(--classes cyto --split 8:1:1 --drop-corrupt)
      if [ $data = input ]; then
        labels=input/train_cyto.csv
        once $labels input/train.csv -- python -m utils.kaggle.merge_labels input/train.csv --to cyto -o $labels
      fi
      ;;
    mylavarapu) split=(--split 24000:3000:4072) ;;
  esac
  once "$table" "$labels" -- python make_folds.py --labels "$labels" --images "$images" "${split[@]}" -o "$table" --plot "${table%.csv}.png"
}

# Train fold 0 of one of a paper's recipes: paper_training NAME RECIPE [more options of train.py]
paper_training() {
  local run=$1 recipe=$2 words=(--recipe "$2" --name "$1" --runs "$place" --folds "$table" --fold 0 --images "$images" --classes $classes) smaller=()
  if [ -n "$small" ]; then
    case $recipe in
      chen)
        smaller=(--size 128 --batch-size 16 --lr 1 --epochs 8 --augment "1:chen 5:chen_strong"
          --loss "1:bce 6:soft_f1+weighted_bce 8:soft_f1+10*weighted_bce")
        ;;
      mylavarapu_1) smaller=(--size 48 --epochs 6 --normalise image --lr 0.0003 --batch-size 16) ;;
      mylavarapu_*) smaller=(--size 96 --epochs 6 --normalise image --lr 0.0003 --batch-size 16) ;;
      poster_convnet_rgby) smaller=(--size 128 --epochs 10) ;;
      poster_gapnet) smaller=(--size 96 --epochs 10) ;;
      poster_*) smaller=(--size 64 --epochs 10) ;;
      *) smaller=(--size 128 --epochs 6 --optimiser adamw --lr 0.001 --batch-size 16) ;;
    esac
    smaller+=(--weights none)
  fi
  words+=("${smaller[@]}" "${@:3}" "${options[@]}")
  if [ -n "$small" ] && [ "$recipe" != chen ]; then
    beside "${words[@]}"
    return
  fi
  if [ "$gpus" -gt 1 ]; then
    step torchrun --nproc-per-node "$gpus" train.py "${words[@]}"
  else
    step python train.py "${words[@]}"
  fi
  # If a time limit has stopped the training, nothing else is to be trained.
  step python -m utils.kaggle.submit "$place/$run" --trained --folds "$table" --fold 0
}

# Train these folds of a run at the same time, with the cores divided among them: two threads of one training wait for each other at
# every layer, and far longer if anything else runs. If there are fewer cores than folds, train one after another.
# folds_side_by_side "FOLD …" OPTIONS OF train.py
folds_side_by_side() {
  local folds=$1 fold cores printers=()
  shift
  cores=$(.venv/bin/python train.py "$@" --fold 0 --check | sed -n 's/^cores=//p')
  cores=$((cores / $(wc -w <<<"$folds")))
  if [ "$cores" -lt 1 ]; then
    for fold in $folds; do step python train.py "$@" --fold "$fold"; done
    return
  fi
  [ "$cores" -gt 1 ] || set -- "$@" --workers 0
  trap end_trainings EXIT
  pipes=$(mktemp -d)
  for fold in $folds; do
    printf '\n$ OMP_NUM_THREADS=%s %s\n' "$cores" "$(typed python train.py "$@" --fold "$fold")"
    mkfifo "$pipes/$fold"
    awk -v mark="fold $fold  " '{print mark $0; fflush()}' "$pipes/$fold" & printers+=($!)
    OMP_NUM_THREADS=$cores .venv/bin/python train.py "$@" --fold "$fold" >"$pipes/$fold" 2>&1 & running+=($!)
  done
  all_trained
  wait "${printers[@]}"
}

# Train on one core, at most one training per core at a time; if one fails, everything ends.
running=()
beside() {
  if [ "${#running[@]}" -ge "$(nproc)" ]; then
    wait "${running[0]}" # the oldest
    running=("${running[@]:1}")
  fi
  printf '\n$ OMP_NUM_THREADS=1 %s\n' "$(typed python train.py "$@" --workers 0)"
  OMP_NUM_THREADS=1 .venv/bin/python train.py "$@" --workers 0 & # no subshell, so that $! is the training itself
  running+=($!)
}

# However this script ends, trainings that still run save their state and end.
end_trainings() {
  [ "${#running[@]}" -eq 0 ] || kill "${running[@]}" 2>/dev/null || true
  wait
  rm -rf "${pipes:-}"
}

all_trained() {
  local pid
  for pid in "${running[@]}"; do wait "$pid"; done
  running=()
}

hard_atlas() {
  trap end_trainings EXIT
  step python -m utils.simulator --out input/hard --train 5000 --test 200 --size 128 --power 0.5 --seed 1
  once input/hard/folds.csv -- python make_folds.py --labels input/hard/train.csv --images input/hard/train --folds 5 --seed 0 -o input/hard/folds.csv
}

# Four schedules of the loss, three seeds each.
losses() {
  local name loss seed
  hard_atlas
  for seed in 0 1 2; do
    for name in switch bce focal unweighted; do
      case $name in
        switch) loss="1:bce 13:soft_f1+weighted_bce" ;;
        bce) loss="1:bce" ;;
        focal) loss="1:focal" ;;
        unweighted) loss="1:bce 13:soft_f1+bce" ;;
      esac
      beside --recipe gapnet_pl --name loss_$name$seed --seed $seed --folds input/hard/folds.csv --fold 0 --images input/hard/train \
        --size 128 --fit resize --augment d4 --optimiser adamw --lr 0.001 --batch-size 16 --epochs 24 --patience 4 --min-gain 0.0001 \
        --min-gain-mode abs --score-threshold best --loss "$loss"
    done
  done
  all_trained
  step python -m utils.tools.compare runs/loss_*
}

# Five networks, three seeds each, the same time for all.
networks() {
  local name seed
  hard_atlas
  for seed in 0 1 2; do
    for name in gapnet_pl m_cnn densenet121 deeploc conv_mil; do
      beside --recipe $name --name net_$name$seed --seed $seed --folds input/hard/folds.csv --fold 0 --images input/hard/train \
        --size 128 --fit resize --augment d4 --optimiser adamw --lr 0.001 --batch-size 16 --epochs 100 --patience 3 --min-gain 0.001 \
        --max-minutes 5
    done
  done
  all_trained
  step python -m utils.tools.compare runs/net_* --decide each -o runs/networks
}

{ # bash reads this block whole before it runs it, so that the file may change meanwhile
  case "${1:-demo}" in
    demo)
      environment
      demo
      ;;
    losses | networks)
      environment
      "$1"
      ;;
    real | paper)
      environment
      "$@"
      ;;
    test)
      case "${2:-}" in
        "") only=() ;;
        quick) only=(-m quick) ;;
        *)
          echo "error: unknown word '$2' after test; use: bash run.sh test, or bash run.sh test quick" >&2
          exit 2
          ;;
      esac
      environment
      step python -m pytest -q -n 2 "${only[@]}" tests
      ;;
    -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" ;;
    *)
      echo "error: unknown word '$1'; use: bash run.sh, or with test, real, paper, losses, networks or --help" >&2
      exit 2
      ;;
  esac
  exit
}
