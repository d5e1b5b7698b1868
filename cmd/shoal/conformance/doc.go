// Package conformance tests what a client may expect of MQTT brokers by the
// standard, on a real cluster: three nodes in this process, made by the
// constructors that the program uses, on free ports of the loopback interface.
// Where a rule concerns two clients, or two connections of one, they are on two
// nodes.
//
// A rule is one row of a table: its number and words as in docs/conformance.md,
// the versions and classes of sessions it is tested with, and a function of a
// scene. All rules run side by side on the one cluster; a scene gives each run
// Client Identifiers and topics of its own. Connections are TCP; a cross-section of
// the rules runs over TLS and WebSocket too (transport_test.go).
//
// What needs the clock (keep alive to the second, expiry) or a broker with other
// limits is tested in package broker in fake time; what needs dead nodes in
// cmd/shoal/e2e. badinput_test.go tests what is no MQTT: data directories of
// others and damaged ones.
package conformance
