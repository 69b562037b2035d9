"""What each table holds: one Arrow schema a table, and in each field's metadata a sentence on sign and unit.

`run` and `round` are no columns of the files: they are the directories' names, and the readers add them.
"""

from __future__ import annotations

import pyarrow as pa

from tasks.tables.sql_names import shown
from tasks.tables.uids import UID

DOC = b"doc"
UPSTREAM_DOC = "Carried over from the pool as it was."
TRUTH_DOC = "Known only because captions were swapped on purpose; the curation never reads it."
TRUTH = "truth_clean"
TARGET_PICTURES = pa.schema(
    [("role", pa.string()), ("name", pa.string()), ("digest", pa.binary(16)), ("place", pa.string())]
)
"""A row a picture of a catalog's target, held-out target and tests: by what it is known, and where it lies."""

PARTITIONS = {
    "run": (pa.string(), "The run: catalog name and 8 hex digits of the digest of catalog and pool."),
    "round": (pa.int32(), "The round, from 0."),
}
# The wording of `uid` is the same wherever it stands.
_UID = ("uid", UID, "Identity of the sample, 128 bits; as text 32 lowercase hex digits.")


def _schema(*columns: tuple[str, pa.DataType, str], nullable: tuple[str, ...] = ()) -> pa.Schema:
    return pa.schema([pa.field(name, kind, name in nullable, {DOC: doc.encode()}) for name, kind, doc in columns])


SAMPLES = _schema(
    _UID,
    (
        "shard",
        pa.string(),
        "The tar or file that holds the sample: a path below the pool's directory, an absolute path, or a URL.",
    ),
    ("key", pa.string(), "The sample's key in its shard; not an identity."),
    ("image_offset", pa.int64(), "First byte of the image in the tar; null in a pool of texts, as what follows."),
    ("image_size", pa.int64(), "Length of the image, bytes."),
    ("text_offset", pa.int64(), "First byte of the caption in the tar."),
    ("text_size", pa.int64(), "Length of the caption, bytes."),
    ("json_offset", pa.int64(), "First byte of the json member in the tar; null when the sample has none."),
    ("json_size", pa.int64(), "Length of the json member, bytes; null when the sample has none."),
    ("image_format", pa.string(), "What the image bytes are: png, jpg or webp."),
    ("text", pa.string(), "The caption; of a pool of texts, the prompt and, on a new line, the completion."),
    ("width", pa.int32(), "Width of the image, pixels."),
    ("height", pa.int32(), "Height of the image, pixels."),
    nullable=(
        *("image_offset", "image_size", "image_format", "text_offset", "text_size", "json_offset", "json_size"),
        *("width", "height"),
    ),
)

METAGRADIENTS = _schema(
    _UID,
    (
        "g",
        pa.float64(),
        "d phi / d weight of the sample, nats; negative: more of this sample lowers the target loss.",
    ),
    ("probed", pa.bool_(), "True if this round computed g for the sample; false rows hold g = 0."),
    ("visits", pa.int32(), "Times the sample stood in a batch of the differentiated steps."),
    (
        "g_error",
        pa.float64(),
        "Standard error of g over the steps at which samples are probed, nats; null where it is not known.",
    ),
    nullable=("g_error",),
)

BELIEFS = _schema(
    _UID,
    (
        "g_mean",
        pa.float64(),
        "What the sample's g is taken for after the round, its noise off, nats (with descent.scale = 'count', median "
        "sizes of g): the mean over rounds, shrunk towards what groups and other samples say.",
    ),
    ("g_sd", pa.float64(), "Standard deviation that is left of it, in the same unit."),
    (
        "p_helps",
        pa.float64(),
        "Probability, 0 to 1, that g is below 0: that more of the sample lowers the target loss.",
    ),
)

COUNTS = _schema(
    _UID,
    (
        "count",
        pa.int32(),
        "Times the sample stands in the round's training multiset; 0: dropped. Round 0: ones, or the catalog's start.",
    ),
)

