package main

import (
	"time"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/cmd/shoal/config"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// bound gives the broker the limits that are configured.
func bound(b *broker.Config, c *config.Config) {
	l := &c.Limits
	b.Client = clientLimits(&l.Client, b.Queue)
	b.Users = make(map[string]*broker.UserLimits, len(l.Users))
	for name, u := range l.Users {
		b.Users[name] = &broker.UserLimits{Quota: quota(&u.Quota), Each: clientLimits(&u.Client, b.Queue)}
	}
	b.Addresses, b.FailedLogins, b.Flapping = ban(l.Addresses), ban(l.FailedLogins), ban(l.Flapping)
	b.PacketTimeout, b.StallTimeout = time.Duration(l.PacketTimeout), time.Duration(l.StallTimeout)
}

// clientLimits takes what is not said of queues from queue, which may be nil.
func clientLimits(l *config.ClientLimits, queue *shoalpb.QueueLimits) broker.Limits {
	out := broker.Limits{
		PublishRate: l.PublishRate, PublishBytesRate: float64(l.PublishBytesRate), RequestRate: l.RequestRate,
		Disconnect:     l.OnExcess == "disconnect",
		MaxPacketBytes: int(l.MaxPacketBytes), MaxInFlight: l.MaxInFlight, ReceiveMaximum: l.ReceiveMaximum,
		MaxKeepAlive: time.Duration(l.MaxKeepAlive), MaxSessionExpiry: time.Duration(l.MaxSessionExpiry),
		MaxTopicBytes: l.MaxTopicBytes, MaxTopicLevels: l.MaxTopicLevels, MaxSubscriptions: l.MaxSubscriptions,
		MaxQueue: l.MaxQueuedMessages, MaxQueueBytes: int(l.MaxQueuedBytes),
	}
	if l.MaxQueuedMessages > 0 || l.MaxQueuedBytes > 0 {
		out.Queue = &shoalpb.QueueLimits{Messages: queue.GetMessages(), Bytes: queue.GetBytes(), Policy: queue.GetPolicy()}
		if l.MaxQueuedMessages > 0 {
			out.Queue.Messages = uint64(l.MaxQueuedMessages)
		}
		if l.MaxQueuedBytes > 0 {
			out.Queue.Bytes = uint64(l.MaxQueuedBytes)
		}
	}
	return out
}

func quota(q *config.Quota) broker.Quota {
	return broker.Quota{MaxConnections: q.MaxConnections, PublishRate: q.PublishRate, PublishBytesRate: float64(q.PublishBytesRate)}
}

func ban(b config.Ban) broker.Ban {
	return broker.Ban{Events: b.Events, Window: time.Duration(b.Within), Time: time.Duration(b.For)}
}
