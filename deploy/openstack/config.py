"""The configuration of every service, as data: sections of options, which oslo.config reads as INI files.

What is not said here is as OpenStack ships it. Wherever an option is not what a site would choose, it says why.
"""

from __future__ import annotations

from collections.abc import Mapping

from deploy.lab import libvirtd
from deploy.openstack.layout import ENVIRONMENT, HOST, REGION, Cloud, Profile

Sections = Mapping[str, Mapping[str, object]]
SHARE = ENVIRONMENT / "etc"
PYTHON = ENVIRONMENT / "bin/python"
COMPUTE_DRIVERS = {
    Profile.SMALL: "fake.LastingFakeDriver",
    Profile.FULL: "libvirt.LibvirtDriver",
}
PHYSICAL_NETWORK = "public"
WHOLE = 1500  # octets of a frame's content
IP_HEADER = 20  # octets
GENEVE = 38 + IP_HEADER  # octets that OVN's encapsulation takes
PRIVILEGED = ("nova_sys_admin", "vif_plug_ovs_privileged", "vif_plug_linux_bridge_privileged", "privsep_osbrick")


def render(sections: Sections) -> str:
    """Write sections as oslo.config reads them."""
    lines = []
    for name, options in sections.items():
        lines += [f"[{name}]", *(f"{key} = {_text(value)}" for key, value in options.items()), ""]
    return "\n".join(lines)


def files(cloud: Cloud, secret: str) -> dict[str, Sections]:
    """All configuration files, by their path below the cloud's `etc`."""
    return {
        "keystone/keystone.conf": _keystone(cloud),
        "placement/placement.conf": _placement(cloud, secret),
        "glance/glance-api.conf": _glance(cloud, secret),
        "neutron/neutron.conf": _neutron(cloud, secret),
        "neutron/ml2.conf": _ml2(cloud),
        "nova/nova.conf": _nova(cloud, secret),
        "cinder/cinder.conf": _cinder(cloud, secret),
    }


def database_url(cloud: Cloud, name: str) -> str:
    """The SQLAlchemy URL of a database."""
    return f"mysql+pymysql://root@localhost/{name}?unix_socket={cloud.socket('mysql')}&charset=utf8"


def _keystone(cloud: Cloud) -> Sections:
    keys = cloud.data / "keystone"
    return {
        "DEFAULT": {"log_dir": cloud.logs, "log_file": "keystone.log"},
        "database": {"connection": database_url(cloud, "keystone")},
        "fernet_tokens": {"key_repository": keys / "fernet"},
        "credential": {"key_repository": keys / "credential"},
        "cache": {"enabled": True, "backend": "dogpile.cache.memory"},  # each call of each service asks it who that is
        "identity": {"password_hash_rounds": 4},  # a password is checked often here and guards nothing
    }


def _placement(cloud: Cloud, secret: str) -> Sections:
    return {
        "DEFAULT": {"log_dir": cloud.logs, "log_file": "placement.log"},
        "placement_database": {"connection": database_url(cloud, "placement")},
        "api": {"auth_strategy": "keystone"},
        "keystone_authtoken": _service_user(cloud, "placement", secret),
    }


def _glance(cloud: Cloud, secret: str) -> Sections:
    return {
        "DEFAULT": {
            "log_dir": cloud.logs,
            "log_file": "glance.log",
            "enabled_backends": "files:file",
            "bind_host": cloud.address,
            "worker_self_reference_url": cloud.url("glance"),
        },
        "database": {"connection": database_url(cloud, "glance")},
        "glance_store": {"default_backend": "files"},
        "files": {"filesystem_store_datadir": cloud.data / "images"},
        "os_glance_staging_store": {"filesystem_store_datadir": cloud.state / "staging"},
        "os_glance_tasks_store": {"filesystem_store_datadir": cloud.state / "tasks"},
        "paste_deploy": {"flavor": "keystone", "config_file": SHARE / "glance/glance-api-paste.ini"},
        "keystone_authtoken": _service_user(cloud, "glance", secret),
        "oslo_concurrency": _locks(cloud),
    }


def _neutron(cloud: Cloud, secret: str) -> Sections:
    return {
        "DEFAULT": {
            **_common(cloud, "neutron"),
            "core_plugin": "ml2",
            "service_plugins": "ovn-router" if cloud.profile is Profile.FULL else "router",
            "api_paste_config": SHARE / "neutron/api-paste.ini",
            "state_path": cloud.state / "neutron",
            "dhcp_agent_notification": False,
            "global_physnet_mtu": WHOLE + GENEVE,  # so that projects' networks pass whole frames
        },
        "agent": {"root_helper": ""},
        "database": {"connection": database_url(cloud, "neutron")},
        "keystone_authtoken": _service_user(cloud, "neutron", secret),
        "nova": _service_user(cloud, "nova", secret),
        "oslo_concurrency": _locks(cloud),
    }


