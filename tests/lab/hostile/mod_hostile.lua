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
--     resend            what `resend` found when it was written: the last lease.create is sent again, until the deed changes
-- Everything that is done is logged as `hostile: DEED OPERATION`.

local base64 = require "util.encodings".base64;
local st = require "util.stanza";
local id = require "util.id".short;

local NS = "urn:fedmesh:1";
local orders = module:get_option_string("hostile_orders");
local mine = "hostile-";
local previous, captured;

local function deed()
	local file = io.open(orders);
	if not file then return "honest", ""; end
	local what, argument = file:read("*a"):match("^(%S+)%s*(%S*)");
	file:close();
	return what or "honest", argument;
end

local function operation(text)
	local payload = text:match("^[^.]*%.([^.]*)%.") or "";
	payload = payload:gsub("-", "+"):gsub("_", "/");
	return (base64.decode(payload .. ("="):rep(-#payload % 4)) or ""):match('"op": ?"([^"]+)"') or "?";
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

local function again(stanza)
	local copy = st.clone(stanza);
	copy.attr.id = mine .. id();
	module:send(copy);
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

function deeds.refuse(stanza)
	module:send(st.error_reply(stanza, "cancel", "item-not-found", "No such member"));
	return true;
end

module:hook("route/remote", function (event)
	local stanza = event.stanza;
	local element = stanza:get_child("request", NS);
	if not element or stanza.attr.id:sub(1, #mine) == mine then return; end
	local what, argument = deed();
	local name = operation(element:get_text());
	if name == "lease.create" then captured = st.clone(stanza); end
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

module:add_timer(0.5, function ()
	if deed() == "resend" and captured then
		module:log("warn", "hostile: resend %s", operation(captured:get_child("request", NS):get_text()));
		again(captured);
	end
	return 0.5;
end);
