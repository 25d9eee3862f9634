// Security rules as people write them, one a line: `tcp 80`, `tcp 8000-8100 from 192.0.2.0/24`, `icmp`, `out udp 53`. As `fed` reads them.

const FORM = /^(?:(in|out)\s+)?(tcp|udp|icmp|any)(?:\s+(\d{1,5})(?:-(\d{1,5}))?)?(?:\s+(?:from|to)\s+([0-9A-Fa-f.:]{2,39}\/\d{1,3}))?$/;

export function parseRules(text) {
  return text.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => {
    const found = FORM.exec(line);
    if (!found) throw new Error(`“${line.slice(0, 80)}” is no rule; write it as: tcp 80 from 0.0.0.0/0`);
    const [, direction, protocol, first, last, cidr] = found;
    return { direction: direction ?? "in", protocol, ports: first ? [Number(first), Number(last ?? first)] : null, cidr: cidr ?? null };
  });
}

export function textOf(rules) {
  return rules.map(({ direction, protocol, ports, cidr }) => [
    ...(direction === "out" ? ["out"] : []),
    protocol,
    ...(ports ? [ports[0] === ports[1] ? `${ports[0]}` : `${ports[0]}-${ports[1]}`] : []),
    ...(cidr ? [direction === "out" ? "to" : "from", cidr] : []),
  ].join(" ")).join("\n");
}
