"""The layers of the project, proven by a walk over its syntax trees, and what `--help` may load."""

import ast
import json
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import mrpcbench

PACKAGE = Path(mrpcbench.__file__).parent
# From top to bottom; a module imports from lower layers only. Tools may import tools, and nothing else its own layer.
TOOLS = (
    *(
        "trainer",
        "train_arguments",
        "train_callbacks",
        "epoch_log",
        "checkpoints",
        "card",
        "backends",
        "graphs",
        "parity",
        "models",
        "reading",
        "sources",
        "data",
        "folders",
        "batches",
    ),
    *("packing", "packed", "packed_step", "packed_trainer", "metrics", "glue_metric", "environment", "redaction"),
)
MEASURING = (
    *(
        "clock",
        "control",
        "cases",
        "limits",
        "measurement",
        "presets",
        "scoring",
        "suite",
        "sensors",
        "server",
        "spans",
    ),
    *("trace", "validity"),
)
JUDGING = ("compare", "ab", "baseline")
GATING = ("gates", "policy", "comparable", "duel", "worker", "versions", "publish")
SHOWING = (
    "render_verdict",
    "figures",
    "ranking",
    "render",
    "render_bench",
    "render_ratio",
    "render_use",
    "tables",
)
LAYERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("command line", ("cli", "console", "funnel", "help", "options", "__main__")),
    ("chains of verbs", ("quickstart",)),
    ("verbs", ("train", "evaluate", "export", "bench", "env", *JUDGING)),
    ("tools", (*TOOLS, *MEASURING, *GATING, *SHOWING, "store", "hub")),
    ("tiny and statistics", ("tiny", "statistics")),
    ("vocabulary", ("schema", "plans", "numbers", "rows", "upgrade", "verdicts", "errors", "progress")),
)
WITHIN = {"command line", "chains of verbs", "tools", "tiny and statistics", "vocabulary"}
HEAVY = (
    "numpy torch transformers datasets pydantic evaluate optimum onnx onnxruntime pyarrow huggingface_hub scipy"
).split()
COMMANDS = tuple("train evaluate export bench compare ab baseline quickstart env".split())


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


def own_imports(module: str) -> set[str]:
    """The modules of this project among them, without the package's name."""
    return {name.removeprefix("mrpcbench.") for name in imports(module) if name.startswith("mrpcbench.")}


def layer_of(module: str) -> int:
    first = module.split(".", maxsplit=1)[0]
    return next(depth for depth, (_, names) in enumerate(LAYERS) if first in names)


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


# --- layers -----------------------------------------------------------------------------------------------------------


def test_every_module_has_a_layer_and_every_name_of_a_layer_is_a_module() -> None:
    named = [name for _, names in LAYERS for name in names]
    assert sorted({module.split(".")[0] for module in INNER}) == sorted(named)


def test_a_module_imports_downwards_only() -> None:
    wrong = {}
    for module in INNER:
        here = layer_of(module)
        sideways = LAYERS[here][0] not in WITHIN
        wrong[module] = {name for name in own_imports(module) if layer_of(name) < here + sideways}
    assert not offenders(wrong)


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {module: sorted(own_imports(module)) for module in INNER}
    with_no_cycle = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the modules
    assert set(with_no_cycle) >= set(INNER)


def test_the_vocabulary_needs_the_standard_library_alone() -> None:
    assert not offenders({module: foreign(imports(module)) for module in LAYERS[-1][1]})


def test_typer_is_known_to_the_command_line_alone() -> None:
    known = {"cli", "funnel", "help", "options"}
    assert not offenders({module: {"typer", "click"} & packages(imports(module)) for module in set(MODULES) - known})


def test_only_a_few_modules_import_lazily() -> None:
    lazy = {"cli", "funnel", "backends", "sources", "statistics"}
    standard = sys.stdlib_module_names
    assert not offenders({module: packages(lazy_imports(module)) - standard for module in set(MODULES) - lazy})


def test_the_command_line_imports_no_work_before_a_command_runs() -> None:
    """What `--help` needs; what a command needs is imported in its body."""
    at_top = {name for node in parsed("cli").body for name in targets(node) if name.startswith("mrpcbench.")}
    assert at_top == {
        f"mrpcbench.{name}" for name in ("errors", "funnel", "help", "options", "plans", "schema", "verdicts")
    }


# --- what is nowhere --------------------------------------------------------------------------------------------------


def test_only_the_command_line_prints() -> None:
    assert not offenders(
        {
            module: {node.lineno for node in calls(module) if ast.unparse(node.func) == "print"}
            for module in set(MODULES) - {"cli", "console"}
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
    for module in set(MODULES) - {"funnel"}:
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
