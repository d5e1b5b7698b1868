package session

// AckOrder puts results that come in any order back into the order in which
// they were asked for: PUBACKs leave in the order of their PUBLISH packets
// ([MQTT-4.6.0-2]), and so do PUBRECs ([MQTT-4.6.0-3]). The two are not ordered
// against each other: use one AckOrder each. The zero AckOrder is empty and
// ready.
type AckOrder[R any] struct {
	slots ring[slot[R]]
	first Token // of the first slot
}

// Token names a place in an AckOrder.
type Token uint64

type slot[R any] struct {
	result R
	done   bool
}

// Push takes the next place.
func (a *AckOrder[R]) Push() Token {
	a.slots.push(slot[R]{})
	return a.first + Token(a.slots.len()) - 1
}

// Done gives the result for a place; for one that has its result, or was
// popped, it does nothing. It reports whether Pop has something to return
// because of it.
func (a *AckOrder[R]) Done(t Token, result R) bool {
	i := t - a.first
	if i >= Token(a.slots.len()) || a.slots.at(int(i)).done {
		return false
	}
	*a.slots.at(int(i)) = slot[R]{result, true}
	return i == 0
}

// Pop returns the result of the oldest place, if it has come.
func (a *AckOrder[R]) Pop() (R, bool) {
	if a.slots.len() == 0 || !a.slots.at(0).done {
		var none R
		return none, false
	}
	a.first++
	return a.slots.pop().result, true
}

// Len is the number of places not popped.
func (a *AckOrder[R]) Len() int { return a.slots.len() }
