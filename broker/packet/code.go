package packet

import "fmt"

// Code is a Reason Code of MQTT 5 (§2.4). 0x80 and above are failures.
//
// Append writes a code only into packets that can carry it, and puts the nearest
// in its place otherwise: 0x89 for 0x88 in DISCONNECT, mostly 0x80.
type Code byte

// The Reason Codes under the names of the specification. 0x00 has three.
const (
	CodeSuccess             Code = 0x00
	CodeNormalDisconnection Code = 0x00
	CodeGrantedQoS0         Code = 0x00
	CodeGrantedQoS1         Code = 0x01
	CodeGrantedQoS2         Code = 0x02

	CodeDisconnectWithWill     Code = 0x04
	CodeNoMatchingSubscribers  Code = 0x10
	CodeNoSubscriptionExisted  Code = 0x11
	CodeContinueAuthentication Code = 0x18
	CodeReauthenticate         Code = 0x19

	CodeUnspecifiedError                    Code = 0x80
	CodeMalformedPacket                     Code = 0x81
	CodeProtocolError                       Code = 0x82
	CodeImplementationSpecificError         Code = 0x83
	CodeUnsupportedProtocolVersion          Code = 0x84
	CodeClientIdentifierNotValid            Code = 0x85
	CodeBadUserNameOrPassword               Code = 0x86
	CodeNotAuthorized                       Code = 0x87
	CodeServerUnavailable                   Code = 0x88
	CodeServerBusy                          Code = 0x89
	CodeBanned                              Code = 0x8A
	CodeServerShuttingDown                  Code = 0x8B
	CodeBadAuthenticationMethod             Code = 0x8C
	CodeKeepAliveTimeout                    Code = 0x8D
	CodeSessionTakenOver                    Code = 0x8E
	CodeTopicFilterInvalid                  Code = 0x8F
	CodeTopicNameInvalid                    Code = 0x90
	CodePacketIdentifierInUse               Code = 0x91
	CodePacketIdentifierNotFound            Code = 0x92
	CodeReceiveMaximumExceeded              Code = 0x93
	CodeTopicAliasInvalid                   Code = 0x94
	CodePacketTooLarge                      Code = 0x95
	CodeMessageRateTooHigh                  Code = 0x96
	CodeQuotaExceeded                       Code = 0x97
	CodeAdministrativeAction                Code = 0x98
	CodePayloadFormatInvalid                Code = 0x99
	CodeRetainNotSupported                  Code = 0x9A
	CodeQoSNotSupported                     Code = 0x9B
	CodeUseAnotherServer                    Code = 0x9C
	CodeServerMoved                         Code = 0x9D
	CodeSharedSubscriptionsNotSupported     Code = 0x9E
	CodeConnectionRateExceeded              Code = 0x9F
	CodeMaximumConnectTime                  Code = 0xA0
	CodeSubscriptionIdentifiersNotSupported Code = 0xA1
	CodeWildcardSubscriptionsNotSupported   Code = 0xA2
)

// Sets of packet types, a bit for each Type.
const (
	inConnack    = 1 << TypeConnack
	inPublished  = 1<<TypePuback | 1<<TypePubrec
	inReleased   = 1<<TypePubrel | 1<<TypePubcomp
	inSuback     = 1 << TypeSuback
	inUnsuback   = 1 << TypeUnsuback
	inDisconnect = 1 << TypeDisconnect
	inAuth       = 1 << TypeAuth
)

