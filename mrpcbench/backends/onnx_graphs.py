"""An ONNX graph that runs as CUDA graphs: one launch per batch instead of one per node.

A CUDA graph captures the kernels of a run and launches them together. Shapes and addresses must stay the same, so
batches are padded to a few shapes, and each shape has fixed arrays that are refilled for every batch (documentation of
ONNX Runtime's CUDA execution provider, "Using CUDA Graphs").
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from mrpcbench.models.sources import LABELS

# Widths are multiples of this many tokens. MRPC's pairs then need six widths, 32 to 112, and 14% more tokens.
WIDTH_STEP = 16
# The largest number of captured shapes. Each one keeps memory for all its intermediate arrays.
MOST_SHAPES = 64
# The run option with the number of a CUDA graph; -1 runs without one.
GRAPH_NUMBER = "gpu_graph_id"


@dataclass(frozen=True)
class Shape:
    """The shape to which a batch is padded. `rows` is a power of two, `width` a multiple of a step, in tokens."""

    rows: int
    width: int

    @classmethod
    def around(cls, rows: int, width: int, step: int = WIDTH_STEP) -> "Shape":
        """The smallest shape that holds a batch of `rows` pairs of `width` tokens."""
        return cls(1 << (rows - 1).bit_length(), -(-width // step) * step)


def padded(inputs: Mapping[str, NDArray[np.int64]], shape: Shape) -> dict[str, NDArray[np.int64]]:
    """`inputs` [B, L] padded with zeros to `shape`. An added row has one unmasked token.

    Without one, mean pooling would compute 0 / 0.
    """
    found = {}
    for name, values in inputs.items():
        rows, width = values.shape
        found[name] = np.zeros((shape.rows, shape.width), dtype=np.int64)
        found[name][:rows, :width] = values
        if name == "attention_mask":
            found[name][rows:, 0] = 1
    return found


class Slot:
    """The fixed input and output arrays of one shape, and the number of its CUDA graph."""

    def __init__(self, session: ort.InferenceSession, device: str, names: tuple[str, ...], shape: Shape, number: int):
        tokens = [shape.rows, shape.width]
        self.shape = shape
        self.inputs = {name: ort.OrtValue.ortvalue_from_shape_and_type(tokens, np.int64, device, 0) for name in names}
        self.logits = ort.OrtValue.ortvalue_from_shape_and_type([shape.rows, LABELS], np.float32, device, 0)
        self.binding = session.io_binding()
        for name, value in self.inputs.items():
            self.binding.bind_ortvalue_input(name, value)
        self.binding.bind_ortvalue_output("logits", self.logits)
        self.options = ort.RunOptions()
        self.options.add_run_config_entry(GRAPH_NUMBER, str(number))


@dataclass(frozen=True)
class Loaded:
    """A batch in the arrays of its shape; the next batch of that shape overwrites it."""

    slot: Slot
    rows: int


class Replayer:
    """Runs a session with padded shapes. The provider captures each shape at its first run, and replays it later."""

    def __init__(self, session: ort.InferenceSession, device: str) -> None:
        self.session = session
        self._device = device
        self._names = tuple(item.name for item in session.get_inputs())
        self._slots: dict[Shape, Slot] = {}

    def copy_in(self, inputs: Mapping[str, NDArray[np.int64]]) -> Loaded:
        """Copy `inputs` [B, L] into the arrays of the shape around them, over the previous batch."""
        rows, width = inputs["input_ids"].shape
        slot = self._slot(Shape.around(rows, width))
        for name, values in padded(inputs, slot.shape).items():
            slot.inputs[name].update_inplace(values)
        return Loaded(slot, rows)

    def compute(self, loaded: Loaded) -> Loaded:
        """Replay the CUDA graph of the batch's shape; the first run captures it."""
        self.session.run_with_iobinding(loaded.slot.binding, loaded.slot.options)
        return loaded

    def copy_out(self, loaded: Loaded) -> NDArray[np.float32]:
        """Logits [B, 2] of the batch, without the added rows."""
        logits: NDArray[np.float32] = loaded.slot.logits.numpy()[: loaded.rows].copy()
        return logits

    def _slot(self, shape: Shape) -> Slot:
        if shape not in self._slots:
            # Numbers are not reused, because a CUDA graph outlives its arrays. Shapes beyond the limit run without one.
            number = len(self._slots) if len(self._slots) < MOST_SHAPES else -1
            self._slots[shape] = Slot(self.session, self._device, self._names, shape, number)
        return self._slots[shape]
