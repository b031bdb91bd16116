"""The trainable form of a loaded model: one for each model, which its losses and its trainer share."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import torch

from st_core.backends.torch.adapters import add_adapter, described_adapter, has_adapter
from st_core.backends.torch.modules import TransformerStep
from st_core.backends.torch.once import Once
from st_core.backends.torch.runner import Program, TorchRunner
from st_core.backends.torch.trainable import Trainable
from st_core.engine.options import CallOptions
from st_core.model import Model
from st_core.modules.router import stack_dimension
from st_core.text.tokens import pad
from st_core.training.card import trained_card

if TYPE_CHECKING:
    from st_core.backends import Features
    from st_core.engine.engine import Engine
    from st_core.engine.inputs import Input
    from st_core.modules.transformer import Transformer
    from st_core.training.token_rows import TokenRows

__all__ = ["Form", "computing_with", "form_of", "save_form", "take_over", "write_card"]

_forms: WeakKeyDictionary[Model, Form] = WeakKeyDictionary()


class Form(Trainable):
    """The trainable form of a model, called with the features of one column.

    Losses of users may call it like a model of sentence-transformers: ``self.model(features)["sentence_embedding"]``.
    While ``token_rows`` is set, texts that :meth:`preprocess` reads again are not tokenized again.
    """

    def __init__(self, model: Model) -> None:
        """Load the modules of a model in float32 on its device."""
        device = torch.device(model.device)
        super().__init__(model._engine.modules, device, torch.float32)  # noqa: SLF001
        self._model = ref(model)
        self._last: Engine = copy.copy(model._engine)  # noqa: SLF001
        self.similarity_fn_name = getattr(model, "similarity_fn_name", None)
        self.token_rows: TokenRows | None = None
        self.adapt()
        self.to(device, torch.float32)

    def adapt(self) -> None:
        """Add the adapter of the model to its transformers, unless they have it."""
        model = self._model()
        if model is None or model._adapter is None:  # noqa: SLF001 - of this package
            return
        is_new = hasattr(model, "_home")
        for step in self.modules():
            if isinstance(step, TransformerStep) and not has_adapter(step.model):
                trains_head = is_new or step.value.task == "sequence-classification"
                is_merged = is_new or step.value.base is not None  # an adapter has one base, which has no adapter
                base = None if is_merged else _base_name(model, step.value)
                add_adapter(step, model._adapter, base, trains_head=trains_head)  # noqa: SLF001

    def adapters(self) -> list[dict[str, Any]]:
        """Return the configurations of the adapters that are trained, none without them."""
        steps = [each for each in self.modules() if isinstance(each, TransformerStep) and has_adapter(each.model)]
        return [described_adapter(each.model) for each in steps]

    @property
    def _engine(self) -> Engine:
        """The engine of the model with its current settings, or the last one if the model no longer exists."""
        model = self._model()
        return self._last if model is None else model._current()  # noqa: SLF001

    def forward(self, features: Features, task: str | None = None) -> Features:
        """Compute a batch of :meth:`preprocess`; see :meth:`Trainable.forward`. The task may be among the features."""
        inputs = dict(features)
        own = inputs.pop("task", None)
        return super().forward(inputs, own if task is None else task)

    def preprocess(
        self, inputs: Sequence[Input], prompt: str | None = None, task: str | None = None, max_length: int | None = None
    ) -> Features:
        """Return the tokens of texts or pairs as tensors on the CPU, with the task and the length of the prompt."""
        engine, options = self._engine, CallOptions(task=task, prompt=prompt, max_length=max_length)
        if self.token_rows is None:
            tokens = engine.tokenize(inputs, options)
        else:
            key = (engine.limit_of(options), prompt, task)
            tokens = self.token_rows.tokens(inputs, key, lambda texts: engine.tokenize(texts, options))
        tokenizer = engine.outline(task).tokenizer
        ids, mask = pad(tokens.ids, tokenizer.pad_id, left=tokenizer.pad_left, least=1)
        features: Features = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        features["texts"] = tuple(inputs)
        if tokenizer.wants_types:
            types = tokens.types if tokens.types is not None else [row * 0 for row in tokens.ids]
            padded, _ = pad(types, tokenizer.pad_type, left=tokenizer.pad_left, least=1)
            features["token_type_ids"] = torch.from_numpy(padded)
        length = engine.prompt_length(options)
        if length:
            features["prompt_length"] = length
        if task is not None:
            features["task"] = task
        return features

    def tasks(self) -> list[str | None]:
        """Return one task for each route, None for a model without a router."""
        return self._engine.tasks()

    def get_embedding_dimension(self) -> int | None:
        """Return the width of the vectors."""
        return stack_dimension(self.values)

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next((each.device for each in self.parameters()), self._device)

    def engine(self) -> Engine:
        """Return an engine that computes with the current parameters, in evaluation mode."""
        return self._engine.with_runners({task: self._runner(task) for task in self.tasks()})

    def _runner(self, task: str | None) -> TorchRunner:
        own = self._engine.runner(task)
        run = partial(self._evaluate, task=task)
        return TorchRunner(Once(lambda: Program((run,))), own.info, self.device, getattr(own, "mixes_padding", None))

    def _evaluate(self, features: Features, *, task: str | None) -> Features:
        """Compute features in evaluation mode and return to the mode before."""
        was_training = self.training
        self.eval()
        try:
            return self.forward(features, task)
        finally:
            self.train(was_training)


def form_of(model: Any) -> Form:
    """Return the trainable form of a model, which is created on first use; a form is returned unchanged.

    Raises TypeError for an object that is neither, ValueError for a model that runs as a graph, and the errors of
    loading the modules with torch.
    """
    if isinstance(model, Form):
        return model
    if not isinstance(model, Model):
        kind = f"{type(model).__module__}.{type(model).__qualname__}"
        raise TypeError(f"expected a model of st_core to train, got a {kind}; load it with st_core")
    if model.backend != "torch":
        raise ValueError(f"a model on {model.backend} cannot be trained; load it with backend='torch'")
    form = _forms.get(model)
    if form is None or (model._adapter is None and form.adapters()):  # noqa: SLF001 - the adapter was merged
        form = _forms[model] = Form(model)
    form.adapt()
    return form


def _base_name(model: Model, module: Transformer) -> str:
    """Return what an adapter's base model is loaded from: a Hub name, or the absolute path of a folder."""
    has_revision = model._loading.get("revision") is not None  # noqa: SLF001 - the name alone is another version
    is_hub = module.folder == model.checkpoint.folder and not Path(model.checkpoint.name).exists() and not has_revision
    return model.checkpoint.name if is_hub else str(module.folder.absolute())


