#!/bin/sh
# setup.sh [DIR]   downloads torch's CUDA build, builds the stand-in for it and for ONNX Runtime, and tests both
# PYTHON        Python in which the project is installed, with pip and onnxruntime-gpu   [python3]
# TORCH         version of torch; its default Linux wheel is a CUDA 13 build             [2.11.0]
# TORCH_WHEEL   file of a wheel to use instead of the download
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
dir=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/fakecuda}
python=${PYTHON:-python3}
torch=${TORCH:-2.11.0}
for tool in gcc nm readelf; do
  command -v "$tool" >/dev/null || { echo "setup.sh: $tool is missing: apt-get install gcc libc6-dev binutils" >&2; exit 3; }
done
mkdir -p "$dir"
dir=$(CDPATH= cd -- "$dir" && pwd)
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ ! -f "$dir/site/torch/lib/libtorch_cuda.so" ]; then
  wheel=${TORCH_WHEEL:-}
  if [ -z "$wheel" ]; then
    "$python" -m pip download --quiet --no-deps --only-binary :all: --python-version "$version" --implementation cp \
      --platform manylinux_2_28_x86_64 --dest "$dir/wheel" "torch==$torch"
    wheel=$(ls "$dir"/wheel/torch-*.whl)
  fi
  "$python" -m zipfile -e "$wheel" "$dir/site"
  rm -rf "$dir/wheel"
fi
"$python" - "$dir/site" <<'PY'
import pathlib, re, sys
text = pathlib.Path(sys.argv[1], "torch/version.py").read_text()
if not re.search(r"cuda[^=]*= '13", text):
    sys.exit("setup.sh: this torch is no CUDA 13 build; empty the folder, and use pip's ordinary index or TORCH_WHEEL")
PY
onnx=$("$python" -c 'import importlib.util as u, pathlib; s = u.find_spec("onnxruntime")
p = s and pathlib.Path(s.origin).parent / "capi/libonnxruntime_providers_cuda.so"
print(p if p and p.exists() else "")')
[ -n "$onnx" ] || echo "setup.sh: $python has no onnxruntime-gpu; the stand-in is for torch alone" >&2
rm -rf "$dir/lib"
"$python" "$here/src/stubs.py" "$dir/lib" "$dir"/site/torch/lib/lib*.so ${onnx:+"$onnx"}
FAKECUDA_DIR=$dir FAKECUDA_LOG=$dir/selftest.log "$here/run.sh" "$python" "$here/selftest.py" ${onnx:+onnx}
echo "ready: $(du -sh "$dir" | cut -f1) in $dir"
