package packet

import "fmt"

// Error says why a packet was refused.
type Error struct {
	// Code is the Reason Code for the answer, CONNACK or DISCONNECT.
	Code Code
	// Malformed tells a Malformed Packet from a Protocol Error.
	Malformed bool
	// Packet is the type of the packet refused.
	Packet Type
	// Reason is what is wrong, fit for a Reason String and for a log.
	Reason string
}

// Error returns type, reason and Reason Code in words.
func (e *Error) Error() string {
	kind := ""
	switch {
	case e.Malformed:
		kind = "malformed packet: "
	case e.Code == CodeProtocolError:
		kind = "protocol error: "
	}
	return fmt.Sprintf("%s: %s%s (0x%02X)", e.Packet, kind, e.Reason, byte(e.Code))
}

func malformed(t Type, reason string) *Error {
	return &Error{Code: CodeMalformedPacket, Malformed: true, Packet: t, Reason: reason}
}

func protocolError(t Type, reason string) *Error {
	return &Error{Code: CodeProtocolError, Packet: t, Reason: reason}
}
