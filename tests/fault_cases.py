"""The cases of `tests/faults`: broken input of each family, the command that reads it, and what must follow.

A case prepares a folder that holds `data`, `model` (the bundled classifier), `graph` (its ONNX graph) and records, and
breaks one of them. The records are `record.json` of evaluate and `export.json`, made here, and others from `results/`.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import onnx
from fault_server import Ended
from onnx import TensorProto, helper

from mrpcbench.schema.bench_requests import BenchPlan
from mrpcbench.schema.fields import flags_of
from mrpcbench.schema.gate_requests import AbPlan, ComparePlan, ReportPlan
from mrpcbench.schema.requests import BackendSpec, EvaluatePlan, ExportPlan, StudyPlan, TrainRecipe

Change = Callable[[Path], object]
Arguments = tuple[str, ...]
EVALUATE: Arguments = ("evaluate", "--model", "model", "--data", "data", "--results", "new.json")
GRAPH: Arguments = ("evaluate", "--backend", "onnx", "--model", "graph", "--data", "data", "--results", "new.json")
EXPORT: Arguments = ("export", "--model", "model", "--data", "data", "--output-dir", "out")
BENCH: Arguments = ("bench", "--model", "model", "--data", "data", "--results", "new.json", "--backend", "torch")
TRAIN: Arguments = ("train", "--model", "model", "--data", "data", "--output-dir", "out", "--max-steps", "1")
REFUSED = (2,)
# Deeper than Python's stack, and larger than any number.
DEEP, HUGE = 100_000, "1" + "0" * 5000


@dataclass(frozen=True)
class Case:
    """`change` breaks the folder; the command ends with one of `statuses`, and an error line that says `names`."""

    name: str
    arguments: Arguments
    change: Change = lambda folder: None
    statuses: tuple[int, ...] = REFUSED
    names: str = ""
    env: tuple[tuple[str, str], ...] = ()
    closed: tuple[int, ...] = ()
    # Variables that Python reads when it starts: the command runs in a process of its own kind.
    start: tuple[tuple[str, str], ...] = ()


def problems(case: Case, ended: Ended, folder: Path) -> list[str]:
    """What is wrong with the end of `case`; empty if nothing is."""
    found, lines = [], ended.err.splitlines()
    errors = [line for line in lines if line.startswith("error:")]
    if ended.status == -14:
        return ["hangs"]
    if ended.status not in case.statuses:
        found.append(f"exit code {ended.status}, not {case.statuses}")
    if "internal error" in ended.err or "Traceback" in ended.err:
        found.append("internal error")
    if ended.status and len(errors) != 1 and 2 not in case.closed:
        found.append(f"{len(errors)} error lines")
    if ended.status and errors and case.names not in errors[0]:
        found.append(f"does not name {case.names}")
    if any(ord(letter) < 32 and letter != "\n" for letter in ended.out + ended.err):
        found.append("control characters")
    if left := [path.name for path in folder.rglob(".*")]:
        found.append(f"leaves {left[0]}")
    return [f"{what}: {errors[0][:300] if errors else ended.err[-300:]}" for what in found]


# --- changes of files -------------------------------------------------------------------------------------------------


def text(name: str, content: str | bytes) -> Change:
    """Write `content` to the file `name`."""
    encoded = content if isinstance(content, bytes) else content.encode()
    return lambda folder: _fresh(folder / name).write_bytes(encoded)


def fifo(name: str) -> Change:
    """A pipe without a writer in place of the file `name`."""
    return lambda folder: os.mkfifo(_fresh(folder / name))


def subfolder(name: str) -> Change:
    """A folder in place of the file `name`."""
    return lambda folder: _fresh(folder / name).mkdir()


def cut(name: str, share: float) -> Change:
    """The first part of the file `name`."""

    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return change


def key(name: str, value: Any, *path: str | int) -> Change:
    """The JSON file `name` with `value` at `path`; the text is edited, so any number may be written."""

    def change(folder: Path) -> None:
        document = json.loads((folder / name).read_text(encoding="utf-8"))
        inner = document
        for part in path[:-1]:
            inner = inner[part]
        inner[path[-1]] = "@@" if isinstance(value, Raw) else value
        written = json.dumps(document)
        (folder / name).write_text(written.replace('"@@"', value.text) if isinstance(value, Raw) else written)

    return change


def in_order(*changes: Change) -> Change:
    """All of `changes`."""
    return lambda folder: [change(folder) for change in changes]


@dataclass(frozen=True)
class Raw:
    """JSON text that Python's writer would not write."""

    text: str


