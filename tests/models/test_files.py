"""A file of weights that cannot be read is named with what it is, in one line and before it is loaded."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from mrpcbench.errors import UsageError
from mrpcbench.models.classifier import load_classifier
from mrpcbench.models.sources import weights_source
from mrpcbench.quickstart import CLASSIFIER_DIR


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CLASSIFIER_DIR, tmp_path / "m"))


def refusal(folder: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_classifier(weights_source(str(folder)))
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"--model {folder}: ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a Git LFS pointer"),
        (b"/annex/objects/SHA256E-s1--0.safetensors\n", "a git-annex pointer"),
        (b"<html><body>404</body></html>", "an HTML page"),
        (b"", "empty"),
        (b"abc", "no safetensors, or truncated to 3 bytes"),
        (b"\x02\0\0\0\0\0\0\0[]", "no safetensors, or damaged"),
    ],
)
def test_the_error_for_a_file_that_is_not_weights_says_what_it_is(content: bytes, words: str, model: Path) -> None:
    (model / "model.safetensors").write_bytes(content)
    assert refusal(model).startswith(f"model.safetensors is {words}")


def test_truncated_weights_are_named_with_both_sizes(model: Path) -> None:
    file = model / "model.safetensors"
    whole = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-1])
    assert f"model.safetensors is truncated: {whole - 1} of {whole} bytes" in refusal(model)


def test_a_broken_link_to_weights_is_reported_as_missing(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").symlink_to(model / "annexed")
    assert refusal(model) == "model.safetensors is missing"


def test_the_error_names_a_shard_that_is_missing_or_outside_of_the_folder(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").rename(model / "one.safetensors")
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, "one.safetensors")}))
    load_classifier(weights_source(str(model)))
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, "two.safetensors")}))
    assert "names two.safetensors, which is missing" in refusal(model)
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, "../one.safetensors")}))
    assert "names ../one.safetensors, which lies outside" in refusal(model)
    index.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "model.safetensors.index.json is a Git LFS pointer" in refusal(model)


def test_adapter_weights_are_rejected_as_a_model(model: Path) -> None:
    (model / "model.safetensors").rename(model / "adapter_model.safetensors")
    assert "adapter_model.safetensors is not the name of a model's weights" in refusal(model)


def test_weights_with_other_shapes_than_in_the_configuration_are_one_line(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights["classifier.bias"] = weights["classifier.bias"].repeat(2)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    assert "cannot load its weights" in refusal(model)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize(
    ("content", "words"),
    [("version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"), ("", "empty"), ("[]", "not a JSON object")],
)
def test_the_error_names_an_invalid_configuration_or_tokenizer(
    name: str, content: str, words: str, model: Path
) -> None:
    (model / name).write_text(content)
    said = refusal(model)
    assert words in said
    assert name in said
