"""How the data sets of a training are read: columns, prompts and routes, decided and checked before the first step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from st_core.encoder import DOCUMENT_PROMPTS
from st_core.training.collator import Reading
from st_core.training.columns import ANY_COLUMNS, LABELS, Contract, Matching, check_keys, match
from st_core.training.examples import Examples, columns_of, named_sets
from st_core.training.known import Known, known_positives

if TYPE_CHECKING:
    from st_core.model import Model
    from st_core.training.arguments import TrainingArguments
    from st_core.training.form import Form
    from st_core.training.objective import Objective

__all__ = ["DataSet", "contract_of", "described", "prompts_of_training", "read_sets"]


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set with the name of its loss, what the loss reads, and how."""

    examples: Examples
    reading: Reading
    contract: Contract
    loss: str

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.examples)

    @property
    def columns(self) -> tuple[str, ...]:
        """The text columns in the order of the loss."""
        return self.examples.matching.texts

    def read_as(self) -> Iterable[tuple[str, str | None, str | None]]:
        """Return each text column with its prompt and its route."""
        return zip(self.columns, self.reading.prompts, self.reading.tasks, strict=True)


def contract_of(loss: nn.Module) -> Contract:
    """Return what a loss reads; a loss without a contract, as one of a user, reads any columns in their order."""
    contract = getattr(loss, "contract", None)
    return contract if isinstance(contract, Contract) else ANY_COLUMNS


def read_sets(
    data: Any, objective: Objective, arguments: TrainingArguments, model: Model, form: Form
) -> dict[str, DataSet]:
    """Return the data sets of a training by name, checked as a whole.

    Raises ValueError for data that a loss cannot read, or reads in another way than its columns tell, with the row and
    the column, and for keys of arguments that name nothing.
    """
    found = named_sets(data)
    columns = {name: columns_of(rows, name) for name, rows in found.items()}
    _check_arguments(arguments, columns)
    return {
        name: _read_set(name, rows, columns[name], objective, arguments, model, form) for name, rows in found.items()
    }


def _read_set(  # noqa: PLR0917 - what decides the reading
    name: str,
    rows: Any,
    columns: Sequence[str],
    objective: Objective,
    arguments: TrainingArguments,
    model: Model,
    form: Form,
) -> DataSet:
    loss = objective.loss_of(name)
    contract, title = contract_of(loss), type(loss).__name__
    ignored = _of_set(arguments.ignored_columns, name) or ()
    used = [each for each in ignored if each in columns or not name]
    ids = {text: column for text, column in (arguments.id_columns or {}).items() if column in columns or not name}
    chosen = _of_set(arguments.columns, name)
    matching = match(list(columns), contract, loss=title, chosen=chosen, ignored=[*used, *ids.values()])
    if arguments.label_range is not None:
        low, high = arguments.label_range
        contract = replace(contract, low=low, high=high)
    Examples(name, rows, matching).check(contract, title)
    known = _known(name, rows, matching, ids, arguments, loss, contract)
    examples = Examples(name, rows, matching, known)
    reading = Reading(
        _prompts(matching.texts, name, contract, arguments, model),
        _tasks(matching.texts, name, arguments, form),
        contract.label,
        known,
    )
    return DataSet(examples, reading, contract, title)


def _known(  # noqa: PLR0917 - what decides them
    name: str,
    rows: Any,
    matching: Matching,
    ids: Mapping[str, str],
    arguments: TrainingArguments,
    loss: nn.Module,
    contract: Contract,
) -> Known | None:
    """Return the known positives of a data set, None without ids; raise ValueError where they would have no effect."""
    if not ids:
        if arguments.judgements is not None and not name:
            raise ValueError("judgements need id_columns, the columns of the ids of queries and documents")
        return None
    if not contract.has_batch_negatives:
        raise ValueError(
            f"id_columns would have no effect: {type(loss).__name__} has no negatives of other rows; leave them out"
        )
    if any(getattr(each, "gather_across_devices", False) for each in loss.modules()):
        raise ValueError("known positives are of one device; leave out id_columns, or gather_across_devices")
    return known_positives(rows, matching, ids, arguments.judgements, name)


def _of_set(value: Any, name: str) -> Any:
    """Return the value of an argument for a data set, which may be the same for all or a mapping by name."""
    return value.get(name) if isinstance(value, Mapping) else value


