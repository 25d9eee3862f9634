"""How something that runs is to be from now on: what its borrower wishes, while it is not yet so.

    lease.change ─► the wish stands in the lease's row ─► keeper: set_power, set_rules ─► it is so: the wish is gone
                                                                    └─ a definite refusal: told, and the wish is gone

Level-triggered like everything here: the same calls are made again until the middleware says how it is. A machine that
stops or starts by itself is told as it is, and left so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import structlog
from pydantic import TypeAdapter

from federation_member.errors import Cannot
from federation_member.middleware.contract import (
    Middleware,
    MiddlewareError,
    Owned,
    SetsPower,
    SetsRules,
    Unavailable,
)
from fedkit.protocol.lending import (
    Ability,
    AnySpec,
    LeaseChange,
    LeaseView,
    NetworkSpec,
    Power,
    PublicIpSpec,
    SecurityRule,
)

log = structlog.get_logger()

RuleList = tuple[SecurityRule, ...]
RULES: TypeAdapter[RuleList] = TypeAdapter(RuleList)
CALL_LIMIT = 60.0  # seconds that a middleware may take to begin with what is wished
DONE = {Power.RUNNING: "started", Power.STOPPED: "stopped", Power.PAUSED: "paused"}


@dataclass(frozen=True)
class Wishes:
    """What is wanted and not yet so; None where nothing is."""

    power: Power | None = None
    rules: RuleList | None = None

    def __bool__(self) -> bool:
        return self.power is not None or self.rules is not None

    def and_then(self, body: LeaseChange) -> Wishes:
        """These, changed by what is wished now."""
        return Wishes(body.power or self.power, self.rules if body.rules is None else tuple(body.rules))

    def without(self, seen: Wishes, left: Wishes) -> Wishes:
        """These, without what was done of those `seen`, of which these are `left`; what was wished meanwhile stays."""
        return Wishes(
            left.power if self.power is seen.power else self.power,
            left.rules if self.rules == seen.rules else self.rules,
        )


NOTHING = Wishes()


def wishes_of(view: LeaseView) -> Wishes:
    """What a lender is still doing, by its word."""
    return Wishes(view.wanted_power, None if view.wanted_rules is None else tuple(view.wanted_rules))


def with_rules(spec: AnySpec, rules: RuleList | None) -> AnySpec:
    """What is asked for so that it has these rules from the start; None changes nothing."""
    if rules is None or not isinstance(spec, NetworkSpec | PublicIpSpec):
        return spec
    return spec.model_copy(update={"rules": list(rules)})


def as_columns(wishes: Wishes, rules: RuleList | None) -> dict[str, str | None]:
    """How they stand in a row, with the rules that are in force (None: those that it was made with)."""
    return {
        "wanted_power": wishes.power and wishes.power.value,
        "wanted_rules": None if wishes.rules is None else RULES.dump_json(wishes.rules).decode(),
        "rules": None if rules is None else RULES.dump_json(rules).decode(),
    }


def of_columns(row: Any) -> tuple[Wishes, RuleList | None]:
    """The inverse of `as_columns`."""
    power = None if row.wanted_power is None else Power(row.wanted_power)
    wanted = None if row.wanted_rules is None else RULES.validate_json(row.wanted_rules)
    return Wishes(power, wanted), None if row.rules is None else RULES.validate_json(row.rules)


def check(kind: str, body: LeaseChange, abilities: Collection[str]) -> None:
    """Raise `Cannot` for a wish that nothing of this kind, or nothing here, can fulfil."""
    if body.power is not None:
        if kind != "compute":
            raise Cannot(f"Machines alone can be stopped, paused and started; this is of the kind {kind}.")
        _check_ability(Ability.POWER, "stop, pause or start machines", abilities)
    if body.rules is not None:
        if kind not in ("network", "public_ip"):
            raise Cannot(f"Networks and public addresses alone have security rules; this is of the kind {kind}.")
        _check_ability(Ability.RULES, "change security rules", abilities)


def check_console(kind: str, abilities: Collection[str]) -> None:
    """Raise `Cannot` where there is no console to look at."""
    if kind != "compute":
        raise Cannot(f"Machines alone have a console; this is of the kind {kind}.")
    _check_ability(Ability.CONSOLE, "show consoles", abilities)


def _check_ability(wanted: Ability, what: str, abilities: Collection[str]) -> None:
    if wanted not in abilities:
        able = ", ".join(sorted(map(str, abilities))) or "nothing of the kind"
        raise Cannot(f"This member cannot {what}; what it can do with what it lent: {able}.")


async def fulfil(middleware: Middleware, key: str, wishes: Wishes, owned: Owned) -> tuple[Wishes, dict[str, Any]]:
    """Make the call that is needed; return what is left of the wishes, and what else has changed of the lease.

    Raises `Unavailable` if it has to be tried again.
    """
    try:
        async with asyncio.timeout(CALL_LIMIT):
            return await _fulfil(middleware, key, wishes, owned)
    except TimeoutError as error:
        raise Unavailable(f"The lender took longer than {CALL_LIMIT:g} s.") from error
    except Unavailable:
        raise
    except MiddlewareError as error:
        log.warning("wish_refused", lease=key, code=error.code, reason=error.message)
        what = f"cannot be {DONE[wishes.power]}" if wishes.power else "the rules stay as they are"
        return NOTHING, {"code": error.code, "reason": f"{what}: {error.message}"}


async def _fulfil(middleware: Middleware, key: str, wishes: Wishes, owned: Owned) -> tuple[Wishes, dict[str, Any]]:
    """No kind has both power and rules (`check`)."""
    if wishes.power is not None and isinstance(middleware, SetsPower):
        if owned.instance.power is not wishes.power:
            owned = await middleware.set_power(key, wishes.power)
        left = NOTHING if owned.instance.power is wishes.power else wishes
        return left, {"instance": owned.instance}
    if wishes.rules is not None and isinstance(middleware, SetsRules):
        await middleware.set_rules(key, wishes.rules)
        return NOTHING, {"rules": wishes.rules}
    raise MiddlewareError("The lender cannot do that any more.")
