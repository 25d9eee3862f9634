"""What Neutron is told of a machine's place in a network, and of a network that frames pass as they are."""

from __future__ import annotations

import pytest

from federation_member.middleware.contract import NoCapacity, UnusableSpec
from federation_member.middleware.openstack.errors import refusal
from federation_member.middleware.openstack.networks import upper_half
from federation_member.middleware.openstack.ports import Place


def test_the_cloud_chooses_unless_an_address_is_named() -> None:
    assert Place("n").fields == {"network_id": "n"}
    assert Place("n", address="10.8.0.7").fields["fixed_ips"] == [{"ip_address": "10.8.0.7"}]


def test_nothing_is_filtered_where_frames_pass_as_they_are() -> None:
    assert Place("n", verbatim=True).fields["port_security_enabled"] is False


def test_the_cloud_takes_high_addresses_itself() -> None:
    assert upper_half("10.8.0.0/24") == {"start": "10.8.0.128", "end": "10.8.0.254"}
    assert upper_half("10.8.0.0/29") == {"start": "10.8.0.4", "end": "10.8.0.6"}
    for wrong in ("nonsense", "10.8.0.1/24", "10.8.0.0/32"):
        with pytest.raises(UnusableSpec):
            upper_half(wrong)


def test_an_address_that_somebody_has_is_no_capacity() -> None:
    body = b'{"NeutronError": {"type": "IpAddressAlreadyAllocated", "message": "already allocated", "detail": ""}}'
    assert isinstance(refusal(409, body, "POST /ports"), NoCapacity)
