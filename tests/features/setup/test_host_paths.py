"""The folders of setup."""

from ringfence.config.schema import ControlSettings, StoreSettings
from ringfence.features.setup.texts import HostPaths
from ringfence.sources.logs import OWN


def test_the_journal_is_outside_of_folders_that_the_service_can_write() -> None:
    """The user of the service must not be able to write a journal that root then follows."""
    paths = HostPaths()
    writable = (paths.data, paths.logs, StoreSettings().path.parent, ControlSettings().socket.parent)

    assert not any(paths.state.is_relative_to(folder) for folder in writable)


def test_the_log_is_where_the_daemon_looks() -> None:
    """The daemon finds the log without a setting."""
    assert HostPaths().logs / "ringfence" == OWN[0]