ROUNDS = _schema(
    (
        "target_loss",
        pa.float64(),
        "phi: loss on the target task, nats; of many tasks the sum of weight x loss / loss after round 0; what the "
        "metagradient differentiates; lower is better.",
    ),
    (
        "target_accuracy",
        pa.float64(),
        "Accuracy on the target, 0 to 1: zero-shot, or of answers; of many tasks the weighted mean of their metrics.",
    ),
    ("target_n", pa.int64(), "Pictures or questions of the target; null in tables of earlier versions."),
    (
        "heldout_loss",
        pa.float64(),
        "The same of the held-out target; chooses the round; never differentiated.",
    ),
    ("heldout_accuracy", pa.float64(), "Accuracy on the held-out target, 0 to 1."),
    ("heldout_n", pa.int64(), "Pictures or questions of the held-out target; null in tables of earlier versions."),
    ("temperature", pa.float64(), "What similarities are multiplied by before the softmax; null for a language model."),
    ("train_loss", pa.float64(), "Mean training loss over the last steps, nats."),
    ("advances", pa.int64(), "Training steps run, replays included."),
    ("reverse_steps", pa.int64(), "Steps differentiated backwards."),
    ("peak_states", pa.int64(), "Most training states held in memory at once."),
    ("peak_bytes", pa.int64(), "Bytes of the most training states held in memory at once."),
    ("distinct_samples", pa.int64(), "Samples with count > 0."),
    ("total", pa.int64(), "Sum of the counts: size of the training multiset."),
    ("probed", pa.int64(), "Samples whose g was computed."),
    ("raised", pa.int64(), "Samples whose count this round's update raised."),
    ("lowered", pa.int64(), "Samples whose count this round's update lowered."),
    (
        "blend",
        pa.string(),
        "Filter that chose the round's samples together with g; null: counts that were descended to.",
    ),
    nullable=("temperature", "target_n", "heldout_n", "blend"),
)

TASK_SCORES = _schema(
    ("task", pa.string(), "One of the tasks that the target is a sum of."),
    ("part", pa.string(), "target: what the descent lowers; heldout: what chooses the round."),
    ("loss", pa.float64(), "The task's loss, nats, at its own temperature; lower is better."),
    ("metric", pa.string(), "How the task is measured, as in evaluations."),
    ("value", pa.float64(), "What was measured, in the metric's unit; higher is better."),
)

TASK_METAGRADIENTS = _schema(
    _UID,
    ("task", pa.string(), "A task, or a group of tasks by the catalog's name (targets.groups)."),
    (
        "g",
        pa.float64(),
        "d of its share of phi (weight x loss / loss after round 0) / d weight of the sample; negative: more of the "
        "sample lowers the loss. The shares of all tasks add up to g.",
    ),
)

EVALUATIONS = _schema(
    (
        "subset",
        pa.string(),
        "What was trained on: everything, mgd, random, oracle, what a filter chose (by groups, behind its @ their "
        "column), or a rival by the catalog's name; "
        "checkpoint: a model from elsewhere (`mgd evaluate`).",
    ),
    ("seed", pa.int32(), "Seed of the training."),
    ("task", pa.string(), "What was tested."),
    ("metric", pa.string(), "How the result is measured, e.g. acc1 (share of right answers, 0 to 1)."),
    ("value", pa.float64(), "The result, in the metric's unit."),
    ("n", pa.int64(), "Pictures or questions that it was measured on; null in tables of earlier versions."),
    (
        "standard_error",
        pa.float64(),
        "Of the value by the choice of the n, in its unit: sqrt(value (1 - value) / n); null where it is no accuracy.",
    ),
    ("samples_seen", pa.int64(), "Samples the training went through, repeats included; null where nobody knows."),
    ("samples", pa.int64(), "Size of the training multiset, copies counted; null where nobody knows."),
    ("distinct_samples", pa.int64(), "Different samples of the training multiset; null where nobody knows."),
    nullable=("n", "standard_error", "samples_seen", "samples", "distinct_samples"),
)

ANSWERS = _schema(
    ("subset", pa.string(), "What was trained on, as in evaluations."),
    ("seed", pa.int32(), "Seed of the training."),
    ("task", pa.string(), "What was tested."),
    ("metric", pa.string(), "The accuracy that is the share of right answers, as in evaluations."),
    ("n", pa.int64(), "Pictures or questions of the test."),
    (
        "correct",
        pa.string(),
        "A letter each, in the order of the test: 1 where the model was right, else 0.",
    ),
)

