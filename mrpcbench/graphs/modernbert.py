"""ModernBERT's classifier as a graph of few nodes: one fused attention a layer, no padding computed twice.

The arithmetic is that of `ModernBertForSequenceClassification` in transformers, read from the model itself: pre-norm
layers, of which the first has no norm before its attention; rotary positions; every n-th layer sees all tokens and the
others a window; a gated MLP; then pooling, and a head.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from transformers import ModernBertForSequenceClassification, PreTrainedModel

from mrpcbench.errors import UsageError
from mrpcbench.graphs.writer import MICROSOFT, Writer

# Gelu came with opset 20; later ones change nothing that is used here, and would shut out older runtimes.
OPSET = 20
# What is added to a score to take a token out of a softmax. float16 ends at 65504: this plus a score stays finite.
MASKED = -3e4
# Heads of other widths are refused by GroupQueryAttention's rotary kernels, which take 8 pairs at a time.
HEAD_MULTIPLE = 16


@dataclass(frozen=True, kw_only=True)
class Form:
    """What the graph is made of: with `skip_norms` an addition and the norm after it are one node; `half` is float16.

    With `split_weights` the two halves of the gated MLP are products of their own, and no copy of parts of one.

    The CUDA provider is faster with one node for both, the CPU provider's SkipLayerNormalization is seven times slower
    than LayerNormalization and Add (62 ms against 9 ms a pass of ModernBERT-base, ONNX Runtime 1.31.1).
    """

    skip_norms: bool = False
    split_weights: bool = False
    half: bool = False


def check(model: PreTrainedModel, option: str) -> None:
    """Raise `UsageError`, which names `option` and what works instead, where `build` cannot write `model`."""
    problem = _problem(model)
    if problem:
        raise UsageError(f"{option}: {problem}; use --optimize none")


def _problem(model: PreTrainedModel) -> str | None:
    if not isinstance(model, ModernBertForSequenceClassification):
        return f"made for ModernBertForSequenceClassification, and this is {type(model).__name__}"
    config = model.config
    for name in ("hidden_activation", "classifier_activation"):
        if (activation := getattr(config, name)) != "gelu":
            return f"made for {name} gelu, and this model has {activation}"
    if config.classifier_pooling not in ("mean", "cls"):
        return f"made for classifier_pooling mean or cls, and this model has {config.classifier_pooling}"
    width = config.hidden_size // config.num_attention_heads
    if width % HEAD_MULTIPLE:
        return f"made for heads whose width is a multiple of {HEAD_MULTIPLE}, and this model's are {width} wide"
    kind = model.model.layers[0].attn.rotary_emb.rope_type
    if "dynamic" in kind or kind == "longrope":
        return f"made for rotary positions that do not depend on the length, and this model's are {kind}"
    return None


def build(model: PreTrainedModel, form: Form) -> onnx.ModelProto:
    """The graph of `model`, which `check` has let through, in the form asked for; pairs must be padded on the right."""
    return _Builder(model, form).build()


class _Builder:
    """One graph while it is written. Weights keep their names; matrices are [in, out], as MatMul takes them."""

    def __init__(self, model: PreTrainedModel, form: Form) -> None:
        self._model = model
        self._config: Any = model.config
        self._form = form
        self._writer = Writer()
        self._weights = model.state_dict()
        self._float = np.dtype(np.float16 if form.half else np.float32)

    def build(self) -> onnx.ModelProto:
        last_token = self._last_token()
        columns = self._writer.one("Shape", ["input_ids"], {"start": 1, "end": 2})
        total = self._writer.cast(columns, TensorProto.INT32)
        band = self._band(columns)
        table = self._weight("model.embeddings.tok_embeddings.weight")
        residual = self._norm(self._writer.one("Gather", [table, "input_ids"]), "model.embeddings.norm")
        states = residual
        count = self._config.num_hidden_layers
        for layer in range(count):
            name = f"model.layers.{layer}"
            is_local = layer % self._config.global_attn_every_n_layers != 0
            attention = self._attention(states, layer, last_token, total, band if is_local else "")
            states, residual = self._add_and_norm(
                self._product(attention, f"{name}.attn.Wo"), residual, f"{name}.attn.Wo", f"{name}.mlp_norm"
            )
            after = "model.final_norm" if layer == count - 1 else f"model.layers.{layer + 1}.attn_norm"
            states, residual = self._add_and_norm(self._mlp(states, name), residual, f"{name}.mlp.Wo", after)
        self._head(self._pool(states))
        return self._writer.model("modernbert", OPSET, self._config.num_labels)

    # --- what depends on the lengths alone ----------------------------------------------------------------------------

    def _last_token(self) -> str:
        """Index of the last real token of each pair [B] int32, as the attention wants it."""
        write = self._writer
        mask = write.cast("attention_mask", TensorProto.INT32)
        real = write.one("ReduceSum", [mask, write.integers(1)], {"keepdims": 0})
        return write.one("Sub", [real, write.constant("one", np.array(1, dtype=np.int32))])

    def _band(self, columns: str) -> str:
        """What is added to the scores of a local layer [1, 1, S, S]: 0 within the window, and nothing beyond it.

        The attention node has a window of its own, and refuses it where tokens also see what comes after them. A slice
        of a constant stays on a GPU, where a range would be made on the CPU and copied: no CUDA graph allows that.
        """
        if self._config.global_attn_every_n_layers == 1:
            return ""
        write = self._writer
        every = write.constant("positions", np.arange(self._config.max_position_embeddings, dtype=np.int64))
        keys = write.one("Slice", [every, write.integers(0), columns])
        queries = write.one("Unsqueeze", [keys, write.integers(0, 1, 3)])
        distance = write.one("Abs", [write.one("Sub", [queries, keys])])
        far = write.one("Greater", [distance, write.integer(self._config.local_attention // 2)])
        masked = write.constant("masked", np.array(MASKED, dtype=self._float))
        return write.one("Where", [far, masked, write.constant("seen", np.array(0, dtype=self._float))])

    # --- one layer ----------------------------------------------------------------------------------------------------

    def _attention(self, states: str, layer: int, last_token: str, total: str, band: str) -> str:
        """Attention of all heads [B, S, D], rotary positions and the mask of padding among it."""
        name = f"model.layers.{layer}.attn"
        heads = self._config.num_attention_heads
        packed = self._linear(states, f"{name}.Wqkv")
        inputs = [packed, "", "", "", "", last_token, total, *self._rotary(layer)]
        attributes = {"num_heads": heads, "kv_num_heads": heads, "do_rotary": 1, "causal": 0}
        return self._writer.node(
            *("GroupQueryAttention", [*inputs, *(["", band] if band else [])], attributes),
            domain=MICROSOFT,
            # Keys and values for a later call: the CUDA kernel must write them, the CPU's is a third faster without.
            outputs=3 if self._form.skip_norms else 1,
        )[0]

    def _rotary(self, layer: int) -> tuple[str, str]:
        """Cosines and sines [positions, half a head] of a layer, as its own module computes them."""
        rotary: Any = self._model.model.layers[layer].attn.rotary_emb  # type: ignore[union-attr,index]
        frequencies = rotary.inv_freq.detach().float().cpu()
        name = f"{frequencies[-1].item():.6e}"  # which layers share a table is seen from its slowest rotation
        angles = torch.arange(self._config.max_position_embeddings, dtype=torch.float32)[:, None] * frequencies[None, :]
        cosines, sines = (
            (turned * rotary.attention_scaling).numpy().astype(self._float) for turned in (angles.cos(), angles.sin())
        )
        return self._writer.constant(f"cosines_{name}", cosines), self._writer.constant(f"sines_{name}", sines)

    def _mlp(self, states: str, layer: str) -> str:
        """The gated MLP without the last bias."""
        write = self._writer
        if self._form.split_weights:
            inner, gate = (self._linear(states, f"{layer}.mlp.Wi", half) for half in (0, 1))
        else:
            both = self._linear(states, f"{layer}.mlp.Wi")
            inner, gate = write.node("Split", [both], {"axis": -1, "num_outputs": 2}, outputs=2)
        return self._product(write.one("Mul", [write.one("Gelu", [inner]), gate]), f"{layer}.mlp.Wo")

    def _add_and_norm(self, product: str, residual: str, linear: str, norm: str) -> tuple[str, str]:
        """The normed sum and the sum of `residual` and of `product`, to which the bias of `linear` is still to come."""
        bias, scale = self._optional(f"{linear}.bias"), self._weight(f"{norm}.weight")
        if not self._form.skip_norms:
            biased = self._writer.one("Add", [product, bias]) if bias else product
            added = self._writer.one("Add", [biased, residual])
            return self._norm(added, norm), added
        shift = self._optional(f"{norm}.bias")
        normed, _, _, added = self._writer.node(
            *("SkipLayerNormalization", [product, residual, scale, shift, bias], {"epsilon": self._config.norm_eps}),
            domain=MICROSOFT,
            outputs=4,
        )
        return normed, added

    # --- the end ------------------------------------------------------------------------------------------------------

    def _pool(self, states: str) -> str:
        """The pooled states [B, D], in float32 from here on: a sum of many float16 can overflow."""
        write = self._writer
        if self._config.classifier_pooling == "cls":
            first = write.one("Gather", [states, write.integer(0)], {"axis": 1})
            return write.cast(first, TensorProto.FLOAT) if self._form.half else first
        wide = write.cast(states, TensorProto.FLOAT) if self._form.half else states
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

    def _linear(self, states: str, name: str, half: int | None = None) -> str:
        product, bias = self._product(states, name, half), self._optional(f"{name}.bias", half)
        return self._writer.one("Add", [product, bias]) if bias else product

    def _product(self, states: str, name: str, half: int | None = None) -> str:
        return self._writer.one("MatMul", [states, self._weight(f"{name}.weight", half, transposed=True)])

    def _norm(self, states: str, name: str) -> str:
        inputs = [states, self._weight(f"{name}.weight"), self._optional(f"{name}.bias")]
        attributes = {"axis": -1, "epsilon": self._config.norm_eps}
        return self._writer.one("LayerNormalization", [item for item in inputs if item], attributes)

    def _optional(self, name: str, half: int | None = None) -> str:
        return self._weight(name, half) if name in self._weights else ""

    def _weight(self, name: str, half: int | None = None, *, transposed: bool = False) -> str:
        """A weight, or of its outputs the first half or the second."""
        values: NDArray[Any] = self._weights[name].detach().float().cpu().numpy()
        if half is not None:
            name, values = f"{name}_{half}", np.split(values, 2)[half]
        return self._writer.constant(name, (values.T if transposed else values).astype(self._float))
