"""`fed order`: create, list, show, watch, delete, why."""

from __future__ import annotations

import uuid
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.commands.client import Client, segment
from deploy.commands.errors import Refused
from deploy.commands.order_specs import read_keys, read_text, spec_of
from deploy.commands.output import Format, OutputOption, say, show
from deploy.commands.rules import parse
from deploy.commands.waiting import wait_for

COLUMNS = {
    "id": "id",
    "name": "spec.name",
    "kind": "spec.kind",
    "state": "state",
    "member": "member",
    "address": "instance.address",
    "reason": "reason",
}
RECORD = COLUMNS | {
    "image": "spec.image",
    "flavour": "instance.flavour.name",
    "requirements": "spec.requirements",
    "type": "type",
    "created": "created",
    "lease until": "lease_expires",
    "batch": "batch",
    "public address": "instance.public_address",
    "size in GiB": "instance.size_gb",
    "device": "instance.device",
    "uses": "uses",
    "used by": "used_by",
    "ssh": "command",
}
IN_USE = "orders.in_use"
LENT = ("accepted", "running")  # states of an attempt
MOMENTS = ["%Y-%m-%dT%H:%M:%S%z"]
ATTEMPT_COLUMNS = {
    "member": "member",
    "as": "as",
    "state": "state",
    "at": "changed",
    "code": "code",
    "reason": "reason",
}

app = typer.Typer(
    no_args_is_help=True,
    help="""Order machines, networks, volumes, public addresses and snapshots, and give them back.

A machine that only some member can lend, and in:

    fed order create --image debian --requirements 'vcpu >= 2 && arch == "x86_64"' --ssh-key ~/.ssh/id_ed25519.pub --wait

A disk of its own, a public address, and a copy of it to boot others from (MACHINE, VOLUME and SNAPSHOT are ids of orders):

    fed order create --kind volume --size 10 --location site-b.test

    fed order create --kind attachment --machine MACHINE --volume VOLUME

    fed order create --kind public-ip --machine MACHINE --allow 'tcp 443' --allow 'tcp 22 from 192.0.2.0/24'

    fed order create --kind snapshot --machine MACHINE

    fed order create --image snapshot:SNAPSHOT

An image from elsewhere, where the lender fetches images:

    fed order create --image-url https://images.test/disk.qcow2 --sha256 $(sha256sum < disk.qcow2 | cut -c-64)

And then:

    fed order list

    fed order why ORDER

    fed order delete ORDER ORDER --wait
""",
)

OrderArgument = Annotated[str, typer.Argument(metavar="ORDER", help="The order's id.")]
WaitOption = Annotated[bool, typer.Option("--wait", help="Wait until it is done.")]
IdempotencyOption = Annotated[
    str | None, typer.Option("--idempotency-key", help="The same key gives the same order again.")
]
TimeoutOption = Annotated[float, typer.Option(help="Seconds that --wait waits.", min=0)]


