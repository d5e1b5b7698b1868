// Package broker is the MQTT side of one node: listeners' connections, what
// CONNECT, PUBLISH and SUBSCRIBE mean, and the delivery to the clients here.
// What has to survive the node lies behind the interface Cluster.
//
// # A PUBLISH walks one way
//
// read.go takes Control Packets from a connection; handle.go gives each to its
// part. inbound.go checks a PUBLISH, has the session record it and makes it a
// message, which goes through one door (Cluster.PublishQoS0, Link.Publish or
// Link.Received). The results come back to answers.go, the one place that
// writes PUBACK, PUBREC and PUBCOMP: in the order of arrival, and for QoS 1 and
// 2 only after the Cluster said that the message is committed.
// deliver.go and sink.go take messages for the clients here: Broker.Deliver for
// transient sessions, found in subscriptions.go, session.Sink for durable ones.
//
// # Who is it, and may it?
//
// connect.go checks CONNECT; admit.go asks the Authenticator, in a goroutine of
// its own, or enhanced.go the method, by AUTH packets, and then the Authorizer;
// only then is the session asked for. What a client may do (Permissions) is asked
// in authorize.go, for each PUBLISH, Topic Filter and delivery; a client without
// Permissions costs one load.
//
// # Reading and writing
//
// Nothing is written where it arises. A packet is appended to its connection's
// output, and the connection goes on a list (wake.go); when a reader has handled
// all that one read gave it, it writes what is on the list, one write for each
// connection. So the costs of waking and of system calls are shared by all
// messages of a chunk.
//
// A connection with work before MQTT (Accepted: PROXY headers, TLS, WebSocket)
// does it in a goroutine of its own, held to the same bounds of number and time
// as one that owes its CONNECT (conn.before).
//
// On Linux a connection over TCP or a Unix socket with nothing around it is a
// descriptor in an epoll set of the broker (socket_linux.go) and has no goroutine
// and no buffer unless there is something to read; one-shot arming makes sure that
// one goroutine at a time reads it. Other connections (TLS, WebSocket, pipes, other
// systems: stream.go) have a goroutine that waits in Read, and one that waits in
// Write while there is something to write.
//
// # Locks
//
// conn.mu guards a connection's state; no two are ever held together.
// subscriptions.mu guards the trie and its cache. Under either may be taken, and
// under these nothing: wake.mu, wheel.mu, poller.mu, Broker.mu. No lock is held
// while reading, writing, or calling the Cluster, a Link or the Authenticator,
// so done functions and methods of Sink may come from anywhere and at once.
//
// # Goroutines
//
// Broker owns all: the sweeper (deadlines), the flusher (output that arose
// outside a reader) and the poller while it is open, and per connection those
// that conn.hold counts. Close returns when all have ended.
package broker