PAIRED_DIFFERENCES = _schema(
    ("subset", pa.string(), "The rival, as in evaluations."),
    ("task", pa.string(), "What was tested."),
    ("metric", pa.string(), "The accuracy that is compared, as in evaluations."),
    (
        "difference",
        pa.float64(),
        "Accuracy of mgd less that of the rival, -1 to 1, mean over the seeds; positive: mgd is better.",
    ),
    ("low", pa.float64(), "2.5th percentile of the difference over resampled seeds and pictures, the same for both."),
    ("high", pa.float64(), "97.5th percentile of the difference."),
    ("seeds", pa.int32(), "Seeds that all subsets were trained with."),
    ("n", pa.int64(), "Pictures or questions of the test."),
)

CHOICES = _schema(
    ("rule", pa.string(), "How the round was chosen."),
    ("value", pa.float64(), "What the rule measured at the chosen round (its `round`), in its unit; null: no rounds."),
    nullable=("value",),
)

SMOOTHNESS = _schema(
    ("variant", pa.string(), "The recipe: `as it is`, or the one knob that is turned and its value."),
    ("direction", pa.int32(), "Number of the random direction of example weights, from 0."),
    ("h", pa.float64(), "Step along the direction: weights are 1, 1 + h v and 1 + 2 h v with v ~ N(0, 1)."),
    ("score", pa.float64(), "Metasmoothness S (Definition 2), -1 to 1; 1: smooth; null where there is none."),
    (
        "curvature",
        pa.float64(),
        "Second difference of the target loss along the direction (Definition 1), nats per h squared; 0: straight.",
    ),
    ("movement", pa.float64(), "Sum of |change| of all trained parameters over the whole stretch, 2 h v."),
    ("target_loss", pa.float64(), "Loss on the target tasks with all weights 1, nats."),
    ("heldout_accuracy", pa.float64(), "Accuracy on the held-out target with all weights 1, 0 to 1."),
    ("failure", pa.string(), "Why there is no score: what became NaN or infinite; empty where there is one."),
    (
        "lds",
        pa.float64(),
        "Rank correlation of predicted and true changes of the target loss without random subsets; null: not asked.",
    ),
    nullable=("lds", "score", "curvature", "movement", "target_loss", "heldout_accuracy"),
)

INFLUENCES = _schema(
    ("uid", UID, "Identity of the training sample."),
    ("label", pa.string(), "The class that it was trained as."),
    ("output", pa.string(), "The output of the trained model: a class of the target split, or a uid of it."),
    (
        "g",
        pa.float64(),
        "d output / d weight of the sample, in the output's unit; dropping it changes the output by -g.",
    ),
)

OUTPUTS = _schema(
    ("output", pa.string(), "A class of the target split, or the uid of one of its pictures."),
    ("measure", pa.string(), "loss: cross-entropy, nats, lower is better; margin: log odds of the right class."),
    ("value", pa.float64(), "The output of the model trained on everything, in the measure's unit."),
    ("pictures", pa.int32(), "Pictures that it is the mean over."),
)

DROPS = _schema(
    ("share", pa.float64(), "Share of the training samples that was dropped at random, 0 to 1."),
    ("subset", pa.int32(), "Number of the random subset, from 0."),
    ("output", pa.string(), "The output, as in outputs."),
    ("predicted", pa.float64(), "Change of the output that the metagradients predict, in its unit."),
    ("measured", pa.float64(), "Change of the output after training again without the subset, in its unit."),
)

DATAMODELLING_SCORES = _schema(
    ("share", pa.float64(), "Share of the training samples that was dropped at random, 0 to 1."),
    ("output", pa.string(), "The output, as in outputs; mean: the mean over all of them."),
    ("score", pa.float64(), "Spearman's rank correlation of predicted and measured changes, -1 to 1; 1: same order."),
    ("low", pa.float64(), "2.5th percentile of the score over resampled subsets."),
    ("high", pa.float64(), "97.5th percentile of the score over resampled subsets."),
    ("subsets", pa.int32(), "Random subsets that were trained without."),
)

