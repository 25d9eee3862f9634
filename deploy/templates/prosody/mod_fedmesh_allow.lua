-- Lets only the domains of `fedmesh_domains` in and out. List it globally and under each Component.

local st = require "util.stanza";

local allowed = module:get_option_set("fedmesh_domains", {});

module:hook("s2s-authenticated", function (event)
	if allowed:contains(event.host) then return; end
	event.session.log("warn", "%s is not in the federation", event.host);
	event.session:close({ condition = "policy-violation", text = "Not in the federation" }, nil, "Not in the federation");
	return true;
end, 100);

module:hook("route/remote", function (event)
	if allowed:contains(event.to_host) then return; end
	module:log("warn", "%s is not in the federation", event.to_host);
	local kind = event.stanza.attr.type;
	if event.origin and kind ~= "error" and kind ~= "result" then
		event.origin.send(st.error_reply(event.stanza, "cancel", "not-allowed", "Not in the federation"));
	end
	return true;
end, 100);
