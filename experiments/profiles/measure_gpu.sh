#!/bin/sh
# The GPU profile of the video pipeline, in calls of limited length: each goes on where the last
# stopped, and a call that is killed costs the trial it was in.
#
#   experiments/profiles/measure_gpu.sh OUT.csv [options of ipa-energy profile …]
#
# LIMIT (9min) is the longest a call takes, PYTHON (python3) the interpreter.
set -eu
if [ $# -lt 1 ]; then
    echo "usage: $0 OUT.csv [options of ipa-energy profile …]" >&2
    exit 2
fi
out=$1
shift
root=$(cd "$(dirname "$0")/../.." && pwd)
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH
exec "${PYTHON:-python3}" -m ipa_energy profile "$root/configs/video.yaml" --out "$out" \
    --gpu 1 --cores 1 \
    --batch 1 --batch 2 --batch 4 --batch 8 --batch 16 --batch 32 --batch 64 \
    --resume --time-limit "${LIMIT:-9min}" "$@"
