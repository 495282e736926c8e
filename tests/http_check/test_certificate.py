"""Certificates are read as the cryptography package reads them."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from agent.host.certificate import read_certificate


@pytest.mark.parametrize("name", ["shop.example", "127.0.0.1", "::1", "bücher.example"])
def test_the_parts_of_a_certificate_are_read(name: str, authority: Any) -> None:
    name = name.encode("idna").decode() if "ü" in name else name
    made = authority.sign(name, ends=365 * 40.0)  # beyond 2049 times are written another way
    found = read_certificate(made.public_bytes(Encoding.DER))
    assert found is not None
    assert found.subject == name
    assert found.names == (name,)
    assert found.issuer == "Authority of the tests"
    assert found.begins == made.not_valid_before_utc.timestamp()
    assert found.ends == made.not_valid_after_utc.timestamp()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_certificate_or_none(data: bytes) -> None:
    assert read_certificate(data) is None


def test_a_certificate_with_any_byte_changed_or_cut_off_does_no_harm(authority: Any) -> None:
    der = authority.sign("shop.example").public_bytes(Encoding.DER)
    for at in range(len(der)):
        read_certificate(der[:at])
        read_certificate(der[:at] + bytes([der[at] ^ 0x55]) + der[at + 1 :])
