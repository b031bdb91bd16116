"""Start an ingest while another one of the same source into the same collection is running."""

from __future__ import annotations

from dataclasses import replace

from integration.faults.checking import check, said
from integration.faults.command import DONE, FAILURE, ingest_command, letters_in, state_in
from integration.faults.material import expected, make_documents, refused_by_id, write_jsonl
from integration.faults.outcome import Outcome
from integration.faults.places import Setting, drop

__all__ = ["run_two"]


def run_two(setting: Setting) -> Outcome:
    """Refuse the second of two ingests by the name of the first one's process; the first one is complete."""
    source = make_documents(setting.documents, setting.seed)
    path = setting.folder / "source.jsonl"
    write_jsonl(path, source)
    first = ingest_command(path, setting.address, setting.folder)
    output = setting.folder / "second"
    output.mkdir()
    drop(setting)
    try:
        with first.start() as child:
            child.wait_until(lambda: state_in(setting.folder))
            child.pause()
            second = replace(first, folder=output).run()
            child.resume()
            child.wait()
        outcome = Outcome(len(source), runs=2, retries=child.retries)
        outcome += said(second, FAILURE, "is running", f"process {child.process}")
        if child.status not in DONE:
            outcome += Outcome(problem=f"the first ingest ended with {child.status}: {child.messages[-3:]}")
        return outcome + check(setting, expected(source), refused_by_id(source), letters_in(setting.folder))
    finally:
        drop(setting)