def _fresh(path: Path) -> Path:
    path.unlink(missing_ok=True)
    return path


BROKEN_JSON: dict[str, str | bytes] = {
    "empty": "",
    "truncated": '{"a": ',
    "list": "[]",
    "string": '"x"',
    "number": "1",
    "null": "null",
    "deep list": "[" * DEEP + "]" * DEEP,
    "deep object": '{"a":' * DEEP + "1" + "}" * DEEP,
    "huge integer": f'{{"a": {HUGE}}}',
    "huge float": '{"a": 1e999}',
    "binary": bytes(range(256)),
    "half a character": b'{"a": "\xff"}',
    "half a pair": '{"a": "\\ud800"}',
    "zeros": b"\0" * 400,
}


def _json_cases(file: str, arguments: Arguments, names: str, statuses: tuple[int, ...] = REFUSED) -> Iterator[Case]:
    for name, content in BROKEN_JSON.items():
        yield Case(f"{file}: {name}", arguments, text(file, content), statuses, names)
    yield Case(f"{file}: pipe", arguments, fifo(file), statuses, names)
    yield Case(f"{file}: folder", arguments, subfolder(file), statuses, names)


# --- families ---------------------------------------------------------------------------------------------------------


def data() -> Iterator[Case]:
    """Rows and files of pairs."""
    head, row = "sentence1,sentence2,label\n", '"A b.","C d.",1\n'
    broken: dict[str, str | bytes] = {
        "empty": "",
        "header only": head,
        "no columns": "x\n1\n",
        "long field": head + '"' + "a" * 200_000 + '",b,1\n',
        "open quote": head + '"A b.,C,1\n',
        "huge label": head + f"a,b,{HUGE}\n",
        "float label": head + "a,b,nan\n",
        "extra field": head + row + "a,b,1,2\n",
        "latin-1": head.encode() + b"caf\xe9,b,1\n",
        "utf-16": (head + row).encode("utf-16"),
        "carriage returns": head.replace("\n", "\r") + "a,b,1\ra,b,0\r",
        "repeated column": "sentence1,sentence1,sentence2,label\na,b,c,1\n",
        "control characters": head + "a\x1b]0;x\x07,b,7\n",
    }
    for name, content in broken.items():
        yield Case(f"csv: {name}", EVALUATE, text("data/validation.csv", content), names="validation.csv")
    yield Case("csv: pipe", EVALUATE, fifo("data/validation.csv"), names="validation.csv")
    yield Case("csv: folder", EVALUATE, subfolder("data/validation.csv"), names="validation.csv")
    for name, line in BROKEN_JSON.items():
        content = line if isinstance(line, bytes) else line.encode()

        def change(folder: Path, content: bytes = content) -> None:
            shutil.rmtree(folder / "data")
            (folder / "data").mkdir()
            (folder / "data" / "validation.jsonl").write_bytes(content + b"\n")

        yield Case(f"jsonl: {name}", EVALUATE, change, names="validation.jsonl")
    for name, content in {
        "empty": b"",
        "magic": b"PAR1",
        "zeros": b"\0" * 99,
        "ends": b"PAR1" + b"x" * 99 + b"PAR1",
    }.items():

        def parquet(folder: Path, content: bytes = content) -> None:
            shutil.rmtree(folder / "data")
            (folder / "data").mkdir()
            (folder / "data" / "validation.parquet").write_bytes(content)

        yield Case(f"parquet: {name}", EVALUATE, parquet, names="validation.parquet")


