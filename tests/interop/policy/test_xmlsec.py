"""xmlsec1, on which libabac is built, as reader of our XML credentials and as writer of such as libabac wrote."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from fedkit.identity.keys import PrivateKey
from fedkit.policy.errors import BadCredential, WeakSignature
from fedkit.policy.formats import Form, read, write
from fedkit.policy.formats.identities import Identities, self_signed
from fedkit.policy.formats.xml_signature import DSIG
from fedkit.policy.model import Statement

NOW = datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC)
EXPIRES = datetime.datetime(2034, 6, 1, 18, 55, 30, tzinfo=datetime.UTC)
RSA = PrivateKey(rsa.generate_private_key(65537, 2048))
P256 = PrivateKey.generate("p256")
SHA256 = ("http://www.w3.org/2001/04/xmldsig-more#rsa-sha256", "http://www.w3.org/2001/04/xmlenc#sha256")
ROOT = "<signed-credential>"
# Declared, but not used inside: inclusive canonical XML carries it into what is signed.
PROTOGENI_ROOT = (
    '<signed-credential xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    ' xsi:noNamespaceSchemaLocation="http://www.protogeni.net/resources/credential/credential.xsd">'
)
CANONICAL = ["http://www.w3.org/2001/10/xml-exc-c14n#", "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"]
SHA1 = (DSIG + "rsa-sha1", DSIG + "sha1")


def xmlsec(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `xmlsec1`."""
    return subprocess.run(["xmlsec1", *map(str, arguments)], capture_output=True, text=True, timeout=60)


@pytest.fixture(params=[RSA, P256], ids=["rsa", "p256"])
def key(request: pytest.FixtureRequest, tmp_path: Path) -> PrivateKey:
    made: PrivateKey = request.param
    (tmp_path / "ID.pem").write_bytes(self_signed(made, "Acme", NOW).public_bytes(Encoding.PEM))
    made.save(tmp_path / "private.pem")
    return made


def _statement(key: PrivateKey) -> Statement:
    return Statement.parse(f"{key.fedid}.delicious <- {key.fedid}.a.b & {'0' * 40}")


@pytest.mark.parametrize("form", [Form.GENI_1_0, Form.GENI_1_1])
def test_xmlsec_verifies_what_we_sign(form: Form, key: PrivateKey, tmp_path: Path) -> None:
    file = tmp_path / "attr.xml"
    file.write_bytes(write(form, key, _statement(key), EXPIRES, certificate=self_signed(key, "Acme", NOW)))
    verify = ["--verify", "--pubkey-cert-pem", tmp_path / "ID.pem", file]
    assert xmlsec(*verify).returncode == 0
    if key is RSA:  # as libabac does: with the key out of KeyInfo, its certificate unchecked
        assert xmlsec("--verify", "--insecure", file).returncode == 0
        assert b"<RSAKeyValue><Modulus>" in file.read_bytes()  # where libabac looks for the fedid
    file.write_bytes(file.read_bytes().replace(b"delicious", b"nutritive"))
    assert xmlsec(*verify).returncode != 0


@pytest.mark.parametrize("canonical", CANONICAL)
@pytest.mark.parametrize("root", [ROOT, PROTOGENI_ROOT], ids=["libabac", "ProtoGENI"])
@pytest.mark.parametrize(("method", "digest"), [SHA256, SHA1], ids=["sha256", "sha1"])
def test_we_read_what_xmlsec_signs_on_libabacs_template(
    method: str, digest: str, root: str, canonical: str, tmp_path: Path
) -> None:
    """The envelope as libabac's, blanks and all: no transformation but "enveloped", so canonical XML 1.0 applies; key and certificate."""
    RSA.save(tmp_path / "private.pem")
    (tmp_path / "ID.pem").write_bytes(self_signed(RSA, "Acme", NOW).public_bytes(Encoding.PEM))
    template, file = tmp_path / "template.xml", tmp_path / "attr.xml"
    template.write_text(f"""{root}
    <credential xml:id="ref0">
\t<type>abac</type>
\t<serial/>
\t<owner_gid/>
\t<target_gid/>
\t<uuid/>
\t<expires>2034-06-01T18:55:30Z</expires>
\t<abac>
\t    <rt0>
\t\t<version>1.1</version>
\t\t<head>
   <ABACprincipal><keyid>{RSA.fedid}</keyid><mnemonic>Acme</mnemonic></ABACprincipal>
   <role>delicious</role>
</head>
<tail>
   <ABACprincipal><keyid> {RSA.fedid} </keyid></ABACprincipal>
   <role>b</role>
   <linking_role>a</linking_role>
</tail>
<tail>
   <ABACprincipal><keyid>{"0" * 40}</keyid></ABACprincipal>
</tail>
\t    </rt0>
\t</abac>
    </credential>
    <signatures>
\t<Signature xmlns="{DSIG}">
\t    <SignedInfo>
\t\t<CanonicalizationMethod Algorithm="{canonical}"/>
\t\t<SignatureMethod Algorithm="{method}"/>
\t\t<Reference URI="#ref0">
\t\t    <Transforms><Transform Algorithm="{DSIG}enveloped-signature"/></Transforms>
\t\t    <DigestMethod Algorithm="{digest}"/>
\t\t    <DigestValue/>
\t\t</Reference>
\t    </SignedInfo>
\t    <SignatureValue/>
\t    <KeyInfo><KeyValue/><X509Data><X509Certificate/><X509SubjectName/><X509IssuerSerial/></X509Data></KeyInfo>
\t</Signature>
    </signatures>
</signed-credential>""")
    keys = f"{tmp_path / 'private.pem'},{tmp_path / 'ID.pem'}"
    done = xmlsec("--sign", "--output", file, "--privkey-pem", keys, template)
    assert done.returncode == 0, done.stderr
    identities, data = Identities(), file.read_bytes()
    if (method, digest) == SHA1:
        with pytest.raises(WeakSignature):
            read(data, identities=identities)
    (credential,) = read(data, identities=identities, allow_sha1=True)
    assert (credential.statement, credential.expires) == (_statement(RSA), EXPIRES)
    assert identities.names == {RSA.fedid: "Acme"}
    with pytest.raises(BadCredential):
        read(data.replace(b"delicious", b"nutritive"), identities=identities, allow_sha1=True)
