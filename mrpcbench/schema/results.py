"""The results of `train`, `evaluate` and `export`. Standard library only."""

from typing import Literal

from mrpcbench.schema.fields import about, described
from mrpcbench.schema.identity import ModelIdentity, Placement
from mrpcbench.schema.requests import BackendSpec, Optimize, TrainRecipe
from mrpcbench.schema.verdicts import Interval, Verdict

# What a trial of the export gate compares.
TrialKind = Literal["split", "joined", "padding"]

# --- results ----------------------------------------------------------------------------------------------------------


@described
class Confusion:
    """Counts of a binary classification; positive means equivalent."""

    true_positive: int = about("Equivalent pairs predicted as equivalent.")
    false_positive: int = about("Non-equivalent pairs predicted as equivalent.")
    false_negative: int = about("Equivalent pairs predicted as not equivalent.")
    true_negative: int = about("Non-equivalent pairs predicted as not equivalent.")


@described
class EvalScore:
    """Scores of a classifier on labelled pairs, and of the baseline that always answers the majority class."""

    pairs: int = about("Pairs scored.")
    accuracy: float = about("Share predicted correctly.")
    accuracy_interval: Interval = about("Interval of the accuracy.")
    f1: float = about("F1 of the class 'equivalent' (GLUE's definition); 0 if it is undefined.")
    f1_interval: Interval = about("Interval of F1.")
    precision: float = about("Precision of 'equivalent'; 0 if no pair was predicted as equivalent.")
    recall: float = about("Recall of 'equivalent'.")
    loss: float | None = about("Mean cross-entropy in nats; null if it is not finite.")
    confusion: Confusion = about("The four counts.")
    majority_accuracy: float = about("Accuracy of always answering the majority class.")
    majority_f1: float = about("F1 of always answering the majority class.")


@described
class EpochMetrics:
    """One line of the training log: what the Trainer logged at the end of an epoch."""

    step: int = about("Optimiser steps so far.")
    train_loss: float | None = about(
        "Mean training loss of the steps since the last line, or since the run was resumed; null if it is not finite."
    )
    train_grad_norm: float | None = about("Gradient norm of the last step, before clipping.")
    train_learning_rate: float = about("Learning rate of the last step.")
    train_epoch: float = about("Epochs so far.")
    eval_loss: float | None = about("Validation loss; null if it is not finite.")
    eval_accuracy_score: float = about("Validation accuracy.")
    eval_f1_score: float = about("Validation F1.")


@described
class LoadReport:
    """Keys that did not match when the weights were loaded; the new classification head is not among them."""

    new_head: tuple[str, ...] = about("Weights of the classification head that were newly initialised.", default=())
    missing: tuple[str, ...] = about(
        "Weights of the encoder that the checkpoint lacks and that were newly initialised.", default=()
    )
    unexpected: tuple[str, ...] = about("Weights in the checkpoint that the classifier does not use.", default=())
    loaded_sha256: str | None = about(
        "Hash of the weights that came from the checkpoint, if others were newly initialised; null if none were.",
        default=None,
    )


@described
class TrainSection:
    """Results of `train`."""

    recipe: TrainRecipe = about("The requested recipe, with the engine that trained in place of 'auto'.")
    placement: Placement = about("Where and in which precision it trained; of several processes, the first.")
    processes: int = about("Processes that shared each batch.", default=1)
    devices: tuple[str, ...] = about("The device of each process; empty in older records.", default=())
    base_model: ModelIdentity = about("The model that training started from.")
    load_report: LoadReport = about("Keys that did not match when the base model was loaded.")
    aligned_tokens: dict[str, int | None] = about("Special tokens of the config that were aligned with the tokenizer.")
    total_steps: int = about("Optimiser steps of the whole run.")
    resumed_from_step: int | None = about("Step of the checkpoint that the run continued from; null for a fresh run.")
    epochs: tuple[EpochMetrics, ...] = about("One line per epoch.")
    best_step: int | None = about("Step whose weights were saved as the model; null until the run ends.")
    train_s: float | None = about(
        "Wall-clock seconds of the training loop in this process, with evaluations and saving; null if this process "
        "had no step left to train."
    )
    cold_s: float | None = about(
        "Part of train_s for one-time work: the first step and, on a GPU, the warm-up of each batch shape (--engine "
        "trainer) or the captures of CUDA graphs (--engine packed).",
        default=None,
    )
    evaluate_s: float | None = about("Part of train_s for the evaluations.", default=None)
    save_s: float | None = about("Part of train_s for saving checkpoints.", default=None)
    pushed: str | None = about("Address of the commit that --push-to-hub made; null if there is none.", default=None)
    real_tokens: int = about("Training tokens that are not padding, since the start or the resumption.")
    padding_tokens: int = about("Training tokens that are padding, since the start or the resumption.")


