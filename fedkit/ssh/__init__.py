"""asyncssh, mended and tuned for carrying octets: what the tunnel server and the portals share."""