WRONG: tuple[Any, ...] = (None, "x", [], {}, -1, 0, 1.5, True, Raw("1e999"), Raw("NaN"), Raw(HUGE), 2**40)
SETTINGS = (
    "architectures",
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
    "local_attention",
    "global_attn_every_n_layers",
    "id2label",
    "pad_token_id",
    "intermediate_size",
    "layer_norm_eps",
    "hidden_activation",
    "classifier_pooling",
    "torch_dtype",
)


def models() -> Iterator[Case]:
    """Model folders: configuration, tokenizer, weights."""
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        yield from _json_cases(f"model/{file}", EVALUATE, file, (0, 2) if file == "tokenizer_config.json" else REFUSED)
    broken: dict[str, bytes] = {
        "empty": b"",
        "short": b"\x10",
        "zeros": b"\0" * 4000,
        "huge header": b"\xff" * 8 + b"{}",
        "deep header": (2 * DEEP).to_bytes(8, "little") + b"[" * DEEP + b"]" * DEEP,
        "list header": (2).to_bytes(8, "little") + b"[]",
        "pickle": b"\x80\x02}q\0.",
        "zip": b"PK\x03\x04" + b"\0" * 99,
    }
    for name, content in broken.items():
        yield Case(f"weights: {name}", EVALUATE, text("model/model.safetensors", content), names="model.safetensors")
    yield Case("weights: cut", EVALUATE, cut("model/model.safetensors", 0.5), names="model.safetensors")
    yield Case("weights: pipe", EVALUATE, fifo("model/model.safetensors"), names="--model model")
    yield Case("weights: folder", EVALUATE, subfolder("model/model.safetensors"), names="--model model")
    for setting in SETTINGS:
        for value in WRONG:
            shown = value.text[:5] if isinstance(value, Raw) else repr(value)
            # Some values are valid, and some settings are not read.
            yield Case(
                f"config.json: {setting} {shown}",
                EVALUATE,
                key("model/config.json", value, setting),
                (0, 1, 2),
                "model",
            )


