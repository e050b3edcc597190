"""The compiled engine: what is compiled, equal logits, and the error without a compiler."""

import re
import sys
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._inductor import config
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from mrpcbench.backends import compiled
from mrpcbench.backends.compiled import compiler_problem, layers_of
from mrpcbench.backends.reading import resolve
from mrpcbench.backends.registry import open_session
from mrpcbench.backends.session import first_of_each_shape
from mrpcbench.data import loading
from mrpcbench.data.batches import EncodedPairs
from mrpcbench.errors import MissingError, UsageError
from mrpcbench.models.classifier import load_classifier
from mrpcbench.models.sources import weights_source
from mrpcbench.schema.requests import BackendSpec


@pytest.fixture(scope="module")
def tokens(tuned_model: Path, small_data: Path) -> EncodedPairs:
    pairs = loading.split_of(loading.load(str(small_data)), str(small_data), "validation")
    return resolve(BackendSpec(model=str(tuned_model))).reader.encode(pairs)


def spec(model: Path, backend: str = "torch-compile") -> BackendSpec:
    return BackendSpec(backend=backend, model=str(model), device="cpu")  # type: ignore[arg-type]


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """The graphs that reach the compiler. It returns them unchanged, because compiling C++ takes many seconds."""
    graphs: list[torch.fx.GraphModule] = []

    def compiler(graph: torch.fx.GraphModule, inputs: object) -> object:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = partialmethod(torch.nn.Module.compile, backend=compiler)
    monkeypatch.setattr(torch.nn.Module, "compile", compiled)
    return graphs


def test_each_kind_of_layer_is_compiled_once_for_one_pair_and_once_for_several(
    tuned_model: Path, tokens: EncodedPairs, traced: list[torch.fx.GraphModule]
) -> None:
    plain, compiled = open_session(spec(tuned_model, "torch")), open_session(spec(tuned_model))
    assert compiled.placement.provider == "sdpa, compiled"
    counts = []
    for size in (1, 4, 7):
        for batch in tokens.batches(size)[:3]:
            np.testing.assert_allclose(compiled.infer(batch), plain.infer(batch), atol=1e-5)
        counts.append(len(traced))
    assert counts == [3, 6, 6]  # the first layer, which has one norm less, the global ones and the local ones


def test_batches_of_known_shapes_are_not_compiled_again(
    tuned_model: Path, tokens: EncodedPairs, traced: list[torch.fx.GraphModule]
) -> None:
    session = open_session(spec(tuned_model))
    cut = [*tokens.batches(1), *tokens.batches(3), *tokens.batches(8, multiple_of=16)]
    ready = first_of_each_shape(session, cut)
    assert len(ready) == 4
    for batch in ready:
        session.infer(batch)
    compiled = len(traced)
    for batch in cut:
        session.infer(batch)
    assert len(traced) == compiled > 0


def test_the_error_without_a_compiler_names_an_alternative(tuned_model: Path, tokens: EncodedPairs) -> None:
    torch._dynamo.reset()
    session = open_session(spec(tuned_model))
    with (
        config.patch({"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}),
        pytest.raises(
            MissingError,
            match=r"--backend torch-compile: torch cannot compile .* no C\+\+ compiler.*; or use --backend torch",
        ) as caught,
    ):
        session.infer(tokens.batches(1)[0])
    assert "\n" not in str(caught.value)


def test_the_error_names_the_missing_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    for absent in ("no-such-compiler", "/"):
        with config.patch({"cpp.cxx": (absent,)}):
            assert re.fullmatch(r"torch finds no C\+\+ compiler; install .*CXX", str(compiler_problem("cpu")))
    with config.patch({"cpp.cxx": (sys.executable,)}):  # torch only looks for an executable program
        assert compiler_problem("cpu") is None
    monkeypatch.setattr(compiled, "has_triton", lambda: False)
    assert compiler_problem("cuda") == "torch finds no Triton for the GPU; install triton"


SIZES = {"vocab_size": 30, "max_position_embeddings": 64}
BERT = BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, **SIZES)
DISTILBERT = DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=16, **SIZES)


@pytest.mark.parametrize(
    ("net", "name"),
    [
        (BertForSequenceClassification(BERT), "bert.encoder.layer"),
        (DistilBertForSequenceClassification(DISTILBERT), "distilbert.transformer.layer"),
    ],
)
def test_the_layers_of_an_encoder_are_found_whatever_their_name(net: torch.nn.Module, name: str) -> None:
    assert layers_of(net) is net.get_submodule(name)


def test_the_layers_of_modernbert_are_found(tuned_model: Path) -> None:
    net = load_classifier(weights_source(str(tuned_model))).model
    assert layers_of(net) is net.model.layers


def test_a_model_without_layers_is_rejected_by_name() -> None:
    with pytest.raises(UsageError, match="Linear has no list of layers; use --backend torch"):
        layers_of(torch.nn.Linear(1, 1))
