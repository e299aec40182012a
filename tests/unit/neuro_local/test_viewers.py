"""A job's output is shown once, by one of the two streams that a client opens."""

import asyncio

from neuro_local.api.viewers import Viewers

JOB = "job-1"


async def test_log_alone_shows_the_output() -> None:
    view = await Viewers().open_log(JOB, running=True)

    assert not view.muted


async def test_log_of_a_finished_job_is_not_held() -> None:
    view = await asyncio.wait_for(Viewers().open_log(JOB, running=False), timeout=0.1)

    assert not view.muted


async def test_attach_after_a_held_log_shows_everything() -> None:
    viewers = Viewers()
    log = asyncio.create_task(viewers.open_log(JOB, running=True))
    await asyncio.sleep(0)

    attach = await viewers.open_attach(JOB)

    assert attach.from_start and attach.partner is None
    assert (await log).muted


async def test_attach_before_its_log_shows_everything() -> None:
    viewers = Viewers()
    attaching = asyncio.create_task(viewers.open_attach(JOB))
    await asyncio.sleep(0)

    log = await viewers.open_log(JOB, running=True)

    assert log.muted
    assert (await attaching).from_start


async def test_attach_after_a_log_that_shows_leaves_the_output_to_it() -> None:
    viewers = Viewers()
    log = await viewers.open_log(JOB, running=True)

    attach = await viewers.open_attach(JOB)

    assert attach.partner is log
    assert not log.muted


async def test_attach_alone_shows_what_is_to_come() -> None:
    attach = await Viewers().open_attach(JOB)

    assert attach.partner is None and not attach.from_start


async def test_one_log_serves_one_attach() -> None:
    viewers = Viewers()
    await viewers.open_log(JOB, running=True)
    await viewers.open_attach(JOB)

    second = await viewers.open_attach(JOB)

    assert second.partner is None


async def test_log_after_the_probe_is_empty_once() -> None:
    viewers = Viewers()
    await viewers.open_log(JOB, running=True)
    await viewers.open_attach(JOB)

    viewers.refuse_attach(JOB, probe=True)

    assert (await viewers.open_log(JOB, running=False)).muted
    assert not (await viewers.open_log(JOB, running=False)).muted


async def test_log_after_a_probe_without_a_pair_is_whole() -> None:
    viewers = Viewers()

    viewers.refuse_attach(JOB, probe=True)

    assert not (await viewers.open_log(JOB, running=False)).muted


async def test_older_clients_log_shows_the_output_at_once() -> None:
    viewers = Viewers()
    log = asyncio.create_task(viewers.open_log(JOB, running=True))
    await asyncio.sleep(0)

    attach = await viewers.open_legacy_attach(JOB)

    view = await asyncio.wait_for(log, timeout=0.1)
    assert attach.partner is view
    assert not view.muted


async def test_closed_log_is_paired_no_more() -> None:
    viewers = Viewers()
    log = await viewers.open_log(JOB, running=True)
    viewers.close_log(JOB, log)

    attach = await viewers.open_attach(JOB)

    assert attach.partner is None
