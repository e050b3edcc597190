"""Our ONNX graphs: they match the original, including windows, padding and biases."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from graph_models import LENGTHS, POSITIONS, Inputs, batch, modernbert
from numpy.typing import NDArray
from onnx import numpy_helper
from optimum.exporters.onnx import onnx_export_from_model
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ModernBertForSequenceClassification,
)

from mrpcbench.environment.machine import exact_integers
from mrpcbench.errors import UsageError
from mrpcbench.onnx_export import graphs
from mrpcbench.onnx_export.cpu import ForCpu, ForInt8
from mrpcbench.onnx_export.cuda import ForCuda
from mrpcbench.onnx_export.modernbert import Builder
from mrpcbench.onnx_export.quantize import quantized
from mrpcbench.schema.requests import GraphDtype, Optimize

FORMS: dict[str, type[Builder]] = {name: item.builder for name, item in graphs.GRAPHS.items() if item.builder}


def original(model: ModernBertForSequenceClassification, inputs: Inputs) -> NDArray[np.float32]:
    with torch.inference_mode():
        logits: NDArray[np.float32] = model(**{name: torch.from_numpy(item) for name, item in inputs.items()})[
            0
        ].numpy()
    return logits


def answers(graph: onnx.ModelProto, inputs: Inputs) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    for name, value in exact_integers().items():
        options.add_session_config_entry(name, value)
    session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    logits: NDArray[np.float32] = session.run(None, inputs)[0]
    return logits


def off_by(graph: onnx.ModelProto, model: ModernBertForSequenceClassification, inputs: Inputs) -> float:
    return float(np.abs(answers(graph, inputs) - original(model, inputs)).max())


# --- logits of the original -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"classifier_pooling": "cls"},
        {"attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_bias": True},
        {"global_attn_every_n_layers": 1},
        {"global_attn_every_n_layers": 2, "local_attention": 16},
        {"num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 112},
        {"local_rope_theta": None, "global_rope_theta": 500.0},
        {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    ],
    ids=lambda changes: " ".join(changes) or "as published",
)
def test_a_graph_matches_the_original_on_short_and_long_pairs(changes: dict[str, object], form: type[Builder]) -> None:
    model = modernbert(**changes)
    graph = form(model).build()
    onnx.checker.check_model(graph)
    assert off_by(graph, model, batch()) < 5e-5


def without_windows(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with every layer global."""
    real = next(node.output[0] for node in graph.graph.node if node.op_type == "ReduceSum")
    for node in graph.graph.node:
        if node.op_type == "Attention":
            node.input[3:] = ["", "", "", real]
    return graph


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_missing_window_changes_only_long_pairs(form: type[Builder]) -> None:
    model = modernbert()
    graph = without_windows(form(model).build())
    assert off_by(graph, model, batch()) > 1e-2
    assert off_by(graph, model, batch((19, 53, 65))) < 5e-5


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_pair_has_the_same_logits_alone_and_with_longer_pairs(form: type[Builder]) -> None:
    graph = form(modernbert()).build()
    together = batch()
    logits = answers(graph, together)
    for row, length in enumerate(LENGTHS):
        alone = {name: item[row : row + 1, :length] for name, item in together.items()}
        np.testing.assert_allclose(answers(graph, alone)[0], logits[row], atol=2e-5)


def test_the_value_added_to_the_residual_stream_for_the_cpu_has_mean_zero() -> None:
    """So that a norm without a mean is the LayerNorm; one matrix that is not centred must show."""
    model = modernbert(attention_bias=True, mlp_bias=True)
    with torch.no_grad():
        model.model.layers[2].mlp.Wo.weight += 0.2  # a mean that random weights hardly have
    graph = ForCpu(model).build()
    assert off_by(graph, model, batch()) < 5e-5
    centred = {item.name: item for item in graph.graph.initializer if item.name.endswith("_centred")}
    assert len(centred) == 5 * 4
    for item in centred.values():
        assert np.abs(numpy_helper.to_array(item).mean(axis=-1)).max() < 1e-6
    plain = model.state_dict()["model.layers.2.mlp.Wo.weight"].numpy().T
    centred["model.layers.2.mlp.Wo.weight_centred"].CopyFrom(
        numpy_helper.from_array(np.ascontiguousarray(plain), "model.layers.2.mlp.Wo.weight_centred")
    )
    assert off_by(graph, model, batch()) > 1e-2


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_float16_gives_no_nan_for_pairs_of_19_and_105_tokens_in_a_batch(pooling: str) -> None:
    model = modernbert(classifier_pooling=pooling)
    graph = graphs.make(model, "cuda")
    inputs = batch((19, 105), width=128)
    logits = answers(graph, inputs)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    assert np.abs(logits - original(model, inputs)).max() < 0.1


