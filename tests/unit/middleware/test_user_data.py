"""User data: what is understood, and what is refused before anything is made."""

from __future__ import annotations

import base64
import subprocess

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from federation_member.middleware.contract import UnusableSpec
from federation_member.middleware.user_data import DEPTH_LIMIT, UserData, parse
from fedkit.protocol.lending import USER_DATA_LIMIT

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample me@example"


def config(text: str) -> UserData:
    """Parse a cloud-config."""
    return parse("#cloud-config\n" + text)


def understood_or_refused(text: str) -> bool:
    """Nothing else may happen to any text."""
    try:
        return isinstance(parse(text), UserData)
    except UnusableSpec as error:
        return bool(error.message)


def test_nothing_is_nothing() -> None:
    assert parse("") == parse(" \n") == config("") == config("{}") == UserData()


def test_a_script_is_run_as_it_is() -> None:
    assert parse("#!/bin/sh\necho 'x'\n").program() == "#!/bin/sh\necho 'x'\n"


def test_all_keys() -> None:
    data = config(
        f"""
users:
  - default
  - alice
  - name: bob
    gecos: Bob B.
    shell: /bin/bash
    lock_passwd: true
    ssh_authorized_keys: ["{KEY}"]
ssh_authorized_keys: ["{KEY}"]
write_files:
  - path: /etc/a
    content: |
      one
      two
    owner: bob:bob
    permissions: 0640
  - {{path: /b, content: AP8=, encoding: b64, permissions: '0o755', append: True, defer: yes}}
runcmd:
  - echo $HOME
  - [ls, -l, "a b", 5]
"""
    )
    assert [user.name for user in data.users] == ["alice", "bob"]
    assert data.users[1].ssh_authorized_keys == data.ssh_authorized_keys == [KEY]
    first, second = data.write_files
    assert (first.data, first.mode, first.owner, first.append) == (b"one\ntwo\n", "0640", "bob:bob", False)
    assert (second.data, second.mode, second.owner, second.append) == (b"\x00\xff", "0755", "root:root", True)
    assert data.program() == "#!/bin/sh\necho $HOME\nls -l 'a b' 5\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hello", "begins with 'hello'"),
        ("Content-Type: multipart/mixed\n", "Content-Type"),
        ("#include\nhttp://x", "#include"),
        ("#!/bin/sh\n\0", "zero octet"),
        ("#cloud-config\n- a\n", "mapping"),
        ("#cloud-config\nfoo: [", "not YAML"),
        ("#cloud-config\npackages: [vim]\nruncmd: []\n", "packages is not supported"),
        ("#cloud-config\nusers: [{name: a, sudo: 'ALL=(ALL) ALL'}]\n", "users.0.sudo is not supported"),
        ("#cloud-config\nusers: [{name: a, lock_passwd: no}]\n", "lock_passwd"),
        ("#cloud-config\nusers: [{name: 'a:b'}]\n", "users.0.name"),
        ("#cloud-config\nusers: [{name: a, shell: 'sh'}]\n", "users.0.shell"),
        ('#cloud-config\nusers: [{name: a, gecos: "x\\ny"}]\n', "users.0.gecos"),
        ("#cloud-config\nusers: 5\n", "users"),
        ("#cloud-config\nssh_authorized_keys: ['command=x ssh-rsa A']\n", "ssh_authorized_keys.0"),
        ("#cloud-config\nwrite_files: [{content: x}]\n", "write_files.0.path"),
        ("#cloud-config\nwrite_files: [{path: a}]\n", "write_files.0.path"),
        ("#cloud-config\nwrite_files: [{path: /a, encoding: gzip}]\n", "write_files.0.encoding"),
        ("#cloud-config\nwrite_files: [{path: /a, permissions: '0999'}]\n", "write_files.0.permissions"),
        ("#cloud-config\nwrite_files: [{path: /a, owner: '-R x'}]\n", "write_files.0.owner"),
        ("#cloud-config\nwrite_files: [{path: /a, encoding: b64, content: '***'}]\n", "not base64"),
        ("#cloud-config\nwrite_files: [{path: /a, append: maybe}]\n", "append"),
        ("#cloud-config\nruncmd: [{a: b}]\n", "runcmd"),
        ("#cloud-config\na: &a [x]\nb: *a\n", "aliases"),
        ("#cloud-config\nruncmd: " + "[" * (DEPTH_LIMIT + 1) + "]" * (DEPTH_LIMIT + 1), "nested"),
        ("#cloud-config\nruncmd: [" + "a," * 20_000 + "]", "nodes"),
        ("#!/bin/sh\n" + "x" * USER_DATA_LIMIT, "larger than"),
    ],
)
def test_refused_with_the_place(text: str, says: str) -> None:
    with pytest.raises(UnusableSpec, match=says.replace("(", r"\(").replace("*", r"\*")) as caught:
        parse(text)
    assert len(caught.value.message) < 2000


@given(st.text(max_size=400))
def test_any_text_is_understood_or_refused(text: str) -> None:
    for whole in (text, "#cloud-config\n" + text):
        assert understood_or_refused(whole)


@given(
    st.recursive(
        st.text(max_size=9) | st.integers() | st.none() | st.booleans(),
        lambda s: st.lists(s) | st.dictionaries(st.text(), s),
    )
)
def test_any_yaml_is_understood_or_refused(value: object) -> None:
    for key in ("users", "ssh_authorized_keys", "write_files", "runcmd"):
        assert understood_or_refused("#cloud-config\n" + yaml.safe_dump({key: value}))


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30), min_size=1, max_size=4))
def test_words_of_a_command_arrive_as_they_are(words: list[str]) -> None:
    program = UserData(runcmd=[["printf", "%s\\0", *words]]).program()
    done = subprocess.run(["sh", "-c", program], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == words


@given(st.binary(max_size=200))
def test_content_arrives_as_it_is(content: bytes) -> None:
    text = yaml.safe_dump(
        {"write_files": [{"path": "/a", "encoding": "b64", "content": base64.b64encode(content).decode()}]}
    )
    assert config(text).write_files[0].data == content