SCHEDULES = _schema(
    ("schedule", pa.string(), "descent: after so many metagradient steps from a flat one; grid: the best one-cycle."),
    ("number", pa.int32(), "Metagradient steps taken; of the grid, the number of the one-cycle."),
    (
        "target_loss",
        pa.float64(),
        "Loss on the target split of the training at it, nats; the best so far in the descent.",
    ),
    ("step", pa.int32(), "Training step, from 0."),
    ("learning_rate", pa.float64(), "Learning rate of the training step."),
)

SCHEDULE_SCORES = _schema(
    ("schedule", pa.string(), "descent: the last of the descent; grid: the one-cycle with the least target loss."),
    ("seed", pa.int32(), "Seed of a training afresh, which neither the descent nor the grid has used."),
    ("tried", pa.int32(), "Metagradient steps, or one-cycles, that it is the best of."),
    ("target_loss", pa.float64(), "Loss on the target split, nats; what both were chosen by."),
    ("target_accuracy", pa.float64(), "Accuracy on the target split, 0 to 1."),
    ("test_loss", pa.float64(), "Loss on the test split, nats; seen by neither."),
    ("test_accuracy", pa.float64(), "Accuracy on the test split, 0 to 1."),
)

POISONS = _schema(
    ("method", pa.string(), "mgd, noise, flips or cancel: who changed the sample."),
    ("uid", UID, "Identity of the changed training sample."),
    ("label", pa.string(), "Its class before the change."),
    ("shown_as", pa.string(), "Its most probable class after the change."),
    ("pixel_change", pa.float64(), "Mean change of a pixel, as a share of its range, 0 to 1."),
    ("label_change", pa.float64(), "Probability that was moved to other classes, 0 to 1."),
    (
        "g",
        pa.float64(),
        "d loss on a clean target / d weight of the sample in the poisoned training, nats; positive: harmful; null if "
        "that training has no finite metagradient.",
    ),
    ("place", pa.int32(), "Place of its g among all training samples; 1: the most harmful."),
    nullable=("g", "place"),
)

POISON_EFFECTS = _schema(
    ("method", pa.string(), "clean: nothing changed; mgd, noise, flips or cancel: who changed samples."),
    ("recipe", pa.string(), "smooth: the study's own; plain: momentum SGD with another start, to which it transfers."),
    ("changed", pa.int32(), "Training samples that were changed."),
    ("spotted", pa.float64(), "Chance that a changed sample has a higher g than another; 0.5: blind; null: not asked."),
    ("target_loss", pa.float64(), "Loss on the target split, nats, which mgd and cancel raise."),
    ("target_accuracy", pa.float64(), "Accuracy on the target split, 0 to 1."),
    ("test_loss", pa.float64(), "Loss on the test split, nats; seen by no method."),
    ("test_accuracy", pa.float64(), "Accuracy on the test split, 0 to 1."),
    ("drop", pa.float64(), "Test accuracy lost against clean by the same recipe, 0 to 1."),
    ("drop_error", pa.float64(), "Standard error of the drop over the test pictures, each paired with itself."),
    nullable=("spotted",),
)

REJECTS = _schema(
    ("shard", pa.string(), "The tar that holds the rejected sample, as in samples."),
    ("member", pa.string(), "Key or member name in the tar; empty when the tar itself is damaged."),
    ("uid", UID, "Identity of the sample; null when it is not known."),
    ("reason", pa.string(), "Why it was rejected, one word of a fixed list."),
    ("detail", pa.string(), "What was seen, for a person."),
    nullable=("uid",),
)

TIMINGS = _schema(
    ("phase", pa.string(), "What was being done."),
    ("seconds", pa.float64(), "Wall time, seconds; the only table that differs between equal runs."),
)