def _ml2(cloud: Cloud) -> Sections:
    full = cloud.profile is Profile.FULL
    return {
        "ml2": {
            "physical_network_mtus": f"{PHYSICAL_NETWORK}:{WHOLE}",
            "type_drivers": "flat,local,vxlan,geneve",
            "tenant_network_types": "geneve" if full else "vxlan",
            "mechanism_drivers": "ovn" if full else "bind-all",
            "extension_drivers": "port_security",
        },
        "ml2_type_flat": {"flat_networks": PHYSICAL_NETWORK},
        "ml2_type_vxlan": {"vni_ranges": "1:10000"},
        "ml2_type_geneve": {"vni_ranges": "1:10000", "max_header_size": GENEVE - IP_HEADER},
        "ovn": {
            "ovn_nb_connection": f"unix:{cloud.socket('ovn-nb')}",
            "ovn_sb_connection": f"unix:{cloud.socket('ovn-sb')}",
        },
        "ovs": {"ovsdb_connection": f"unix:{cloud.socket('db')}"},
    }


def _nova(cloud: Cloud, secret: str) -> Sections:
    full = cloud.profile is Profile.FULL
    sections: dict[str, Mapping[str, object]] = {
        "DEFAULT": {
            **_common(cloud, "nova"),
            "compute_driver": COMPUTE_DRIVERS[cloud.profile],
            "instances_path": cloud.data / "instances",
            "state_path": cloud.data / "nova",  # holds the host's identity, without which it refuses to start again
            "my_ip": cloud.address,
            "periodic_fuzzy_delay": 0,  # else everything periodic begins up to a minute late, at random
            "reserved_host_memory_mb": 0,
            "reserved_host_disk_mb": 0,
            "force_config_drive": full,
            "vif_plugging_is_fatal": full,  # in `small` nobody plugs anything
            "vif_plugging_timeout": 60 if full else 0,
        },
        "api": {"auth_strategy": "keystone"},
        "wsgi": {"api_paste_config": SHARE / "nova/api-paste.ini"},
        "api_database": {"connection": database_url(cloud, "nova_api")},
        "database": {"connection": database_url(cloud, "nova")},
        "glance": {"api_servers": cloud.url("glance")},
        "cinder": {"os_region_name": REGION, "catalog_info": "block-storage::publicURL"},
        "vnc": {"enabled": False},
        "keystone_authtoken": _service_user(cloud, "nova", secret),
        "placement": _service_user(cloud, "placement", secret),
        "neutron": _service_user(cloud, "neutron", secret),
        "service_user": {**_service_user(cloud, "nova", secret), "send_service_user_token": True},
        "oslo_concurrency": _locks(cloud),
    }
    return {**sections, **_hypervisor(cloud)} if full else sections


def _hypervisor(cloud: Cloud) -> dict[str, Mapping[str, object]]:
    helper = {"helper_command": f"{PYTHON} {ENVIRONMENT}/bin/privsep-helper --config-file {cloud.config('nova')}"}
    return {
        "libvirt": {
            "virt_type": "qemu",  # /dev/kvm may be there and of no use; emulation always works
            "connection_uri": libvirtd.uri(cloud.state / "libvirt"),
            "cpu_mode": "none",
            "images_type": "raw",
            "tb_cache_size": 32,
            "mem_stats_period_seconds": 0,
        },
        "os_vif_ovs": {"ovsdb_connection": f"unix:{cloud.socket('db')}"},
        **dict.fromkeys(PRIVILEGED, helper),
    }


def _cinder(cloud: Cloud, secret: str) -> Sections:
    return {
        "DEFAULT": {
            **_common(cloud, "cinder"),
            "enabled_backends": "store",
            "state_path": cloud.state / "cinder",
            "auth_strategy": "keystone",
            "api_paste_config": SHARE / "cinder/api-paste.ini",
            "resource_query_filters_file": SHARE / "cinder/resource_filters.json",
            "glance_api_servers": cloud.url("glance"),
            "periodic_fuzzy_delay": 0,
        },
        "store": {
            "volume_driver": "cinder.tests.fake_driver.FakeLoggingVolumeDriver",
            "volume_backend_name": "store",
        },
        "database": {"connection": database_url(cloud, "cinder")},
        "keystone_authtoken": _service_user(cloud, "cinder", secret),
        "nova": _service_user(cloud, "nova", secret),
        "service_user": {**_service_user(cloud, "cinder", secret), "send_service_user_token": True},
        "coordination": {"backend_url": f"file://{cloud.state}/cinder"},
        "oslo_concurrency": _locks(cloud),
    }


def _common(cloud: Cloud, service: str) -> dict[str, object]:
    # All that sends messages to one another lives in one process, so the messages need no broker.
    return {"host": HOST, "transport_url": "fake:///", "log_dir": cloud.logs, "log_file": f"{service}.log"}


def _service_user(cloud: Cloud, user: str, secret: str) -> dict[str, object]:
    return {
        "www_authenticate_uri": cloud.auth_url,
        "auth_url": cloud.auth_url,
        "auth_type": "password",
        "project_domain_name": "Default",
        "user_domain_name": "Default",
        "project_name": "service",
        "username": user,
        "password": secret,
        "region_name": REGION,
    }


def _locks(cloud: Cloud) -> dict[str, object]:
    return {"lock_path": cloud.state / "lock"}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
