"""A real OpenStack that this project starts by itself, for the lab, the tests and the demo.

It is the code of Keystone, Glance, Placement, Neutron, Nova and Cinder as released on PyPI (`requirements.lock`, in an
environment of its own, `.lab/openstack`, see `deploy/setup --openstack`), served on one address with the usual ports:

    python -m deploy.openstack up     --profile small|full --state DIR --address IP     started in the background
    python -m deploy.openstack run    …the same…                                        in the foreground, as the lab does
    python -m deploy.openstack status --state DIR
    python -m deploy.openstack held   --state DIR               what the federation's project holds there
    python -m deploy.openstack down   --state DIR

    small    Nova's and Cinder's own fake drivers: no guest and no disc is real, everything before them is
    full     guests of QEMU under libvirt, networks of OVN over Open vSwitch in userspace; discs are still pretended, so none
             can be attached to a guest there

All of a cloud lies in `--state`; whoever starts it again there finds it as it was. A first start copies a ready state that is
made once for each machine (`template`), because half of the time of a fresh one goes into migrating six databases.
`run` is the parent of all processes, they die with it, and it ends when one of them does; the whole is one process
group, so a cloud is paused, resumed or killed by one signal to that.

    layout     where things lie, names, ports          config     the configuration of every service, as data
    database   MariaDB                                 template   the state that new clouds are copied from
    programs   what runs, in which order               crew       starts, watches and ends processes
    hypervisor what `full` has besides                 running    a cloud from its start to its end
    api        a small client for scripts              errors     what can go wrong
    operator   what a site's administrator has set up before a federation comes: project, flavours, images, a public net
    inside/    code that runs in OpenStack's environment, not in ours
"""
