"""The mesh: signed requests between components of different sites, each exactly once (DESIGN §4, docs/protocol.md).

api          what the rest of the system knows              node         the parts put together
component    key, link, store and node of one process       config       its sections of the configuration
outbox ─► lane, dispatcher ─► courier, exchange ─► link     outgoing: the table, its order, one attempt, one stanza
link ─► receiver ─► work, inbox                             incoming: the checks, the effect with its answer
envelope, packs, chunks, upload, pins, peers, limits        what is signed, gathered, cut up, trusted, backed off, bounded
xmpp, stream, stanzas, services                             the link to the XMPP server; all else of XMPP ends there
"""
