// Package packet is the MQTT codec: the fifteen Control Packets of MQTT 3.1
// (MQIsdp), 3.1.1 and 5, their properties and Reason Codes, and every bound
// that the wire sets.
//
// Next finds the first Control Packet in a buffer, and the struct of its type
// decodes its body. Each packet has a struct and a file with Decode and Append:
// Decode resets the struct and fills it, Append writes it behind what a buffer
// already holds. What Decode accepts Append writes again, and decoding that
// gives the same struct.
//
// Decode refuses all that can be told from one packet alone: lengths, reserved
// bits, UTF-8, properties that do not belong to the packet or come twice,
// Reason Codes that the packet cannot carry. Left to the caller is what needs
// state (Packet Identifiers in use, the Topic Alias Maximum), direction
// (CheckClient) and the syntax of Topic Names and Topic Filters (package topic).
//
// Every error is an *Error with the Reason Code for the answer. It tells a
// Malformed Packet, which cannot be parsed, from a Protocol Error, which can
// but is not allowed (MQTT 5 §1.2, §4.13).
//
// Byte slices of a decoded packet alias the body and are valid as long as it
// is; strings are copies. Decoding a PUBLISH allocates nothing. The package has
// no state: distinct structs may be used by different goroutines.
package packet
