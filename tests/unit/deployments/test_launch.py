"""What comes before ``serve run``: whether the port is free, and which ports and token a server gets."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.launch import claim_ports, keep_token, taken
from deployments.ports import inodes_of, listeners
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[3]


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return socket.has_dualstack_ipv6()
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
FALLBACK = "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"


def config(folder: Path, port: int, host: str = "127.0.0.1") -> Path:
    file = folder / "config.yaml"
    file.write_text(f"http_options: {{host: '{host}', port: {port}}}\napplications: []\n", encoding="utf-8")
    return file


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_taken_port_is_one_sentence_that_names_it_its_holder_and_the_setting(tmp_path: Path, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        file = config(tmp_path, port, host)
        ended = subprocess.run(
            [sys.executable, "-m", "deployments.launch", str(file)],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"poolhouse: port {port} is taken by process {os.getpid()} (")
    assert line.endswith(f"http_options.port in {file}")


@needs_ipv6
def test_a_port_held_for_all_addresses_is_taken_for_this_machine_too(tmp_path: Path) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as held:
        assert "is taken by process" in (taken(str(config(tmp_path, held.getsockname()[1]))) or "")


def test_a_free_port_is_not_taken(tmp_path: Path) -> None:
    assert taken(str(config(tmp_path, free_port()))) is None


def test_an_address_of_another_machine_is_a_fault(tmp_path: Path) -> None:
    assert "192.0.2.77" in (taken(str(config(tmp_path, free_port(), "192.0.2.77"))) or "")


def test_two_servers_get_ports_of_their_own() -> None:
    environments: list[dict[str, str]] = [{}, {}]
    claims = [claim_ports(environment) for environment in environments]
    try:
        ports = [{int(value) for value in environment.values()} for environment in environments]
        assert all(len(each) == 5 for each in ports)
        first, second = sorted((min(each), max(each)) for each in ports)
        assert first[1] <= second[0]
    finally:
        for claim in claims:
            assert claim is not None
            claim.close()


def test_ports_beside_another_listener_are_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    start = free_port()
    monkeypatch.setattr("deployments.launch._BLOCKS", range(start, start + 1))
    with socket.create_server(("127.0.0.1", start + 50)), pytest.raises(SystemExit, match=FALLBACK):
        claim_ports({})


def test_ports_that_the_environment_names_stay() -> None:
    environment = {FALLBACK: "1234"}
    assert claim_ports(environment) is None
    assert environment == {FALLBACK: "1234"}


def test_the_token_is_readable_by_its_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    keep_token({"RAY_AUTH_MODE": "token"})
    file = tmp_path / ".ray" / "auth_token"
    made = file.read_text(encoding="ascii")
    assert len(made) == 64
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    keep_token({"RAY_AUTH_MODE": "token"})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text(encoding="ascii") == made


@pytest.mark.parametrize(
    "given", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "a"}, {"RAY_AUTH_TOKEN_PATH": "/a"}]
)
def test_no_token_is_made_where_one_is_given_or_none_is_asked_for(
    given: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    keep_token({"RAY_AUTH_MODE": "token", **given})
    assert list(tmp_path.iterdir()) == []


@needs_ipv6
def test_listeners_tell_what_other_machines_reach() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as here,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as here_too,
        socket.create_server(("0.0.0.0", 0)) as open_to_all,
        socket.create_server(("::", 0), family=socket.AF_INET6) as open_to_all_too,
    ):
        held = set(inodes_of(Path("/proc/self")))
        found = {each.port: each.only_from_here for each in listeners() if each.inode in held}
        assert [found[each.getsockname()[1]] for each in (here, here_too, open_to_all, open_to_all_too)] == [
            True,
            True,
            False,
            False,
        ]


@pytest.mark.parametrize("file", ["Makefile", "docker/serve.sh"])
def test_every_documented_start_goes_this_way(file: str) -> None:
    commands = [line for line in (ROOT / file).read_text(encoding="utf-8").splitlines() if "exec " in line]
    assert commands
    assert all("-m deployments.launch" in line for line in commands)
