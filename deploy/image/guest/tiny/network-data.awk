# From OpenStack's network data (the config drive's network_data.json) to what network.awk writes: a line an interface,
# MAC ADDRESS/NETMASK|dhcp GATEWAY DNS…
BEGIN { RS = "[][{},]" }
function flush() {
    if (link in mac && (kind == "ipv4" || kind == "ipv4_dhcp"))
        print mac[link], (kind == "ipv4" ? address "/" netmask : "dhcp"), (gateway == "" ? "-" : gateway) dns
    link = kind = address = netmask = network = gateway = dns = ""
}
{
    gsub(/["[:space:]]/, "")
    if (!(colon = index($0, ":"))) next
    key = substr($0, 1, colon - 1)
    value = substr($0, colon + 1)
}
key == "id" { flush(); id = value }
key == "ethernet_mac_address" { mac[id] = tolower(value) }
key == "link" { link = value }
key == "type" && kind == "" { kind = value }
key == "ip_address" { address = value }
key == "netmask" && netmask == "" { netmask = value } # those that follow are of routes
key == "network" { network = value }
key == "gateway" && network == "0.0.0.0" { gateway = value }
key == "address" { dns = dns " " value }
END { flush() }
