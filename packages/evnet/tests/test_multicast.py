"""Multicast on the loopback interface."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evloop import Loop
from evloop.testing import run_until
from evnet import bind_udp, open_datagram

LOOPBACK = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
GROUPS = [("239.1.2.3", "0.0.0.0"), ("ff11::1:2", "::")]  # it is what a group is received on


@pytest.fixture(params=GROUPS, ids=["ipv4", "ipv6"])
def pair(request: pytest.FixtureRequest, loop: Loop, gatherer: Callable[[], Any]) -> tuple[Any, Any, str]:
    group, host = request.param
    member, sender = gatherer(), gatherer()
    bind_udp(loop, lambda: member, host, 0, reuse_address=True)
    bind_udp(loop, lambda: sender, host, 0)
    sender.transport.set_multicast_interface(LOOPBACK)
    return member, sender, group


def test_members_receive(loop: Loop, pair: tuple[Any, Any, str]) -> None:
    member, sender, group = pair
    if ":" in group:
        pytest.skip("there is no route to IPv6 groups on the loopback interface")
    to = (group, member.address[1])
    member.transport.join_group(group, LOOPBACK)
    sender.transport.sendto(b"members", to)
    run_until(loop, lambda: member.datagrams)
    assert member.data == [b"members"]
    assert member.datagrams[0][1][1] == sender.address[1]

    member.transport.leave_group(group, LOOPBACK)
    sender.transport.sendto(b"gone", to)
    # What was sent later to the member alone comes: the other would have come before it.
    sender.transport.sendto(b"alone", ("127.0.0.1", to[1]))
    run_until(loop, lambda: len(member.datagrams) == 2)
    assert member.data[1] == b"alone"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the groups that sockets are in")
def test_membership(pair: tuple[Any, Any, str]) -> None:
    member, _, group = pair
    six = ":" in group
    packed = socket.inet_pton(socket.AF_INET6 if six else socket.AF_INET, group)
    listed = packed.hex() if six else packed[::-1].hex().upper()  # as the kernel prints it on a little-endian machine
    list_of_groups = Path("/proc/net/igmp6" if six else "/proc/net/igmp")
    assert listed not in list_of_groups.read_text()
    member.transport.join_group(group, LOOPBACK)
    assert listed in list_of_groups.read_text()
    member.transport.leave_group(group, LOOPBACK)
    assert listed not in list_of_groups.read_text()


def test_loop(pair: tuple[Any, Any, str]) -> None:
    """Only the option: what is sent through the loopback interface comes back in any case."""
    _, sender, group = pair
    view = sender.transport.get_extra_info("socket")
    option = (
        (socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP)
        if "." in group
        else (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP)
    )
    for enabled in (False, True):
        sender.transport.set_multicast_loop(enabled)
        assert view.getsockopt(*option) == enabled


def test_hops(pair: tuple[Any, Any, str]) -> None:
    _, sender, group = pair
    view = sender.transport.get_extra_info("socket")
    option = (
        (socket.IPPROTO_IP, socket.IP_MULTICAST_TTL)
        if "." in group
        else (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS)
    )
    for hops in (0, 1, 255):
        sender.transport.set_multicast_ttl(hops)
        assert view.getsockopt(*option) == hops
    for hops in (-1, 256):
        with pytest.raises(ValueError, match="0 to 255"):
            sender.transport.set_multicast_ttl(hops)


def test_what_is_no_group(pair: tuple[Any, Any, str]) -> None:
    member, _, group = pair
    other = next(each for each, _ in GROUPS if each != group)
    for wrong in (other, "127.0.0.1", "::1", "name", ""):
        with pytest.raises(ValueError, match="multicast address"):
            member.transport.join_group(wrong, LOOPBACK)
    for interface in ("nowhere0", 1 << 30, 1 << 80):
        with pytest.raises(ValueError, match="there is no interface"):
            member.transport.join_group(group, interface)
    member.transport.join_group(group, socket.if_nametoindex(LOOPBACK))
    with pytest.raises(OSError, match=f"cannot join group {group} on interface {LOOPBACK}") as caught:
        member.transport.join_group(group, LOOPBACK)
    assert caught.value.errno == errno.EADDRINUSE
    member.transport.leave_group(group, LOOPBACK)
    with pytest.raises(OSError, match=f"cannot leave group {group}"):
        member.transport.leave_group(group, LOOPBACK)


def test_a_unix_socket_has_no_groups(loop: Loop, gatherer: Callable[[], Any]) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with theirs:
        transport = open_datagram(loop, gatherer, ours)
        calls: tuple[Callable[[], object], ...] = (
            lambda: transport.join_group("239.1.2.3"),
            lambda: transport.set_multicast_ttl(1),
        )
        for call in calls:
            with pytest.raises(ValueError, match="multicast"):
                call()
