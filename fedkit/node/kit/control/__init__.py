"""The control network: node agents, controllers of segments, and a master, all behind the same small HTTP interface.

    GET  /nodes     the state of all nodes below, and who does not answer
    POST /run       a command on some or all of them
    POST /clock     what time it is here
    GET  /events    what happened, with how late it was       POST /events   what shall happen, from above
    POST /event     something that shall happen now, at the top

A controller asks its children the same that it was asked, an agent knows the answer; so a master is a controller of controllers.
"""
