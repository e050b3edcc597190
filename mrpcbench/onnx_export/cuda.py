"""ModernBERT for ONNX Runtime's CUDA provider, with fused nodes for attention and for addition with LayerNorm."""

import numpy as np
from onnx import TensorProto

from mrpcbench.onnx_export.modernbert import Builder
from mrpcbench.onnx_export.writer import MICROSOFT


class ForCuda(Builder):
    """Uses the provider's fused kernels. They take query, key and value in one tensor, and each pair's last token."""

    # The first opset with Gelu. Later ones change nothing that is used here.
    opset = 20
    # The rotary kernels of GroupQueryAttention process 8 pairs of values at a time.
    head_multiple = 16

    def _read_lengths(self, columns: str) -> None:
        write = self._writer
        self._total = write.cast(columns, TensorProto.INT32)
        mask = write.cast("attention_mask", TensorProto.INT32)
        real = write.one("ReduceSum", [mask, write.integers(1)], {"keepdims": 0})
        self._last_token = write.one("Sub", [real, write.constant("one", np.array(1, dtype=np.int32))])

    def _attention(self, states: str, layer: int, band: str) -> str:
        """One node. Its own window option works only with causal attention, so the window is an added mask."""
        heads = self._config.num_attention_heads
        packed = self._linear(states, f"model.layers.{layer}.attn.Wqkv")
        inputs = [packed, "", "", "", "", self._last_token, self._total, *self._rotary(layer)]
        attributes = {"num_heads": heads, "kv_num_heads": heads, "do_rotary": 1, "causal": 0}
        return self._writer.node(
            *("GroupQueryAttention", [*inputs, *(["", band] if band else [])], attributes),
            domain=MICROSOFT,
            outputs=3,  # the kernel always writes keys and values for a later call
        )[0]

    def _gated(self, states: str, name: str) -> str:
        both = self._linear(states, f"{name}.Wi")
        return self._gate(*self._writer.node("Split", [both], {"axis": -1, "num_outputs": 2}, outputs=2))

    def _first_residual(self, states: str) -> str:
        return states

    def _project(self, states: str, residual: str, linear: str, norm: str) -> tuple[str, str]:
        scale, shift = self._weight(f"{norm}.weight"), self._optional(f"{norm}.bias")
        inputs = [self._product(states, linear), residual, scale, shift, self._optional(f"{linear}.bias")]
        normed, _, _, added = self._writer.node(
            *("SkipLayerNormalization", inputs, {"epsilon": self._config.norm_eps}), domain=MICROSOFT, outputs=4
        )
        return normed, added