@contextmanager
def computing_with(model: Model, form: Form) -> Iterator[Model]:
    """Let a model compute with the current parameters of its form inside the block."""
    before = model._engine  # noqa: SLF001
    model._engine = form.engine()  # noqa: SLF001
    try:
        yield model
    finally:
        model._engine = before  # noqa: SLF001


def save_form(model: Model, form: Form, folder: Path) -> None:
    """Save a model with the current parameters of its form as a folder that loads like any other."""
    with TemporaryDirectory() as place:
        model._save(form.written(Path(place)), folder, None, card=False)  # noqa: SLF001


def write_card(model: Model, folder: Path, section: str) -> None:
    """Write the card of a trained model to its folder; ``section`` is that about the training."""
    text = trained_card(model.family, model._origin, model.model_card_data, section)  # noqa: SLF001
    (folder / "README.md").write_text(text, encoding="utf-8")


def take_over(model: Model, form: Form, card: str) -> None:
    """Let a model use the parameters of its form from now on, as if it had been loaded with them.

    The weights are in a temporary folder that lives as long as the model; the form stays that of the model. ``card`` is
    the section of the model card about the training.
    """
    from st_core.saving.made import Home

    home = Home()
    save_form(model, form, home.folder)
    model._base = model._origin  # noqa: SLF001
    write_card(model, home.folder, card)
    model._reload(home)  # noqa: SLF001
