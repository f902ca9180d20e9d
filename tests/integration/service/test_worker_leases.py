"""Leases on a real Valkey: one holder, renewed by it alone, given up by it alone."""

import pytest

from fda_core.contract.service import names
from tests.support.valkey import Valkey
from worker.leases import LEASE_MS, Lease, Renewal

JOB, UNIT = "j", "merge-001"
KEY = names.lease(JOB, UNIT)


def lease(valkey: Valkey, token: str) -> Lease:
    return Lease(valkey.client, job=JOB, unit=UNIT, token=token)


def test_only_one_takes_it(valkey: Valkey) -> None:
    assert lease(valkey, "one").take()
    assert not lease(valkey, "two").take()
    assert valkey.client.get(KEY) == "one"
    assert valkey.client.hgetall(names.taken(JOB)) == {UNIT: "one"}
    assert 0 < valkey.client.pttl(KEY) <= LEASE_MS


def test_renewing_puts_the_end_off(valkey: Valkey) -> None:
    mine = lease(valkey, "one")
    mine.take()
    valkey.client.pexpire(KEY, 500)
    assert mine.renew() is Renewal.KEPT
    assert valkey.client.pttl(KEY) > 500


def test_a_vanished_lease_is_taken_again_by_renewing(valkey: Valkey) -> None:
    mine = lease(valkey, "one")
    mine.take()
    valkey.empty()
    assert mine.renew() is Renewal.TAKEN_AGAIN
    assert valkey.client.get(KEY) == "one"
    assert valkey.client.hgetall(names.taken(JOB)) == {UNIT: "one"}


def test_another_holders_lease_is_neither_renewed_nor_released(valkey: Valkey) -> None:
    mine, other = lease(valkey, "one"), lease(valkey, "two")
    mine.take()
    valkey.client.delete(KEY)
    assert other.take()
    assert mine.renew() is Renewal.LOST
    mine.release(done=False)
    assert valkey.client.get(KEY) == "two"
    assert valkey.client.hgetall(names.taken(JOB)) == {UNIT: "two"}


@pytest.mark.parametrize("done", [False, True])
def test_releasing_says_whether_it_is_newly_known_as_done(valkey: Valkey, done: bool) -> None:
    mine = lease(valkey, "one")
    mine.take()
    assert mine.release(done=done) is done
    assert not valkey.client.exists(KEY, names.taken(JOB))
    assert valkey.client.smembers(names.done(JOB)) == ({UNIT} if done else set())
    assert not mine.release(done=done)


def test_scripts_survive_a_server_that_forgot_them(valkey: Valkey) -> None:
    mine = lease(valkey, "one")
    assert mine.take()
    valkey.client.script_flush()
    assert mine.renew() is Renewal.KEPT
    valkey.client.script_flush()
    assert mine.release(done=True)
    valkey.client.script_flush()
    assert mine.take()