@app.command()
def create(
    image: Annotated[str | None, typer.Option(help="Image of the machine: `fed images`, or snapshot:ORDER.")] = None,
    image_url: Annotated[str | None, typer.Option(help="Where its lender fetches the image.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Of what --image-url gives.")] = None,
    requirements: Annotated[str | None, typer.Option("--requirements", "-r", help="CEL or ClassAd expression.")] = None,
    flavour: Annotated[str | None, typer.Option(help="Size of the machine; the smallest that fits otherwise.")] = None,
    count: Annotated[int, typer.Option(min=1, max=100, help="So many equal ones.")] = 1,
    kind: Annotated[
        str, typer.Option("--kind", help="compute, network, volume, attachment, public-ip, snapshot.")
    ] = "compute",
    order_type: Annotated[str, typer.Option("--type", help="one-time or persistent.")] = "one-time",
    project: Annotated[str | None, typer.Option(help="One of your projects; the default one otherwise.")] = None,
    location: Annotated[str | None, typer.Option(help="Only at this member: name, address or fedid.")] = None,
    name: Annotated[str | None, typer.Option(help="Host name of a machine, or name of what else it is.")] = None,
    ssh_key: Annotated[list[Path] | None, typer.Option("--ssh-key", help="Public key file; may be repeated.")] = None,
    user_data: Annotated[Path | None, typer.Option("--user-data", help="Script or #cloud-config file.")] = None,
    network: Annotated[list[str] | None, typer.Option("--network", help="Order of a network; may be repeated.")] = None,
    cidr: Annotated[str | None, typer.Option(help="Prefix of a network, such as 10.8.0.0/24.")] = None,
    size: Annotated[int | None, typer.Option(help="GiB of a volume.", min=1)] = None,
    machine: Annotated[str | None, typer.Option(help="Order of the machine to attach to, address or keep.")] = None,
    volume: Annotated[str | None, typer.Option(help="Order of the volume to attach.")] = None,
    device: Annotated[str | None, typer.Option(help="What it should be called, such as /dev/vdb; a wish.")] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Traffic to let through to a network or public address; may be repeated.")
    ] = None,
    lease: Annotated[int | None, typer.Option(help="Seconds that a lender cut off from us keeps it.")] = None,
    valid_from: Annotated[datetime | None, typer.Option(help="Not before.", formats=MOMENTS)] = None,
    valid_until: Annotated[datetime | None, typer.Option(help="Given back then.", formats=MOMENTS)] = None,
    idempotency_key: IdempotencyOption = None,
    wait: WaitOption = False,
    timeout: TimeoutOption = 300,
    output: OutputOption = Format.TABLE,
) -> None:
    """Order machines, or what else `--kind` names.

    Example: `fed order create --image debian --ssh-key ~/.ssh/id_ed25519.pub --wait`
    """
    keys = None if ssh_key is None else [key for path in ssh_key for key in read_keys(path)]
    options: dict[str, Any] = {
        "--image": image,
        "--image-url": image_url,
        "--sha256": sha256,
        "--flavour": flavour,
        "--name": name,
    }
    options |= {"--requirements": requirements, "--ssh-key": keys, "--network": network, "--cidr": cidr}
    options |= {"--allow": None if allow is None else [parse(text) for text in allow]}
    options |= {"--size": size, "--machine": machine, "--volume": volume, "--device": device}
    spec = spec_of(kind, options | {"--user-data": None if user_data is None else read_text(user_data)})
    body: dict[str, Any] = {"spec": spec, "type": order_type, "count": count, "location": location, "project": project}
    body |= {"valid_from": _moment(valid_from), "valid_until": _moment(valid_until)}
    body |= {} if lease is None else {"lease_seconds": lease}
    _order(body, idempotency_key, timeout if wait else None, output)


