"""A batch that goes smoothly: what its jobs look like afterwards, and how little was asked for all of them."""

import pytest

from tests.doubles import RecordingStore
from tests.jobs.batch.batch_world import BatchWorld, on_each_kind, statements, verbs
from tests.jobs.job_world import on_each_database
from worker.jobs.outcome import Finished


@on_each_database
@on_each_kind
def test_the_message_of_one_small_job_brings_all_that_are_due(world: BatchWorld) -> None:
    jobs = world.some(5)
    told = world.run_batch(jobs[0])
    world.assert_done(jobs)
    assert told.first == Finished(result=world.job_row(jobs[0]).result)
    assert told.others == {job: Finished(result=world.job_row(job).result) for job in jobs[1:]}


@on_each_database
@on_each_kind
def test_a_small_job_may_be_alone(world: BatchWorld) -> None:
    jobs = world.some(1)
    told = world.run_batch(jobs[0])
    world.assert_done(jobs)
    assert told.others == {}


@on_each_database
@on_each_kind
@pytest.mark.parametrize("count", [2, 32])
def test_a_batch_of_any_size_takes_three_transactions_and_as_many_statements(world: BatchWorld, count: int) -> None:
    jobs = world.some(count)
    with world.worker() as runtime:
        runtime.share_capabilities()
    with statements(world.database) as asked:
        world.run_batch(jobs[0])
    world.assert_done(jobs)
    learning = 2  # SELECTs of the capabilities of the two storages, once in a process
    assert asked.commits - learning == 3
    assert len([text for text in asked.texts if "SET LOCAL" not in text and "BEGIN" not in text]) - learning <= 16


@on_each_kind
def test_every_job_of_a_batch_costs_two_heads_and_a_put(world: BatchWorld) -> None:
    jobs = world.some(7)
    recording = RecordingStore(world.memory)
    world.run_batch(jobs[0], recording)
    assert verbs(recording) == ["head"] * 14 + ["put"] * 7
    world.assert_done(jobs)
