package broker

import (
	"context"
	"crypto/tls"
	"encoding/asn1"
	"errors"
	"net"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

// Authenticator decides who may connect. It is called from a goroutine of the
// connection, may block, and must be safe for concurrent use. Only its nil error
// lets a client in: whatever goes wrong in it has to be an error.
type Authenticator interface {
	// Authenticate returns who the client is; nil stands for its User Name and no
	// more. It returns ErrBadCredentials or ErrNotAuthorized, possibly wrapped, if
	// the client may not connect. Any other error refuses it too (0x88) and is
	// logged. c is valid during the call; ctx ends with the connection.
	Authenticate(ctx context.Context, c *Credentials) (*Identity, error)
}

// EnhancedAuthenticator has methods of enhanced authentication (MQTT 5 §4.12).
// It is safe for concurrent use.
type EnhancedAuthenticator interface {
	// Begin starts an exchange by the method c.Method. ErrUnknownMethod, possibly
	// wrapped, if there is no such method (0x8C, [MQTT-4.12.0-1]). c stays valid
	// until the exchange ends.
	Begin(ctx context.Context, c *Credentials) (Exchange, error)
}

// Exchange is one run of a method. Its calls follow each other.
type Exchange interface {
	// Step takes the Authentication Data of CONNECT or AUTH, nil for none, and
	// returns those of the server. With who the exchange has succeeded, and reply
	// goes with CONNACK, or AUTH 0x00; without, it goes with AUTH 0x18. Errors are
	// those of Authenticate.
	Step(ctx context.Context, data []byte) (reply []byte, who *Identity, err error)
}

// Credentials are what a CONNECT says about its sender, and what the connection
// does.
type Credentials struct {
	// ClientID is never empty; Assigned tells that the server made it.
	ClientID string
	Assigned bool
	Version  packet.Version
	// HasUsername tells no User Name from an empty one.
	HasUsername bool
	Username    string
	HasPassword bool
	Password    []byte
	// Method is the Authentication Method, empty for none.
	Method string
	Peer   *Peer
}

// Peer is what is known of the other end of a connection, whatever the client
// says. It does not change, and may be kept.
type Peer struct {
	// Remote is the client's address, as a trusted proxy tells it.
	Remote net.Addr
	// Listener is the name of the listener.
	Listener string
	// TLS is the state of the handshake, nil without TLS. VerifiedChains is empty
	// if the client has shown no certificate.
	TLS *tls.ConnectionState
	// CommonName is the client's certificate's, as a trusted proxy has verified
	// and told it; empty for none.
	CommonName string
}

// CertifiedName is the Common Name of a certificate that has been verified, here or
// by a trusted proxy; of several the first, as other brokers and proxies have it,
// where crypto/x509 has the last. Empty for none. p may be nil.
func (p *Peer) CertifiedName() string {
	switch {
	case p == nil:
		return ""
	case p.TLS == nil || len(p.TLS.VerifiedChains) == 0:
		return p.CommonName
	}
	for _, n := range p.TLS.VerifiedChains[0][0].Subject.Names {
		if name, ok := n.Value.(string); ok && n.Type.Equal(commonName) {
			return name
		}
	}
	return ""
}

// commonName is id-at-commonName (X.520).
var commonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// Identity is who a client is, found out by an Authenticator. It is not changed
// once it has been returned.
type Identity struct {
	// Username is for authorization, limits and the log; empty for a client
	// without one.
	Username string
	// ClientID takes the place of the Client Identifier of CONNECT, if not empty:
	// clients may be held to one that they have proved.
	ClientID string
	Groups   []string
	// Claims are further facts by name, such as a token's.
	Claims map[string]string
	// Expires is when the proof ends, and with it the connection (0x87 for MQTT
	// 5); zero for never.
	Expires time.Time
	// Grants are rights that came with the proof. If nil, the Authorizer knows; if
	// not, they are asked as well as it: what either denies is denied.
	Grants []Grant
	// By names what has proved it, for the log: "password file", "JWT".
	By string
}

// Grant allows or denies actions on what a Topic Filter matches. The first of a
// list that applies decides; what none applies to is denied.
type Grant struct {
	Filter             string
	Deny               bool
	Publish, Subscribe bool
}

var (
	// ErrBadCredentials: CONNACK 0x86 (3.1.1: 0x04).
	ErrBadCredentials = errors.New("bad user name or password")
	// ErrNotAuthorized: CONNACK 0x87 (3.1.1: 0x05).
	ErrNotAuthorized = errors.New("not authorized")
	// ErrBanned: CONNACK 0x8A (3.1.1: 0x05).
	ErrBanned = errors.New("banned")
	// ErrUnknownMethod: CONNACK 0x8C.
	ErrUnknownMethod = errors.New("unknown authentication method")
)

// authCode is the Reason Code for a refusal.
func authCode(err error) packet.Code {
	switch {
	case errors.Is(err, ErrBadCredentials):
		return packet.CodeBadUserNameOrPassword
	case errors.Is(err, ErrNotAuthorized):
		return packet.CodeNotAuthorized
	case errors.Is(err, ErrBanned):
		return packet.CodeBanned
	case errors.Is(err, ErrUnknownMethod):
		return packet.CodeBadAuthenticationMethod
	}
	return packet.CodeServerUnavailable
}
