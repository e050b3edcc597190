"""ModernBERT for ONNX Runtime's CPU provider, from the nodes that have fast kernels there.

docs/performance.md compares it with other graphs.
"""

from typing import Any, ClassVar

from numpy.typing import NDArray

from mrpcbench.onnx_export.modernbert import Builder
from mrpcbench.onnx_export.writer import MICROSOFT


class ForCpu(Builder):
    """Computes the two halves of the gated MLP with separate matrix products, which avoids a Split node.

    The residual stream is kept at mean 0. Every layer reads it through a LayerNorm, which subtracts the mean. So the
    weights of each output projection can be centred beforehand, and LayerNorm(x) equals RMSNorm(x). The fused node of
    addition and RMSNorm has a fast kernel; SkipLayerNormalization has none. (LayerNorm becomes RMSNorm in this way in
    Ashkboos et al., "SliceGPT", 2024.)
    """

    separate: ClassVar[tuple[str, ...]] = ("Wi",)

    def _first_residual(self, states: str) -> str:
        mean = self._writer.one("ReduceMean", [states, self._writer.integers(-1)])
        return self._writer.one("Sub", [states, mean])

    def _project(self, states: str, residual: str, linear: str, norm: str) -> tuple[str, str]:
        product = self._writer.one("MatMul", [states, self._centred(f"{linear}.weight")])
        bias = self._centred(f"{linear}.bias") if f"{linear}.bias" in self._weights else ""
        normed, added = self._add_and_norm(product, residual, self._weight(f"{norm}.weight"), bias)
        shift = self._optional(f"{norm}.bias")
        return self._writer.one("Add", [normed, shift]) if shift else normed, added

    def _add_and_norm(self, product: str, residual: str, scale: str, bias: str) -> tuple[str, str]:
        """The RMSNorm of the sum of `product`, `residual` and, unless it is "", `bias`; and the sum."""
        inputs = [product, residual, scale, *([bias] if bias else [])]
        normed, _, _, added = self._writer.node(
            *("SkipSimplifiedLayerNormalization", inputs, {"epsilon": self._config.norm_eps}),
            domain=MICROSOFT,
            outputs=4,
        )
        return normed, added

    def _centred(self, name: str) -> str:
        """A weight [out, in] or bias [out] minus its mean over the outputs, as [in, out] or [out]."""
        values: NDArray[Any] = self._weights[name].detach().double().cpu().numpy()
        return self._writer.constant(f"{name}_centred", (values - values.mean(axis=0)).T.astype(self._float))


class ForInt8(ForCpu):
    """Has more and faster nodes, because around integer products the other nodes take a larger share of the time.

    Queries, keys and values are separate products too. An addition and an RMSNorm take a third of the time of the fused
    node, of which a graph with small layers in float32 would see only the cost of another node.
    """

    separate: ClassVar[tuple[str, ...]] = ("Wi", "Wqkv")

    def _add_and_norm(self, product: str, residual: str, scale: str, bias: str) -> tuple[str, str]:
        added = self._writer.one("Add", [product, residual])
        added = self._writer.one("Add", [added, bias]) if bias else added
        return self._writer.one("RMSNormalization", [added, scale], {"epsilon": self._config.norm_eps}), added