def _check_arguments(arguments: TrainingArguments, columns: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError for keys of prompts and routes that name neither a column nor a data set."""
    names = [name for name in columns if name]
    texts = list(dict.fromkeys(each for listed in columns.values() for each in listed if each not in LABELS))
    for argument in ("prompts", "router_mapping", "id_columns"):
        value = getattr(arguments, argument)
        if not isinstance(value, Mapping):
            continue
        check_keys(value, [*names, *texts], argument)
        for key, inner in value.items():
            if isinstance(inner, Mapping):
                check_keys({key: inner}, names, argument)
                check_keys(inner, [each for each in columns[key] if each not in LABELS], f"{argument}[{key!r}]")
    for argument in ("columns", "ignored_columns"):
        value = getattr(arguments, argument)
        if isinstance(value, Mapping):
            check_keys(value, names, argument)


def _prompts(
    texts: Sequence[str], name: str, contract: Contract, arguments: TrainingArguments, model: Model
) -> tuple[str | None, ...]:
    """Return the prompt of each text column, None for no prompt."""
    chosen: Any = arguments.prompts
    if chosen is None:
        return _own_prompts(len(texts), contract, model)
    if isinstance(chosen, Mapping):
        chosen = chosen.get(name, chosen) if name else chosen
    if isinstance(chosen, str):
        return (chosen or None,) * len(texts)
    return tuple(chosen.get(column) or None for column in texts)


def _own_prompts(count: int, contract: Contract, model: Model) -> tuple[str | None, ...]:
    """Return the prompts with which the model encodes the columns."""
    prompts = model.prompts
    default = prompts.get(model.default_prompt_name or "") or None
    if not contract.is_retrieval or not hasattr(model, "encode_query"):
        return (default,) * count
    query = prompts.get("query", default or "") or None
    document = next((prompts[each] for each in DOCUMENT_PROMPTS if each in prompts), default) or None
    return (query, *(document,) * (count - 1))


def _tasks(texts: Sequence[str], name: str, arguments: TrainingArguments, form: Form) -> tuple[str | None, ...]:
    """Return the route of each text column, None for a model without routes."""
    mapping: Any = arguments.router_mapping
    mapping = mapping.get(name, mapping) if name else mapping
    routes = [each for each in form.tasks() if each is not None]
    tasks = tuple(mapping.get(column) for column in texts)
    if not routes:
        return tasks
    missing = [column for column, task in zip(texts, tasks, strict=True) if task is None]
    if missing:
        example = {column: routes[min(place, len(routes) - 1)] for place, column in enumerate(texts)}
        raise ValueError(
            f"the model has the routes {', '.join(routes)}, and column {missing[0]!r} has none; pass "
            f"router_mapping={example!r} or similar"
        )
    unknown = [task for task in tasks if task is not None and task not in routes]
    if unknown:
        raise ValueError(f"router_mapping names the route {unknown[0]!r}; expected one of {', '.join(routes)}")
    return tasks


def prompts_of_training(sets: Iterable[DataSet]) -> dict[str, str]:
    """Return the prompts for queries and documents that all data sets for retrieval are trained with."""
    found: dict[str, set[str]] = {}
    for each in sets:
        if each.contract.is_retrieval:
            for place, prompt in enumerate(each.reading.prompts):
                found.setdefault("document" if place else "query", set()).add(prompt or "")
    return {name: next(iter(prompts)) for name, prompts in found.items() if len(prompts) == 1}


def described(sets: Mapping[str, DataSet]) -> str:
    """Return what the columns of each data set were matched to, with their prompts and routes and the first row."""
    lines = []
    for name, each in sets.items():
        title = f"{name}: " if name else ""
        lines.append(f"{title}{len(each.examples)} rows for {each.loss}")
        first = each.examples[0]
        for place, ((column, prompt, task), text) in enumerate(zip(each.read_as(), first.texts, strict=True)):
            role = _role(place, each.contract)
            extra = "".join(
                f", {title} {value!r}" for title, value in (("prompt", prompt), ("route", task)) if value is not None
            )
            lines.append(f"  {role}: {column}{extra}, as {_short(text)}")
        if each.examples.matching.label is not None:
            lines.append(f"  label: {each.examples.matching.label}, as {_short(first.label)}")
    return "\n".join(lines)


def _role(place: int, contract: Contract) -> str:
    if not contract.is_retrieval:
        return f"text {place + 1}"
    if contract.has_lists and place == 1:
        return "documents"
    return ("query", "positive", "negative")[min(place, 2)]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
