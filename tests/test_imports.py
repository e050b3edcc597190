"""The size of the tree, what no module may do, and what `--help` loads."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from conftest import LONGEST, REPOSITORY

import mrpcbench

PACKAGE = Path(mrpcbench.__file__).parent
HEAVY = (
    "numpy torch transformers datasets pydantic evaluate optimum onnx onnxruntime openvino pyarrow huggingface_hub "
    "scipy"
).split()
COMMANDS = tuple("train study evaluate export bench compare ab baseline report quickstart env".split())


def module_name(path: Path) -> str:
    """`backends.ort` of backends/ort.py, `backends` of backends/__init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
INNER = sorted(set(MODULES) - {"__init__"})


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def targets(node: ast.AST) -> Iterator[str]:
    """Full names of the modules that an import statement loads."""
    if isinstance(node, ast.Import):
        yield from (item.name for item in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "a relative import hides its layer"
        assert node.module is not None
        inside = node.module.removeprefix("mrpcbench").lstrip(".")
        for item in node.names:
            below = f"{inside}.{item.name}".lstrip(".")
            is_module = node.module.split(".")[0] == "mrpcbench" and below in MODULES
            yield f"mrpcbench.{below}" if is_module else node.module


def imports(module: str) -> set[str]:
    """All that `module` imports, at the top, in functions and for types alone."""
    return {name for node in ast.walk(parsed(module)) for name in targets(node)}


def calls(module: str) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(parsed(module)) if isinstance(node, ast.Call))


def lazy_imports(module: str) -> Iterator[str]:
    """What `module` imports inside of functions."""
    for function in ast.walk(parsed(module)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for node in ast.walk(function):
                yield from targets(node)


def packages(names: Iterable[str]) -> set[str]:
    """The first parts of `names`."""
    return {name.split(".")[0] for name in names}


def foreign(names: Iterable[str]) -> set[str]:
    """Those of `names` outside the standard library and this project."""
    return {name for name in names if packages([name]).isdisjoint({*sys.stdlib_module_names, "mrpcbench"})}


def offenders(found: Mapping[str, Collection[object]]) -> dict[str, Collection[object]]:
    """The modules of `found` that have anything."""
    return {module: names for module, names in sorted(found.items()) if names}


# --- structure --------------------------------------------------------------------------------------------------------

TOP_ENTRIES, MODULES_PER_PACKAGE, LINES = 25, 12, 350


def test_packages_and_modules_stay_small() -> None:
    """The tiers are contracts in pyproject.toml, which `lint-imports` checks."""
    top = [path for path in PACKAGE.iterdir() if path.is_file() or any(path.glob("*.py"))]
    assert len(top) <= TOP_ENTRIES, sorted(path.name for path in top)
    folders = {path.parent for path in MODULES.values()}
    sizes = {folder.name: len([*folder.glob("*.py")]) - 1 for folder in folders - {PACKAGE}}
    assert not {name: size for name, size in sizes.items() if size > MODULES_PER_PACKAGE}
    lengths = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in MODULES.items()}
    assert not {module: length for module, length in lengths.items() if length > LINES}


def test_every_package_says_in_one_line_what_is_in_it() -> None:
    documented = {
        path.parent.name: ast.get_docstring(parsed(name)) for name, path in MODULES.items() if is_package(path)
    }
    assert not [name for name, text in documented.items() if not text or len(text.splitlines()) > 1]


def is_package(path: Path) -> bool:
    return path.name == "__init__.py" and path.parent != PACKAGE


def test_only_a_few_modules_import_lazily() -> None:
    lazy = {
        *("__main__", "api", "cli.app", "cli.errors", "backends.registry", "models.sources", "statistics"),
        "display.report.drawing",  # only `report --output` needs vl-convert
        *("cli.results", "records.seeds"),
        "instruments.roofline",  # of the rows, only int8 needs ONNX Runtime there
        "modernbert.forward",  # Triton is there only with torch for CUDA
        "onnx_export.optimum",  # Optimum cannot be imported beside transformers 5, where our own graphs work
    }
    standard = sys.stdlib_module_names
    assert not offenders({module: packages(lazy_imports(module)) - standard for module in set(MODULES) - lazy})


def test_the_command_line_imports_no_work_before_a_command_runs() -> None:
    """What `--help` needs; what a command needs is imported in its body."""
    at_top = {name for node in parsed("cli.app").body for name in targets(node) if name.startswith("mrpcbench.")}
    assert at_top == {
        f"mrpcbench.{name}"
        for name in (
            *(
                "cli.errors",
                "cli.help",
                "cli.options",
                "cli.results",
                "cli.process",
                "environment.variables",
                "errors",
                "schema.bench_requests",
                "schema.gate_requests",
            ),
            *("schema.requests", "schema.verdicts"),
        )
    }


