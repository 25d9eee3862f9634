-- A hostile XMPP server: does to the requests and answers of one component whatever a file says.
--
-- The file `hostile_orders` holds one line, a deed and its argument; it is read at every stanza, so it can change at any time:
--     alter PART        one octet of the JWS's part (1 header, 2 payload, 3 signature) of each request becomes another one
--     repeat            each request is sent twice
--     readdress TO      each request goes to another address
--     impersonate FROM  each request comes from another address
--     swap              each answer is replaced by the one before
--     lose              each answer is lost
--     refuse            each request is refused in the name of the peer
--     resend [FROM]     what `resend` found when it was written: the last lease.create is sent again (from another address),
--                       until the deed changes
--     forge PART        the same, with another `principal`, `name` or without `credentials`, under the signature there was
--     keep              nobody hears that a right was revoked or a lease given back; the last lease.sync is sent again and again
-- At the Rendezvous beside the component (`hostile_victim`) it only does its share of `keep`.
-- Everything that is done is logged as `hostile: DEED OPERATION`.

local base64 = require "util.encodings".base64;
local st = require "util.stanza";
local id = require "util.id".short;

local NS = "urn:fedmesh:1";
local orders = module:get_option_string("hostile_orders");
local victim = module:get_option_string("hostile_victim");
local mine = "hostile-";
local ends = { "rendezvous.revoke", "lease.release" };
local previous, created, synced;

local function deed()
	local file = io.open(orders);
	if not file then return "honest", ""; end
	local what, argument = file:read("*a"):match("^(%S+)%s*(%S*)");
	file:close();
	return what or "honest", argument;
end

local function claims(text)
	local payload = text:match("^[^.]*%.([^.]*)%.") or "";
	payload = payload:gsub("-", "+"):gsub("_", "/");
	return base64.decode(payload .. ("="):rep(-#payload % 4)) or "";
end

local function operation(text)
	return claims(text):match('"op": ?"([^"]+)"') or "?";
end

local function ends_something(text)
	local said = claims(text); -- one request, or several in a pack
	for _, name in ipairs(ends) do
		if said:find(name, 1, true) then return true; end
	end
end

local forgeries = {
	principal = function (said) return (said:gsub('("principal":")(%x+)', function (key, fedid) return key .. fedid:reverse(); end)); end;
	name = function (said) return (said:gsub('("name":"%x+/)', "%1another-")); end;
	credentials = function (said) return (said:gsub('("credentials":)%b[]', "%1[]")); end;
};

local function forged(text, part)
	local head, signature = text:match("^([^.]*%.)[^.]*(%..*)$");
	local payload = base64.encode(forgeries[part](claims(text)));
	return head .. payload:gsub("%+", "-"):gsub("/", "_"):gsub("=", "") .. signature;
end

local function altered(text, part)
	local parts = {};
	for each in text:gmatch("[^.]+") do parts[#parts + 1] = each; end
	local chosen = parts[part];
	local middle = math.floor(#chosen / 2);
	local other = chosen:sub(middle, middle) == "A" and "B" or "A";
	parts[part] = chosen:sub(1, middle - 1) .. other .. chosen:sub(middle + 1);
	return table.concat(parts, ".");
end

local function again(stanza, from)
	local copy = st.clone(stanza);
	copy.attr.id = mine .. id();
	copy.attr.from = from or copy.attr.from;
	module:send(copy);
	return copy;
end

local deeds = {};

function deeds.alter(_, element, argument)
	element[1] = altered(element[1], tonumber(argument));
end

deeds["repeat"] = function (stanza)
	local copy = st.clone(stanza);
	module:add_timer(0.1, function () again(copy); end);
end

function deeds.readdress(stanza, _, argument, event)
	stanza.attr.to, event.to_host = argument, argument;
end

function deeds.impersonate(stanza, _, argument, event)
	stanza.attr.from, event.from_host = argument, argument;
end

function deeds.keep(_, element)
	return ends_something(element:get_text());
end

function deeds.refuse(stanza)
	module:send(st.error_reply(stanza, "cancel", "item-not-found", "No such member"));
	return true;
end

if module.host ~= victim then
	module:hook("iq/host", function (event)
		local element = event.stanza:get_child("request", NS);
		if element and deed() == "keep" and ends_something(element:get_text()) then
			module:log("warn", "hostile: keep %s", operation(element:get_text()));
			return true;
		end
	end, 200);
	return;
end

module:hook("route/remote", function (event)
	local stanza = event.stanza;
	local element = stanza:get_child("request", NS);
	if not element or stanza.attr.id:sub(1, #mine) == mine then return; end
	local what, argument = deed();
	local name = operation(element:get_text());
	if name == "lease.create" then created = st.clone(stanza); end
	if name == "lease.sync" and what ~= "keep" then synced = st.clone(stanza); end
	if not deeds[what] then return; end
	module:log("warn", "hostile: %s %s", what, name);
	return deeds[what](stanza, element, argument, event);
end, 200);

module:hook("iq/host", function (event)
	local stanza = event.stanza;
	if (stanza.attr.id or ""):sub(1, #mine) == mine then return true; end -- what our own copies brought
	local element = stanza:get_child("answer", NS);
	if not element then return; end
	local what = deed();
	local text = element:get_text();
	if what == "swap" and previous then
		element[1] = previous;
		module:log("warn", "hostile: swap %s", operation(text));
	elseif what == "lose" then
		module:log("warn", "hostile: lose %s", operation(text));
		return true;
	end
	previous = text;
end, 200);

local function sent_again(what, stanza, from)
	module:log("warn", "hostile: %s %s", what, operation(stanza:get_child("request", NS):get_text()));
	again(stanza, from);
end

module:add_timer(0.5, function ()
	local what, argument = deed();
	if what == "resend" and created then
		sent_again(what, created, argument ~= "" and argument or nil);
	elseif what == "forge" and created then
		local copy = st.clone(created);
		local element = copy:get_child("request", NS);
		element[1] = forged(element[1], argument);
		sent_again(what, copy);
	elseif what == "keep" and synced then
		sent_again(what, synced);
	end
	return 0.5;
end);
