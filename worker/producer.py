"""What submitting and reading need, once in a process; without the provider's client and the engine."""

from functools import cache, cached_property

from worker.broker.doorbell import Doorbell
from worker.broker.notice import Ear, Notices
from worker.errors import SettingsError
from worker.lifecycle import TERMINAL, Status
from worker.settings import Settings
from worker.store import asking, reading, schema
from worker.store.database import Database
from worker.store.reading import RunView
from worker.watching.live import Live
from worker.watching.watcher import Watcher


class Producer:
    """The database, checked, the doorbell and the notices of ends; cancel and retry, which need all of them."""

    def __init__(self, settings: Settings) -> None:
        """Connect; raises SchemaError with the command to run where the schema is not this version's."""
        self.settings = settings
        self.database = Database(settings.database_url, settings.database_pool)
        schema.check(self.database)

    @cached_property
    def doorbell(self) -> Doorbell:
        """Return the doorbell; raises SettingsError naming REDIS_URL where there is no broker."""
        return Doorbell(self.settings)

    @cached_property
    def notices(self) -> Notices | None:
        """Return the notices of ends, None where there is no broker: waiting goes on without them."""
        try:
            return Notices(self.settings)
        except SettingsError:
            return None

    @cached_property
    def live(self) -> Live | None:
        """Return what runs say while they go on, None where there is no broker."""
        try:
            return Live(self.settings)
        except SettingsError:
            return None

    def watch(self, run_id: str, after: str | None = None) -> Watcher:
        """Return what tells of this run as it goes on; raises UsageError for what is not the id of an event."""
        return Watcher(self.database, self.live, run_id, after)

    def ear(self, run_id: str) -> Ear:
        """Return what wakes when this run ends."""
        return Ear(self.notices, run_id)

    def cancel(self, run_id: str) -> Status:
        """Ask for a cancel and return the status now; raises UnknownRun."""
        bell = self.doorbell  # where there is no broker, say so before anything is written
        with self.database.write() as connection:
            status, due = asking.ask_cancel(connection, run_id)
        if due:
            bell.ring([due])
        if status in TERMINAL and self.notices:
            self.notices.publish([run_id])
        return status

    def retry(self, run_id: str, *, start_over: bool = False) -> RunView:
        """Reopen an ended run for a further attempt and return it; raises UsageError where that cannot be.

        With `start_over` also where it asks its model anew and could repeat a `once` call.
        """
        bell = self.doorbell
        with self.database.write() as connection:
            queue = asking.reopen(connection, run_id, start_over=start_over)
            view = reading.run(connection, run_id)
        if queue:
            bell.ring([queue])
        return view


@cache
def producer() -> Producer:
    """Return this process's producer, set up from the environment."""
    return Producer(Settings.from_env())