def test_the_masks_of_a_float16_graph_stay_finite_with_any_score() -> None:
    graph = graphs.make(modernbert(), "cuda").graph
    halves = [numpy_helper.to_array(item) for item in graph.initializer if item.data_type == onnx.TensorProto.FLOAT16]
    assert 1e4 < max(float(np.abs(item).max()) for item in halves) < float(np.finfo(np.float16).max) / 2


# --- 8 bits -----------------------------------------------------------------------------------------------------------


def test_int8_weights_are_within_half_a_step_of_their_scale() -> None:
    model = modernbert()
    with torch.no_grad():
        model.model.layers[0].attn.Wo.weight[3] *= 50  # one scale for the whole matrix would lose the others
        model.head.dense.weight[5] = 0
    found = {item.name: numpy_helper.to_array(item) for item in quantized(ForInt8(model).build()).graph.initializer}
    weights = model.state_dict()
    for name in [name for name in weights if name.endswith("Wo.weight")]:
        weights[f"{name}_centred"] = weights[name] - weights[name].mean(dim=0)
    for name in [name for name in weights if name.endswith("mlp.Wi.weight")]:
        weights |= {f"{name}_{part}": weight for part, weight in enumerate(weights[name].chunk(2))}
    for name in [name for name in weights if name.endswith("attn.Wqkv.weight")]:
        weights |= {f"{name}_{part}": weight for part, weight in enumerate(weights[name].chunk(3))}
    checked = 0
    for name, weight in weights.items():
        if f"{name}_int8" in found:
            values = weight.numpy() if "tok_embeddings" in name else weight.numpy().T
            assert found[f"{name}_int8"].dtype == np.int8
            scale = np.broadcast_to(found[f"{name}_scale"], values.shape)
            assert (np.abs(found[f"{name}_int8"] * scale - values) <= scale * 0.5001).all(), name
            largest = np.abs(found[f"{name}_int8"].astype(int)).max(axis=1 if "tok_embeddings" in name else 0)
            assert set(largest.tolist()) <= {0, 127}, name  # each uses its whole range
            checked += 1
    assert checked == 5 * 7 + 3  # per layer four matrices, in 1, 1, 2 and 3 parts; the table and the head's two


def test_activations_that_products_share_are_quantised_once() -> None:
    """In a layer: one node for queries, keys and values, and one for the halves of the MLP."""
    nodes = quantized(ForInt8(modernbert()).build()).graph.node
    sources = [node.input[0] for node in nodes if node.op_type == "DynamicQuantizeLinear"]
    assert len(sources) == len(set(sources)) == 5 * 2
    assert sum(node.op_type == "MatMulIntegerToFloat" for node in nodes) == 5 * (3 + 2)
    assert sum(node.op_type == "DynamicQuantizeMatMul" for node in nodes) == 5 * 2 + 2


def test_an_int8_graph_gives_nearly_the_original_logits() -> None:
    model = modernbert(initializer_range=0.1)
    inputs = batch()
    expected = original(model, inputs)
    off = np.abs(answers(graphs.make(model, "int8"), inputs) - expected)
    assert 0 < off.max() < 0.1 * np.abs(expected).max()


# --- few nodes --------------------------------------------------------------------------------------------------------


def test_a_graph_of_22_layers_has_a_small_share_of_optimums_nodes(tmp_path: Path) -> None:
    """ModernBERT-base's layers, but narrow; its graph by Optimum has 2934 nodes: a ninth is 326, a sixth 489."""
    model = modernbert(num_hidden_layers=22, hidden_size=32, num_attention_heads=2, initializer_range=0.02)
    onnx_export_from_model(model, tmp_path, task="text-classification", device="cpu", do_validation=False)
    theirs = len(onnx.load(tmp_path / "model.onnx").graph.node)
    names: tuple[Optimize, ...] = ("cpu", "cuda", "int8")
    ours = {name: len(graphs.make(model, name).graph.node) for name in names}
    assert ours == {"cpu": 309, "cuda": 311, "int8": 422}
    assert max(ours["cpu"], ours["cuda"]) <= theirs / 9
    assert ours["int8"] <= theirs / 6


