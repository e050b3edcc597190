#!/bin/sh
# run.sh [--ort] PYTHON ARGUMENT...   runs a Python command on the stand-in for CUDA and logs to $FAKECUDA_LOG
#   --ort   use the Python's own torch instead of the CUDA build: for ONNX Runtime alone
# FAKECUDA_DIR        folder that setup.sh made        [${XDG_CACHE_HOME:-$HOME/.cache}/fakecuda]
# FAKECUDA_LOG        the log; it is emptied first     [$FAKECUDA_DIR/last.log]
# FAKECUDA_SM         90 (H100, H200) or 80 (A100)     [90]
# FAKECUDA_CUDNN      version that cuDNN reports; or, with --ort, off     [91900, as torch 2.11 requires]
# FAKECUDA_QUIET      1: log no launch and no copy, to measure the host's time
# FAKECUDA_ARGUMENTS  1: log which length array ONNX Runtime's attention kernels read
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
dir=${FAKECUDA_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/fakecuda}
site=$dir/site:
if [ "${1:-}" = --ort ]; then site=; shift; fi
[ $# -gt 0 ] || { sed -n 's/^# \{0,1\}//p' "$0" | sed 1d >&2; exit 2; }
[ -f "$dir/lib/libcudart.so.13" ] || { echo "run.sh: $dir has no stand-in for CUDA; run $here/setup.sh first" >&2; exit 3; }
cudnn=$dir/lib/cudnn:
if [ "${FAKECUDA_CUDNN:-}" = off ]; then
  [ -z "$site" ] || { echo "run.sh: torch's CUDA build links cuDNN; FAKECUDA_CUDNN=off needs --ort" >&2; exit 2; }
  cudnn=
fi
export FAKECUDA_DIR="$dir" FAKECUDA_LOG="${FAKECUDA_LOG:-$dir/last.log}"
export LD_LIBRARY_PATH="$dir/lib:$cudnn${LD_LIBRARY_PATH:-}"
export PYTHONPATH="$site$here:$PWD${PYTHONPATH:+:$PYTHONPATH}"
export TOKENIZERS_PARALLELISM="${TOKENIZERS_PARALLELISM:-false}"
: > "$FAKECUDA_LOG"
exec "$@"
