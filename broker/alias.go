package broker

import "github.com/shoalmq/shoal/broker/packet"

// sentAliases are the Topic Aliases that a client has been given, guarded by
// conn.mu: at most its Topic Alias Maximum ([MQTT-3.1.2-26]). When all are given
// the one that was not used for longest, about, gets another topic.
type sentAliases struct {
	limit   int
	byTopic map[string]uint16
	topics  []aliased // the alias is the index + 1
	hand    int
}

type aliased struct {
	topic string
	used  bool // since hand passed it last
}

// newSentAliases returns nil for a client that takes none ([MQTT-3.1.2-27]).
func newSentAliases(maximum uint16) *sentAliases {
	if maximum == 0 {
		return nil
	}
	return &sentAliases{limit: int(min(maximum, maxSentAliases)), byTopic: make(map[string]uint16)}
}

// apply puts an alias into a PUBLISH: in place of its Topic Name if the client
// knows it, else beside it. Then the caller calls give if it sends the packet.
func (a *sentAliases) apply(p *packet.Publish) (fresh bool) {
	if len(p.Topic) < minAliasedTopic {
		return false
	}
	p.HasAlias = true
	if alias, ok := a.byTopic[string(p.Topic)]; ok {
		a.topics[alias-1].used = true
		p.Topic, p.TopicAlias = nil, alias
		return false
	}
	if len(a.topics) < a.limit {
		p.TopicAlias = uint16(len(a.topics) + 1)
		return true
	}
	for a.topics[a.hand].used {
		a.topics[a.hand].used = false
		a.hand = (a.hand + 1) % a.limit
	}
	p.TopicAlias = uint16(a.hand + 1)
	return true
}

// give remembers the alias of a PUBLISH that apply called fresh.
func (a *sentAliases) give(p *packet.Publish) {
	topic, i := string(p.Topic), int(p.TopicAlias)-1
	if i == len(a.topics) {
		a.topics = append(a.topics, aliased{})
	} else {
		delete(a.byTopic, a.topics[i].topic)
		a.hand = (i + 1) % a.limit
	}
	a.topics[i] = aliased{topic: topic}
	a.byTopic[topic] = p.TopicAlias
}
