// Package listener has the doors that clients come through: TCP and Unix
// sockets, with TLS, WebSocket and PROXY headers on top, in that order from the
// inside out: PROXY, TLS, WebSocket, MQTT.
//
// A Listener accepts and does nothing more, so that no client can keep others
// from being accepted. What has to be read from the client before MQTT begins is
// done by the connection's Open, which the broker calls from a goroutine of the
// connection and bounds in number and time.
//
// A connection with nothing around it is handed on as the kernel gave it, or
// (broker.Bare) as soon as nothing is left around it, so that it needs no
// goroutine while it is idle.
//
// Certificates, authorities and revocation lists are read again when their files
// change (keys.go). Each handshake takes what is in force when it begins;
// connections that are established go on as they are. What cannot be used is
// logged, and leaves in force what is.
package listener
