"""Builds the fake libraries: `python stubs.py OUT LIBRARY...`.

Each LIBRARY links CUDA (torch's, ONNX Runtime's CUDA provider). Each of its undefined symbols that belongs to a CUDA
library, by its name, becomes a function that returns 0, in a library with the soname that LIBRARY needs. cudart.c and
libs.c hold the few functions that do more. A function counts as a launch by its name.
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
# The library of a symbol, by its prefix; the first that fits.
PREFIXES = {
    **{name: name for name in ("cublasLt", "cublas", "cudnn", "cufft", "cupti", "curand", "cusolver")},
    **{name: name for name in ("cusparseLt", "cusparse", "nccl", "nvrtc")},
    "cuFile": "cufile",
    "pnccl": "nccl",
    "nvshmem": "nvshmem_host",
    "cuda": "cudart",
    "__cuda": "cudart",
    "cu": "cuda",
}
LAUNCH = re.compile(
    r"cublas(?!Lt|Get|Set|Create|Destroy)\w*"
    r"(gemm|gemv|hemm|hemv|symm|syrk|trsm|geam|dgmm|dot|axpy|scal|copy|ger|Gemm|Dot)\w*|"
    r"cudnn(Softmax|Reduce|Add|Activation|Pooling|Convolution\w*)(Forward|Backward\w*|Tensor)"
)
TEXT = re.compile(r"\w+Get(Error|LastError|Status|Result)(String|Name)|\w+_getErrorString")


def output_of(*command: str) -> str:
    """What a command prints on stdout."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def sonames(libraries: list[str]) -> dict[str, str]:
    """Library -> the soname that is needed, such as cublas -> libcublas.so.13."""
    found = {"cudnn": "libcudnn.so.9"}  # ONNX Runtime opens it by name
    for library in libraries:
        text = output_of("readelf", "-d", library)
        for name in re.findall(r"\(NEEDED\).*\[(.*)\]", text):
            found[name.split(".")[0].removeprefix("lib")] = name
    return found


def wanted(libraries: list[str]) -> dict[str, dict[str, str]]:
    """Library -> symbol -> its version, empty if it has none."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    spelled = "|".join(sorted(PREFIXES, key=len, reverse=True))
    form = re.compile(rf"({spelled})(?=[A-Z_])\w*|nvshmem\w+|cuda?[A-Z]\w*")
    for library in libraries:
        names = output_of("nm", "-D", "--undefined-only", "--with-symbol-versions", library)
        for entry in names.split():
            symbol, _, version = entry.partition("@")
            add(found, form, symbol, version.lstrip("@"))
        for symbol in re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", Path(library).read_bytes()):  # names for dlsym
            add(found, form, symbol.decode(), "")
    return found


def add(found: dict[str, dict[str, str]], form: re.Pattern[str], symbol: str, version: str) -> None:
    """Add a symbol to its library, if it belongs to one."""
    if form.fullmatch(symbol):
        library = next(of for prefix, of in PREFIXES.items() if symbol.startswith(prefix))
        found[library][symbol] = found[library].get(symbol) or version


def body(symbol: str) -> str:
    """The source of a function that does nothing, or logs that it was called."""
    if TEXT.fullmatch(symbol):
        return f'const char *{symbol}() {{ return "fake"; }}'
    if LAUNCH.fullmatch(symbol):
        return f'int {symbol}(void **handle) {{ fakecuda_lib(*handle, "{symbol}"); return 0; }}'
    return f"int {symbol}() {{ return 0; }}"


def build(out: Path, library: str, soname: str, symbols: dict[str, str]) -> str:
    """Build one library; returns a line with the number of functions that were generated."""
    source, base = HERE / ("cudart.c" if library == "cudart" else "libs.c"), out / f"{library}.o"
    flags = ["-O2", "-fPIC", "-w", "-std=gnu11"]
    subprocess.run(["gcc", *flags, f"-DLIB_{library}", "-c", str(source), "-o", str(base)], check=True)
    defined = set(output_of("nm", "--defined-only", "--format=just-symbols", str(base)).split())
    made = sorted(set(symbols) - defined)
    stub, script = out / f"{library}.c", out / f"{library}.v"
    stub.write_text("extern void fakecuda_lib(void *, const char *);\n" + "\n".join(map(body, made)) + "\n")
    version = next(filter(None, symbols.values()), soname)
    script.write_text(f"{version} {{ global: *; }};\n")
    runtime = [] if library == "cudart" else [f"-L{out}", "-l:libcudart.so.13"]
    folder = out / "cudnn" if library == "cudnn" else out
    folder.mkdir(exist_ok=True)
    link = ["-shared", f"-Wl,-soname,{soname},--version-script={script}", "-o", str(folder / soname)]
    subprocess.run(["gcc", *flags, *link, str(base), str(stub), *runtime, "-lpthread"], check=True)
    for path in (base, stub, script):
        path.unlink()
    return f"{soname}: {len(symbols)} symbols, {len(made)} of them empty"


def main() -> None:
    """Build all libraries; the runtime first, because the others call it."""
    out, libraries = Path(sys.argv[1]), sys.argv[2:]
    out.mkdir(parents=True, exist_ok=True)
    names, symbols = sonames(libraries), wanted(libraries)
    for library in symbols.keys() - names.keys():
        sys.exit(f"stubs: no library asks for lib{library}, which has {sorted(symbols[library])[:3]}")
    for library in sorted(names.keys() & set(PREFIXES.values()), key=lambda name: (name != "cudart", name)):
        print(build(out, library, names[library], symbols[library]))


if __name__ == "__main__":
    main()
