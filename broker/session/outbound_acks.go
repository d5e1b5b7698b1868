package session

import "sort"

// PubrecResult says what a PUBREC asks for.
type PubrecResult uint8

const (
	// PubrecUnknown: no such exchange: answer PUBREL with 0x92.
	PubrecUnknown PubrecResult = iota
	// PubrecRelease: call Link.Release, then Released when it is committed
	// (transient sessions: Released at once).
	PubrecRelease
	// PubrecFinished: the client refused the message: call Link.Ack. It is not
	// sent again and its identifier is free ([MQTT-4.3.3-9], [MQTT-4.4.0-2]).
	PubrecFinished
	// PubrecAgain: PUBREL has been sent: send it again.
	PubrecAgain
	// PubrecWait: nothing to do. The release is being committed or Next will
	// return its PUBREL; or a former connection sent the PUBLISH, the client
	// answers it late, and this connection has it still to send: PUBREL 0x92
	// would make the client take that for a new message.
	PubrecWait
)

// Puback finishes the QoS 1 delivery with this Packet Identifier and returns
// its Seq for Link.Ack. It returns false, and changes nothing, if no such
// PUBLISH is in flight.
func (o *Outbound) Puback(id uint16) (seq uint64, ok bool) {
	e := o.findID(id)
	if e == nil || e.QoS != 1 || e.stage != published {
		return 0, false
	}
	seq = e.Seq
	o.finish(e)
	return seq, true
}

// Pubrec takes note of a PUBREC; failed means a Reason Code ≥ 0x80. seq is
// valid with PubrecRelease and PubrecFinished.
func (o *Outbound) Pubrec(id uint16, failed bool) (seq uint64, r PubrecResult) {
	e := o.findID(id)
	if e == nil {
		return 0, o.unseen(id)
	}
	if e.QoS != 2 {
		return 0, PubrecUnknown
	}
	switch e.stage {
	case published:
	case releasing, released:
		return 0, PubrecWait
	case completing:
		return 0, PubrecAgain
	case queued:
		if e.Seq <= o.sentHi {
			return 0, PubrecWait
		}
		return 0, PubrecUnknown
	default:
		return 0, PubrecUnknown
	}
	seq = e.Seq
	if failed {
		o.finish(e)
		return seq, PubrecFinished
	}
	e.stage = releasing
	e.Message, e.Identifiers = nil, nil
	o.rels.push(seq)
	return seq, PubrecRelease
}

// unseen answers a PUBREC whose entry is not here: its shard may still deliver
// what a former connection sent.
func (o *Outbound) unseen(id uint16) PubrecResult {
	back := distance(id, PacketID(o.sentHi))
	if o.sentHi > o.taken+back {
		return PubrecWait
	}
	return PubrecUnknown
}

// Released says that the release of seq is committed: Next returns its PUBREL
// ([MQTT-4.3.3-4]) when those of earlier PUBRECs have left.
func (o *Outbound) Released(seq uint64) {
	if e := o.find(seq); e != nil && e.stage == releasing {
		e.stage = released
	}
}

// Pubcomp finishes the QoS 2 delivery with this Packet Identifier and returns
// its Seq for Link.Ack, whatever the Reason Code was. It returns false, and
// changes nothing, if no PUBREL with it was sent.
func (o *Outbound) Pubcomp(id uint16) (seq uint64, ok bool) {
	e := o.findID(id)
	if e == nil || e.stage != completing {
		return 0, false
	}
	seq = e.Seq
	o.finish(e)
	return seq, true
}

// Discard finishes the delivery seq, which Next returned as PUBLISH and which
// the caller did not write: it has expired, or the client's Maximum Packet Size
// does not allow it ([MQTT-3.1.2-25]). A Send with Dup set must not be
// discarded for its expiry: its exchange has begun ([MQTT-4.3.3-7]).
func (o *Outbound) Discard(seq uint64) {
	if e := o.find(seq); e != nil && e.stage == published {
		o.finish(e)
	}
}

// DropOldest drops the message that Enqueue took first of those that Next has
// not returned, and returns its number. ok is false if there is none.
func (o *Outbound) DropOldest() (seq uint64, ok bool) {
	if o.queued == 0 {
		return 0, false
	}
	e := o.nextQueued()
	seq = e.Seq
	o.queued--
	o.queuedBytes -= ContentBytes(&e.Delivery)
	o.retire(e)
	return seq, true
}

// Withdraw takes those back that Next has not returned and that are wanted, in
// the order of Seq.
func (o *Outbound) Withdraw(wanted func(*Delivery) bool) (list []Delivery) {
	for i := o.unsent; i < o.entries.len(); i++ {
		if e := o.entries.at(i); e.stage == queued && wanted(&e.Delivery) {
			list = append(list, e.Delivery)
		}
	}
	for i := range list {
		o.queued--
		o.queuedBytes -= ContentBytes(&list[i])
		o.retire(o.find(list[i].Seq))
	}
	return list
}

// finish ends an exchange and returns its quota.
func (o *Outbound) finish(e *entry) {
	o.inFlight--
	o.retire(e)
}

// retire ends an entry.
func (o *Outbound) retire(e *entry) {
	*e = entry{Delivery: Delivery{Seq: e.Seq}, stage: finished}
	o.finished++
	for o.entries.len() > 0 && o.entries.at(0).stage == finished {
		o.entries.pop()
		o.finished--
		o.unsent = max(o.unsent-1, 0)
	}
	if o.finished > fewFinished && o.finished > o.entries.len()/2 {
		o.closeGaps()
	}
}

// closeGaps drops finished entries from between unfinished ones: a client that
// never answers one message must not make the ring grow with all later ones.
// It visits at most twice as many entries as have finished since the last time.
func (o *Outbound) closeGaps() {
	kept, unsent := 0, 0
	for i := range o.entries.len() {
		e := o.entries.at(i)
		if e.stage == finished {
			continue
		}
		if i < o.unsent {
			unsent++
		}
		*o.entries.at(kept) = *e
		kept++
	}
	o.entries.truncate(kept)
	o.unsent, o.finished = unsent, 0
}

// findID returns the entry that a Packet Identifier means: the one less than a
// round of identifiers after the first entry. nil if there is none.
func (o *Outbound) findID(id uint16) *entry {
	if o.entries.len() == 0 || id == 0 {
		return nil
	}
	first := o.entries.at(0).Seq
	return o.find(first + distance(PacketID(first), id))
}

// find returns the entry seq, nil if it is not here. Without gaps its place is
// known; gaps only move it forward.
func (o *Outbound) find(seq uint64) *entry {
	if o.entries.len() == 0 || seq < o.entries.at(0).Seq {
		return nil
	}
	i := int(min(seq-o.entries.at(0).Seq, uint64(o.entries.len()-1)))
	if o.entries.at(i).Seq > seq {
		i = sort.Search(i, func(i int) bool { return o.entries.at(i).Seq >= seq })
	}
	if e := o.entries.at(i); e.Seq == seq {
		return e
	}
	return nil
}

// distance is how many identifiers after from the identifier to comes.
func distance(from, to uint16) uint64 {
	return uint64(int(to)-int(from)+packetIDs) % packetIDs
}
