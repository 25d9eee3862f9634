"""A segment of an experiment on one host: every node a set of namespaces, all made in one go by one program of its own.

    member ── plan (JSON) ──► host.py     pid 1 of the segment's pid namespace, its net namespace is the segment's switch
                                 ├─ node a   pid, mount, net, uts, ipc and cgroup namespaces; its first program is a shell script
                                 ├─ node b   …
                                 ├─ portal   a node that root of the site configures, on the crossings' bridges
                                 └─ gate     a node with the ssh client that holds the segment's tunnels

What runs in a node is fenced in as a machine of the same middleware is (../oci.py): a user namespace with ids of its own, which the
nodes of one segment share, the same capabilities, system calls and devices. With the host program all of them end.

    plan.py      what the program is told: a pure function of the request        client.py   how the member talks to it
    host.py      the program's life       birth.py  makes and enters nodes       links.py    their interfaces
    root.py      what a node sees         fence.py  what it may do               kernel.py   system calls
    groups.py    what it may use          shaping.py, wires.py  rates, delays and losses of interfaces
    mounts.py    file systems that a node's own programs serve; fusermount.py, by which they ask for that

Everything that the program consists of is of the standard library alone, so it is up in 50 ms.
"""