@described
class EvaluateSection:
    """Results of `evaluate`."""

    spec: BackendSpec = about("What was requested of the engine.")
    placement: Placement = about("What really ran.")
    batch_size: int = about("Pairs in one forward pass.")
    score: EvalScore = about("The score.")
    predictions_file: str = about("Name of the file of predictions, one JSON line per pair; empty if none was written.")
    predictions_sha256: str = about("Hash of that file.")
    real_tokens: int = about("Tokens that are not padding.")
    padding_tokens: int = about("Padding that the engine computes, in tokens.")


@described
class ParityTrial:
    """One row of the export gate: two answers to the same pairs, at one batch size and padding of the graph."""

    kind: TrialKind = about(
        "What is compared: split, the graph with the original model on every pair of the split; joined, the same on "
        "short and long pairs of joined sentences; padding, the graph with itself on these, with other padding tokens.",
        default="split",
    )
    pairs: int | None = about("Pairs of the trial; null in older records: those of the split.", default=None)
    batch_size: int = about("Pairs in one forward pass.")
    padding: str = about("Padding of the batches.")
    padding_tokens: int = about("Tokens that are padding.")
    flips: int = about("Pairs whose prediction differs.")
    max_abs_delta: float | None = about("Largest |difference| of a logit; null if a logit is not finite.")
    p99_abs_delta: float | None = about("99th percentile of the |differences|; null if a logit is not finite.")
    f1: float | None = about("F1 of the graph's predictions; null if the split has no labels.", default=None)


@described
class ExportGate:
    """Whether an exported graph gives the answers of the model (for the rule, see docs/export.md)."""

    pairs: int = about("Pairs of the split.")
    trials: tuple[ParityTrial, ...] = about(
        "One for each batch size and padding of the split, and one each for joined pairs and for other padding tokens."
    )
    flips_allowed: int = about("Largest number of flips in any trial that passes.")
    delta_allowed: float | None = about(
        "Largest |difference| of a logit from the original model that passes; null if it is not limited."
    )
    f1_allowed: Interval | None = about(
        "Interval of the original model's F1, which must contain the F1 of every trial; null if F1 is not judged, "
        "because the graph is not int8 or the split has no labels.",
        default=None,
    )
    logit_spread: float | None = about(
        "Standard deviation of the original model's logits over all pairs, as the root mean square over the two "
        "logits; null in older records, or if a logit is not finite.",
        default=None,
    )
    p99_allowed: float | None = about(
        "Largest 99th percentile of the |differences| from the original model that passes; null if it is not limited.",
        default=None,
    )
    padding_delta_allowed: float | None = about(
        "Largest |difference| of a logit that passes when padding tokens are replaced; null in older records.",
        default=None,
    )
    smallest_margin: float | None = about(
        "Smallest |logit 1 - logit 0| of the original model over the pairs; null if one is not finite."
    )
    headroom: float | None = about(
        "Smallest margin divided by the largest |difference|; above 2, no label can change; null if the difference is "
        "0 or not finite."
    )
    flip_rate_bound: float = about("Exact upper bound, at 95% confidence, of the flip rate on similar pairs.")
    verdict: Verdict = about("The outcome.")


@described
class PairSpeed:
    """Time of one pair in the graph and in the original model, called in turn on the device of the export gate."""

    pairs: int = about("Number of pairs.")
    graph_ms: float = about("Median time of one pair in the graph, in milliseconds.")
    original_ms: float = about("Median time of one pair in the original model in float32, in milliseconds.")
    speedup: float = about("Median over the pairs of the original model's time divided by the graph's.")
    interval: Interval = about("Interval of the speedup.")


@described
class ExportSection:
    """Results of `export`: the graph, and whether it matches the model."""

    dtype: str = about("Precision of the graph.")
    optimize: Optimize = about(
        "Form of the graph: none (Optimum's), cpu, cuda, int8, or o3, o4 (Optimum's after its optimiser).",
        default="none",
    )
    opset: int = about("ONNX operator set of the graph.")
    nodes: int = about("Nodes of the graph.")
    files: dict[str, int] = about("Files of the ONNX model and their sizes in bytes.")
    placement: Placement = about("Where the graph ran for the export gate.")
    pushed: str | None = about("Address of the commit that --push-to-hub made; null if there is none.", default=None)
    reference: Placement = about("Where the original model ran for the export gate.")
    gate: ExportGate | None = about("The result of the export gate; null until it is done.")
    pair_speed: PairSpeed | None = about(
        "Time of one pair; null until it is measured, and in older records.", default=None
    )