def _graph(
    inputs: dict[str, tuple[int, list[Any]]] | None = None,
    output: tuple[str, int, list[Any]] = ("logits", TensorProto.FLOAT, ["B", 2]),
    nodes: list[Any] | None = None,
    opset: int = 17,
    weights: list[Any] | None = None,
) -> onnx.ModelProto:
    """A graph whose logits are token counts times weights [1, 2], unless changed."""
    tokens = {name: (TensorProto.INT64, ["B", "L"]) for name in ("input_ids", "attention_mask")}
    given = [helper.make_tensor_value_info(name, *kind) for name, kind in (inputs or tokens).items()]
    body = nodes or [
        helper.make_node("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["m", "axes"], ["s"], keepdims=1),
        helper.make_node("MatMul", ["s", "w"], [output[0]]),
    ]
    stored = weights or [
        helper.make_tensor("w", TensorProto.FLOAT, [1, 2], [0.1, 0.2]),
        helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
    ]
    graph = helper.make_graph(body, "g", given, [helper.make_tensor_value_info(*output)], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


# A name that a terminal would obey, and a line that a CI runner would take for a command.
ESCAPES = "\x1b]0;x\x07\x1b[31m\n::error::x\x9b2J"


def _named(what: str) -> onnx.ModelProto:
    """A graph that works, in which something has a name with control characters."""
    model = _graph()
    graph = model.graph
    if what == "node":
        graph.node[0].name = ESCAPES
    elif what == "unused weight":  # ONNX Runtime removes it with a warning
        graph.initializer.append(helper.make_tensor(ESCAPES, TensorProto.FLOAT, [1], [0.0]))
    elif what == "output":
        graph.node[-1].output[0] = graph.output[0].name = ESCAPES
    elif what == "wrong shape":  # ONNX Runtime warns of each batch
        graph.node[-1].output[0] = graph.output[0].name = ESCAPES
        graph.output[0].type.tensor_type.shape.dim[0].dim_value = 5
    elif what == "axis":
        graph.input[0].type.tensor_type.shape.dim[0].dim_param = ESCAPES
    elif what == "input":
        graph.input.append(helper.make_tensor_value_info(ESCAPES, TensorProto.INT64, ["B", "L"]))
    elif what == "operator":
        graph.node[0].op_type = ESCAPES
    elif what == "domain":
        graph.node[0].domain = ESCAPES
    elif what == "missing tensor":
        graph.node[-1].input[0] = ESCAPES
    elif what == "graph":
        graph.name = model.producer_name = ESCAPES
    return model


NAMED = (
    "node",
    "unused weight",
    "output",
    "wrong shape",
    "axis",
    "input",
    "operator",
    "domain",
    "missing tensor",
    "graph",
)


def _external(location: str, length: int = 8, offset: int = 0) -> onnx.ModelProto:
    model = _graph()
    weight = model.graph.initializer[0]
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    for name, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        weight.external_data.add(key=name, value=value)
    return model


def graphs() -> Iterator[Case]:
    """ONNX graphs that no engine can run, or that classify no pairs."""
    ids, mask = "input_ids", "attention_mask"
    token = (TensorProto.INT64, ["B", "L"])
    cast = helper.make_node("Cast", [mask], ["m"], to=TensorProto.FLOAT)
    total = helper.make_node("ReduceSum", ["m", "axes"], ["s"], keepdims=1)

    def ending(*nodes: Any) -> list[Any]:
        return [cast, total, *nodes]

    broken: dict[str, Any] = {
        "input of another name": _graph({"tokens": token, mask: token}),
        "no mask": _graph({ids: token}),
        "an input more": _graph({ids: token, mask: token, "more": token}),
        "input of rank 1": _graph({ids: (TensorProto.INT64, ["B"]), mask: token}),
        "input of rank 3": _graph({ids: token, mask: (TensorProto.INT64, ["B", "L", 1])}),
        "input of floats": _graph({ids: token, mask: (TensorProto.FLOAT, ["B", "L"])}),
        "fixed length": _graph({ids: token, mask: (TensorProto.INT64, ["B", 8])}),
        "output of strings": _graph(output=("logits", TensorProto.STRING, ["B", 2])),
        "output of integers": _graph(output=("logits", TensorProto.INT64, ["B", 2])),
        "three logits": _graph(output=("logits", TensorProto.FLOAT, ["B", 3])),
        "rank 1": _graph(output=("logits", TensorProto.FLOAT, ["B"])),
        "rank 3": _graph(output=("logits", TensorProto.FLOAT, ["B", 2, 1])),
        "undeclared rank": _graph(
            nodes=ending(
                helper.make_node("MatMul", ["s", "w"], ["p"]), helper.make_node("Unsqueeze", ["p", "axes"], ["logits"])
            ),
            output=("logits", TensorProto.FLOAT, None),  # type: ignore[arg-type]
        ),
        "one logit, undeclared": _graph(
            nodes=ending(helper.make_node("Identity", ["s"], ["logits"])),
            output=("logits", TensorProto.FLOAT, ["B", "N"]),
        ),
        "rows lost, undeclared": _graph(
            nodes=[helper.make_node("Identity", ["w"], ["logits"])], output=("logits", TensorProto.FLOAT, ["R", "N"])
        ),
        "sequence output": _graph(
            nodes=ending(
                helper.make_node("MatMul", ["s", "w"], ["p"]), helper.make_node("SequenceConstruct", ["p"], ["logits"])
            ),
        ),
        "unknown operator": _graph(nodes=ending(helper.make_node("Nonsense", ["s"], ["logits"]))),
        "unknown domain": _graph(nodes=ending(helper.make_node("MatMul", ["s", "w"], ["logits"], domain="x.y"))),
        "cycle": _graph(
            nodes=[helper.make_node("Add", ["b", "w"], ["logits"]), helper.make_node("Identity", ["logits"], ["b"])]
        ),
        "missing tensor": _graph(nodes=ending(helper.make_node("MatMul", ["s", "nothing"], ["logits"]))),
        "shapes that do not fit": _graph(nodes=[cast, helper.make_node("MatMul", ["m", "w"], ["logits"])]),
        "future opset": _graph(opset=9999),
        "opset 0": _graph(opset=0),
        "short weight": _graph(
            weights=[
                TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1, 2], raw_data=b"\0" * 4),
                helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
            ]
        ),
        "negative size": _graph(
            weights=[
                TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-1, 2], raw_data=b"\0" * 8),
                helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
            ]
        ),
        "unknown type": _graph(
            weights=[
                TensorProto(name="w", data_type=999, dims=[1, 2], raw_data=b"\0" * 8),
                helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
            ]
        ),
        "external data missing": _external("w.bin"),
        "external data outside": _external("../record.json"),
        "external data absolute": _external("/etc/passwd"),
        "external data short": _external("config.json", 10**9),
        "external data negative": _external("config.json", 8, -8),
        "external data odd": _external("config.json", 6),
        "no graph": onnx.ModelProto(ir_version=8),
    }
    hidden = _graph()
    hidden.graph.output.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, ["B", 1]))
    broken["an output more"] = hidden
    for what in NAMED:
        change = text("graph/model.onnx", _named(what).SerializeToString())
        for backend in ("onnx", "openvino"):
            arguments = tuple(backend if item == "onnx" else item for item in GRAPH)
            yield Case(f"graph: {what} with control characters, {backend}", arguments, change, (0, 2), "graph")
    for name, model in broken.items():
        yield Case(f"graph: {name}", GRAPH, text("graph/model.onnx", model.SerializeToString()), names="graph")
    whole = _graph().SerializeToString()
    plain = {"empty": b"", "text": b"hello", "half": whole[: len(whole) // 2], "zeros": b"\0" * 400, "JSON": b"{}"}
    for name, content in plain.items():
        yield Case(f"graph: {name}", GRAPH, text("graph/model.onnx", content), names="model.onnx")
    yield Case("graph: cut", GRAPH, cut("graph/model.onnx", 0.7), names="model.onnx")
    yield Case("graph: pipe", GRAPH, fifo("graph/model.onnx"), names="model.onnx")
    yield Case("graph: folder", GRAPH, subfolder("graph/model.onnx"), names="model.onnx")
    yield from _json_cases("graph/mrpcbench.json", GRAPH, "mrpcbench.json")


def records() -> Iterator[Case]:
    """Records, policies and baselines."""
    compare: Arguments = ("compare", "record.json", "other.json")
    yield from _json_cases("other.json", compare, "other.json")
    yield from _json_cases("other.json", ("report", "other.json"), "other.json")
    yield from _json_cases("other.json", ("baseline", "set", "x", "other.json"), "other.json")
    policies: dict[str, str | bytes] = {
        "deep": "a = " + "[" * DEEP + "]" * DEEP,
        "deep table": "a = " + "{a = " * DEEP + "1" + "}" * DEEP,
        "deep key": ".".join(["a"] * 2000) + " = 1",
        "huge integer": f"alpha = {HUGE}",
        "huge float": "alpha = 1e999",
        "nan": "alpha = nan",
        "date": "alpha = 1979-05-27",
        "time": "alpha = 07:32:00",
        "binary": bytes(range(256)),
        "control": 'alpha = "\\u001b]0;x"',
        "list": "accuracy = []",
    }
    for name, content in policies.items():
        yield Case(f"policy: {name}", (*compare, "--policy", "p.toml"), both(text("p.toml", content)), names="p.toml")
    yield Case("policy: pipe", (*compare, "--policy", "p.toml"), both(fifo("p.toml")), names="p.toml")
    yield Case("policy: folder", (*compare, "--policy", "p.toml"), both(subfolder("p.toml")), names="p.toml")
    for path in (("schema_version",), ("command",), ("environment",), ("model",), ("data",), ("evaluate", "score")):
        for value in WRONG:
            shown = value.text[:5] if isinstance(value, Raw) else repr(value)

            def change(folder: Path, value: Any = value, path: tuple[str, ...] = path) -> None:
                shutil.copy(folder / "record.json", folder / "other.json")
                key("other.json", value, *path)(folder)

            statuses = (0, 2) if path == ("data",) else REFUSED  # no data at all is a record, which `compare` refuses
            yield Case(f"record: {'.'.join(path)} {shown}", ("report", "other.json"), change, statuses, "other.json")
    for value in WRONG:
        shown = value.text[:5] if isinstance(value, Raw) else repr(value)

        def samples(folder: Path, value: Any = value) -> None:
            shutil.copy(folder / "bench.json", folder / "other.json")
            key("other.json", value, "bench", "rows", 0, "samples_ms", 0)(folder)

        yield Case(f"bench: sample {shown}", ("report", "other.json"), samples, (0, 2), "other.json")


def both(change: Change) -> Change:
    """`change`, after a second record is made of the first."""
    return in_order(lambda folder: shutil.copy(folder / "record.json", folder / "other.json"), change)


NUMBERS = {int: ("nan", "-9", "9" * 30, "1e9", ""), float: ("nan", "inf", "-inf", "-9", "1e308", "x", "")}
NUMERIC: tuple[tuple[type, Arguments], ...] = (
    (TrainRecipe, TRAIN),
    (BackendSpec, EVALUATE),
    (EvaluatePlan, EVALUATE),
    (ExportPlan, (*EXPORT, "--optimize", "cpu")),
    (BenchPlan, BENCH),
    (StudyPlan, ("study", "--model", "model", "--data", "data", "--output-dir", "out", "--max-steps", "1")),
    (ComparePlan, ("compare", "record.json", "record.json")),
    (AbPlan, ("ab", "--a-model", "model", "--data", "data")),
    (ReportPlan, ("report", "bench.json")),
)


def options() -> Iterator[Case]:
    """NaN, infinite, negative, huge and malformed values of every numeric option, and other malformed values."""
    for request, arguments in NUMERIC:
        for item in dataclasses.fields(request):
            kind = get_type_hints(request)[item.name]
            number = next((one for one in (int, float) if one is kind or one in getattr(kind, "__args__", ())), None)
            for value in NUMBERS.get(number, ()):  # type: ignore[call-overload]
                if item.name == "max_steps" and value == "-9":
                    continue
                flag = flags_of(item)[0]
                yield Case(f"{arguments[0]} {flag} {value[:9]}", (*arguments, f"{flag}={value}"), names=flag)
    for flag, value in (("--seeds", HUGE), ("--seeds", "nan"), ("--seeds", "-1"), ("--seeds", "1,,2"), ("--set", "x")):
        yield Case(f"study {flag} {value[:9]}", (*NUMERIC[5][1], f"{flag}={value}"), names=flag)
    for limit in ("f1=nan", "f1=inf", "f1=1e999", "f1=", "=1", "f1", f"f1={HUGE}x"):
        yield Case(f"compare --min {limit[:9]}", ("compare", "record.json", f"--min={limit}"), names="--min")


def environment() -> Iterator[Case]:
    """Variables, streams and places around a command that works."""
    works = (0,)
    for value in ("0", "-1", "x", "", "1", "9" * 30, "1e3", "\u0663"):
        yield Case(f"COLUMNS={value[:9]}", ("report", "record.json"), statuses=works, env=(("COLUMNS", value),))
        yield Case(f"LINES={value[:9]}", ("report", "record.json"), statuses=works, env=(("LINES", value),))
        yield Case(f"help, COLUMNS={value[:9]}", ("bench", "--help"), statuses=works, env=(("COLUMNS", value),))
        yield Case(f"error, COLUMNS={value[:9]}", ("bench", "--x"), env=(("COLUMNS", value),))
    for name in ("LANG", "LC_ALL", "TERM", "TZ", "HOME", "TMPDIR", "XDG_CACHE_HOME", "HF_HOME"):
        for value in ("nonsense", "", "/dev/null"):
            yield Case(f"{name}={value}", EVALUATE, statuses=works, env=((name, value),))
    for name in ("OMP_NUM_THREADS", "HF_HUB_DOWNLOAD_TIMEOUT", "OMP_SCHEDULE"):
        for value in ("nan", "-1", "9" * 30, "x"):
            yield Case(f"{name}={value[:9]}", EVALUATE, statuses=(0, 2), env=((name, value),), names=name)
    for closed in ((0,), (1,), (2,), (1, 2), (0, 1, 2)):
        yield Case(f"closed {closed}", EVALUATE, statuses=works, closed=closed)
        yield Case(f"report, closed {closed}", ("report", "record.json", "--json"), statuses=works, closed=closed)