// codes has the name of each Reason Code and the packets whose own section lists
// it: [MQTT-3.2.2-8], [MQTT-3.4.2-1] to [MQTT-3.7.2-1], [MQTT-3.9.3-2],
// [MQTT-3.11.3-2], [MQTT-3.14.2-1], [MQTT-3.15.2-1]. For 0x8C in DISCONNECT the
// standard contradicts itself; table 2-6 allows it.
var codes = [256]struct {
	name string
	in   uint16
}{
	CodeSuccess:                {"success", inConnack | inPublished | inReleased | inSuback | inUnsuback | inDisconnect | inAuth},
	CodeGrantedQoS1:            {"granted QoS 1", inSuback},
	CodeGrantedQoS2:            {"granted QoS 2", inSuback},
	CodeDisconnectWithWill:     {"disconnect with Will Message", inDisconnect},
	CodeNoMatchingSubscribers:  {"no matching subscribers", inPublished},
	CodeNoSubscriptionExisted:  {"no subscription existed", inUnsuback},
	CodeContinueAuthentication: {"continue authentication", inAuth},
	CodeReauthenticate:         {"re-authenticate", inAuth},

	CodeUnspecifiedError:                    {"unspecified error", inConnack | inPublished | inSuback | inUnsuback | inDisconnect},
	CodeMalformedPacket:                     {"malformed packet", inConnack | inDisconnect},
	CodeProtocolError:                       {"protocol error", inConnack | inDisconnect},
	CodeImplementationSpecificError:         {"implementation specific error", inConnack | inPublished | inSuback | inUnsuback | inDisconnect},
	CodeUnsupportedProtocolVersion:          {"unsupported protocol version", inConnack},
	CodeClientIdentifierNotValid:            {"client identifier not valid", inConnack},
	CodeBadUserNameOrPassword:               {"bad user name or password", inConnack},
	CodeNotAuthorized:                       {"not authorized", inConnack | inPublished | inSuback | inUnsuback | inDisconnect},
	CodeServerUnavailable:                   {"server unavailable", inConnack},
	CodeServerBusy:                          {"server busy", inConnack | inDisconnect},
	CodeBanned:                              {"banned", inConnack},
	CodeServerShuttingDown:                  {"server shutting down", inDisconnect},
	CodeBadAuthenticationMethod:             {"bad authentication method", inConnack | inDisconnect},
	CodeKeepAliveTimeout:                    {"keep alive timeout", inDisconnect},
	CodeSessionTakenOver:                    {"session taken over", inDisconnect},
	CodeTopicFilterInvalid:                  {"topic filter invalid", inSuback | inUnsuback | inDisconnect},
	CodeTopicNameInvalid:                    {"topic name invalid", inConnack | inPublished | inDisconnect},
	CodePacketIdentifierInUse:               {"packet identifier in use", inPublished | inSuback | inUnsuback},
	CodePacketIdentifierNotFound:            {"packet identifier not found", inReleased},
	CodeReceiveMaximumExceeded:              {"receive maximum exceeded", inDisconnect},
	CodeTopicAliasInvalid:                   {"topic alias invalid", inDisconnect},
	CodePacketTooLarge:                      {"packet too large", inConnack | inDisconnect},
	CodeMessageRateTooHigh:                  {"message rate too high", inDisconnect},
	CodeQuotaExceeded:                       {"quota exceeded", inConnack | inPublished | inSuback | inDisconnect},
	CodeAdministrativeAction:                {"administrative action", inDisconnect},
	CodePayloadFormatInvalid:                {"payload format invalid", inConnack | inPublished | inDisconnect},
	CodeRetainNotSupported:                  {"retain not supported", inConnack | inDisconnect},
	CodeQoSNotSupported:                     {"QoS not supported", inConnack | inDisconnect},
	CodeUseAnotherServer:                    {"use another server", inConnack | inDisconnect},
	CodeServerMoved:                         {"server moved", inConnack | inDisconnect},
	CodeSharedSubscriptionsNotSupported:     {"shared subscriptions not supported", inSuback | inDisconnect},
	CodeConnectionRateExceeded:              {"connection rate exceeded", inConnack | inDisconnect},
	CodeMaximumConnectTime:                  {"maximum connect time", inDisconnect},
	CodeSubscriptionIdentifiersNotSupported: {"subscription identifiers not supported", inSuback | inDisconnect},
	CodeWildcardSubscriptionsNotSupported:   {"wildcard subscriptions not supported", inSuback | inDisconnect},
}

// String returns the code in words, like "session taken over".
func (c Code) String() string {
	if name := codes[c].name; name != "" {
		return name
	}
	return fmt.Sprintf("Reason Code 0x%02X", byte(c))
}

// Failed reports whether the code tells a failure.
func (c Code) Failed() bool { return c >= 0x80 }

// In reports whether packets of type t can carry the code.
func (c Code) In(t Type) bool { return codes[c].in&(1<<t) != 0 }

// fitting returns the code, or if packets of type t cannot carry it the nearest
// that they can: a peer has to take any other for a Protocol Error, so sending
// it would say nothing.
func (c Code) fitting(t Type) Code {
	switch {
	case c.In(t):
		return c
	case c == CodeServerUnavailable && CodeServerBusy.In(t):
		return CodeServerBusy
	case c == CodeServerShuttingDown && CodeServerUnavailable.In(t):
		return CodeServerUnavailable
	case CodeUnspecifiedError.In(t):
		return CodeUnspecifiedError
	}
	return CodePacketIdentifierNotFound // PUBREL and PUBCOMP know no other
}

// ReturnCode returns the CONNACK return code of MQTT 3 (3.1.1 §3.2.2.3) that
// says the same. If none does ok is false, and the connection is to be closed
// without CONNACK (MQTT 3.1.1 [MQTT-3.2.2-6]).
func (c Code) ReturnCode() (code byte, ok bool) {
	switch c {
	case CodeSuccess:
		return 0, true
	case CodeUnsupportedProtocolVersion:
		return 1, true
	case CodeClientIdentifierNotValid:
		return 2, true
	case CodeServerUnavailable, CodeServerBusy, CodeServerShuttingDown, CodeUnspecifiedError,
		CodeImplementationSpecificError, CodeQuotaExceeded, CodeUseAnotherServer, CodeServerMoved,
		CodeConnectionRateExceeded:
		return 3, true
	case CodeBadUserNameOrPassword, CodeBadAuthenticationMethod:
		return 4, true
	case CodeNotAuthorized, CodeBanned:
		return 5, true
	}
	return 0, false
}

// returnCodes are the return codes of MQTT 3 as Reason Codes.
var returnCodes = [...]Code{
	CodeSuccess, CodeUnsupportedProtocolVersion, CodeClientIdentifierNotValid,
	CodeServerUnavailable, CodeBadUserNameOrPassword, CodeNotAuthorized,
}
