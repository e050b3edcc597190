"""Base class for ONNX graphs of ModernBERT's classifier with few nodes; a subclass per execution provider.

The computation is that of `ModernBertForSequenceClassification` in transformers, with settings read from the model:
pre-norm layers, of which the first has no norm before its attention; rotary positions; global attention in every n-th
layer and local attention in the others; a gated MLP; then pooling and a head.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from transformers import ModernBertForSequenceClassification, PreTrainedModel

from mrpcbench.errors import UsageError
from mrpcbench.models.modernbert_config import has_window, is_local, rope_frequencies, rope_types
from mrpcbench.onnx_export.writer import MICROSOFT, Writer

# The first opset whose Attention node takes the number of real tokens per pair.
OPSET = 24
# Added to a score to mask a token in a softmax. The largest float16 is 65504, so this plus a score stays finite.
MASKED = -3e4


class Builder(ABC):
    """Writes one graph. Weights keep their names; matrices are transposed to [in, out] for MatMul.

    Pairs must be padded on the right. A subclass writes the MLP and the norms with the nodes of its provider.
    """

    # Whether the mask of local layers covers padding too, so that their attention takes no number of real tokens.
    window_covers_padding: ClassVar[bool] = False
    # The linear layers whose parts are separate matrix products, which avoids a Split node.
    separate: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: PreTrainedModel, *, half: bool = False) -> None:
        """`model` has passed `check`. With `half`, its layers are float16."""
        self._model = model
        self._config: Any = model.config
        self._half = half
        self._writer = Writer()
        self._weights = model.state_dict()
        self._float = np.dtype(np.float16 if half else np.float32)

    @staticmethod
    def check(model: PreTrainedModel, option: str) -> None:
        """Raise `UsageError` if this builder does not support `model`. The message names `option` and what to use."""
        if problem := _problem(model):
            raise UsageError(f"{option}: {problem}; use --optimize none")

    def build(self) -> onnx.ModelProto:
        """The graph: `input_ids`, `attention_mask` [B, S] int64 to `logits` [B, labels] float32."""
        # The number of real tokens of each pair [B]. Attention reads only these keys.
        self._real = self._writer.one("ReduceSum", ["attention_mask", self._writer.integers(1)], {"keepdims": 0})
        window = self._window()
        table = self._weight("model.embeddings.tok_embeddings.weight")
        states = self._norm(self._writer.one("Gather", [table, "input_ids"]), "model.embeddings.norm")
        residual = self._first_residual(states)
        count = self._config.num_hidden_layers
        for layer in range(count):
            name = f"model.layers.{layer}"
            attention = self._attention(states, layer, window if is_local(self._config, layer) else "")
            states, residual = self._project(attention, residual, f"{name}.attn.Wo", f"{name}.mlp_norm")
            after = "model.final_norm" if layer == count - 1 else f"model.layers.{layer + 1}.attn_norm"
            states, residual = self._project(self._gated(states, f"{name}.mlp"), residual, f"{name}.mlp.Wo", after)
        self._head(self._pool(states))
        return self._writer.model("modernbert", OPSET, self._config.num_labels)

    # --- written by each provider -------------------------------------------------------------------------------------

    @abstractmethod
    def _first_residual(self, states: str) -> str:
        """The residual stream before the first layer."""

    @abstractmethod
    def _project(self, states: str, residual: str, linear: str, norm: str) -> tuple[str, str]:
        """Apply `linear` to `states` and add `residual`; returns the normalised sum and the sum."""

    # --- attention ----------------------------------------------------------------------------------------------------

    def _attention(self, states: str, layer: int, window: str) -> str:
        """Attention of all heads [B, S, D] with rotary positions; `window` is the mask of a local layer.

        The window option of ONNX Runtime's own attention nodes works only with causal attention.
        """
        heads = self._config.num_attention_heads
        query, key, value = self._parts(states, f"model.layers.{layer}.attn.Wqkv", 3)
        start, tables = self._writer.integers(0), self._rotary(layer)
        rotated = [
            self._writer.one("RotaryEmbedding", [item, start, *tables], {"num_heads": heads}, domain=MICROSOFT)
            for item in (query, key)
        ]
        attributes = {"q_num_heads": heads, "kv_num_heads": heads}
        real = [] if window and self.window_covers_padding else ["", "", self._real]
        return self._writer.one("Attention", [*rotated, value, window, *real], attributes)

    def _window(self) -> str:
        """The additive mask of local layers, `MASKED` for keys outside the window; "" without such layers.

        It is [1, 1, S, S], or [B, 1, S, S] if it also masks padding. The positions are sliced from a constant, which
        stays on the GPU. A Range node would run on the CPU and need a copy, which CUDA graphs do not allow.
        """
        if not has_window(self._config):
            return ""
        write = self._writer
        columns = write.one("Shape", ["input_ids"], {"start": 1, "end": 2})
        every = write.constant("positions", np.arange(self._config.max_position_embeddings, dtype=np.int64))
        keys = write.one("Slice", [every, write.integers(0), columns])
        queries = write.one("Unsqueeze", [keys, write.integers(0, 1, 3)])
        distance = write.one("Abs", [write.one("Sub", [queries, keys])])
        near = write.one("LessOrEqual", [distance, write.integer(self._config.local_attention // 2)])
        if self.window_covers_padding:
            real = write.cast(write.one("Unsqueeze", ["attention_mask", write.integers(1, 2)]), TensorProto.BOOL)
            near = write.one("And", [near, real])
        seen = write.constant("seen", np.array(0, dtype=self._float))
        masked = write.constant("masked", np.array(MASKED, dtype=self._float))
        return write.one("Where", [near, seen, masked])

    def _rotary(self, layer: int) -> tuple[str, str]:
        """Cosines and sines [positions, half a head] of a layer, as its own module computes them."""
        found, scaling = rope_frequencies(self._model, layer)
        frequencies = found.detach().float().cpu()
        name = f"{frequencies[-1].item():.6e}"  # layers with the same slowest rotation share a table
        angles = torch.arange(self._config.max_position_embeddings, dtype=torch.float32)[:, None] * frequencies[None, :]
        cosines, sines = ((turned * scaling).numpy().astype(self._float) for turned in (angles.cos(), angles.sin()))
        return self._writer.constant(f"cosines_{name}", cosines), self._writer.constant(f"sines_{name}", sines)

    # --- pooling and head ---------------------------------------------------------------------------------------------

    def _pool(self, states: str) -> str:
        """The pooled states [B, D] in float32, because a sum of many float16 values can overflow."""
        write = self._writer
        if self._config.classifier_pooling == "cls":
            first = write.one("Gather", [states, write.integer(0)], {"axis": 1})
            return write.cast(first, TensorProto.FLOAT) if self._half else first
        wide = write.cast(states, TensorProto.FLOAT) if self._half else states
        mask = write.cast("attention_mask", TensorProto.FLOAT)
        share = write.one("Div", [mask, write.one("ReduceSum", [mask, write.integers(1)])])
        mean = write.one("MatMul", [write.one("Unsqueeze", [share, write.integers(1)]), wide])
        return write.one("Squeeze", [mean, write.integers(1)])

    def _head(self, pooled: str) -> None:
        self._float = np.dtype(np.float32)
        dense = self._writer.one("Gelu", [self._linear(pooled, "head.dense")])
        product = self._product(self._norm(dense, "head.norm"), "classifier")
        self._writer.node("Add", [product, self._weight("classifier.bias")], result="logits")

    # --- parts --------------------------------------------------------------------------------------------------------

    def _gated(self, states: str, name: str) -> str:
        """The gated MLP without its last product [B, S, intermediate]."""
        inner, gate = self._parts(states, f"{name}.Wi", 2)
        return self._writer.one("Mul", [self._writer.one("Gelu", [inner]), gate])

    def _parts(self, states: str, name: str, count: int) -> Sequence[str]:
        """The outputs of the linear layer `name` in `count` equal parts [B, S, outputs / count]."""
        if name.endswith(self.separate):
            return [self._linear(states, name, part, count) for part in range(count)]
        whole = self._linear(states, name)
        return self._writer.node("Split", [whole], {"axis": -1, "num_outputs": count}, outputs=count)

    def _linear(self, states: str, name: str, part: int = 0, count: int = 1) -> str:
        """A linear layer, or one of `count` equal parts of its outputs."""
        product, bias = self._product(states, name, part, count), self._optional(f"{name}.bias", part, count)
        return self._writer.one("Add", [product, bias]) if bias else product

    def _product(self, states: str, name: str, part: int = 0, count: int = 1) -> str:
        return self._writer.one("MatMul", [states, self._weight(f"{name}.weight", part, count, transposed=True)])

    def _norm(self, states: str, name: str) -> str:
        inputs = [states, self._weight(f"{name}.weight"), self._optional(f"{name}.bias")]
        attributes = {"axis": -1, "epsilon": self._config.norm_eps}
        return self._writer.one("LayerNormalization", [item for item in inputs if item], attributes)

    def _optional(self, name: str, part: int = 0, count: int = 1) -> str:
        return self._weight(name, part, count) if name in self._weights else ""

    def _weight(self, name: str, part: int = 0, count: int = 1, *, transposed: bool = False) -> str:
        """A weight, or one of `count` equal parts of its outputs."""
        values: NDArray[Any] = self._weights[name].detach().float().cpu().numpy()
        if count > 1:
            name, values = f"{name}_{part}", np.split(values, count)[part]
        return self._writer.constant(name, (values.T if transposed else values).astype(self._float))


def _problem(model: PreTrainedModel) -> str | None:
    if not isinstance(model, ModernBertForSequenceClassification):
        return f"supports only ModernBertForSequenceClassification, not {type(model).__name__}"
    config = model.config
    for name in ("hidden_activation", "classifier_activation"):
        if (activation := getattr(config, name)) != "gelu":
            return f"supports only {name} gelu, not {activation}"
    if config.classifier_pooling not in ("mean", "cls"):
        return f"supports only classifier_pooling mean or cls, not {config.classifier_pooling}"
    width = config.hidden_size // config.num_attention_heads
    if width % 2:
        return f"supports only heads of an even width, not {width}"
    depends = [kind for kind in rope_types(config) if "dynamic" in kind or kind == "longrope"]
    return f"supports only rotary positions that do not depend on the length, not {depends[0]}" if depends else None
