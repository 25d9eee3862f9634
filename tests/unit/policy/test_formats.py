"""Every form of credential: what it says survives the way through each other form, and nothing bad is ever accepted."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkit.errors import FedError
from fedkit.identity import jws
from fedkit.identity.keys import PrivateKey, PublicKey, UnusableKey
from fedkit.policy import compact
from fedkit.policy.errors import BadCredential, Expired, MissingIssuer, NotExpressible, NotYetValid, TwoKeys
from fedkit.policy.formats import LIMIT, Form, check_term, read, write
from fedkit.policy.formats.identities import Identities, Identity, read_identity, self_signed
from fedkit.policy.model import Entity, Linked, Part, Role, Statement

NOW = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
KEY = PrivateKey.generate("p256")
OTHER = PrivateKey.generate("p256")
XML = (Form.GENI_1_0, Form.GENI_1_1)
FORMS = pytest.mark.parametrize("form", Form)

_fedids = st.one_of(st.sampled_from([KEY.fedid, OTHER.fedid]), st.text("0123456789abcdef", min_size=40, max_size=40))
_names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}", fullmatch=True)
_parts: st.SearchStrategy[Part] = st.one_of(
    st.builds(Entity, _fedids), st.builds(Role, _fedids, _names), st.builds(Linked, _fedids, _names, _names)
)
statements = st.builds(
    lambda name, tail: Statement(Role(KEY.fedid, name), tuple(tail)), _names, st.lists(_parts, min_size=1, max_size=6)
)
instants = st.integers(10**8, 25 * 10**10).map(lambda second: datetime.datetime.fromtimestamp(second, datetime.UTC))


def known() -> Identities:
    """The signer, as an identity file would make it known."""
    return Identities([Identity(KEY.public)])


def signed(form: Form, text: str = "a <- b", key: PrivateKey = KEY) -> bytes:
    """A credential about the signer's own roles."""
    head, tail = text.split(" <- ")
    return write(form, key, Statement.parse(f"{key.fedid}.{head} <- {key.fedid}.{tail}"), NOW + DAY)


@settings(max_examples=40, deadline=None)
@given(statements, instants, st.permutations(list(Form)))
def test_the_way_through_all_forms_keeps_the_meaning(
    statement: Statement, expires: datetime.datetime, forms: list[Form]
) -> None:
    ids = set()
    for form in forms:
        (credential,) = read(write(form, KEY, statement, expires), identities=known())
        assert (credential.statement, credential.encoding, credential.issuer) == (statement, form, KEY.public)
        assert credential.expires == expires.replace(microsecond=0)
        assert credential.not_before is None
        ids.add(credential.id)
        statement, expires = credential.statement, credential.expires
    assert len(ids) == 1


@settings(max_examples=20, deadline=None)
@given(instants, instants)
def test_a_beginning_is_kept_where_the_form_has_one(one: datetime.datetime, two: datetime.datetime) -> None:
    begin, end = sorted((one.replace(microsecond=0), two.replace(microsecond=0)))
    statement = Statement.parse(f"{KEY.fedid}.a <- {KEY.fedid}.b")
    for form in (Form.COMPACT, Form.X509):
        if begin == end:
            continue
        (credential,) = read(write(form, KEY, statement, end, begin), identities=known())
        assert (credential.not_before, credential.expires) == (begin, end)
    for form in XML:
        with pytest.raises(NotExpressible):
            write(form, KEY, statement, end, begin)


@pytest.mark.parametrize("kind", ["ed25519", "p256", "rsa"])
@FORMS
def test_which_keys_sign_which_form(form: Form, kind: str) -> None:
    key = PrivateKey.generate(kind)
    statement = Statement.parse(f"{key.fedid}.a <- {key.fedid}.b")
    if form in XML and kind == "ed25519":
        with pytest.raises(NotExpressible):
            write(form, key, statement, NOW)
        return
    (credential,) = read(write(form, key, statement, NOW), identities=Identities([Identity(key.public)]))
    assert credential.issuer == key.public


@FORMS
def test_only_the_heads_owner_signs(form: Form) -> None:
    with pytest.raises(BadCredential):
        write(form, OTHER, Statement.parse(f"{KEY.fedid}.a <- {OTHER.fedid}"), NOW)


@FORMS
def test_a_reader_learns_the_issuer_and_names(form: Form) -> None:
    certificate = self_signed(KEY, "Acme", NOW)
    statement = Statement.parse(f"{KEY.fedid}.a <- {OTHER.fedid}")
    data = write(form, KEY, statement, NOW, certificate=certificate, names={OTHER.fedid: "Coyote"})
    identities = Identities()
    if form is Form.X509:
        with pytest.raises(MissingIssuer):
            read(data, identities=identities)
        return
    read(data, identities=identities)
    assert identities.get(KEY.fedid) == KEY.public
    assert identities.names == {
        Form.COMPACT: {}, Form.GENI_1_0: {KEY.fedid: "Acme"}, Form.GENI_1_1: {KEY.fedid: "Acme", OTHER.fedid: "Coyote"}
    }[form]  # fmt: skip


