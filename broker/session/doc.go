// Package session is the protocol state of one session as its connection sees
// it (MQTT 5 §4.3, §4.4, §4.6, §4.9), and the contract with the half that is
// replicated (link.go).
//
// Outbound is the way to the client: the queue, the window of the client's
// Receive Maximum, the exchanges of QoS 1 and 2, DUP, and what is sent again on
// a new connection. Inbound is the way from the client: our Receive Maximum and
// the Packet Identifiers of QoS 2. AckOrder puts answers that are ready in any
// order back into the order of the packets they answer.
//
// All three are pure: no clock, no I/O, no locks, no goroutines. Each belongs
// to one connection and begins anew with the next, because that is how the
// standard has quotas and resending begin; what outlives a connection comes
// back through Outbound.Deliver and the shard's answers. They are not safe for
// concurrent use.
package session
