package broker

import (
	"errors"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

// limit is one that was hit.
type limit int

const (
	limitListenerConnections limit = iota
	limitUserConnections
	limitAddressRate
	limitFlapping
	limitFailedLogins
	limitPublishRate
	limitRequestRate
	limitPacketSize
	limitTopic
	limitSubscriptions
	limitPacketTime
	limitStalled
	limits
)

var limitNames = [limits]string{
	"listener_connections", "user_connections", "address_rate", "flapping", "failed_logins", "publish_rate", "request_rate",
	"packet_size", "topic", "subscriptions", "packet_time", "stalled",
}

// hit counts a limit that was hit, and is the error that says so.
func (c *conn) hit(l limit, code packet.Code, t packet.Type, reason string) error {
	c.broker.metrics.limits[l].Add(1)
	return &packet.Error{Code: code, Packet: t, Reason: reason}
}

// checkCrowd refuses what comes too often, or is one too many, before anybody
// asks who it is.
func (c *conn) checkCrowd() error {
	b, now := c.broker, time.Now()
	if n := c.listener.Limits.MaxConnections; n > 0 && c.listener.serving.Load() > int64(n) {
		return c.hit(limitListenerConnections, packet.CodeQuotaExceeded, packet.TypeConnect, "the listener has as many connections as it may")
	}
	if b.addresses == nil && b.logins == nil {
		return nil
	}
	from := host(c.from().Remote)
	if from == "" { // nobody to ban
		return nil
	}
	if b.addresses.count(from, now) {
		b.log.Warn("address banned: it connects too often", "address", from, "for", b.addresses.rule.Time)
	}
	switch {
	case b.addresses.banned(from, now):
		return c.hit(limitAddressRate, packet.CodeConnectionRateExceeded, packet.TypeConnect, "too many connections from this address")
	case b.logins.banned(from, now):
		return c.hit(limitFailedLogins, packet.CodeBanned, packet.TypeConnect, "too many failed logins from this address")
	}
	return nil
}

// login is what came of asking an Authenticator.
type login int

const (
	loginAccepted login = iota
	loginBadCredentials
	loginNotAuthorized
	loginBanned
	loginUnknownMethod
	loginUnavailable
	logins
)

var loginNames = [logins]string{"accepted", "bad_credentials", "not_authorized", "banned", "unknown_method", "unavailable"}

// loginOf is what an Authenticator's error, or its nil, is counted as.
func loginOf(err error) login {
	if err == nil {
		return loginAccepted
	}
	switch authCode(err) {
	case packet.CodeBadUserNameOrPassword:
		return loginBadCredentials
	case packet.CodeNotAuthorized:
		return loginNotAuthorized
	case packet.CodeBanned:
		return loginBanned
	case packet.CodeBadAuthenticationMethod:
		return loginUnknownMethod
	}
	return loginUnavailable
}

// failedLogin counts a refusal, also against its address.
func (c *conn) failedLogin(err error) {
	how := loginOf(err)
	c.broker.metrics.logins[how].Add(1)
	if how != loginUnavailable {
		if more, ok := c.broker.refusals.may(time.Now()); ok {
			c.broker.log.Info("login refused", "remote", c.from().Remote, "listener", c.listener.Name, "reason", err, "others", more)
		}
	}
	if c.broker.logins == nil || !errors.Is(err, ErrBadCredentials) && !errors.Is(err, ErrNotAuthorized) {
		return
	}
	from := host(c.from().Remote)
	if from != "" && c.broker.logins.count(from, time.Now()) {
		c.broker.log.Warn("address banned: too many failed logins", "address", from, "for", c.broker.logins.rule.Time)
	}
}

// checkClient holds a client that has proved who it is to its user's limits, and
// refuses it while it is banned for flapping. Nobody else is: a ban is for the
// client, its user and its address together, so no one can have another's client
// banned by using its name.
func (c *conn) checkClient(q *connect) error {
	user := ""
	if c.who != nil {
		user = c.who.Username
	}
	if f := c.broker.flapping; f != nil {
		name, now := q.ClientID+"\x00"+user+"\x00"+host(c.from().Remote), time.Now()
		if f.count(name, now) {
			c.broker.log.Warn("client banned: it connects too often", "client", q.ClientID, "address", c.from().Remote, "for", f.rule.Time)
		}
		if f.banned(name, now) {
			return c.hit(limitFlapping, packet.CodeBanned, packet.TypeConnect, "this client connects too often")
		}
	}
	of, b, err := c.broker.users.enter(user, q.ClientID, c.listener)
	if err != nil {
		c.broker.metrics.limits[limitUserConnections].Add(1)
		return err
	}
	c.bounds, c.user, c.client = b, of, q.ClientID
	l := &b.Limits
	if l.PublishRate+l.PublishBytesRate+l.RequestRate > 0 {
		c.pacing = &pacing{
			publishes: newMeter(l.PublishRate, l.PublishBytesRate, false),
			requests:  newMeter(l.RequestRate, 0, false),
		}
	}
	return nil
}

// leaveCrowd takes back what counts the connection.
func (c *conn) leaveCrowd() {
	if c.arrived {
		c.listener.serving.Add(-1)
	}
	if c.user != nil {
		c.broker.users.leave(c.user, c.client)
	}
}

// countTooLarge counts a packet that is larger than it may be.
func (c *conn) countTooLarge(err error) {
	var e *packet.Error
	if errors.As(err, &e) && e.Code == packet.CodePacketTooLarge {
		c.broker.metrics.limits[limitPacketSize].Add(1)
	}
}
