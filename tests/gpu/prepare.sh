#!/usr/bin/env bash
# Run in the project's root, on a machine with a network: fills .gpu/ (git-ignored) with all that measure.sh needs on a GPU
# machine without one: the scripts, and wheels of the packages that it lacks.      bash tests/gpu/prepare.sh
# Nothing is installed here. Run it again after any change of these files; wheels that were fetched already are kept.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ -f train.py ] && [ -f requirements.txt ] || { echo "run this in the project's root" >&2; exit 2; }
python=${PYTHON:-python3}
PY=${PY:-3.12} # Python of the GPU machine

mkdir -p .gpu/wheels .gpu/fallback
cp "$here"/{measure.sh,bench.py,results.py,README.md} .gpu/

# What requirements.txt asks for and a machine with PyTorch may lack (or have too old: filelock 3, an older typing-extensions),
# with what that needs in turn, in the versions with which the tests passed. jupyter, ipywidgets, nbclient and imagecodecs are left out: nothing
# there opens a notebook or a compressed TIFF. One version of each, or pip refuses the whole install.
wheels="albumentations==2.0.8 albucore==0.0.24 stringzilla==5.3.2 simsimd==6.5.16
  pydantic==2.14.4 pydantic-core==2.50.5 annotated-types==0.8.0 typing-extensions==4.16.0 typing-inspection==0.4.5
  munch==4.0.0 iterative-stratification==0.1.9 zstandard==0.25.0 filelock==4.3.1"
built="pretrainedmodels==0.7.4"   # published as source only
fallback="numpy==2.4.6"           # installed only if the kit cannot be imported with that machine's numpy

platforms=()
for n in 39 35 34 31 28 27 24 17; do platforms+=(--platform "manylinux_2_${n}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)
fetch() { # fetch FOLDER NAME==VERSION ...: those that are not there yet
  local folder=$1 one file missing=()
  shift
  for one in "$@"; do
    file=$(echo "${one%%==*}" | tr -- '-' '_')-${one##*==}
    compgen -G "$folder/$file-*.whl" >/dev/null || missing+=("$one")
    for old in "$folder/${file%-*}"-*.whl; do # another version of it
      case $old in "$folder/$file-"*) ;; *) rm -f "$old" ;; esac
    done
  done
  [ ${#missing[@]} -eq 0 ] || "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version "$PY" \
    --implementation cp "${platforms[@]}" -d "$folder" "${missing[@]}" 2> >(grep -v WARNING >&2)
}
# shellcheck disable=SC2086
fetch .gpu/wheels $wheels
# shellcheck disable=SC2086
fetch .gpu/fallback $fallback
for one in $built; do
  compgen -G ".gpu/wheels/${one%%==*}-${one##*==}-*.whl" >/dev/null ||
    "$python" -m pip wheel --quiet --no-deps -w .gpu/wheels "$one" 2> >(grep -v WARNING >&2)
done

if command -v unzip >/dev/null; then # do these wheels need any package that neither they nor that machine have?
  asked=$(for w in .gpu/wheels/*.whl; do unzip -p "$w" '*/METADATA'; done | grep ^Requires-Dist | grep -v 'extra ==' |
    grep -Ev 'python(_full)?_version *<' | sed -E 's/^Requires-Dist: *([A-Za-z0-9_.-]+).*/\1/' | tr 'A-Z_' 'a-z-' | sort -u)
  image="numpy scipy pyyaml opencv-python-headless torch torchvision tqdm scikit-learn six typing-extensions"
  for name in $asked; do
    case " $image " in *" $name "*) continue ;; esac
    compgen -G ".gpu/wheels/${name//-/_}-*.whl" >/dev/null || echo "WARNING: no wheel of $name, which another one needs"
  done
fi

# The working tree and .gpu together should stay small enough to be copied: at most 64 MiB.
bytes() { { xargs -0 stat -c %s 2>/dev/null || true; } | awk '{s += $1} END {print s + 0}'; }
tree=$(git ls-files -coz --exclude-standard | bytes)
kit=$(find .gpu -type f -print0 | bytes)
awk -v t="$tree" -v k="$kit" 'BEGIN{printf "working tree %.1f MiB + .gpu %.1f MiB = %.1f of 64 MiB\n", t/2^20, k/2^20, (t+k)/2^20; exit (t+k) > 64*2^20}' ||
  { echo "too much to travel: rm -r .gpu/fallback, or ignore something large" >&2; exit 1; }

# A trial of the whole script on this machine, with sizes so small that the figures mean nothing: does each step end well?
if [ "${1:-}" = try ]; then
  made=$(mktemp -d)
  trap 'rm -rf "$made"' EXIT
  WORK=${WORK:-$made/work} OUT=${OUT:-$made/out} DEVICE=cpu TINY=1 LIMIT=${LIMIT:-1700} PYTHON=${TRY_PYTHON:-.venv/bin/python} bash .gpu/measure.sh
fi
