-- Answers a peer that lets nothing in over the connection that the peer opened itself (XEP-0288).
--
-- mod_s2s (0.12) sends over such a connection only if none of our own was pending when it came; otherwise everything to that
-- peer queues behind attempts that its firewall drops. Here the peer's connection is remembered, takes over what is
-- queued, and is used until it ends, unless one of our own succeeds. List it globally and under each Component.

local outgoing = prosody.hosts[module.host].s2sout; -- what mod_s2s knows: peer to session, pending ones included
local opened_by_peer = {};

module:hook("s2sin-established", function (event)
	local session = event.session;
	if not session.outgoing then return; end -- the peer did not ask for both directions
	opened_by_peer[session.from_host] = session;
	local pending = outgoing[session.from_host];
	if pending and pending ~= session and pending.sendq then
		for _, queued in ipairs(pending.sendq) do
			session.sends2s(queued[1]);
		end
		pending.sendq = nil;
	end
end);

module:hook("s2sin-destroyed", function (event)
	local peer = event.session.from_host;
	if opened_by_peer[peer] == event.session then
		opened_by_peer[peer] = nil;
	end
end);

-- After the allow list (100), before mod_s2s (-1).
module:hook("route/remote", function (event)
	local session, own = opened_by_peer[event.to_host], outgoing[event.to_host];
	if session and session.type == "s2sin" and not (own and own.type == "s2sout") and session.sends2s(event.stanza) then
		return true;
	end
end, 0);
