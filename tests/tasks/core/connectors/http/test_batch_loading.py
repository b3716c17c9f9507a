"""Many ask for one record each; few calls fetch them all."""

from __future__ import annotations

import asyncio

import pytest

from blocks.errors import UnreachableError, UpstreamRejectedError
from tasks.core.connectors.http.batch_loading import BatchLoader

WHERE = {"system": "x", "operation": "fetch"}


class Calls:
    """Remembers what was fetched together."""

    def __init__(self):
        self.keys = []

    def __call__(self, keys):
        self.keys.append(list(keys))
        return {key: key * 10 for key in keys}


async def load_all(loader, keys):
    return await asyncio.gather(*(loader.load(key) for key in keys), return_exceptions=True)


async def test_those_who_ask_together_are_served_together():
    """One call for all, and one key for all who want the same."""
    calls = Calls()
    loader = BatchLoader(calls, gather_s=0.01)
    assert await load_all(loader, [1, 2, 3, 2]) == [10, 20, 30, 20]
    assert calls.keys == [[1, 2, 3]]


async def test_a_full_batch_does_not_wait():
    """As many as fit go at once; the rest go with the next one."""
    calls = Calls()
    loader = BatchLoader(calls, gather_s=0.01, max_keys=2)
    assert await load_all(loader, [1, 2, 3]) == [10, 20, 30]
    assert calls.keys == [[1, 2], [3]]


async def test_a_value_is_fetched_after_it_was_asked_for():
    """Nothing is kept: who asks later gets what is there later."""
    calls = Calls()
    loader = BatchLoader(calls, gather_s=0)
    await loader.load(1)
    await loader.load(1)
    assert calls.keys == [[1], [1]]


async def test_one_refused_key_does_not_spoil_the_others():
    """The call is repeated in halves until the refused one stands alone."""

    def fetch(keys):
        if 3 in keys:
            raise UpstreamRejectedError("no such id", **WHERE)
        return {key: key for key in keys}

    found = await load_all(BatchLoader(fetch, gather_s=0), range(8))
    assert isinstance(found[3], UpstreamRejectedError)
    assert [each for each in found if not isinstance(each, Exception)] == [0, 1, 2, 4, 5, 6, 7]


async def test_a_failure_is_told_to_all_who_wait():
    """Each of them tries again in its own way."""

    def fetch(_keys):
        raise UnreachableError("down", **WHERE)

    found = await load_all(BatchLoader(fetch, gather_s=0), [1, 2])
    assert [type(each) for each in found] == [UnreachableError] * 2


async def test_whoever_gives_up_takes_nothing_from_the_others():
    """A cancelled wait leaves the call to those who still wait."""
    loader = BatchLoader(Calls(), gather_s=0.02)
    impatient = asyncio.create_task(loader.load(1))
    patient = asyncio.create_task(loader.load(1))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient == 10
    with pytest.raises(asyncio.CancelledError):
        await impatient
