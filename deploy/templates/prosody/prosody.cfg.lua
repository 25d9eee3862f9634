-- A site's XMPP server: carries signed requests between this site's components and those of its peers, nothing else.
daemonize = false
run_as_root = $run_as_root
pidfile = "$directory/prosody.pid"
data_path = "$directory/data"
storage = "memory"
log = { { levels = { min = "info" }, to = "console" } }

plugin_paths = { "$plugins" }
modules_enabled = { "saslauth", "tls", "s2s_bidi", "smacks", "disco", "ping", "posix", "fedmesh_allow", "fedmesh_bidi" }
modules_disabled = { "c2s" } -- no people here: the only clients are components

interfaces = { "$address" }
s2s_ports = { 5269 }
component_interfaces = { "$address" }
component_ports = { $component_ports }
component_conflict_resolve = "kick_old" -- a component that comes back is not locked out by its half-open old link

-- A peer proves its name by its certificate (SASL EXTERNAL). There is no dialback, so no other way in.
s2s_require_encryption = true
s2s_secure_auth = true
certificates = "$directory"
ssl = { key = "$directory/server.key", certificate = "$directory/server.crt", cafile = "$directory/ca.crt" }
fedmesh_domains = { $peers }

-- Small requests must not wait for the next acknowledgement (40 ms), nor large ones for a timer; a dead path shows in seconds.
-- No `opportunistic_writes`: with it Prosody 0.12.3 spins in SSL_write for ever when a server-to-server peer is killed.
network_settings = {
	nagle = false, min_wait = 0, read_size = 65536, connect_timeout = 5,
}
smacks_max_ack_delay = 5
gc = { mode = "incremental", threshold = 400, speed = 1000 }
unbound = { resolvconf = true$unbound }

VirtualHost "$domain"
$components
