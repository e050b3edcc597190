"""ModernBERT for ONNX Runtime's CPU provider: the nodes whose kernels there are fast.

What the others take: docs/performance.md.
"""

from typing import Any

from numpy.typing import NDArray

from mrpcbench.onnx_export.modernbert import Builder
from mrpcbench.onnx_export.writer import MICROSOFT


class ForCpu(Builder):
    """The halves of the gated MLP are products of their own, so that no node has to take them apart.

    The residual stream has the mean 0. Every layer reads it through a LayerNorm, which takes its mean away, so that
    what is added to it may be centred beforehand, in the weights: LayerNorm(x) is then RMSNorm(x), whose node with an
    addition in it has a fast kernel, as SkipLayerNormalization has not. (Ashkboos et al., "SliceGPT", 2024, turn
    LayerNorm into RMSNorm so.)
    """

    # Of the attention that is told how many tokens of a pair are real.
    opset = 24

    def _read_lengths(self, columns: str) -> None:
        self._real = self._writer.one("ReduceSum", ["attention_mask", self._writer.integers(1)], {"keepdims": 0})

    def _attention(self, states: str, layer: int, band: str) -> str:
        heads, packed = self._config.num_attention_heads, self._linear(states, f"model.layers.{layer}.attn.Wqkv")
        query, key, value = self._writer.node("Split", [packed], {"axis": -1, "num_outputs": 3}, outputs=3)
        start, tables = self._writer.integers(0), self._rotary(layer)
        turned = [
            self._writer.one("RotaryEmbedding", [item, start, *tables], {"num_heads": heads}, domain=MICROSOFT)
            for item in (query, key)
        ]
        attributes = {"q_num_heads": heads, "kv_num_heads": heads}
        return self._writer.one("Attention", [*turned, value, band, "", "", self._real], attributes)

    def _gated(self, states: str, name: str) -> str:
        return self._gate(*(self._linear(states, f"{name}.Wi", half) for half in (0, 1)))

    def _first_residual(self, states: str) -> str:
        mean = self._writer.one("ReduceMean", [states, self._writer.integers(-1)])
        return self._writer.one("Sub", [states, mean])

    def _project(self, states: str, residual: str, linear: str, norm: str) -> tuple[str, str]:
        product = self._writer.one("MatMul", [states, self._centred(f"{linear}.weight")])
        bias = [self._centred(f"{linear}.bias")] if f"{linear}.bias" in self._weights else []
        normed, _, _, added = self._writer.node(
            "SkipSimplifiedLayerNormalization",
            [product, residual, self._weight(f"{norm}.weight"), *bias],
            {"epsilon": self._config.norm_eps},
            domain=MICROSOFT,
            outputs=4,
        )
        shift = self._optional(f"{norm}.bias")
        return self._writer.one("Add", [normed, shift]) if shift else normed, added

    def _centred(self, name: str) -> str:
        """A weight [out, in] or [out] less its mean over the outputs, as [in, out] or [out]."""
        values: NDArray[Any] = self._weights[name].detach().double().cpu().numpy()
        return self._writer.constant(f"{name}_centred", (values - values.mean(axis=0)).T.astype(self._float))