# --- what is nowhere --------------------------------------------------------------------------------------------------


def test_only_the_command_line_prints() -> None:
    assert not offenders(
        {
            module: {node.lineno for node in calls(module) if ast.unparse(node.func) == "print"}
            for module in set(MODULES) - {"cli.app", "cli.terminal"}
        }
    )


def test_no_module_runs_text_as_code_or_trusts_a_pickle() -> None:
    assert not offenders(
        {
            module: {"pickle", "cPickle", "dill", "marshal", "shelve"} & packages(imports(module))
            | {ast.unparse(node) for node in calls(module) if is_unsafe(node)}
            for module in MODULES
        }
    )


def is_unsafe(node: ast.Call) -> bool:
    """Whether a call runs text as code, starts a shell, or trusts a file's code or pickle."""
    text = ast.unparse(node)
    if text.startswith(("eval(", "exec(", "compile(", "__import__(", "os.system(", "os.popen(", "torch.load(")):
        return True
    values = {item.arg: ast.unparse(item.value) for item in node.keywords}
    return "shell" in values or any(
        values.get(name, "False") != "False" for name in ("trust_remote_code", "allow_pickle")
    )


def test_only_the_command_line_exits() -> None:
    wrong = {}
    for module in set(MODULES) - {"__main__", "cli.errors"}:
        blocks = [node for node in parsed(module).body if isinstance(node, ast.If)]
        scripts = [node for node in blocks if "__main__" in ast.unparse(node.test)]
        inside = {node for script in scripts for node in ast.walk(script)}
        exits = {"sys.exit", "exit", "quit", "os._exit"}
        wrong[module] = {
            node.lineno for node in calls(module) if ast.unparse(node.func) in exits and node not in inside
        }
    assert not offenders(wrong)


# --- what --help loads ------------------------------------------------------------------------------------------------

PROBE = """
import io, json, sys
from contextlib import redirect_stdout
from mrpcbench.cli.app import app
loaded = {}
for arguments in json.loads(sys.argv[1]):
    with redirect_stdout(io.StringIO()) as shown:
        try:
            app(arguments, prog_name="mrpcbench")
        except SystemExit as status:
            assert status.code in (0, None), status.code
    assert "Usage" in shown.getvalue() or "mrpcbench" in shown.getvalue()
    loaded[" ".join(arguments)] = sorted({name.split(".")[0] for name in sys.modules})
print(json.dumps(loaded))
"""


def test_help_loads_none_of_the_heavy_packages() -> None:
    asked = [
        ["--help"],
        ["--version"],
        *([*command.split(), "--help"] for command in (*COMMANDS, "baseline set")),
    ]
    done = subprocess.run([sys.executable, "-c", PROBE, json.dumps(asked)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert list(loaded) == [" ".join(arguments) for arguments in asked]
    for arguments, names in loaded.items():
        assert "mrpcbench" in names
        assert not set(HEAVY) & set(names), arguments


# --- what torch needs -------------------------------------------------------------------------------------------------

WITHOUT_ONNX_RUNTIME = """
import json, sys
sys.modules["onnxruntime"] = None  # an import of it then fails
from mrpcbench.cli.app import app
for arguments in json.loads(sys.argv[1]):
    try:
        app(arguments, prog_name="mrpcbench")
    except SystemExit as status:
        assert status.code in (0, None), (arguments, status.code)
"""


def test_training_and_the_engines_of_torch_work_without_onnx_runtime(small_data: Path, tmp_path: Path) -> None:
    common = ["--model", "quickstart", "--data", str(small_data), "--device", "cpu"]
    train = [
        "train",
        *common,
        "--max-steps",
        "1",
        "--engine",
        "packed",
        "--precision",
        "fp32",
        "--output-dir",
        str(tmp_path / "model"),
    ]
    few = ["--scenario", "offline", "--pairs", "4", "--rounds", "1", "--max-seconds", "0"]
    bench = ["bench", *common, "--backend", "torch", "--backend", "torch-packed", *few]
    command = [sys.executable, "-c", WITHOUT_ONNX_RUNTIME, json.dumps([["env"], train, bench])]
    wide = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(command, cwd=tmp_path, env=wide, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "onnx on cpu" in done.stdout
    assert "import of onnxruntime halted" in done.stdout


# --- the tests themselves ---------------------------------------------------------------------------------------------


def test_the_longest_files_of_tests_exist() -> None:
    assert [name for name in LONGEST if not (REPOSITORY / "tests" / name).exists()] == []
