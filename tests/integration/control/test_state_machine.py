"""Any order of people's wishes and accidents: only legal states, no gap in the events."""

import itertools
import os
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from api.db.migrate import migrate
from api.db.session import Database, open_engine
from fda_core.contract.service.states import NEXT, TERMINAL, JobState
from tests.support.control import Bench, Folder, HandWorker, Trial
from tests.support.valkey import Valkey

LONG = bool(os.environ.get("FDA_PROVE"))
"""`make prove-control`."""


def _machine(server: Valkey, root: Path) -> type[RuleBasedStateMachine]:
    folder = Folder(root / "models")

    class JobLife(RuleBasedStateMachine):
        """One job, one worker with any number of hands, two controllers that take turns."""

        def __init__(self) -> None:
            super().__init__()
            place = Path(tempfile.mkdtemp(dir=root))
            self.database = Database(open_engine(f"sqlite:///{place}/fda.db"))
            migrate(self.database.engine)
            server.empty()
            self.bench = Bench(folder, self.database, server)
            self.bench.workspace = str(place / "ws")
            self.bench.controller = self.bench.new_controller()
            self.other = self.bench.new_controller()
            recipe = folder.recipe(method="linear")
            self.job = self.bench.submit({**recipe, "output": str(place / "out")})
            self.worker = HandWorker(self.bench)
            self.hands: list[Trial] = []

        @rule(moved=st.sampled_from([0.3, 1.5, 4.0, 12.0]), which=st.booleans())
        def controller_steps(self, moved: float, which: bool) -> None:
            self.bench.clock.advance(moved)
            (self.bench.controller if which else self.other).step()

        @rule()
        def cancel(self) -> None:
            self.bench.cancel(self.job)

        @rule()
        def retry(self) -> None:
            self.bench.retry(self.job)

        @rule()
        def worker_takes(self) -> None:
            trial = self.worker.take()
            if trial is not None:
                self.hands.append(trial.start())

        @precondition(lambda self: self.hands)
        @rule(said=st.booleans())
        def worker_finishes(self, said: bool) -> None:
            trial = self.hands.pop()
            if trial.unit == "publish" and (Path(trial.plan.output)).exists():
                trial.give_back()
                return
            trial.finish(say=said)

        @precondition(lambda self: self.hands)
        @rule(retryable=st.booleans())
        def worker_fails(self, retryable: bool) -> None:
            self.hands.pop().fail("some_error", retryable=retryable)

        @precondition(lambda self: self.hands)
        @rule()
        def worker_dies(self) -> None:
            self.hands.pop().die()

        @precondition(lambda self: self.hands)
        @rule()
        def worker_gives_back(self) -> None:
            self.hands.pop().give_back()

        @rule()
        def redis_is_emptied(self) -> None:
            self.bench.client.flushall()

        @rule()
        def controller_is_replaced(self) -> None:
            self.bench.controller = self.bench.new_controller()

        @invariant()
        def states_follow_one_another(self) -> None:
            states = [JobState(state) for state in self.bench.states(self.job)]
            assert all(after in NEXT[before] for before, after in itertools.pairwise(states))
            assert states[-1] == self.bench.state(self.job)

        @invariant()
        def the_counters_agree_with_the_units(self) -> None:
            row = self.bench.job(self.job)
            done = list(self.bench.unit_states(self.job).values()).count("done")
            if row.state in ("running", "publishing", "succeeded"):
                assert row.units_done == done

        def teardown(self) -> None:
            """Whatever happened, the job can be ended from here."""
            while self.hands:
                self.hands.pop().die()
            if self.bench.state(self.job) in TERMINAL - {JobState.SUCCEEDED}:
                self.bench.retry(self.job)
            if self.bench.state(self.job) != JobState.CANCELLING:
                assert self.bench.settle(self.job, self.worker) in TERMINAL
            self.states_follow_one_another()
            self.bench.close()
            self.database.close()

    return JobLife


@pytest.mark.slow
def test_no_order_of_events_leaves_the_state_machine(valkey: Valkey, tmp_path: Path):
    machine = _machine(valkey, tmp_path).TestCase
    machine.settings = settings(
        max_examples=150 if LONG else 5,
        stateful_step_count=40 if LONG else 25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    machine().runTest()
