// Package acl decides what clients may do, by rules of a file: Mosquitto's
// acl_file (mosquitto.go), or our own in YAML (yaml.go). Both become one list of
// rules, of which the first that applies decides.
//
// Set is the broker.Authorizer: the rules in force, which Load replaces at any
// time. Each connected client has Permissions: the rules that concern it, chosen
// once for each state of the rules, with the names of the client in their filters
// (compile.go), and its last answers (permissions.go). Without those names they
// are compiled once for all clients that the same rules concern (list.go). The
// matcher is the one of the subscriptions (package topic).
//
// Rules and what is compiled of them are immutable; a Set swaps them by an atomic
// pointer, and Permissions notice when they are next asked. A client's own lock
// is held meanwhile, and within it, to find what is compiled, that of the Rules.
// There are no goroutines.
package acl
