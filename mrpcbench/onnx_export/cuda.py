"""ModernBERT for ONNX Runtime's CUDA provider, with one node for addition and LayerNorm."""

from mrpcbench.onnx_export.modernbert import Builder
from mrpcbench.onnx_export.writer import MICROSOFT


class ForCuda(Builder):
    """Uses the provider's fused kernels: flash attention in global layers, memory-efficient attention in local ones."""

    # Memory-efficient attention takes two kernels with a mask, and four with a mask and the number of real tokens.
    window_covers_padding = True

    def _first_residual(self, states: str) -> str:
        return states

    def _project(self, states: str, residual: str, linear: str, norm: str) -> tuple[str, str]:
        scale, shift = self._weight(f"{norm}.weight"), self._optional(f"{norm}.bias")
        inputs = [self._product(states, linear), residual, scale, shift, self._optional(f"{linear}.bias")]
        normed, _, _, added = self._writer.node(
            *("SkipLayerNormalization", inputs, {"epsilon": self._config.norm_eps}), domain=MICROSOFT, outputs=4
        )
        return normed, added
