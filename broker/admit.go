package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

// admit finds out who the client is and what it may do, and then asks for its
// session. That may take long, so it has a goroutine of its own; nothing is read
// meanwhile.
func (c *conn) admit(q *connect) {
	q.own()
	ctx, cancel := context.WithTimeout(c.broker.ctx, admissionTimeout)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused |= pauseOpening
	c.stopAdmission = cancel
	c.spawn(func() {
		defer cancel()
		if err := c.decide(ctx, q); err != nil {
			c.refuse(err)
		}
	})
}

// own gives the request memory of its own: the packet's body is valid while it
// is handled.
func (q *connect) own() {
	q.Password = bytes.Clone(q.Password)
	q.AuthData = bytes.Clone(q.AuthData)
	if q.Will != nil {
		q.Will.Payload = bytes.Clone(q.Will.Payload)
		q.Will.Forward = bytes.Clone(q.Will.Forward)
	}
}

// decide authenticates, authorizes and opens.
func (c *conn) decide(ctx context.Context, q *connect) error {
	who, err := c.authenticate(ctx, q)
	if err != nil {
		c.failedLogin(err)
		return c.refusal(err)
	}
	return c.admitted(q, who)
}

// admitted goes on when it is known who the client is.
func (c *conn) admitted(q *connect, who *Identity) error {
	if who != nil {
		c.broker.metrics.logins[loginAccepted].Add(1)
	}
	if err := c.identify(q, who); err != nil {
		return err
	}
	if err := c.checkClient(q); err != nil {
		return err
	}
	return c.open(q)
}

// refusal is an Authenticator's or Authorizer's error for the client, who is not
// told what is wrong with the server.
func (c *conn) refusal(err error) error {
	code := authCode(err)
	reason := err.Error()
	if code == packet.CodeServerUnavailable {
		if more, ok := c.broker.complaints.may(time.Now()); ok { // a fleet comes back at once
			c.broker.log.Warn("clients are refused: authentication is not available", "listener", c.listener.Name, "remote", c.from().Remote, "error", err, "others", more)
		}
		reason = "authentication is not available"
	}
	if c.phase.Load() >= serving && !code.In(packet.TypeDisconnect) && code != packet.CodeServerUnavailable {
		code = packet.CodeNotAuthorized
	}
	return &packet.Error{Code: code, Packet: packet.TypeConnect, Reason: reason}
}

// complaints lets one through in a while. Safe for concurrent use.
type complaints struct {
	last atomic.Int64 // nanoseconds since 1970
	kept atomic.Uint64
}

// may reports true when it is time to speak again, and how many have not been let
// through since.
func (k *complaints) may(now time.Time) (more uint64, ok bool) {
	last := k.last.Load()
	if now.UnixNano()-last < int64(complainEvery) || !k.last.CompareAndSwap(last, now.UnixNano()) {
		k.kept.Add(1)
		return 0, false
	}
	return k.kept.Swap(0), true
}

// authenticate asks the Authenticator, unless the client may be anonymous.
func (c *conn) authenticate(ctx context.Context, q *connect) (*Identity, error) {
	peer := c.from()
	certified := peer.CommonName != "" || peer.TLS != nil && len(peer.TLS.VerifiedChains) > 0
	if !q.HasUsername && !q.HasPassword && !certified && *c.listener.AllowAnonymous {
		return nil, nil
	}
	if c.listener.Authenticator == nil {
		if *c.listener.AllowAnonymous {
			return nil, nil // whatever the User Name, nobody has proved it
		}
		return nil, ErrNotAuthorized
	}
	who, err := c.listener.Authenticator.Authenticate(ctx, c.credentials(q))
	if err == nil && who == nil {
		who = &Identity{Username: q.Username}
	}
	if err == nil && ctx.Err() != nil { // too late is not in time
		err = context.Cause(ctx)
	}
	return who, err
}

func (c *conn) credentials(q *connect) *Credentials {
	return &Credentials{
		ClientID: q.ClientID, Assigned: q.assigned, Version: q.Version,
		HasUsername: q.HasUsername, Username: q.Username,
		HasPassword: q.HasPassword, Password: q.Password,
		Method: q.AuthMethod, Peer: c.from(),
	}
}

// identify takes over who the client is and what it may do. What it asked for is
// checked against that.
func (c *conn) identify(q *connect, who *Identity) error {
	if who != nil && who.ClientID != "" {
		q.ClientID = who.ClientID
	}
	may, err := c.permissions(q.ClientID, who)
	if err != nil {
		return c.refusal(err)
	}
	if w := q.Will; w != nil && may != nil && !(*may).Publish(w.Topic, w.QoS, w.Retain) {
		return c.refusal(fmt.Errorf("%w to publish the will", ErrNotAuthorized))
	}
	c.who = who
	c.may.Store(may)
	return nil
}

// permissions asks the Authorizer; nil for everything.
func (c *conn) permissions(client string, who *Identity) (*Permissions, error) {
	if c.listener.Authorizer == nil {
		if who != nil && who.Grants != nil { // nobody would hold the client to them
			return nil, errors.New("rights came with the identity, and there is no Authorizer")
		}
		return nil, nil
	}
	if who == nil {
		who = &Identity{}
	}
	may, err := c.listener.Authorizer.Permissions(&Client{ID: client, Identity: who, Peer: c.from()})
	if err != nil || may == nil {
		return nil, err
	}
	return &may, nil
}

// from tells what is known of the other end.
func (c *conn) from() *Peer {
	if c.peer == nil {
		c.peer = &Peer{Remote: c.wire.RemoteAddr(), Listener: c.listener.Name}
	}
	return c.peer
}