TABLES: dict[str, pa.Schema] = {
    "samples": SAMPLES,
    "metagradients": METAGRADIENTS,
    "beliefs": BELIEFS,
    "counts": COUNTS,
    "rounds": ROUNDS,
    "task_scores": TASK_SCORES,
    "task_metagradients": TASK_METAGRADIENTS,
    "evaluations": EVALUATIONS,
    "answers": ANSWERS,
    "paired_differences": PAIRED_DIFFERENCES,
    "choices": CHOICES,
    "smoothness": SMOOTHNESS,
    "influences": INFLUENCES,
    "outputs": OUTPUTS,
    "drops": DROPS,
    "datamodelling_scores": DATAMODELLING_SCORES,
    "schedules": SCHEDULES,
    "schedule_scores": SCHEDULE_SCORES,
    "poisons": POISONS,
    "poison_effects": POISON_EFFECTS,
    "rejects": REJECTS,
    "timings": TIMINGS,
}
# What a row of each table is.
SHOWS = {
    "samples": "One row a sample of the pool: where its bytes are, its caption, and what the pool knew.",
    "metagradients": "One row a sample and round: how the target loss answers to more of the sample.",
    "beliefs": "One row a sample and round: what its g is taken for after the round, and how surely.",
    "counts": "One row a sample and round: how often the round trained on it.",
    "rounds": "One row a round: losses, accuracies, costs and sizes.",
    "task_scores": "One row a round, task and part, of many tasks: what the round's model is worth to each.",
    "task_metagradients": "One row a probed sample and task, of many: how each task's loss answers to the sample.",
    "evaluations": "One row a subset, seed, task and metric: the trainings afresh on test data, and `mgd evaluate`.",
    "answers": "One row a subset, seed and test of the comparison: which pictures or questions it had right.",
    "paired_differences": "One row a rival and test: how far mgd is ahead on the same samples and seeds, and how sure.",
    "choices": "One row: the round that was chosen, and by what rule.",
    "smoothness": "One row a recipe and direction: how smoothly the trained model answers to example weights.",
    "influences": "One row a training sample and output (`mgd attribute`): what the output owes to the sample.",
    "outputs": "One row an output of a trained classifier (`mgd attribute`).",
    "drops": "One row a random subset and output (`mgd attribute --validate`): the predicted and the true change.",
    "datamodelling_scores": "One row a share and output (`mgd attribute --validate`): how well drops are predicted.",
    "schedules": "One row a schedule and training step (`mgd schedule`): the descent step by step, the best one-cycle.",
    "schedule_scores": "One row a schedule and seed (`mgd schedule`): trainings afresh at the best of each kind.",
    "poisons": "One row a method and changed sample (`mgd poison`): what was changed, and whether g tells.",
    "poison_effects": "One row a method and recipe (`mgd poison`): what the changed samples did.",
    "rejects": "One row a sample or tar that could not be used, with the reason.",
    "timings": "One row a phase of a round: wall seconds.",
}
# Tables of which earlier versions knew fewer columns: those are null in their files.
GROWN = {"evaluations", "rounds", "choices", "metagradients"}
# Tables to which a pool adds columns of its own.
OPEN = {"samples"}
# What earlier versions called a column, by what it is called now.
FORMER = {"rounds": {"distinct_samples": "distinct"}}
# Versions of tables whose columns have changed their meaning since the first; one more column makes no new version.
VERSIONS: dict[str, int] = {}
# Tables with one row a sample: sorted by uid, no uid twice.
BY_UID = {"samples", "metagradients", "beliefs", "counts"}


def version_of(table: str) -> int:
    """The version of a table's schema."""
    return VERSIONS.get(table, 1)


def upstream_field(name: str, kind: pa.DataType, original: str | None = None, doc: str = "") -> pa.Field:
    """The schema's field for a column that the pool brought along, where it is called `original` (None: the same);
    `doc`: what is known of it already."""
    doc = doc or (TRUTH_DOC if name.startswith("truth_") else UPSTREAM_DOC)
    if original not in (None, name):
        doc = f"{UPSTREAM_DOC[:-1]}; the pool calls it {shown(str(original))}."
    return pa.field(name, kind, True, {DOC: doc.encode()})


def knows_truth(samples: pa.Schema, column: str = TRUTH) -> bool:
    """Whether a samples table tells which samples are right; a pool may mean something else by that name."""
    return column in samples.names and pa.types.is_boolean(samples.field(column).type)


def doc_of(field: pa.Field) -> str:
    """The sentence on a column, empty if it has none."""
    return (field.metadata or {}).get(DOC, b"").decode()
