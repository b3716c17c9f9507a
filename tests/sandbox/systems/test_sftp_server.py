"""The SFTP stand-in is the same server after a restart."""

from __future__ import annotations

import stat

from sandbox.systems import sftp_server


def test_keys_and_files_outlive_a_restart(tmp_path):
    """Clients that know it by its key still do, and what was dropped is still there."""
    with sftp_server.start(tmp_path) as first:
        (first.files / "a.csv").write_text("dropped by hand")
        port, host_key, client_key = first.port, first.known_hosts, first.private_key
    with sftp_server.start(tmp_path, port=port) as again:
        assert (again.known_hosts, again.private_key) == (host_key, client_key)
        assert (tmp_path / "known_hosts").read_text() == f"{host_key}\n"
        assert (again.files / "a.csv").exists()


def test_private_keys_are_private(tmp_path):
    """Nobody else on the machine may read them."""
    with sftp_server.start(tmp_path):
        for name in ("host_key", "client_key"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
