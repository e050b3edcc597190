"""A graph is checked before an engine opens it: its files, its inputs, its output and its labels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from foreign import save_graph, set_config
from onnx import TensorProto, helper

from mrpcbench.commands.evaluate import classify
from mrpcbench.errors import UsageError
from mrpcbench.models.graphs import read_graph
from mrpcbench.models.sources import ModelSource
from mrpcbench.schema.requests import BackendSpec

Change = Callable[[onnx.ModelProto], None]


def sha256_of(folder: Path) -> str:
    return read_graph(ModelSource("m", folder)).sha256


def refusal(folder: Path) -> str:
    """What is said of the graph in `folder`, in one line and before it is opened."""
    with pytest.raises(UsageError) as caught:
        read_graph(ModelSource("m", folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def answer(folder: Path) -> tuple[float, float]:
    return classify(BackendSpec(backend="onnx", model=str(folder), device="cpu"), "a", "b").logits


def test_a_graph_from_another_tool_runs(tmp_path: Path) -> None:
    assert np.isfinite(answer(save_graph(tmp_path / "g"))).all()


def test_the_only_output_may_have_any_name(tmp_path: Path) -> None:
    def rename(model: onnx.ModelProto) -> None:
        model.graph.node[-1].output[0] = model.graph.output[0].name = "scores"

    assert answer(save_graph(tmp_path / "a", rename)) == answer(save_graph(tmp_path / "b"))


# --- the files that a graph reads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.onnx.data", "model.onnx_data", "weights.bin", "model.data"])
def test_the_hash_covers_external_weights_under_any_file_name(name: str, tmp_path: Path) -> None:
    folder = save_graph(tmp_path, external=name)
    before = sha256_of(folder)
    content = bytearray((folder / name).read_bytes())
    content[5] ^= 1
    (folder / name).write_bytes(content)
    assert sha256_of(folder) != before


def test_the_hash_covers_only_files_that_the_graph_reads(tmp_path: Path) -> None:
    folder = save_graph(tmp_path)
    before = sha256_of(folder)
    (folder / "model.onnx_data").write_bytes(b"left over")
    assert sha256_of(folder) == before


def test_weights_in_an_attribute_or_a_subgraph_are_among_the_files(tmp_path: Path) -> None:
    def nest(model: onnx.ModelProto) -> None:
        value = onnx.numpy_helper.from_array(np.zeros(4, dtype=np.float32), "inner")
        value.ClearField("raw_data")
        value.data_location = TensorProto.EXTERNAL
        value.external_data.add(key="location", value="inner.bin")
        constant = helper.make_node("Constant", [], ["c"], value=value)
        branch = helper.make_graph(
            [constant], "branch", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [4])]
        )
        model.graph.node.append(helper.make_node("If", ["yes"], ["d"], then_branch=branch, else_branch=branch))

    folder = save_graph(tmp_path, nest)
    assert "reads its weights from inner.bin, which is missing" in refusal(folder)
    (folder / "inner.bin").write_bytes(bytes(16))
    assert read_graph(ModelSource("m", folder)).files == ("model.onnx", "inner.bin")


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/hostname", "a/../../outside.bin", r"..\outside.bin", ""])
def test_weights_outside_of_the_folder_are_rejected(location: str, tmp_path: Path) -> None:
    folder = save_graph(tmp_path / "g", external="w.bin")
    (tmp_path / "outside.bin").write_bytes((folder / "w.bin").read_bytes())
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for entry in (item for tensor in model.graph.initializer for item in tensor.external_data):
        if entry.key == "location":
            entry.value = location
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    assert "outside of its folder" in refusal(folder)


def test_a_link_out_of_the_folder_is_rejected_except_in_the_hubs_cache(tmp_path: Path) -> None:
    folder, blobs = save_graph(tmp_path / "snapshot", external="w.bin"), tmp_path / "blobs"
    before = sha256_of(folder)
    blobs.mkdir()
    for name in ("w.bin", "model.onnx"):
        (folder / name).rename(blobs / name)
        (folder / name).symlink_to(blobs / name)
        if name == "w.bin":
            assert "outside of its folder" in refusal(folder)
    assert sha256_of(folder) == before


def test_missing_or_truncated_weights_of_a_graph_are_named(tmp_path: Path) -> None:
    folder = save_graph(tmp_path, external="w.bin")
    whole = (folder / "w.bin").read_bytes()
    (folder / "w.bin").write_bytes(whole[:1000])
    assert f"w.bin is truncated: 1000 of {len(whole)} bytes" in refusal(folder)
    (folder / "w.bin").write_text("version https://git-lfs.github.com/spec/v1\nsize 1\n")
    assert "w.bin is a Git LFS pointer" in refusal(folder)
    (folder / "w.bin").unlink()
    assert "w.bin, which is missing" in refusal(folder)


# --- what is no graph -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html></html>", "an HTML page"),
        (b"", "empty"),
        (bytes(4096), "all zeros"),
        (b'{"error": "not found"}', "a JSON document"),
        (b"PK\x03\x04....", "a zip archive"),
        (b"\x0a\xff\xff\xff", "no ONNX graph"),
    ],
)
def test_a_file_that_is_not_a_graph_is_named_with_its_kind(content: bytes, words: str, tmp_path: Path) -> None:
    folder = save_graph(tmp_path)
    (folder / "model.onnx").write_bytes(content)
    assert refusal(folder).startswith(f"--model m: model.onnx is {words}")


def test_the_error_names_a_truncated_graph(tmp_path: Path) -> None:
    folder = save_graph(tmp_path)
    content = (folder / "model.onnx").read_bytes()
    for size in (10, len(content) // 2, len(content) - 1):
        (folder / "model.onnx").write_bytes(content[:size])
        assert "truncated or damaged" in refusal(folder)


def test_the_error_names_a_graph_that_the_engine_cannot_open(tmp_path: Path) -> None:
    def unknown_operator(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = "NoSuchOperator"

    with pytest.raises(UsageError, match=r"model\.onnx of .*: ONNX Runtime .* cannot open it"):
        answer(save_graph(tmp_path / "g", unknown_operator))


def test_the_error_names_a_graph_that_the_engine_cannot_run(tmp_path: Path) -> None:
    def small_table(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.ones((1, 2), dtype=np.float32), "table"))

    with pytest.raises(UsageError, match=r"model\.onnx of .*: ONNX Runtime .* cannot run it"):
        answer(save_graph(tmp_path / "g", small_table))


# --- inputs, output and labels ----------------------------------------------------------------------------------------


def axis(name: str, place: int, size: int) -> Change:
    """A change that fixes an axis of an input or an output."""

    def change(model: onnx.ModelProto) -> None:
        for item in (*model.graph.input, *model.graph.output):
            if item.name == name:
                item.type.tensor_type.shape.dim[place].dim_value = size

    return change


def without_mask(model: onnx.ModelProto) -> None:
    del model.graph.input[1]


def with_positions(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["B", "S"]))


def with_short_tokens(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT32


def with_integer_logits(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64


def with_hidden_states(model: onnx.ModelProto) -> None:
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["B", "S", 2]))


def with_more_outputs(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("hidden_states", TensorProto.FLOAT, ["B", "S", 8]))


def without_output(model: onnx.ModelProto) -> None:
    del model.graph.output[0]


def with_two_outputs(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "label"
    model.graph.output.append(helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["B", 2]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_mask, "has no input attention_mask, only input_ids"),
        (with_positions, "needs the input position_ids"),
        (with_short_tokens, "takes input_ids as INT32"),
        (axis("input_ids", 0, 1), "a fixed batch of 1 pairs"),
        (axis("attention_mask", 1, 128), "a fixed length of 128 tokens"),
        (axis("logits", 1, 3), "the shape [?, 3]"),
        (with_integer_logits, "gives logits as INT64"),
        (with_hidden_states, "gives last_hidden_state of the shape [?, ?, 2]"),
        (with_two_outputs, "has 2 outputs (label, probabilities), and the logits must be the only one"),
        (with_more_outputs, "has 2 outputs (logits, hidden_states), and the logits must be the only one"),
        (without_output, "has 0 outputs (none), and the logits must be the only one"),
    ],
)
def test_a_graph_with_wrong_inputs_or_outputs_is_rejected(change: Change, words: str, tmp_path: Path) -> None:
    said = refusal(save_graph(tmp_path, change))
    assert said.startswith("--model m: model.onnx")
    assert words in said


def test_a_graph_with_three_labels_in_its_configuration_is_refused_like_such_a_torch_model(tmp_path: Path) -> None:
    folder = save_graph(tmp_path)
    names = ["contradiction", "entailment", "neutral"]
    set_config(folder, id2label=dict(enumerate(names)), label2id={name: index for index, name in enumerate(names)})
    assert refusal(folder) == "--model m: its head has 3 labels, but paraphrase needs 2"


def test_three_logits_without_a_declared_shape_are_refused_at_run_time(tmp_path: Path) -> None:
    def third(model: onnx.ModelProto) -> None:
        table = np.ones((800, 3), dtype=np.float32)
        model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(table, "table"))
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "labels"

    with pytest.raises(UsageError, match=r"gives \[1, 3\] for a batch"):
        answer(save_graph(tmp_path / "g", third))