@FORMS
def test_terms_are_told(form: Form) -> None:
    (credential,) = read(signed(form), identities=known())
    check_term(credential, NOW)
    with pytest.raises(Expired):
        check_term(credential, NOW + DAY)
    if form in {Form.COMPACT, Form.X509}:
        statement = credential.statement
        (later,) = read(write(form, KEY, statement, NOW + 2 * DAY, NOW + DAY), identities=known())
        with pytest.raises(NotYetValid):
            check_term(later, NOW)


@pytest.mark.parametrize("form", [Form.COMPACT, Form.X509])
def test_an_end_before_the_beginning_is_refused(form: Form) -> None:
    statement = Statement.parse(f"{KEY.fedid}.a <- {KEY.fedid}.b")
    with pytest.raises(BadCredential):
        read(write(form, KEY, statement, NOW, NOW + DAY), identities=known())


@FORMS
def test_every_octet_counts(form: Form) -> None:
    """Whatever octet is changed: either the text is refused, or it is one that says the same (blanks, names of keys)."""
    data = signed(form)
    (genuine,) = read(data, identities=known())
    for position in range(0, len(data), max(1, len(data) // 150)):
        for change in (0x01, 0x20, 0x80):
            tampered = bytearray(data)
            tampered[position] ^= change
            try:
                (credential,) = read(bytes(tampered), identities=known())
            except FedError:
                continue
            assert credential.id == genuine.id


@FORMS
def test_truncation_is_refused(form: Form) -> None:
    data = signed(form).rstrip()
    for length in range(0, len(data), max(1, len(data) // 60)):
        with pytest.raises(FedError):
            read(data[:length], identities=known())


@pytest.mark.parametrize("certificate", [None, self_signed(OTHER, "Acme", NOW), self_signed(KEY, "Acme", NOW)])
@pytest.mark.parametrize("form", [Form.X509, *XML])
def test_another_ones_signature_is_refused(form: Form, certificate: x509.Certificate | None) -> None:
    """A statement about KEY's role that OTHER signed, with whoever's certificate."""
    liar = PrivateKey(OTHER.key)
    liar.__dict__["public"] = KEY.public  # so that the writer takes OTHER's key for KEY's
    forged = write(form, liar, Statement.parse(f"{KEY.fedid}.a <- {OTHER.fedid}"), NOW + DAY, certificate=certificate)
    with pytest.raises(BadCredential):
        read(forged, identities=Identities([Identity(KEY.public), Identity(OTHER.public)]))


def test_a_compact_text_in_anothers_name_is_refused() -> None:
    payload = {"statement": f"{KEY.fedid}.a <- {OTHER.fedid}", "expires": 4_000_000_000}
    with pytest.raises(BadCredential):
        read(jws.sign(OTHER, compact.TYPE, json.dumps(payload).encode()).encode(), identities=known())


@FORMS
def test_two_keys_with_one_fedid(form: Form) -> None:
    """As if SHA-1 had been broken for a key: whoever comes second is refused."""
    twin = PublicKey(PrivateKey.generate("p256").public.spki)
    twin.__dict__["fedid"] = KEY.fedid
    with pytest.raises(TwoKeys if form is not Form.X509 else BadCredential):
        read(signed(form), identities=Identities([Identity(twin)]))
    with pytest.raises(TwoKeys):
        Identities([Identity(KEY.public), Identity(twin)])


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"",
        lambda: b"\x00",
        lambda: b"hello",
        lambda: "ä.ö.ü".encode(),
        lambda: b"a.b.c",
        lambda: b"<",
        lambda: b"<a/>",
        lambda: b"\xef\xbb\xbf<a/>",
        lambda: "<a/>".encode("utf-16"),
        lambda: b"<signed-credential/>",
        lambda: b"0\x80",
        lambda: b"0\x84\xff\xff\xff\xff",
        lambda: b"0" * 1000,
        lambda: b"x" * (LIMIT + 1),
        lambda: b"0" * 10_000_000,
        lambda: b"<" * 200_000,
        lambda: b"<a>" * 60_000,
        lambda: self_signed(KEY, "Acme", NOW).public_bytes(Encoding.DER),
    ],
)
def test_what_is_no_credential(make: Callable[[], bytes]) -> None:
    with pytest.raises(BadCredential) as caught:
        read(make(), identities=known())
    assert len(caught.value.message) < 500


def test_a_weak_key_is_no_identity() -> None:
    weak = rsa.generate_private_key(65537, 1024).public_key()
    with pytest.raises(UnusableKey):
        read_identity(weak.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
