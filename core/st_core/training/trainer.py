"""Trainers of the three kinds of models, with the names and arguments of sentence-transformers 6.2.

They are ``transformers.Trainer`` with a module that returns its loss; see :mod:`st_core.training.objective`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from st_core.backends.torch.modules import LayerNormStep
from st_core.cross_encoder import CrossEncoder
from st_core.evaluation.evaluator import Evaluator, SequentialEvaluator
from st_core.model import Model
from st_core.sentence_transformer import SentenceTransformer
from st_core.sparse_encoder import SparseEncoder
from st_core.training.arguments import (
    CrossEncoderTrainingArguments,
    SentenceTransformerTrainingArguments,
    SparseEncoderTrainingArguments,
    TrainingArguments,
)
from st_core.training.callbacks import SpladeRegularizerWeightSchedulerCallback
from st_core.training.card import described_training
from st_core.training.checkpoints import (
    STATE_FILE,
    check_same_training,
    last_complete,
    load_objective,
    save_objective,
    staged,
)
from st_core.training.collator import Collator, PairCollator
from st_core.training.columns import LABELS
from st_core.training.devices import in_any_process
from st_core.training.examples import Concatenated, Example
from st_core.training.form import Form, computing_with, form_of, save_form, take_over, write_card
from st_core.training.losses.pairs import BinaryCrossEntropyLoss, CrossEntropyLoss
from st_core.training.losses.similarity import CoSENTLoss
from st_core.training.losses.sparse import SparseMultipleNegativesRankingLoss, SpladeLoss
from st_core.training.objective import Objective
from st_core.training.reading import DataSet, described, prompts_of_training, read_sets
from st_core.training.samplers import (
    BatchSamplers,
    DefaultBatchSampler,
    GroupByLabelBatchSampler,
    MultiDatasetBatchSamplers,
    NoDuplicatesBatchSampler,
    ProportionalBatchSampler,
    RoundRobinBatchSampler,
)
from st_core.training.token_rows import TokenRows

__all__ = ["CrossEncoderTrainer", "ModelTrainer", "SentenceTransformerTrainer", "SparseEncoderTrainer"]

logger = logging.getLogger(__name__)

_SAMPLERS: Mapping[str, type[DefaultBatchSampler]] = {
    BatchSamplers.BATCH_SAMPLER: DefaultBatchSampler,
    BatchSamplers.NO_DUPLICATES: NoDuplicatesBatchSampler,
    BatchSamplers.NO_DUPLICATES_HASHED: NoDuplicatesBatchSampler,
    BatchSamplers.GROUP_BY_LABEL: GroupByLabelBatchSampler,
}
_ORDERS = {
    MultiDatasetBatchSamplers.PROPORTIONAL: ProportionalBatchSampler,
    MultiDatasetBatchSamplers.ROUND_ROBIN: RoundRobinBatchSampler,
}
_IDENTITY = (
    *("seed", "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "max_steps"),
    *("learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "optim"),
    *("batch_sampler", "multi_dataset_batch_sampler", "learning_rate_mapping", "dataloader_drop_last"),
)
"""The arguments that a resumed training must have in common with the one before."""


class _Numbered(Dataset[tuple[int, Example]]):
    """Examples with their positions."""

    def __init__(self, examples: Concatenated) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, position: int) -> tuple[int, Example]:
        return position, self.examples[position]


class ModelTrainer(Trainer):  # type: ignore[misc]  # the library is not checked
    """The base of the trainers.

    ``model`` is a loaded model, which computes with the current parameters while it is trained and with the trained
    ones afterwards. ``train_dataset`` and ``eval_dataset`` are lists of mappings, a ``datasets.Dataset``, or a mapping
    of names to such data sets. ``loss`` is a loss, a function from the model to a loss, or a mapping of the names of
    data sets to either. ``evaluator`` is called with the model, or is a list of evaluators. Raises ValueError for data
    and arguments that contradict each other before anything is trained.
    """

    arguments_class: ClassVar[type[TrainingArguments]] = TrainingArguments
    kind: ClassVar[type[Model]]
    collator_class: ClassVar[type[Collator]] = Collator

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        model: Any = None,
        args: TrainingArguments | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        loss: Any = None,
        evaluator: Any = None,
        data_collator: Any = None,
        processing_class: Any = None,  # noqa: ARG002 - the engine's tokenizer is used
        model_init: Callable[[], Any] | None = None,
        compute_metrics: Any = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[Any, dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Any = None,
    ) -> None:
        """Check everything that can be checked before training."""
        args = self.arguments_class(output_dir="tmp_trainer") if args is None else args
        if not isinstance(args, self.arguments_class):
            raise ValueError(  # noqa: TRY004 - sentence-transformers' error
                f"args must be {self.arguments_class.__name__}, got {type(args).__name__}"
            )
        if compute_metrics is not None or preprocess_logits_for_metrics is not None:
            raise ValueError("compute_metrics would have no effect; pass an evaluator")
        self.trained: Model = _model(model, model_init, self.kind)
        self.form: Form = form_of(self.trained)
        self.evaluator = evaluator if evaluator is None or callable(evaluator) else SequentialEvaluator(evaluator)
        names = _names(train_dataset, eval_dataset)
        objective = Objective(_losses(loss or self.default_loss, self.trained, names), self.form)
        read = partial(read_sets, objective=objective, arguments=args, model=self.trained, form=self.form)
        self.train_sets = {} if train_dataset is None else read(train_dataset)
        self.eval_sets = {} if eval_dataset is None else read(eval_dataset)
        self._collator = data_collator or self.collator_class(self.form.preprocess, self._readings())
        self._sums: dict[bool, tuple[int, dict[str, Tensor]]] = {}
        _check_evaluation(args, self.eval_sets, self.evaluator, self.trained)
        super().__init__(
            model=objective,
            args=args,
            data_collator=self._collator,
            train_dataset=_one_or_named(self.train_sets) if self.train_sets else None,
            eval_dataset=_one_or_named(self.eval_sets) if self.eval_sets or evaluator is not None else None,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
        )
        self.label_names: list[str] = []
        self.can_return_loss = True
        self.model_accepts_loss_kwargs = False
        check_learning_rates(objective, self.learning_rates())

    def default_loss(self, model: Any) -> nn.Module:
        """Return the loss that is used if none is passed."""
        raise NotImplementedError

    def _readings(self) -> dict[str, Any]:
        return {name: each.reading for sets in (self.eval_sets, self.train_sets) for name, each in sets.items()}

    @property
    def objective(self) -> Objective:
        """The module that is trained, without the wrappers of devices."""
        objective: Objective = self.model
        return objective

    def learning_rates(self) -> Mapping[str, float]:
        """Return the learning rates of parameters, by patterns of their names."""
        rates: Mapping[str, float] = self.args.learning_rate_mapping
        return rates

    @property
    def loss(self) -> Any:
        """The loss, or the losses by data set."""
        losses = dict(zip(self.objective.names, self.objective.losses, strict=True))
        return losses.get("", losses)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train, or continue from a checkpoint, and let the model use the trained parameters.

        ``resume_from_checkpoint`` is a folder, or True for the last complete checkpoint in the output folder. Raises
        ValueError for a checkpoint of other data or arguments.
        """
        place = self._resumed(resume_from_checkpoint)
        self._tell()
        self.trained.prompts.update(self._prompts())
        with computing_with(self.trained, self.form), self._storing_tokens():
            output = super().train(None if place is None else str(place), *args, **kwargs)
        take_over(self.trained, self.form, self.card())
        return output

    @contextmanager
    def _storing_tokens(self) -> Iterator[None]:
        """Tokenize each text once inside the block, if there is more than one epoch."""
        of_epoch = sum(map(len, self.train_sets.values())) / self.args.world_size
        steps = self.args.max_steps * self.args.gradient_accumulation_steps
        is_repeated = steps * self.args.train_batch_size > of_epoch if steps > 0 else self.args.num_train_epochs > 1
        self.form.token_rows = TokenRows() if is_repeated else None
        try:
            yield
        finally:
            self.form.token_rows = None

    def _resumed(self, value: str | bool | None) -> Path | None:
        if value is None or value is False:
            return None
        folder = last_complete(Path(self.args.output_dir)) if value is True else Path(value)
        if folder is None:
            raise ValueError(f"{self.args.output_dir}: no complete checkpoint to resume from; train anew")
        check_same_training(folder, self.identity())
        return folder

    def _prompts(self) -> dict[str, str]:
        """Return the prompts of the arguments, by the names under which they are saved with the model."""
        has_roles = self.args.prompts is not None and hasattr(self.trained, "encode_query")
        return prompts_of_training(self.train_sets.values()) if has_roles else {}

    def _tell(self) -> None:
        """Show how the data is read."""
        if self.is_world_process_zero() and self.train_sets:
            text = described(self.train_sets)
            logger.info("%s", text)
            if not self.args.disable_tqdm:
                sys.stderr.write(f"{text}\n")

    def identity(self) -> dict[str, Any]:
        """Return what a resumed training must have in common with this one: data, losses and arguments."""
        values = self.args.to_dict()
        return {
            **{name: values.get(name) for name in _IDENTITY},
            "losses": {
                name: [type(loss).__name__, json.loads(json.dumps(_config(loss), default=str))]
                for name, loss in zip(self.objective.names, self.objective.losses, strict=True)
            },
            "columns": {name: list(each.columns) for name, each in self.train_sets.items()},
            "data": self._data,
            **({"adapters": adapters} if (adapters := self.form.adapters()) else {}),
        }

    @cached_property
    def _data(self) -> dict[str, list[Any]]:
        """The number of rows of each data set, and a hash of them."""
        return {name: [len(each), each.examples.digest()] for name, each in self.train_sets.items()}

    def card(self) -> str:
        """Return the section of the model card about the training, with the metrics of the last evaluation."""
        evaluations = [line for line in self.state.log_history if any(name.startswith("eval_") for name in line)]
        skipped = ("_runtime", "_per_second", "_time")
        metrics = {
            name: value
            for name, value in (evaluations[-1] if evaluations else {}).items()
            if name.startswith("eval_") and not name.endswith(skipped)
        }
        return described_training(self.identity(), metrics)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the batches of the training, in the order of the samplers."""
        if not self.train_sets:
            raise ValueError("there is no train_dataset to train on; pass one to the trainer")
        self.accelerator.even_batches = False
        loader: DataLoader[Any] = self.accelerator.prepare(self._loader(self.train_sets, self.args.train_batch_size))
        return loader

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Return the batches of an evaluation set, by default of the only one."""
        each = self.eval_dataset if eval_dataset is None else eval_dataset
        each = self.eval_sets[each] if isinstance(each, str) else each
        self.accelerator.even_batches = True
        if not isinstance(each, DataSet):
            return DataLoader(_Numbered(Concatenated(())))
        loader: DataLoader[Any] = self.accelerator.prepare(
            self._loader({each.examples.name: each}, self.args.eval_batch_size)
        )
        return loader

    get_test_dataloader = get_eval_dataloader

    def _loader(self, sets: Mapping[str, DataSet], batch_size: int) -> DataLoader[Any]:
        rows = Concatenated(tuple(each.examples for each in sets.values()))
        generator = torch.Generator().manual_seed(self.args.seed)
        samplers = [
            self.get_batch_sampler(each.examples.rows, batch_size, generator=generator) for each in sets.values()
        ]
        sampler = samplers[0] if len(samplers) == 1 else self.get_multi_dataset_batch_sampler(rows, samplers, generator)
        workers = self.args.dataloader_num_workers
        return DataLoader(
            _Numbered(rows),
            batch_sampler=sampler,
            collate_fn=self._collator,
            num_workers=workers,
            pin_memory=self.args.dataloader_pin_memory and torch.cuda.is_available(),
            persistent_workers=self.args.dataloader_persistent_workers and workers > 0,
            prefetch_factor=self.args.dataloader_prefetch_factor if workers else None,
        )

    def get_batch_sampler(self, dataset: Any, batch_size: int, generator: torch.Generator | None = None) -> Any:
        """Return the batch sampler of a data set."""
        chosen = self.args.batch_sampler
        make = _SAMPLERS[chosen] if isinstance(chosen, str) else chosen
        return make(
            dataset,
            batch_size=batch_size,
            drop_last=self.args.dataloader_drop_last,
            valid_label_columns=list(LABELS),
            generator=generator,
            seed=self.args.seed,
        )

    def get_multi_dataset_batch_sampler(
        self, dataset: Any, batch_samplers: Sequence[Any], generator: torch.Generator | None = None
    ) -> Any:
        """Return the order in which several data sets are read."""
        chosen = self.args.multi_dataset_batch_sampler
        make = _ORDERS[chosen] if isinstance(chosen, MultiDatasetBatchSamplers) else chosen
        return make(dataset, batch_samplers=batch_samplers, generator=generator, seed=self.args.seed)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,  # noqa: ARG002 - the library's
    ) -> Any:
        """Return the loss of a batch; stop with a saved state where it is not finite."""
        parts = model(**inputs)
        loss = parts["loss"]
        self._add(parts, is_training=model.training)
        if model.training:
            is_finite = bool(torch.isfinite(loss.detach()).all())
            if in_any_process(not is_finite, loss.device):
                self._stop(loss, inputs)
        return (loss, {}) if return_outputs else loss

    def _stop(self, loss: Tensor, inputs: Mapping[str, Any]) -> None:
        """Save the state before the batch and raise FloatingPointError, which names the batch."""
        self._save_checkpoint(self.model, None)
        where = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        rows, name = ", ".join(map(str, inputs["rows"])), inputs.get("dataset_name")
        if torch.isfinite(loss.detach()).all():
            raise FloatingPointError(f"the loss of another process is not finite; the state before it is in {where}")
        raise FloatingPointError(
            f"the loss is {float(loss.detach())} after step {self.state.global_step}, in rows {rows}"
            f"{f' of {name!r}' if name else ''}; the state before it is in {where}: look at these rows, or train with "
            "a lower learning rate"
        )

    def _add(self, parts: Mapping[str, Tensor], *, is_training: bool) -> None:
        """Add the parts of a loss to the sums since the last line of the log."""
        count, sums = self._sums.get(is_training, (0, {}))
        values = {name: value.detach() for name, value in parts.items() if name != "loss"}
        self._sums[is_training] = (count + 1, {name: sums.get(name, 0) + value for name, value in values.items()})

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log values with the means of the parts of the loss since the last line."""
        is_training = "loss" in logs
        if is_training or "eval_loss" in logs:
            count, sums = self._sums.pop(is_training, (0, {}))
            prefix = "" if is_training else "eval_"
            logs = {**logs, **{f"{prefix}{name}": round(float(value) / count, 4) for name, value in sums.items()}}
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return the losses of the evaluation sets, or of other data, and the metrics of the evaluator."""
        if eval_dataset is not None and not isinstance(eval_dataset, (str, DataSet)):
            eval_dataset = _one_or_named(self._read(eval_dataset))
        with computing_with(self.trained, self.form):
            metrics: dict[str, float] = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        return metrics

    def _read(self, data: Any) -> dict[str, DataSet]:
        return read_sets(data, self.objective, self.args, self.trained, self.form)

    def evaluation_loop(self, dataloader: DataLoader[Any], *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Return the loss of an evaluation set, with the metrics of the evaluator for the first set."""
        output = super().evaluation_loop(dataloader, *args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        names = [name for name in self.eval_sets if name]
        if self.evaluator is None or (names and prefix != f"eval_{names[0]}"):
            return output
        metrics = self._run_evaluator()
        own = "eval" if names else prefix
        output.metrics.update(
            {name if name.startswith(f"{own}_") else f"{own}_{name}": value for name, value in metrics.items()}
        )
        return output

    def _run_evaluator(self) -> dict[str, float]:
        """Return the metrics of the evaluator for the current parameters."""
        folder = Path(self.args.output_dir) / "eval"
        folder.mkdir(parents=True, exist_ok=True)
        assert self.evaluator is not None
        output_path = str(folder) if self.args.should_save else None
        metrics = self.evaluator(
            self.trained, output_path=output_path, epoch=self.state.epoch or -1, steps=self.state.global_step
        )
        return dict(metrics) if isinstance(metrics, Mapping) else {"evaluator": metrics}

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ARG002 - the library's
        """Save the model as a folder that loads as one, with what a training needs to continue."""
        folder = Path(output_dir or self.args.output_dir)
        if folder.name.startswith("checkpoint-"):
            save_objective(self.trained, self.objective, self.identity(), folder)
            torch.save(self.args, folder / "training_args.bin")
        else:
            save_form(self.trained, self.form, folder)
        write_card(self.trained, folder, self.card())

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging is not None else super()._get_output_dir(trial)

    _staging: Path | None = None

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint completely or not at all, and delete those above the limit."""
        final = Path(super()._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        is_first = bool(self.args.should_save)
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            with staged(final, is_first=is_first, wait=self.accelerator.wait_for_everyone) as workspace:
                self._staging = workspace
                super()._save_checkpoint(model, trial)
                if self.state.best_global_step:  # the library has stored a path within the workspace
                    best = final.parent / f"checkpoint-{self.state.best_global_step}"
                    self.state.best_model_checkpoint = str(best)
                if self.state.best_global_step and is_first:
                    self.state.save_to_json(str(workspace / final.name / STATE_FILE))
        finally:
            self._staging, self.args.save_total_limit = None, limit
        if is_first:
            _rotate(final.parent, limit, self.state.best_model_checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:  # noqa: ARG002
        load_objective(self.trained, self.objective, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        if best is None or not Path(best).is_dir():
            raise ValueError(f"the best model, of {best}, cannot be loaded: its checkpoint was not saved")
        logger.info("Loading the best model from %s, with %s", best, self.state.best_metric)
        self._load_from_checkpoint(best)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Return the names of parameters that weight decay applies to: none of normalisations and biases."""
        norms = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, LayerNormStep)}
        return [name for name in super().get_decay_parameter_names(model) if name not in norms]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return the optimizer, with parameters of other learning rates in groups of their own."""
        is_new = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if is_new:
            _divide_groups(optimizer, self.objective, self.learning_rates())
        return optimizer

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Leave the card to :meth:`save_model`, which writes that of the model."""


def _model(model: Any, model_init: Callable[[], Any] | None, kind: type[Model]) -> Model:
    if model is None and model_init is not None:
        model = model_init()
    if not isinstance(model, kind):
        raise ValueError(  # noqa: TRY004 - sentence-transformers' error
            f"the trainer needs a {kind.__name__} of st_core, got {type(model).__name__}; load one and pass it as model"
        )
    return model


def _one_or_named(sets: dict[str, DataSet]) -> Any:
    """Return the only data set if it has no name, no data set as an empty list, and others by name."""
    return (sets.get("") or sets) if sets else []


def _names(train: Any, evaluation: Any) -> list[str]:
    """Return the names of all data sets, "" for a single one."""
    names = [name for data in (train, evaluation) if isinstance(data, Mapping) for name in data]
    return list(dict.fromkeys(names)) or [""]


def _losses(loss: Any, model: Any, names: Sequence[str]) -> dict[str, nn.Module]:
    """Return the losses by data set, or one under the name ""; raise ValueError for a data set without a loss."""
    if not isinstance(loss, Mapping):
        return {"": _made(loss, model)}
    missing = [name for name in names if name not in loss]
    if missing:
        name = missing[0]
        where = f"the data set {name!r} has no loss" if name else "the losses have names, and the data set has none"
        raise ValueError(f"{where}; the losses are for {', '.join(loss)}")
    return {name: _made(each, model) for name, each in loss.items()}


def _made(loss: Any, model: Any) -> nn.Module:
    if not isinstance(loss, nn.Module):
        loss = loss(model)
    if not isinstance(loss, nn.Module):
        raise TypeError(f"a loss must be a torch module, got {type(loss).__name__}")
    return loss


def _config(loss: nn.Module) -> Any:
    describe = getattr(loss, "get_config_dict", None)
    return {} if describe is None else describe()


def _check_evaluation(args: TrainingArguments, sets: Mapping[str, DataSet], evaluator: Any, model: Model) -> None:
    """Set the metric of the best model if none was chosen; raise ValueError for one that no evaluation gives."""
    if args.eval_strategy != "no" and not sets and evaluator is None:
        raise ValueError(
            f"eval_strategy={str(args.eval_strategy)!r} needs an eval_dataset or an evaluator; pass one, or "
            "eval_strategy='no'"
        )
    if args.metric_for_best_model is None:
        return
    losses = [f"{name}_loss" if name else "loss" for name in sets]
    primary = getattr(evaluator, "primary_metric", None)
    if isinstance(evaluator, Evaluator):
        primary = evaluator.expected_primary(model)
    if args.chooses_by_default and (primary or losses):
        args.metric_for_best_model = primary or losses[0]
        args.greater_is_better = not args.metric_for_best_model.endswith("loss")
    known = getattr(evaluator, "metrics", None)
    metric = args.metric_for_best_model.removeprefix("eval_")
    if metric in losses or (evaluator is not None and (known is None or metric in known)):
        return
    raise ValueError(
        f"metric_for_best_model={args.metric_for_best_model!r} is computed by no evaluation; expected one of "
        f"{', '.join([*losses, *(known or ())]) or 'none'}"
    )


def check_learning_rates(objective: Objective, rates: Mapping[str, float]) -> None:
    """Raise ValueError for a pattern of learning rates that matches no parameter."""
    names = [name for name, _ in objective.named_own()]
    for pattern in rates:
        if not any(re.search(pattern, name) for name in names):
            raise ValueError(
                f"learning_rate_mapping: {pattern!r} matches no parameter; they are named like {', '.join(names[:3])}"
            )


def _divide_groups(optimizer: torch.optim.Optimizer, objective: Objective, rates: Mapping[str, float]) -> None:
    """Move parameters with learning rates of their own to groups of their own; the last pattern that matches counts."""
    names = {id(parameter): name for name, parameter in objective.named_own()}
    groups = list(optimizer.param_groups)
    for group in groups:
        rest: list[nn.Parameter] = []
        moved: dict[float, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            own = [rate for pattern, rate in rates.items() if re.search(pattern, names.get(id(parameter), ""))]
            moved.setdefault(own[-1], []).append(parameter) if own else rest.append(parameter)
        group["params"] = rest
        for rate, parameters in moved.items():
            optimizer.add_param_group({**group, "params": parameters, "lr": rate})


def _rotate(folder: Path, limit: int | None, best: str | None) -> None:
    """Delete the oldest checkpoints above a limit, never the best one."""
    from transformers.trainer_utils import rotate_checkpoints

    if limit is not None and limit > 0:
        rotate_checkpoints(
            output_dir=os.fspath(folder), save_total_limit=limit, best_model_checkpoint=best, use_mtime=False
        )


class SentenceTransformerTrainer(ModelTrainer):
    """Trains a dense model; the default loss is ``CoSENTLoss``."""

    arguments_class = SentenceTransformerTrainingArguments
    kind = SentenceTransformer

    def default_loss(self, model: Any) -> nn.Module:
        """Return the loss that is used if none is passed."""
        return CoSENTLoss(model)


class SparseEncoderTrainer(ModelTrainer):
    """Trains a sparse model.

    The default loss is ``SpladeLoss`` with in-batch negatives. The weights of regularizers rise over the first third of
    the steps unless a callback for them is passed.
    """

    arguments_class = SparseEncoderTrainingArguments
    kind = SparseEncoder

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Add the schedules of regularizers."""
        super().__init__(*args, **kwargs)
        has_schedule = SpladeRegularizerWeightSchedulerCallback
        if not any(isinstance(each, has_schedule) for each in self.callback_handler.callbacks):
            for loss in self.objective.losses:
                if isinstance(loss, SpladeLoss):
                    self.add_callback(SpladeRegularizerWeightSchedulerCallback(loss))

    def default_loss(self, model: Any) -> nn.Module:
        """Return the loss that is used if none is passed."""
        ranking = SparseMultipleNegativesRankingLoss(model)
        return SpladeLoss(model, ranking, document_regularizer_weight=3e-5, query_regularizer_weight=5e-5)


class CrossEncoderTrainer(ModelTrainer):
    """Trains a cross-encoder; the default loss is ``BinaryCrossEntropyLoss``, or ``CrossEntropyLoss`` for classes."""

    arguments_class = CrossEncoderTrainingArguments
    collator_class = PairCollator
    kind = CrossEncoder

    def default_loss(self, model: Any) -> nn.Module:
        """Return the loss that is used if none is passed."""
        return BinaryCrossEntropyLoss(model) if model.num_labels == 1 else CrossEntropyLoss(model)
