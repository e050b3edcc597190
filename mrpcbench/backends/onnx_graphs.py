"""A graph that CUDA replays: one launch a batch in place of one a node, for shapes that come again.

CUDA can record the kernels of a run and launch them all at once, where shapes and addresses stay as they were. So
batches are padded to a few shapes, each with arrays of its own that are filled anew and never moved (ONNX Runtime's
documentation of the CUDA provider, "Using CUDA Graphs").
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

# Tokens by which the shapes differ: MRPC's pairs then fall into six widths, 32 to 112, with 14% more tokens.
WIDTH_STEP = 16
# Recorded shapes; each holds memory for all that is between its input and its output.
MOST_SHAPES = 64
LABELS = 2
# The run option by which the provider knows its recordings, and its value for a run without one.
RECORDING = "gpu_graph_id"


@dataclass(frozen=True)
class Shape:
    """The shape to which batches are padded: a power of two of rows, and a multiple of some step of tokens."""

    rows: int
    width: int

    @classmethod
    def around(cls, rows: int, width: int, step: int = WIDTH_STEP) -> "Shape":
        """The smallest shape that holds a batch of `rows` pairs of `width` tokens."""
        return cls(1 << (rows - 1).bit_length(), -(-width // step) * step)


def padded(inputs: Mapping[str, NDArray[np.int64]], shape: Shape) -> dict[str, NDArray[np.int64]]:
    """`inputs` [B, L] at the top left of zeros of `shape`; a row that is all padding gets one real token.

    Without any its mean would be 0 / 0, and its last token at -1.
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
    """The arrays of one shape, where the graph finds its inputs and leaves its logits, and the recording's number."""

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
        self.options.add_run_config_entry(RECORDING, str(number))


@dataclass(frozen=True)
class Loaded:
    """A batch in the arrays of its shape, until the next one of that shape takes its place."""

    slot: Slot
    rows: int


class Replayer:
    """Runs a session in as few shapes as its batches allow; the provider records each shape at its first run."""

    def __init__(self, session: ort.InferenceSession, device: str) -> None:
        self.session = session
        self._device = device
        self._names = tuple(item.name for item in session.get_inputs())
        self._slots: dict[Shape, Slot] = {}

    def copy_in(self, inputs: Mapping[str, NDArray[np.int64]]) -> Loaded:
        """Fill the arrays of the shape around `inputs` [B, L]. What was in them is gone."""
        rows, width = inputs["input_ids"].shape
        slot = self._slot(Shape.around(rows, width))
        for name, values in padded(inputs, slot.shape).items():
            slot.inputs[name].update_inplace(values)
        return Loaded(slot, rows)

    def compute(self, loaded: Loaded) -> Loaded:
        """Run the graph, or replay its recording."""
        self.session.run_with_iobinding(loaded.slot.binding, loaded.slot.options)
        return loaded

    def copy_out(self, loaded: Loaded) -> NDArray[np.float32]:
        """Logits [B, 2] of the batch that was copied in, without the rows that were added."""
        logits: NDArray[np.float32] = loaded.slot.logits.numpy()[: loaded.rows].copy()
        return logits

    def _slot(self, shape: Shape) -> Slot:
        if shape not in self._slots:
            # Numbers are never used again: a recording outlives its arrays. One shape too many runs unrecorded.
            number = len(self._slots) if len(self._slots) < MOST_SHAPES else -1
            self._slots[shape] = Slot(self.session, self._device, self._names, shape, number)
        return self._slots[shape]
