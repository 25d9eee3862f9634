"""A policy to begin with. A policy is made of examples more than of keys, so its sample is written, and tested, by hand."""

POLICY = """\
# Who may have what of this member. Without a rule nobody gets anything but this member's own users, who need none.
# `fed policy check policy.toml` compiles it and runs the expectations below.

# Names for fedids. `fed members` shows the fedids of members; `self` is this member.
[principals]
site-a = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
acme = "cccccccccccccccccccccccccccccccccccccccc"

# Roles that this member gives; rules may rest on them as self.partners.
[roles]
partners = ["*.partner.example/*/*", "acme.preferred.customer"]

# Rules are tried in their order; the first that lends the action, and is for the user, decides.
[[rule]]
name = "proj1-small"
# testbed/project/user: an alias, a fedid, an address or * / a project, nothing or * / a user or *
who = ["site-a/proj1/*"]
# compute, network, volume, attachment, public_ip, snapshot, segment; * is all
may = ["compute", "network"]
# Patterns as in a shell; !pattern takes away. Without a line, everything.
flavours = ["small"]
# An image from a URL is matched as the URL, a snapshot as snapshot:ID: "https://images.example/*", "snapshot:*"
images = ["debian*"]
node_types = ["pc*", "!pc3000_tunnel"]
services = ["SMB", "userconfig"]
# at the same time, under this rule
count = 2
# days, ranges and time zone, each may be left out; UTC by default
hours = "mon-fri 08:00-18:00 Europe/Berlin"
# a local account: "name", {rights = "name"}, {create = "template"} or {certificate = "level"}
account = {create = "fed-{project}"}

[[rule]]
name = "partners"
who = ["self.partners", "site-a.staff & acme.customer"]
may = ["*"]
account = "guests"

# What the rules have to decide. Supposed is that the name's testbed is a member and vouches for its user; `has` are roles besides,
# `held` is what exists already under the rule.
[[expect]]
who = "site-a/proj1/alice"
action = "compute"
flavour = "small"
image = "debian-12"
node_type = "pc3000"
services = ["SMB"]
at = "2026-11-23T10:00:00Z"
held = 1
result = "allow"

[[expect]]
who = "site-a/proj1/alice"
action = "compute"
flavour = "small"
at = "2026-11-22T10:00:00Z"
result = "deny"

[[expect]]
who = "site-a/proj2/bob"
action = "volume"
at = "2026-11-23T10:00:00Z"
result = "deny"

[[expect]]
who = "site-a/proj2/bob"
has = ["site-a.staff", "acme.customer"]
action = "volume"
at = "2026-11-22T10:00:00Z"
result = "allow"

[[expect]]
who = "fm.partner.example/any/body"
action = "public_ip"
at = "2026-11-23T10:00:00Z"
result = "allow"
"""
