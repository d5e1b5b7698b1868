package broker

import (
	"context"
	"errors"
	"net"

	"github.com/shoalmq/shoal/broker/packet"
)

// Authenticator decides who may connect. It is called from the connection's
// goroutine, may block, and must be safe for concurrent use.
type Authenticator interface {
	// Authenticate returns nil if the client may connect, ErrBadCredentials or
	// ErrNotAuthorized, possibly wrapped, if not. Any other error refuses the
	// client too (0x88) and is logged. c is valid during the call.
	Authenticate(ctx context.Context, c *Credentials) error
}

// Credentials are what a CONNECT says about its sender.
type Credentials struct {
	ClientID string
	// HasUsername tells no User Name from an empty one.
	HasUsername bool
	Username    string
	HasPassword bool
	Password    []byte
	// Remote is the other end of the connection.
	Remote net.Addr
}

var (
	// ErrBadCredentials: CONNACK 0x86 (3.1.1: 0x04).
	ErrBadCredentials = errors.New("bad user name or password")
	// ErrNotAuthorized: CONNACK 0x87 (3.1.1: 0x05).
	ErrNotAuthorized = errors.New("not authorized")
)

// anonymous admits everyone, or no one.
type anonymous bool

func (a anonymous) Authenticate(context.Context, *Credentials) error {
	if !a {
		return ErrNotAuthorized
	}
	return nil
}

// authCode is the Reason Code for a refusal.
func authCode(err error) packet.Code {
	switch {
	case errors.Is(err, ErrBadCredentials):
		return packet.CodeBadUserNameOrPassword
	case errors.Is(err, ErrNotAuthorized):
		return packet.CodeNotAuthorized
	}
	return packet.CodeServerUnavailable
}
