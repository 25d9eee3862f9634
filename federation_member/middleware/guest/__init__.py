"""What a virtual machine is given, whoever starts it: user data that sets it up, and the NoCloud disk that carries them.

guest = Guest(hostname, keys, HostKey.generate(), tunnel, trusted_ca, user_data)
data = render(guest, How.CLOUD_INIT, limit=OPENSTACK_LIMIT)
disk = nocloud_iso(key, guest.hostname, data, [Nic(mac, address, gateway, dns)])      # from guest.nocloud
"""

from federation_member.middleware.guest.render import OPENSTACK_LIMIT, Guest, How, render
from federation_member.middleware.inside.files import ACCOUNT
from federation_member.middleware.inside.host_key import HostKey

__all__ = ["ACCOUNT", "OPENSTACK_LIMIT", "Guest", "HostKey", "How", "render"]
