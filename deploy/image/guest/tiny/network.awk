# From cloud-init's network configuration, version 1, written a value a line (block YAML or indented JSON) to a line an
# interface: MAC ADDRESS/PREFIX|dhcp|none GATEWAY DNS…
function flush() {
    if (mac != "") print mac, (address == "" ? "dhcp" : address), (gateway == "" ? "-" : gateway) dns
    mac = address = gateway = dns = ""
    in_dns = 0
}
{
    gsub(/["']/, "")
    gsub(/[][,{}]/, " ")
    sub(/^[ -]+/, "")
    key = $1
}
key == "mac_address:" { flush(); mac = tolower($2); next }
key == "type:" && $2 == "manual" { address = "none"; next }
key == "type:" { of_interface = $2 != "nameserver" && $2 != "route"; next }
key == "address:" && of_interface { address = $2; next }
key == "gateway:" { gateway = $2; next }
key == "dns_nameservers:" { in_dns = 1; for (i = 2; i <= NF; i++) dns = dns " " $i; next }
key ~ /:$/ { in_dns = 0; next }
in_dns && NF == 1 { dns = dns " " $1 }
END { flush() }