def _order(body: dict[str, Any], idempotency_key: str | None, patience: float | None, output: Format) -> None:
    client = Client.of_this_user()
    # Even without a key of the user's own, a connection that breaks off can be answered by asking again.
    headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
    orders = client.post("/orders", body, headers)["items"]
    for order in orders:
        say(f"{order['id']}: {order['state']}: {order['reason']}")
    if patience is not None:
        orders = wait_for(client, [order["id"] for order in orders], "fulfilled", patience)
    _show_all(orders, output)


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help="Only orders in this state.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind, such as volume.")] = None,
    all_: Annotated[bool, typer.Option("--all", "-a", help="Deleted ones too.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """List your orders, newest first.

    Example: `fed order list --state fulfilled -o json`
    """
    wanted = None if kind is None else kind.replace("-", "_")
    found = Client.of_this_user().items("/orders", state=state, kind=wanted)
    _show_all([order for order in found if all_ or state or order["state"] != "deleted"], output)


@app.command("show")
def show_(order: OrderArgument, output: OutputOption = Format.TABLE) -> None:
    """Show one order.

    Example: `fed order show ORDER -o yaml`
    """
    _show_one(Client.of_this_user().get(f"/orders/{segment(order)}"), output)


@app.command()
def watch(
    order: OrderArgument,
    until: Annotated[str, typer.Option(help="The state to wait for.")] = "fulfilled",
    timeout: TimeoutOption = 300,
    output: OutputOption = Format.TABLE,
) -> None:
    """Follow an order until it reaches a state; each step is told on stderr.

    Example: `fed order watch ORDER --until deleted`
    """
    _show_one(wait_for(Client.of_this_user(), [order], until, timeout)[0], output)


@app.command()
def delete(
    orders: Annotated[list[str], typer.Argument(metavar="ORDER…", help="The orders' ids, in any order.")],
    wait: WaitOption = False,
    timeout: TimeoutOption = 300,
    output: OutputOption = Format.TABLE,
) -> None:
    """Give back what orders hold. What others use goes last: name them too, or delete them before.

    Example: `fed order delete VOLUME MACHINE ATTACHMENT --wait`
    """
    client = Client.of_this_user()
    shown = _delete_all(client, list(dict.fromkeys(orders)))
    if wait:
        shown = wait_for(client, [order["id"] for order in shown], "deleted", timeout)
    if len(shown) == 1:
        _show_one(shown[0], output)
    else:
        _show_all(shown, output)


def _delete_all(client: Client, order_ids: list[str]) -> list[dict[str, Any]]:
    """Delete users before what they use, whatever the order they are named in; raises the first refusal that stands."""
    shown: dict[str, dict[str, Any]] = {}
    left = order_ids
    while left:
        refusals: dict[str, Refused] = {}
        for order_id in left:
            try:
                shown[order_id] = client.delete(f"/orders/{segment(order_id)}")
            except Refused as refusal:
                if refusal.code != IN_USE:
                    raise
                refusals[order_id] = refusal
            else:
                say(f"{order_id}: {shown[order_id]['state']}: {shown[order_id]['reason']}")
        if len(refusals) == len(left):
            raise next(iter(refusals.values()))
        left = list(refusals)
    return [shown[order_id] for order_id in order_ids]


@app.command()
def why(order: OrderArgument, output: OutputOption = Format.TABLE) -> None:
    """Tell why an order is where it is: who was asked, what they said, what happens next.

    Example: `fed order why ORDER`
    """
    told = Client.of_this_user().get(f"/orders/{segment(order)}/why")
    if output is not Format.TABLE:
        show(told, output, {})
        return
    state = told["order"]
    say(f"{state['state']}: {state['reason']}" + (f" [{state['code']}]" if state["code"] else ""))
    if told["next_try"]:
        say(f"The next try is due at {told['next_try']}.")
    show([attempt | {"as": _without_member(attempt["name"])} for attempt in told["attempts"]], output, ATTEMPT_COLUMNS)
    for attempt in {(attempt["fedid"], attempt["name"]): attempt for attempt in told["attempts"]}.values():
        _tell_right(attempt)  # the last attempt at a member under a name


def _without_member(name: str) -> str:
    """The part of a three-level name that tells one's own names apart."""
    return name.partition("/")[2]


def _tell_right(attempt: dict[str, Any]) -> None:
    """Say what a member went by: credentials that were missing, or the rule by which it lends, and its proof."""
    from fedkit.policy.rendering import missing_text, proof_text

    home, _, name = attempt["name"].partition("/")
    names = {home: "home", attempt["fedid"]: attempt["member"]}
    for sent in attempt["sent"]:
        if sent["statement"].startswith(f"{home}.user <- "):
            names[sent["statement"].rpartition(" ")[2]] = name.rpartition("/")[2]
    if attempt["missing"]:
        say(
            f"{attempt['member']} would lend to {name} with more credentials. {missing_text(attempt['missing'], names)}"
        )
    if attempt["proof"]:
        lends = "lends" if attempt["state"] in LENT else "lent"
        goal = attempt["proof"]["proofs"][-1]  # those before it show the name; `-o json` has them all
        say(f"{attempt['member']} {lends} to {name} by its rule {attempt['proof']['rule']}:\n{proof_text(goal, names)}")


def _show_all(orders: list[Any], output: Format) -> None:
    show(orders, output, COLUMNS)


def _show_one(order: dict[str, Any], output: Format) -> None:
    show(order, output, RECORD)


def _moment(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
