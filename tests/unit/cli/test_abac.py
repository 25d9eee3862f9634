"""`fed abac`, as creddy's users call it: libabac's scenarios, answered from files in each of the forms."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from deploy.cli import main
from fedkit.identity.keys import PublicKey
from fedkit.policy.formats import Form
from fedkit.policy.formats.identities import self_signed
from tests.support.abac_scenarios import BEGIN, MIXED, SCENARIOS, Query, key_of, lay_out, resolve, write_identity

FIXED = Path(__file__).parent.parent / "policy" / "files"
Capsys = pytest.CaptureFixture[str]
ICE, CHOCOLATE = "IceCream.delicious", "Chocolate"
XML = [Form.GENI_1_0, Form.GENI_1_1]


@pytest.mark.parametrize("forms", [*((form,) for form in Form), MIXED], ids=lambda forms: "+".join(forms))
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_scenarios_are_answered_as_libabac_answers_them(
    name: str, forms: tuple[Form, ...], tmp_path: Path, capsys: Capsys
) -> None:
    lay_out(SCENARIOS[name], tmp_path, forms)
    for query in SCENARIOS[name].queries:
        assert len(_proof(query, tmp_path, capsys)) == query.credentials


@pytest.mark.parametrize("name", ["acme_rockets_intersection", "experiment_create"])
def test_files_of_an_earlier_day_are_answered_the_same(name: str, capsys: Capsys) -> None:
    """Signed by keys that nobody has any more, in a mixture of all forms."""
    fedids = {file.name.removesuffix("_ID.pem"): _fedid(file, capsys) for file in (FIXED / name).glob("*_ID.pem")}
    for query in SCENARIOS[name].queries:
        role, subject = (
            text.replace(text.split(".")[0], fedids[text.split(".")[0]], 1) for text in (query.role, query.principal)
        )
        status = main(["abac", "prove", "--credentials", str(FIXED / name), role, subject, "-o", "json"])
        assert (status, json.loads(capsys.readouterr().out)["proved"]) == (0 if query.proved else 1, query.proved)


@pytest.mark.parametrize("form", [Form.COMPACT, *XML])
def test_who_carries_the_issuer_along_needs_no_identity_files(form: Form, tmp_path: Path, capsys: Capsys) -> None:
    lay_out(SCENARIOS["ice_cream"], tmp_path, [form])
    for name in ("IceCream", "Chocolate"):
        (tmp_path / f"{name}_ID.pem").unlink()
        assert _proof(Query(ICE, CHOCOLATE, 1), tmp_path, capsys)


def test_an_attribute_certificate_needs_its_issuer(tmp_path: Path, capsys: Capsys) -> None:
    lay_out(SCENARIOS["ice_cream"], tmp_path, [Form.X509])
    (tmp_path / "Chocolate_ID.pem").unlink()
    assert _proof(Query(ICE, CHOCOLATE, 1), tmp_path, capsys)
    (tmp_path / "IceCream_ID.pem").unlink()
    assert _prove(ICE, CHOCOLATE, tmp_path) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "[policy.missing_issuer]" in output.err


def test_basic_id(tmp_path: Path, capsys: Capsys) -> None:
    """A pair of files, key and certificate in one file in either order, a certificate alone, a key alone, no file."""
    write_identity("Mary", tmp_path)
    pem, private = (tmp_path / "Mary_ID.pem").read_bytes(), (tmp_path / "Mary_private.pem").read_bytes()
    for name, content in (("a", pem + private), ("b", private + pem), ("c", pem), ("d", private)):
        file = tmp_path / f"{name}_IDKEY.pem"
        file.write_bytes(content)
        file.chmod(0o600)
        assert main(["id", "fingerprint", str(file)]) == 0
        assert capsys.readouterr().out == key_of("Mary").fedid + "\n"
    assert main(["id", "fingerprint", str(tmp_path / "Casper_IDKEY.pem")]) == 2


def test_text_and_mermaid_show_names_beside_fedids(tmp_path: Path, capsys: Capsys) -> None:
    lay_out(SCENARIOS["acme_rockets"], tmp_path, MIXED)
    acme, coyote = key_of("Acme").fedid, key_of("Coyote").fedid
    assert _prove("Acme.buy_rockets", "Coyote", tmp_path, "text") == 0
    text = capsys.readouterr().out
    assert f"Coyote:{coyote[:8]} has Acme:{acme[:8]}.buy_rockets" in text
    assert f"Acme:{acme[:8]} is {acme}" in text
    assert _prove("Acme.buy_rockets", "Coyote", tmp_path, "mermaid") == 0
    drawing = capsys.readouterr().out
    assert drawing.startswith("flowchart TD\n")
    assert "s0 --> s1" in drawing
    assert _prove("Coyote.friend", "Acme", tmp_path, "text") == 1
    assert f"Coyote:{coyote[:8]}.friend <- Acme:{acme[:8]}" in capsys.readouterr().out


def test_what_is_missing_completes_the_proof(tmp_path: Path, capsys: Capsys) -> None:
    lay_out(SCENARIOS["acme_rockets_intersection"], tmp_path, MIXED)
    assert _prove("Acme.buy_rockets", "Batman", tmp_path) == 1
    missing = json.loads(capsys.readouterr().out)["missing"]
    assert missing == [[resolve("WarnerBros.character <- Batman")]]
    key = str(tmp_path / "WarnerBros_private.pem")
    assert main(["abac", "sign", missing[0][0], "--key", key, "--out", str(tmp_path / "new.cred")]) == 0
    assert _prove("Acme.buy_rockets", "Batman", tmp_path) == 0


def test_what_cannot_be_used_is_told_and_left_out(tmp_path: Path, capsys: Capsys) -> None:
    lay_out(SCENARIOS["ice_cream"], tmp_path, MIXED)
    outside = tmp_path.parent / f"{tmp_path.name}.cred"
    outside.write_bytes(next(tmp_path.glob("*.cred")).read_bytes())
    (tmp_path / "link.cred").symlink_to(outside)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "README").write_text("Hello")
    (tmp_path / "half.xml").write_text("<signed-credential><credential>")
    (tmp_path / "huge.xml").write_bytes(b"<" + b" " * 10_000_000 + b"a/>")
    (tmp_path / "broken_ID.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (tmp_path / "folder").mkdir()
    assert _prove(ICE, CHOCOLATE, tmp_path) == 0
    output = capsys.readouterr()
    unusable = {Path(one["file"]).name: one["code"] for one in json.loads(output.out)["unusable"]}
    bad = "policy.bad_credential"
    assert unusable == {
        "link.cred": bad, "pipe": bad, "README": bad, "half.xml": bad, "huge.xml": bad,
        "broken_ID.pem": "policy.unusable_identity",
    }  # fmt: skip
    assert all(name in output.err for name in unusable)


@pytest.mark.parametrize(
    ("role", "principal", "code"),
    [
        ("Acme.buy", "0" * 40, "policy.unusable_statement"),
        ("0" * 40, "0" * 40, "policy.unusable_statement"),
        (f"{'0' * 40}.a.b", "0" * 40, "policy.unusable_statement"),
        (f"{'0' * 40}.a", f"{'0' * 40}.a.b", "policy.unusable_statement"),
        (f"{'0' * 40}.a", "x", "policy.unusable_statement"),
    ],
)
def test_an_unusable_question(role: str, principal: str, code: str, tmp_path: Path, capsys: Capsys) -> None:
    assert main(["abac", "prove", "--credentials", str(tmp_path), role, principal]) == 2
    assert f"[{code}]" in capsys.readouterr().err


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: Capsys) -> None:
    write_identity("Acme", tmp_path)
    assert _prove("Acme.a", "Acme", tmp_path / "nowhere") == 2
    assert "[cli.unusable_file]" in capsys.readouterr().err
    assert _prove("Acme.a", "Acme", tmp_path) == 1  # nobody has said anything, and that is an answer


@pytest.mark.parametrize("form", Form)
def test_sign_verify_show_convert(form: Form, tmp_path: Path, capsys: Capsys) -> None:
    for name in ("Acme", "Coyote"):
        write_identity(name, tmp_path)
    file, key, names = tmp_path / "new", str(tmp_path / "Acme_private.pem"), ["--names", str(tmp_path)]
    statement = "Acme.buy_rockets <- Acme.partner.customer & Coyote"
    signed = ["abac", "sign", statement, "--key", key, "--issuer", str(tmp_path / "Acme_ID.pem")]
    assert main([*signed, *names, "--form", form, "--valid", "12h", "--out", str(file)]) == 0
    assert main([*signed, *names, "--form", form, "--out", str(file)]) == 2  # never over another
    capsys.readouterr()
    assert main(["abac", "verify", str(file), *names, "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)[0]
    assert (told["form"], told["statement"], told["issuer_name"]) == (form, resolve(statement), "Acme")
    for other in Form:
        target = tmp_path / f"to-{other}"
        assert main(["abac", "convert", str(file), "--to", other, "--key", key, *names, "--out", str(target)]) == 0
        capsys.readouterr()
        assert main(["abac", "show", str(target), *names, "-o", "json"]) == 0
        again = json.loads(capsys.readouterr().out)[0]
        assert (again["form"], again["id"]) == (other, told["id"])


def test_creddys_errors(tmp_path: Path, capsys: Capsys) -> None:
    for name in ("Acme", "Coyote"):
        write_identity(name, tmp_path)
    names, issuer = ["--names", str(tmp_path)], ["--issuer", str(tmp_path / "Acme_ID.pem")]
    sign = ["abac", "sign", "Acme.a <- Coyote", *names, *issuer]
    assert main(sign) == 2  # no key
    assert main([*sign, "--key", str(tmp_path / "Casper_private.pem")]) == 2
    assert main([*sign, "--key", str(tmp_path / "Coyote_private.pem")]) == 2
    capsys.readouterr()
    assert main(["abac", "sign", "Coyote.a <- Acme", *names, "--key", str(tmp_path / "Acme_private.pem")]) == 2
    assert "[policy.bad_credential]" in capsys.readouterr().err
    assert main(["abac", "sign", "Nobody.a <- Acme", *names, "--key", str(tmp_path / "Acme_private.pem")]) == 2
    assert "[policy.unusable_statement]" in capsys.readouterr().err
    for valid in ("0d", "1", "d", "1w", "99999999y"):
        assert main([*sign, "--key", str(tmp_path / "Acme_private.pem"), "--valid", valid]) == 2


def test_a_name_that_two_share_is_refused(tmp_path: Path, capsys: Capsys) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        assert main(["id", "create", "--cn", "Acme", str(tmp_path / folder)]) == 0
    (tmp_path / "b" / "other_ID.pem").write_bytes((tmp_path / "a" / "Acme_ID.pem").read_bytes())
    key = str(tmp_path / "b" / "Acme_private.pem")
    assert main(["abac", "sign", "Acme.a <- Acme", "--names", str(tmp_path / "b"), "--key", key]) == 2
    assert "write the fedid" in capsys.readouterr().err


def test_a_name_written_like_a_fedid_stands_for_nobody_else(tmp_path: Path, capsys: Capsys) -> None:
    """An identity file whose common name is Coyote's fedid does not get what is meant for Coyote."""
    coyote = key_of("Coyote").fedid
    certificate = self_signed(key_of("Batman"), coyote, BEGIN)
    (tmp_path / "Coyote_ID.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    write_identity("Acme", tmp_path)
    key, out = str(tmp_path / "Acme_private.pem"), str(tmp_path / "new")
    assert main(["abac", "sign", f"Acme.a <- {coyote}", "--names", str(tmp_path), "--key", key, "--out", out]) == 0
    capsys.readouterr()
    assert main(["abac", "show", out, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["statement"] == resolve("Acme.a <- Coyote")


def test_two_keys_with_one_fedid_stop_everything(
    tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if SHA-1 had been broken: then it is unknown who is who, and nothing is proved."""
    lay_out(SCENARIOS["ice_cream"], tmp_path, [Form.COMPACT])
    role, chocolate = resolve(ICE), key_of(CHOCOLATE).fedid
    monkeypatch.setattr(PublicKey, "fedid", property(lambda _: "0" * 40))
    assert main(["abac", "prove", "--credentials", str(tmp_path), role, chocolate]) == 2
    assert "[policy.two_keys]" in capsys.readouterr().err
    assert main(["abac", "show", str(next(tmp_path.glob("*.cred"))), "--names", str(tmp_path)]) == 2
    assert "[policy.two_keys]" in capsys.readouterr().err


def test_verify_answers_yes_or_no(tmp_path: Path, capsys: Capsys) -> None:
    lay_out(SCENARIOS["ice_cream"], tmp_path, [Form.GENI_1_1])
    file = next(tmp_path.glob("*.xml"))
    assert main(["abac", "verify", str(file)]) == 0
    file.write_bytes(file.read_bytes().replace(b"delicious", b"nutritious"))
    assert main(["abac", "verify", str(file)]) == 1
    assert "[policy.bad_credential]" in capsys.readouterr().err
    assert main(["abac", "verify", str(tmp_path / "nothing")]) == 2


def test_create_writes_what_creddy_writes(tmp_path: Path, capsys: Capsys) -> None:
    assert main(["id", "create", "--cn", "Acme", "--key", "rsa", str(tmp_path), "-o", "json"]) == 0
    fedid = json.loads(capsys.readouterr().out)["fedid"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["Acme_ID.pem", "Acme_private.pem"]
    assert (tmp_path / "Acme_private.pem").stat().st_mode & 0o777 == 0o600
    assert _fedid(tmp_path / "Acme_ID.pem", capsys) == fedid
    assert main(["id", "create", "--cn", "Acme", str(tmp_path)]) == 2
    assert main(["id", "create", "--cn", "../Acme", str(tmp_path)]) == 2
    assert _fedid(tmp_path / "Acme_ID.pem", capsys) == fedid


def _prove(role: str, principal: str, folder: Path, output: str = "json") -> int:
    return main(["abac", "prove", "--credentials", str(folder), resolve(role), resolve(principal), "-o", output])


def _proof(query: Query, folder: Path, capsys: Capsys) -> list[object]:
    status = _prove(query.role, query.principal, folder)
    answer = json.loads(capsys.readouterr().out)
    assert (status, answer["proved"]) == (0 if query.proved else 1, query.proved)
    assert query.proved or answer["missing"]
    credentials: list[object] = sorted({step["credential"] for step in answer["proof"]})
    return credentials


def _fedid(file: Path, capsys: Capsys) -> str:
    capsys.readouterr()
    assert main(["id", "fingerprint", str(file)]) == 0
    return capsys.readouterr().out.strip()
