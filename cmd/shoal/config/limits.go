package config

import (
	"errors"
	"fmt"
)

// Limits bound what clients may do (docs/OVERLOAD.md).
type Limits struct {
	// Client bounds every client.
	Client ClientLimits `yaml:"client,omitempty"`
	// Users bound those of certain users.
	Users map[string]UserLimits `yaml:"users,omitempty"`
	// Addresses, FailedLogins and Flapping ban for a time what comes too often.
	Addresses    Ban `yaml:"addresses,omitempty"`
	FailedLogins Ban `yaml:"failed-logins,omitempty"`
	Flapping     Ban `yaml:"flapping,omitempty"`
	// PacketTimeout and StallTimeout end connections that make no progress.
	PacketTimeout Duration `yaml:"packet-timeout,omitempty"`
	StallTimeout  Duration `yaml:"stall-timeout,omitempty"`
}

// ClientLimits bound one client.
type ClientLimits struct {
	PublishRate       float64  `yaml:"publish-rate,omitempty"`
	PublishBytesRate  Size     `yaml:"publish-bytes-rate,omitempty"`
	RequestRate       float64  `yaml:"request-rate,omitempty"`
	OnExcess          string   `yaml:"on-excess,omitempty"` // pause (the default) or disconnect
	MaxPacketBytes    Size     `yaml:"max-packet-bytes,omitempty"`
	MaxInFlight       uint16   `yaml:"max-in-flight,omitempty"`
	ReceiveMaximum    uint16   `yaml:"receive-maximum,omitempty"`
	MaxKeepAlive      Duration `yaml:"max-keep-alive,omitempty"`
	MaxSessionExpiry  Duration `yaml:"max-session-expiry,omitempty"`
	MaxTopicBytes     int      `yaml:"max-topic-bytes,omitempty"`
	MaxTopicLevels    int      `yaml:"max-topic-levels,omitempty"`
	MaxSubscriptions  int      `yaml:"max-subscriptions,omitempty"`
	MaxQueuedMessages int      `yaml:"max-queued-messages,omitempty"`
	MaxQueuedBytes    Size     `yaml:"max-queued-bytes,omitempty"`
}

// Quota bounds what several clients may do together, on each node.
type Quota struct {
	MaxConnections   int     `yaml:"max-connections,omitempty"`
	PublishRate      float64 `yaml:"publish-rate,omitempty"`
	PublishBytesRate Size    `yaml:"publish-bytes-rate,omitempty"`
}

// UserLimits are those of a user, and of each of its clients.
type UserLimits struct {
	Quota  `yaml:",inline"`
	Client ClientLimits `yaml:"client,omitempty"`
}

// ListenerLimits are those of a listener, and of each client there.
type ListenerLimits struct {
	Quota       `yaml:",inline"`
	ConnectRate float64      `yaml:"connect-rate,omitempty"`
	Client      ClientLimits `yaml:"client,omitempty"`
}

// Ban says that more than Events within a time ban for another.
type Ban struct {
	Events int      `yaml:"events"`
	Within Duration `yaml:"within,omitempty"`
	For    Duration `yaml:"for,omitempty"`
}

// check refuses what cannot be meant; where names the limits.
func (l *ClientLimits) check(where string) error {
	negative := l.PublishRate < 0 || l.RequestRate < 0 || l.MaxTopicBytes < 0 || l.MaxTopicLevels < 0 || l.MaxSubscriptions < 0 || l.MaxQueuedMessages < 0
	switch {
	case l.OnExcess != "" && l.OnExcess != "pause" && l.OnExcess != "disconnect":
		return fmt.Errorf("%s: on-excess: %q: want pause or disconnect", where, l.OnExcess)
	case negative:
		return fmt.Errorf("%s: a limit is below 0; leave a line out for no bound", where)
	case l.MaxPacketBytes > maxPacketBytes:
		return fmt.Errorf("%s: max-packet-bytes: want %s at most, the largest packet of MQTT", where, formatSize(maxPacketBytes))
	}
	return nil
}

func (l *Limits) check() error {
	errs := []error{l.Client.check("limits: client")}
	for name, u := range l.Users {
		where := fmt.Sprintf("limits: users: %s", name)
		errs = append(errs, u.Client.check(where+": client"), u.Quota.check(where))
	}
	for name, b := range map[string]Ban{"addresses": l.Addresses, "failed-logins": l.FailedLogins, "flapping": l.Flapping} {
		if b.Events < 0 || b.Events == 0 && b != (Ban{}) {
			errs = append(errs, fmt.Errorf("limits: %s: events: want how many are too many", name))
		}
	}
	return errors.Join(errs...)
}

func (q *Quota) check(where string) error {
	if q.MaxConnections < 0 || q.PublishRate < 0 {
		return fmt.Errorf("%s: a limit is below 0; leave a line out for no bound", where)
	}
	return nil
}

// check refuses what cannot be meant.
func (l *ListenerLimits) check() error {
	if l.ConnectRate < 0 {
		return errors.New("limits: connect-rate: is below 0; leave the line out for no bound")
	}
	return errors.Join(l.Quota.check("limits"), l.Client.check("limits: client"))
}
