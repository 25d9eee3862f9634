"""fedd's databases: read with file and line, and converted to what fedd's own converters made of them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from federation_member.access.compile import statements
from federation_member.access.errors import UnusableDatabase
from federation_member.access.fedd_databases import LINE_LIMIT, SIZE_LIMIT, Databases, Local
from federation_member.access.fedd_policy import convert
from federation_member.access.model import AccountMapping, Action, How
from federation_member.access.policy_file import read
from federation_member.access.rules import Rules
from federation_member.access.suppose import Known
from fedkit.identity.patterns import NamePattern

EC, OTHER, USER, AC = "ec" * 20, "0e" * 20, "ad" * 20, "ac" * 20

ACCESS = f"""
# who                              -> local
(fedid:{EC}, proj1, user1) -> (DETER:pc3000_tunnel,bvx2200, fedd, faber)   # two types
(\tfedid:{EC} , "proj2" , <any> ) -> ( static , fedd , guest )

(fedid:{EC}, <any>, <any>) -> (<dynamic>, fedd, guest)
(<none>, <none>, fedid:{USER}) -> (own, fedd, own)
restricted: pc3000_tunnel
restricted: bvx2200
restricted: bpc2000
seer_image: SEER-DISK
"""
LATER = f"""
(fedid:{EC}, proj1, user1) -> access, (DETER, faber, faber)
(fedid:{EC}, proj1, user1) -> access, (DETER, faber, faber)
(fedid:{OTHER}, <none>, user2) -> access
(fedid:{EC}, proj.3, <any>) -> transit, (vlan1, vlan2)
"""
USERS = f"""
fedid:{USER} -> (proj1, user1)
fedid:{USER} -> (proj2, user1)   # tried in turn
fedid:{OTHER} -> (proj1, us.er)
"""


@dataclass(frozen=True)
class Converted:
    rules: Rules
    said: list[str]
    warnings: list[str]
    text: str


def converted(**texts: str) -> Converted:
    text, warnings = convert(Databases.parse({kind: (f"{kind}_db", text) for kind, text in texts.items()}))
    rules = read(text.encode(), "converted")
    said = [str(one).replace(AC, "ac") for one in statements(rules, AC, [Known(EC, "fm.ec.test")])]
    for fedid, name in ((EC, "ec"), (OTHER, "other"), (USER, "X")):
        said = [one.replace(fedid, name) for one in said]
    return Converted(rules, said, warnings, text)


def test_the_conversions_that_fedd_made_itself() -> None:
    """dfa.md 2.8: access_to_abac and fedd_to_abac."""
    line = f"(fedid:{EC}, proj1, user1) -> access, (DETER, faber, faber)"
    found = converted(access=line, ec=f"fedid:{USER} -> (proj1, user1)")
    assert set(found.said) == {
        "ac.rule_project_proj1_user_user1 <- ec.project_proj1 & ec.user_user1",
        "ac.access <- ac.rule_project_proj1_user_user1",
        "ac.user_user1 <- X",
        "ac.project_proj1 <- X",
        "ac.member <- ec",
    }
    (rule,) = found.rules.rules
    assert rule.account == AccountMapping(How.STATIC, "DETER")
    assert "# access_db:1; creation user faber, service user faber" in found.text


def test_the_first_form() -> None:
    found = Databases.parse({"access": ("access_db", ACCESS)})
    assert [(line.where.line, line.who, line.local) for line in found.access] == [
        (3, NamePattern(EC, "proj1", "user1"), Local("DETER", ("pc3000_tunnel", "bvx2200"), "fedd", "faber")),
        (4, NamePattern(EC, "proj2", "*"), Local("static", (), "fedd", "guest")),
        (6, NamePattern(EC, "*", "*"), Local("<dynamic>", (), "fedd", "guest")),
        (7, NamePattern("", "", USER), Local("own", (), "fedd", "own")),
    ]
    assert found.restricted == ["pc3000_tunnel", "bvx2200", "bpc2000"]


def test_the_first_form_as_a_policy() -> None:
    found = converted(access=ACCESS)
    assert [(rule.name, rule.account) for rule in found.rules.rules] == [
        ("project_proj1_user_user1", AccountMapping(How.RIGHTS, "DETER")),
        ("project_proj2", AccountMapping(How.STATIC, "static")),
        ("everybody_of_testbed-1", AccountMapping(How.CREATE, "fed-{testbed}-{project}")),
        ("everybody_of_any", AccountMapping(How.STATIC, "own")),
    ]
    assert [one.partition(" <- ")[2] for one in found.said if one.startswith("ac.rule_")] == [
        "ec.project_proj1 & ec.user_user1",
        "ec.project_proj2",
        "ec.user",
        "X",
    ]
    assert [rule.node_types for rule in found.rules.rules] == [
        ("*", "!bpc2000"),
        *[("*", "!pc3000_tunnel", "!bvx2200", "!bpc2000")] * 3,
    ]
    assert any("access_db:11: seer_image: SEER-DISK" in warning for warning in found.warnings)
    assert any("Creation and service users" in warning for warning in found.warnings)


def test_a_restricted_node_type_needs_its_line() -> None:
    first, second, *_ = converted(access=ACCESS).rules.rules
    assert first.unfit(Action("compute", node_type="bvx2200")) is None
    assert first.unfit(Action("compute", node_type="pc850")) is None
    assert first.unfit(Action("compute", node_type="bpc2000")) is not None
    assert second.unfit(Action("compute", node_type="bvx2200")) is not None


def test_the_later_form() -> None:
    found = converted(access=LATER)
    assert [rule.name for rule in found.rules.rules] == ["project_proj1_user_user1", "project_proj1_user_user1_2"]
    assert set(found.said) == {
        "ac.access <- ac.rule_project_proj1_user_user1",
        "ac.access <- ac.rule_project_proj1_user_user1_2",
        "ac.access <- other.no_project & other.user_user2",
        "ac.transit <- ec.project_proj_x2e_3",
        "ac.rule_project_proj1_user_user1 <- ec.project_proj1 & ec.user_user1",
        "ac.rule_project_proj1_user_user1_2 <- ec.project_proj1 & ec.user_user1",
        "ac.member <- ec",
    }
    assert any("access_db:5: the list (vlan1, vlan2) is a plug-in's own" in warning for warning in found.warnings)


def test_users_become_roles() -> None:
    found = converted(ec=USERS)
    assert set(found.said) == {
        "ac.user_user1 <- X",
        "ac.project_proj1 <- X",
        "ac.project_proj2 <- X",
        "ac.user_us_x2e_er <- other",
        "ac.project_proj1 <- other",
        "ac.member <- ec",
    }
    assert any("fed member user add" in warning for warning in found.warnings)


def test_maps_become_comments_and_components_roles() -> None:
    found = converted(
        map="deter:https://users.deter.test:23235\n\nucb: https://ucb.test\n", simple=f"fedid:{USER} -> access"
    )
    assert '# deter = "<fedid>"    # the fedd at https://users.deter.test:23235' in found.text
    assert "ac.access <- X" in found.said
    assert len([warning for warning in found.warnings if "which fedid it has" in warning]) == 2


@pytest.mark.parametrize(
    ("right", "project", "account"),
    [
        ("(<same>, a, b)", "proj1", AccountMapping(How.STATIC, "proj1")),
        ("(<same>:pc, a, b)", "proj1", AccountMapping(How.RIGHTS, "proj1")),
        ("(<same>, a, b)", "<any>", AccountMapping(How.CREATE, "fed-{testbed}-{project}")),
        ("(<same>, a, b)", "<none>", AccountMapping(How.CREATE, "fed-{testbed}-{project}")),
        ("(<dynamic>, a, b)", "proj1", AccountMapping(How.CREATE, "fed-{testbed}-{project}")),
    ],
)
def test_where_a_project_comes_from(right: str, project: str, account: AccountMapping) -> None:
    found = converted(access=f"(fedid:{EC}, {project}, u) -> {right}")
    assert found.rules.rules[0].account == account
    assert any("<same> for several" in w for w in found.warnings) == (project[0] == "<")


def test_nothing_is_widened() -> None:
    found = converted(access=f"(fedid:{EC}, proj1, ) -> (a, b, c)\n(fedid:{EC}, p, u) -> member\n")
    assert (found.rules.rules, found.rules.roles) == ((), {})
    assert [warning.partition(" ")[0] for warning in found.warnings[:2]] == ["access_db:1:", "access_db:2:"]


def test_a_testbed_that_anybody_may_be() -> None:
    found = converted(access="(<any>, proj1, <any>) -> (a, b, c)")
    assert "ac.rule_project_proj1 <- ac.member.project_proj1" in found.said


def test_long_names_get_short_rules() -> None:
    lines = "\n".join(f"(fedid:{EC}, {'p' * 100}{number}, u) -> (a, b, c)" for number in range(3))
    names = [rule.name for rule in converted(access=lines).rules.rules]
    assert len(set(names)) == 3
    assert max(map(len, names)) <= 63


@pytest.mark.parametrize(
    ("kind", "line", "told"),
    [
        ("access", "nonsense", "a line is written (testbed, project, user) -> …"),
        ("access", "(DETER, proj1, user1) -> (a, b, c)", "'DETER' is no fedid, and the outermost part"),
        ("access", "( , , faber) -> (a, b, c)", "'faber' is no fedid"),
        ("access", "(fedid:12, a, b) -> (a, b, c)", "after fedid: stand 40 lower-case hex digits; '12' is not"),
        ("access", f"(fedid:{EC.upper()}, a, b) -> (a, b, c)", "after fedid: stand 40"),
        ("access", f"(fedid:{EC}, a) -> (a, b, c)", "a name has three parts"),
        ("access", f"(fedid:{EC}, a, b, c) -> (a, b, c)", "a name has three parts"),
        ("access", f"(fedid:{EC}, a b, c) -> (a, b, c)", "'a b' is not a local name"),
        ("access", f"(fedid:{EC}, <some>, c) -> (a, b, c)", "'<some>' is not a local name"),
        ("access", f"(fedid:{EC}, a*, c) -> (a, b, c)", "'a*' is not a local name"),
        ("access", f"(fedid:{EC}, a, b) -> (a, b)", "on the right stand project"),
        ("access", f"(fedid:{EC}, a, b) -> (../etc, b, c)", "'../etc' is not a project"),
        ("access", f"(fedid:{EC}, a, b) -> (a:x y, b, c)", "'x y' is not a node type"),
        ("access", f"(fedid:{EC}, a, b) -> (<root>, b, c)", "'<root>' is not a project"),
        ("access", f"(fedid:{EC}, a, b) -> a b", "after (testbed, project, user) -> stands"),
        ("access", f"(fedid:{EC}, a, b -> (a, b, c)", "after (testbed, project, user) -> stands"),
        ("access", "(((((", "after (testbed, project, user) -> stands"),
        ("access", "( , , ) -> (a, b, c)", "A pattern of names needs at least one part"),
        ("access", "restricted: a b", "'a b' is not a node type"),
        ("ec", f"{USER} -> (a, b)", "a line is written fedid:"),
        ("ec", f"fedid:{USER} -> (a, b, c)", "a line is written fedid:"),
        ("ec", f"fedid:{USER} -> (a, )", "'' is not a local name"),
        ("map", "deter", "a line is written testbed_name:URI"),
        ("map", "deter:", "a line is written testbed_name:URI"),
        ("map", "a:b\na:c", "a has another address above"),
        ("simple", f"fedid:{USER} -> a b", "a line is written fedid:"),
        ("access", "x" * (LINE_LIMIT + 1), f"a line has at most {LINE_LIMIT} characters"),
        ("access", "(" * 4000, "after (testbed, project, user) -> stands"),
        ("access", "(" + "," * 4000 + ") -> (a, b, c)", "a name has three parts"),
        ("access", "\u202e(\0)", "characters that cannot be printed"),
        ("access", f"(fedid:{EC}, a, b) -> (a, b\rx, c)", "characters that cannot be printed"),
    ],
)
def test_a_mistake_is_told_with_file_and_line(kind: str, line: str, told: str) -> None:
    with pytest.raises(UnusableDatabase) as error:
        Databases.parse({kind: ("some_db", f"# comment\n\n{line}\n")})
    number = 4 if "\n" in line else 3
    assert error.value.message.startswith(f"some_db:{number}: ")
    assert told in error.value.message
    assert len(error.value.message) < 400


def test_all_mistakes_are_told_at_once_but_not_thousands() -> None:
    with pytest.raises(UnusableDatabase) as error:
        Databases.parse({"access": ("a", "x\n" * 1000), "ec": ("b", "y")})
    lines = error.value.message.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "and 981 more"
    with pytest.raises(UnusableDatabase) as error:
        Databases.parse({"access": ("a", "x\n"), "ec": ("b", "y")})
    assert [line[:4] for line in error.value.message.splitlines()] == ["a:1:", "b:1:"]


def test_too_large_a_database() -> None:
    with pytest.raises(UnusableDatabase, match="at most"):
        Databases.parse({"map": ("m", "#" * (SIZE_LIMIT + 1))})


def test_empty_databases_are_an_empty_policy() -> None:
    found = converted(access="", ec="\n\n# nothing\n")
    assert (found.rules.rules, found.said, found.warnings) == ((), ["ac.member <- ec"], [])