@pytest.mark.parametrize(("form", "nodes"), [(ForCpu, 13), (ForCuda, 13), (ForInt8, 16)])
def test_a_layer_has_few_nodes(form: type[Builder], nodes: int) -> None:
    few, more = (len(form(modernbert(num_hidden_layers=count)).build().graph.node) for count in (4, 7))
    assert more - few == 3 * nodes


# --- as a plain file --------------------------------------------------------------------------------------------------

PLAIN = """
import json, sys
import numpy as np
import onnxruntime

options = onnxruntime.SessionOptions()
for name, value in json.loads(sys.argv[3]).items():
    options.add_session_config_entry(name, value)
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
inputs = {name: np.array(rows, dtype=np.int64) for name, rows in json.loads(sys.argv[2]).items()}
logits = session.run(["logits"], inputs)[0]
assert not {"torch", "transformers", "onnx", "mrpcbench"} & set(sys.modules)
print(json.dumps(logits.tolist()))
"""


@pytest.mark.parametrize("optimize", ["cpu", "cuda", "int8"])
def test_numpy_and_onnxruntime_are_enough_to_run_the_file(optimize: Optimize, tmp_path: Path) -> None:
    model = modernbert()
    graph = graphs.make(model, optimize)
    onnx.save(graph, tmp_path / "model.onnx")
    inputs = batch((19, 105))
    document = json.dumps({name: item.tolist() for name, item in inputs.items()})
    command = [sys.executable, "-I", "-c", PLAIN, str(tmp_path / "model.onnx"), document]
    command.append(json.dumps(exact_integers()))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout), answers(graph, inputs), atol=1e-5)


def test_inputs_and_the_output_are_named_as_optimums() -> None:
    graph = graphs.make(modernbert(), "cpu").graph
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    tokens = ["batch_size", "sequence_length"]
    assert shapes == {"input_ids": tokens, "attention_mask": tokens, "logits": ["batch_size", 2]}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_more_tokens_than_positions_are_an_error(form: type[Builder]) -> None:
    graph = form(modernbert()).build()
    assert answers(graph, batch((POSITIONS,))).shape == (1, 2)
    with pytest.raises(Exception, match=r"attention_bias|cos_cache"):
        answers(graph, batch((POSITIONS + 1,)))


# --- unsupported models and dtypes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_activation": "relu"}, "hidden_activation gelu, not relu"),
        ({"classifier_activation": "silu"}, "classifier_activation gelu, not silu"),
        ({"hidden_size": 12}, "an even width, not 3"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "length, not dynamic"),
    ],
)
def test_a_modernbert_that_the_builder_does_not_support_is_rejected(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=f"{words}; use --optimize none"):
        graphs.check(modernbert(**changes), "int8")


def test_another_architecture_is_rejected_except_for_optimums_graph() -> None:
    config = BertConfig(vocab_size=9, hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    bert = BertForSequenceClassification(config)
    with pytest.raises(UsageError, match=r"--optimize cpu: .*BertForSequenceClassification; use --optimize none"):
        graphs.check(bert, "cpu")
    graphs.check(bert, "none")


@pytest.mark.parametrize(
    ("optimize", "usual"),
    [("none", "fp32"), ("cpu", "fp32"), ("cuda", "fp16"), ("int8", "int8"), ("o3", "fp32"), ("o4", "fp16")],
)
def test_every_graph_has_a_default_dtype(optimize: Optimize, usual: str) -> None:
    assert graphs.arithmetic(optimize, "auto") == usual


@pytest.mark.parametrize(
    ("optimize", "dtype", "instead"),
    [
        ("none", "int8", "int8"),
        ("cpu", "fp16", "none"),
        ("cuda", "fp32", "none"),
        ("int8", "fp16", "none"),
        ("o3", "fp16", "none"),
        ("o4", "fp32", "none"),
    ],
)
def test_the_error_for_an_impossible_dtype_names_both_options_and_an_alternative(
    optimize: Optimize, dtype: GraphDtype, instead: Optimize
) -> None:
    with pytest.raises(UsageError, match=f"--optimize {optimize} --dtype {dtype}: .*--optimize {instead}"):
        graphs.arithmetic(optimize, dtype)
